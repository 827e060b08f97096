/* client.c - see client.h. */
#include "client.h"

#include "fs.h"
#include "node_core.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FRAME_OF_NOBODY = 0xee, /* it comes back as an ERROR: a round trip */
    TRIP_PAUSE_US = 10000,
    FILE_MOST_BYTES = 64 << 20, /* of a client's file, when writes are spread */
};

/* What a client waits for: its file, or a write. */
struct client_of_bench {
    struct link *link;
    unsigned number;
    uint64_t inode; /* 0: not made yet */
    uint64_t request, begun_ns;
    uint64_t offset;
    struct event *timer;
    bool busy;
};

/* A connection, and the session of a node of its own that is no member. */
struct link {
    struct bench *bench;
    struct wire_endpoint *endpoint;
    struct wire_connection *connection;
    uint64_t node_id, session, next_request;
    uint64_t trip_ns; /* 0: no frame of nobody is on its way */
};

struct bench {
    const struct load *load;
    struct event_base *loop;
    struct link links[LINKS_MAX];
    struct client_of_bench clients[CLIENTS_MAX];
    struct results results;
    uint64_t since_ns, sent, done;
    uint8_t *value;
    struct buf op, frame, ranges;
    void (*report)(struct results *r);
};

/* ---- Sending ------------------------------------------------------------------------ */

static uint64_t lowest_of(const struct link *l)
{
    const struct bench *b = l->bench;
    uint64_t lowest = l->next_request;
    for (unsigned i = 0; i < b->load->clients; i++)
        if (b->clients[i].link == l && b->clients[i].busy)
            lowest = min_u64(lowest, b->clients[i].request);
    return lowest;
}

/* What is in b->op. */
static void send_op(struct link *l, uint64_t request)
{
    struct bench *b = l->bench;
    struct operation_head head = {.stream = 1, .term = b->load->term};
    if (request) {
        head.session = l->session;
        head.request = request;
        head.lowest = lowest_of(l);
    }
    buf_clear(&b->frame);
    operation_encode(&head, b->op.data, b->op.length, &b->frame);
    if (b->frame.failed)
        die("send", "no memory");
    int rc =
        wire_send_bytes(l->connection, WIRE_OPERATION, 1, b->frame.data, b->frame.length);
    if (rc != 0 && rc != -ENOBUFS)
        die("send", strerror(-rc));
}

static void send_of(struct client_of_bench *c, const struct fs_op *op)
{
    buf_clear(&c->link->bench->op);
    fs_op_encode(op, &c->link->bench->op);
    c->request = c->link->next_request++;
    c->busy = true;
    c->begun_ns = now_ns();
    send_op(c->link, c->request);
}

static void make_file_of(struct client_of_bench *c)
{
    char name[64]; /* another one in each run */
    int size = snprintf(name, sizeof(name), "bench-%016llx-%u",
                        (unsigned long long)c->link->node_id, c->number);
    send_of(c, &(struct fs_op){.type = FS_MAKE,
                               .parent = FS_ROOT_INODE,
                               .name = (uint8_t *)name,
                               .name_size = (uint16_t)size,
                               .mode = S_IFREG | 0644});
}

static void write_next(struct client_of_bench *c)
{
    struct bench *b = c->link->bench;
    if (b->load->limit && b->sent >= b->load->limit)
        return;
    b->sent++;
    buf_clear(&b->ranges);
    fs_range_add(&b->ranges, c->offset, b->value, b->load->value_bytes);
    if (b->load->spread)
        c->offset = (c->offset + b->load->value_bytes) % FILE_MOST_BYTES;
    send_of(c, &(struct fs_op){.type = FS_WRITE,
                               .inode = c->inode,
                               .ranges = b->ranges.data,
                               .ranges_size = (uint32_t)b->ranges.length});
}

static void open_session(struct link *l)
{
    struct node_op op = {.type = NODE_OP_SESSION, .node_id = l->node_id, .nonce = 1};
    buf_clear(&l->bench->op);
    node_op_encode(&op, &l->bench->op);
    send_op(l, 0);
}

/* ---- Answers ------------------------------------------------------------------------ */

static void pause_over(evutil_socket_t fd, short what, void *arg)
{
    write_next(arg);
}

static void written(struct client_of_bench *c)
{
    struct bench *b = c->link->bench;
    samples_add(&b->results.writes_us, now_ns() - c->begun_ns);
    b->results.writes++;
    b->done++;
    if (b->load->limit && b->done == b->load->limit) {
        event_base_loopbreak(b->loop);
    } else if (b->load->pause_us) {
        struct timeval pause = {.tv_usec = (suseconds_t)b->load->pause_us};
        event_add(c->timer, &pause);
    } else {
        write_next(c);
    }
}

static struct client_of_bench *client_at(struct link *l, uint64_t request)
{
    struct bench *b = l->bench;
    for (unsigned i = 0; i < b->load->clients; i++)
        if (b->clients[i].link == l && b->clients[i].busy &&
            b->clients[i].request == request)
            return &b->clients[i];
    return NULL;
}

static void opened_session(struct link *l, uint64_t number)
{
    struct bench *b = l->bench;
    l->session = number;
    for (unsigned i = 0; i < b->load->clients; i++)
        if (b->clients[i].link == l)
            make_file_of(&b->clients[i]);
}

