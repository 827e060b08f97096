/* one_node.c - a node of one, without port and mount. */
#include "one_node.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { PATIENCE_US = 60 * 1000 * 1000 }; /* a test that waits longer hangs */

static const struct node_run_options options = {.data = ""};

/* A port nobody listens on: init wants one, though this node will not listen. */
static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &length), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void make_store(const char *path, struct node *n)
{
    char error[NODE_ERROR_BYTES] = "", listen[32];
    char *token;
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", free_port());
    struct node_setup setup = {.data = path, .name = "one", .listen = listen};
    if (node_init(&setup, &token, error) < 0)
        fail_msg("%s", error);
    free(token);
    if (directory_open(&n->directory, path, error) < 0)
        fail_msg("%s", error);
}

static void replay(void *context, struct store *s, const struct store_entry *entry)
{
    assert_int_equal(session_replay(context, s, entry), 0);
}

static void open_store(struct node *n, struct store_recovery *recovery)
{
    char error[STORE_ERROR_BYTES] = "";
    struct store_options o = {.io = &store_io_posix,
                              .path = n->directory.path,
                              .segment_bytes = 2 * LIMIT_ENTRY_BYTES,
                              .replay = replay,
                              .save_state = state_save,
                              .load_state = state_load,
                              .damaged = repair_damaged,
                              .retain_bytes = LIMIT_ENTRY_BYTES, /* little to write */
                              .format = STORE_FORMAT_OLDEST,
                              .format_newest = version_format(NODE_VERSION_PROGRAMS),
                              .context = n};
    memcpy(o.cluster_id, n->directory.cluster_id, sizeof(o.cluster_id));
    if (store_open(&n->store, &o, recovery, error) < 0)
        fail_msg("%s", error);
    struct fs_key key;
    struct buf value = {0};
    cluster_key_config(&key);
    assert_int_equal(store_get(n->store, key.bytes, key.size, 0, &value, NULL), 0);
    assert_int_equal(members_decode(value.data, value.length, &n->members), 0);
    n->members_applied = n->members;
    buf_release(&value);
}

static void no_frame(void *context, struct wire_connection *c, const struct wire_frame *f)
{
    fail_msg("a frame came to a node that listens nowhere");
}

static void closed(void *context, struct wire_connection *c, const char *reason)
{
    peers_closed(context, c, reason);
}

/* It listens nowhere; members that a test lets in are dialed in vain. */
static void open_endpoint(struct node *n)
{
    struct directory *d = &n->directory;
    struct wire_identity identity = {.ca_pem = d->ca_pem,
                                     .cert_pem = d->cert_pem,
                                     .key_pem = d->key_pem,
                                     .node_id = d->node_id};
    struct wire_hello hello = {.node_id = d->node_id};
    struct wire_handlers handlers = {
        .context = n, .frame = no_frame, .closed = closed};
    char error[WIRE_ERROR_BYTES];
    memcpy(identity.cluster_id, d->cluster_id, sizeof(identity.cluster_id));
    memcpy(hello.cluster_id, d->cluster_id, sizeof(hello.cluster_id));
    assert_int_equal(
        wire_endpoint_new(&n->endpoint, n->loop, &identity, &hello, &handlers, error), 0);
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
    struct node *n = arg;
    client_tick(n, node_now());
    leader_tick(n);
    orphans_tick(n);
    fetch_tick(n, node_now());
    repair_tick(n);
    pins_tick(n, node_now());
    store_set_retention(n->store, raft_floor(n->driver.raft) + 1);
    merge_thread_kick(n);
    driver_flush_soon(n);
}

static bool has_session(struct node *n, void *arg)
{
    return n->client.session != 0;
}

struct node *one_node_start(void)
{
    struct store_recovery recovery;
    char path[] = "/tmp/tierce-unit-XXXXXX";
    struct node *n = calloc(1, sizeof(*n));
    assert_non_null(n);
    assert_non_null(mkdtemp(path));
    make_store(path, n);
    n->options = &options;
    n->version = WIRE_PROTOCOL_VERSION;
    n->mailbox.wake_fd = -1;
    n->eligible = true;
    n->loop = event_base_new();
    assert_int_equal(event_base_priority_init(n->loop, 2), 0);
    assert_int_equal(mailbox_init(n), 0);
    open_store(n, &recovery);
    open_endpoint(n);
    assert_int_equal(driver_start(n, &recovery), 0);
    assert_int_equal(log_thread_start(n), 0);
    assert_int_equal(pager_start(n), 0);
    assert_int_equal(merge_thread_start(n), 0);
    gate_init(n);
    repair_init(n);
    pins_init(n);
    mount_init(n);
    n->phase = NODE_RUNNING;
    n->tick = event_new(n->loop, -1, EV_PERSIST, tick, n);
    event_add(n->tick, &(struct timeval){0, NODE_TICK_US});
    assert_int_equal(client_start(n), 0);
    one_node_run(n, has_session, NULL);
    return n;
}

static void remove_all(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    struct dirent *d;
    while ((d = readdir(dir))) {
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
            continue;
        char *file = directory_file(path, d->d_name);
        if (unlink(file) < 0 && (errno == EISDIR || errno == EPERM))
            remove_all(file);
        free(file);
    }
    closedir(dir);
    assert_int_equal(rmdir(path), 0);
}

void one_node_stop(struct node *n)
{
    char *path = strdup(n->directory.path);
    pager_stop(n);
    merge_thread_stop(n);
    log_thread_stop(n);
    repair_release(n);
    serve_release(n);
    leader_end(n);
    wire_endpoint_free(n->endpoint);
    peers_release(n);
    driver_stop(n);
    client_release(n);
    orphans_release(n);
    mount_release(n);
    upgrade_release(n);
    sessions_release(n);
    removed_release(n);
    store_close(n->store);
    mailbox_release(n);
    event_free(n->tick);
    event_base_free(n->loop);
    directory_release(&n->directory);
    free(n);
    remove_all(path);
    free(path);
}

void one_node_run(struct node *n, bool (*done)(struct node *n, void *arg), void *arg)
{
    uint64_t start = node_now();
    while (!done(n, arg)) {
        if (node_now() - start > PATIENCE_US)
            fail_msg("nothing happens");
        event_base_loop(n->loop, EVLOOP_ONCE);
    }
}

struct wire_connection *one_node_connection(void)
{
    static max_align_t nothing[4096 / sizeof(max_align_t)];
    return (struct wire_connection *)(void *)nothing;
}

/* ---- Operations
 * -------------------------------------------------------------------------- */

struct call {
    struct client_op op;
    bool done;
};

static void call_done(struct client_op *op)
{
    container_of(op, struct call, op)->done = true;
}

static bool call_is_done(struct node *n, void *arg)
{
    struct call *c = arg;
    return c->done;
}

static int run_call(struct node *n, struct call *c, struct fs_result *ret)
{
    c->op.done = call_done;
    client_submit(n, &c->op);
    one_node_run(n, call_is_done, c);
    buf_release(&c->op.op);
    if (ret)
        fs_result_decode(c->op.result, ret);
    return c->op.error;
}

int one_node_fs(struct node *n, const struct fs_op *op, struct fs_result *ret)
{
    struct call c = {0};
    fs_op_encode(op, &c.op.op);
    c.op.subject = fs_op_subject(op);
    return run_call(n, &c, ret);
}

int one_node_op(struct node *n, const struct node_op *op, struct fs_result *ret)
{
    struct call c = {0};
    node_op_encode(op, &c.op.op);
    return run_call(n, &c, ret);
}

uint64_t one_node_join(struct node *n, const char *address)
{
    uint8_t secret[NODE_SECRET_BYTES] = {9};
    struct fs_result result;
    struct node_op invite = {.type = NODE_OP_INVITE, .token_id = 500};
    struct node_op op = {.type = NODE_OP_JOIN,
                         .token_id = 500,
                         .version = WIRE_PROTOCOL_VERSION,
                         .next_token_id = 601,
                         .name = "two"};
    strcpy(op.address, address);
    wire_hash(secret, sizeof(secret), invite.record.secret_hash);
    invite.record.expires_us = op.record.expires_us = clock_real_us() + 1000000000;
    memcpy(op.secret, secret, sizeof(secret));
    assert_int_equal(one_node_op(n, &invite, NULL), 0);
    assert_int_equal(one_node_op(n, &op, &result), 0);
    return result.value;
}