static void answered(struct link *l, const struct answer *a)
{
    struct fs_result result;
    if (a->status != WIRE_OK)
        die("a write",
            a->status == WIRE_NOT_LEADER ? "another node leads now" : "failed");
    fs_result_decode(a->result, &result);
    if (a->request == 0) {
        opened_session(l, result.value);
        return;
    }
    struct client_of_bench *c = client_at(l, a->request);
    if (!c)
        return;
    c->busy = false;
    if (c->inode) {
        written(c);
        return;
    }
    c->inode = result.value;
    write_next(c);
}

static void on_frame(void *context, struct wire_connection *connection,
                     const struct wire_frame *frame)
{
    struct link *l = context;
    struct answer answer;
    if (frame->type == WIRE_ERROR && l->trip_ns) {
        samples_add(&l->bench->results.trips_us, now_ns() - l->trip_ns);
        l->trip_ns = 0;
    } else if (frame->type == WIRE_ANSWER) {
        if (answer_decode(frame->value, frame->length, &answer) != 0)
            die("an answer", "malformed");
        answered(l, &answer);
    }
}

static void on_opened(void *context, struct wire_connection *c,
                      const struct wire_hello *hello)
{
    open_session(context);
}

static void on_closed(void *context, struct wire_connection *c, const char *reason)
{
    die("a connection has ended", reason);
}

static void on_drained(void *context, struct wire_connection *c)
{
}

/* ---- Measuring ---------------------------------------------------------------------- */

static void take_trip(evutil_socket_t fd, short what, void *arg)
{
    struct bench *b = arg;
    struct link *l = &b->links[0];
    if (!wire_is_open(l->connection) || l->trip_ns)
        return;
    l->trip_ns = now_ns();
    wire_send_bytes(l->connection, FRAME_OF_NOBODY, 2, NULL, 0);
}

static void report(struct bench *b)
{
    uint64_t now = now_ns();
    b->results.ns = now - b->since_ns;
    b->report(&b->results);
    b->results.writes = 0;
    samples_clear(&b->results.writes_us);
    samples_clear(&b->results.trips_us);
    b->since_ns = now;
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
    struct bench *b = arg;
    char bytes[64];
    ssize_t n = read(fd, bytes, sizeof(bytes));
    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == '\n')
            report(b);
    if (n <= 0)
        event_base_loopbreak(b->loop);
}

/* ---- All together ------------------------------------------------------------------- */

static void link_open(struct link *l, struct bench *b, const struct authority *a)
{
    char error[WIRE_ERROR_BYTES] = "";
    random_bytes(&l->node_id, sizeof(l->node_id));
    l->node_id |= (uint64_t)1 << 62;
    struct wire_identity identity = authority_certify(a, l->node_id);
    struct wire_hello hello = {.node_id = l->node_id, .name = "bench"};
    memcpy(hello.cluster_id, identity.cluster_id, sizeof(hello.cluster_id));
    struct wire_handlers handlers = {.context = l,
                                     .opened = on_opened,
                                     .frame = on_frame,
                                     .closed = on_closed,
                                     .drained = on_drained};
    l->bench = b;
    l->next_request = 1;
    if (wire_endpoint_new(&l->endpoint, b->loop, &identity, &hello, &handlers, error) !=
        0)
        die("connect", error);
    if (wire_dial(l->endpoint, b->load->address, b->load->leader_id, &l->connection) != 0)
        die("connect", b->load->address);
}

static struct event *event_of(struct bench *b, int fd, short what, event_callback_fn f,
                              void *arg)
{
    struct event *event = event_new(b->loop, fd, what, f, arg);
    if (!event)
        die("wait", "no memory");
    return event;
}

static void bench_init(struct bench *b, const struct authority *a)
{
    const struct load *load = b->load;
    b->loop = event_base_new();
    b->value = malloc(load->value_bytes);
    if (!b->loop || !b->value)
        die("begin", "no memory");
    random_bytes(b->value, load->value_bytes);
    for (unsigned i = 0; i < load->links; i++)
        link_open(&b->links[i], b, a);
    for (unsigned i = 0; i < load->clients; i++) {
        struct client_of_bench *c = &b->clients[i];
        c->link = &b->links[i % load->links];
        c->number = i;
        c->timer = event_of(b, -1, 0, pause_over, c);
    }
}

static void bench_release(struct bench *b)
{
    for (unsigned i = 0; i < b->load->clients; i++)
        event_free(b->clients[i].timer);
    for (unsigned i = 0; i < b->load->links; i++)
        wire_endpoint_free(b->links[i].endpoint);
    event_base_free(b->loop);
    buf_release(&b->op);
    buf_release(&b->frame);
    buf_release(&b->ranges);
    free(b->value);
}

void clients_run(const struct authority *a, const struct load *load,
                 void (*report_to)(struct results *r))
{
    static struct bench bench;
    struct bench *b = &bench;
    *b = (struct bench){.load = load, .report = report_to, .since_ns = now_ns()};
    bench_init(b, a);
    struct event *input = event_of(b, 0, EV_READ | EV_PERSIST, on_input, b);
    struct event *trips = event_of(b, -1, EV_PERSIST, take_trip, b);
    event_add(input, NULL);
    event_add(trips, &(struct timeval){.tv_usec = TRIP_PAUSE_US});
    event_base_dispatch(b->loop);
    report(b);
    event_free(input);
    event_free(trips);
    bench_release(b);
}
