/*
 * client.c - what calls: a few callers at each node's mount, as the kernel's workers
 * would. Each call and its answer go into a history, one for each object; objects are
 * given up after a while for new ones, so that histories stay short.
 *
 * A read is linearizable where it comes behind an operation that the leader answered
 * without an entry (S4): what is applied here then is at least what was committed when it
 * was asked.
 */
#include "linear.h"
#include "sim.h"

#include <errno.h>
#include <sys/stat.h>

enum { CLIENTS = 6, OBJECTS = 6, OBJECT_CALLS = 160, PIECE = 16 };

enum object_kind { OBJECT_REGISTER, OBJECT_LIST, OBJECT_NAMES };

struct history {
    struct history *next;
    enum object_kind kind;
    char name[24];
    uint64_t inode; /* 0: not made yet, as far as anyone knows */
    size_t count;
    struct linear_call calls[LINEAR_CALLS];
    uint64_t sessions[LINEAR_CALLS],
        requests[LINEAR_CALLS]; /* of those without an answer */
    bool doubted[LINEAR_CALLS]; /* answered with an error that says nothing */
};

struct call { /* on its way */
    struct history *history;
    size_t at;
    struct fs_request request;
    bool busy, logs, done;
};

struct caller {
    struct sim_node *node;
    unsigned number;
    struct call call;
    uint64_t seen[OBJECTS]; /* of local reads, in this life of the node, ... */
    struct history *seen_of[OBJECTS];
};

static struct caller callers[SIM_NODES][CLIENTS];
static struct history *objects[OBJECTS], *histories;
static uint64_t clock_ticks, values, names_given, answered;
static bool frozen;

static uint64_t tick(void)
{
    return ++clock_ticks;
}

static struct history *object_new(unsigned at)
{
    struct history *h = calloc(1, sizeof(*h));
    ensure(h);
    h->kind = (enum object_kind)(at % 3);
    snprintf(h->name, sizeof(h->name), "%c%llu", "rld"[h->kind],
             (unsigned long long)++names_given);
    h->next = histories;
    histories = h;
    objects[at] = h;
    return h;
}

void clients_begin(void)
{
    for (unsigned i = 0; i < OBJECTS; i++)
        object_new(i);
}

void clients_freeze(void)
{
    frozen = true;
    lockers_freeze();
}

uint64_t clients_answered(void)
{
    return answered;
}

bool clients_idle(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        for (unsigned k = 0; k < CLIENTS; k++)
            if (callers[i][k].call.busy && sim_nodes[i].up)
                return false;
    return true;
}

/* ---- One operation ------------------------------------------------------------------
 */

static void request_done(struct fs_request *request)
{
    struct call *c = container_of(request, struct call, request);
    c->done = true;
    sim_wake(c, true, chance_below(CHANCE_CPU, 20));
}

/* 0 or the errno; where the node has no mount any more -EIO. */
static int submit(struct caller *c, const struct fs_op *op, struct fs_result *ret)
{
    struct call *call = &c->call;
    if (!c->node->backend)
        return -EIO;
    buf_clear(&call->request.op);
    fs_op_encode(op, &call->request.op);
    call->request.subject = fs_op_subject(op);
    call->request.session = 0;
    call->request.done = request_done;
    call->done = false;
    c->node->backend->submit(c->node->backend->context, &call->request);
    while (!call->done)
        sim_wait(call, UINT64_MAX);
    *ret = call->request.result;
    return call->request.error;
}

static struct linear_call *begin(struct caller *c, struct history *h, unsigned kind,
                                 uint64_t a, uint64_t b)
{
    size_t at = h->count++;
    h->calls[at] = (struct linear_call){.invoked = tick(),
                                        .returned = UINT64_MAX,
                                        .kind = kind,
                                        .client = c->node->number * CLIENTS + c->number,
                                        .a = a,
                                        .b = b};
    c->call.history = h;
    c->call.at = at;
    c->call.busy = true;
    return &h->calls[at];
}

/* Errors that do not say whether it happened. */
static bool says_nothing(int error)
{
    return error == -EIO || error == -EINTR || error == -ETIMEDOUT;
}

static bool did_not_happen(int error)
{
    return error == -EROFS || error == -ENOSPC || error == -ESTALE;
}

static void end(struct caller *c, int error, uint64_t r1, uint64_t r2)
{
    struct history *h = c->call.history;
    struct linear_call *l = &h->calls[c->call.at];
    c->call.busy = false;
    trace("client %u: %s %u(%llu, %llu) = %d, %llu", l->client, h->name, l->kind,
          (unsigned long long)l->a, (unsigned long long)l->b, error,
          (unsigned long long)r1);
    if (says_nothing(error) && c->call.logs) {
        h->doubted[c->call.at] = true;
        return;
    }
    if (says_nothing(error) || did_not_happen(error)) { /* as if never asked */
        h->sessions[c->call.at] = 1;
        return;
    }
    l->error = error;
    l->r1 = r1;
    l->r2 = r2;
    l->returned = tick();
    answered += !c->node->missing;
}

/* A mount's end waits for its workers: fs_mount_stop() for who is in here. */
static void reader_leaves(struct sim_node *n)
{
    if (--n->readers == 0)
        sim_wake(&n->readers, true, 0);
}

static int read_file(struct caller *c, uint64_t inode, uint8_t *to, size_t *ret_length)
{
    struct sim_node *n = c->node;
    n->readers++;
    int ret = fs_read(&n->backend->view, inode, 0, 16384, to, ret_length);
    reader_leaves(n);
    return ret;
}

static int find_name(struct caller *c, uint64_t parent, const void *name, size_t length,
                     uint64_t *ret)
{
    struct sim_node *n = c->node;
    n->readers++;
    int error = fs_lookup(&n->backend->view, parent, name, length, ret);
    reader_leaves(n);
    return error;
}

/* Leadership is confirmed, and what was committed then is applied here. */
static int barrier(struct caller *c)
{
    struct fs_result result;
    struct fs_op op = {.type = FS_UNLINK,
                       .parent = FS_ROOT_INODE,
                       .name = (const uint8_t *)"nothing",
                       .name_size = 7};
    int ret = submit(c, &op, &result);
    if (ret == -ENOENT)
        return 0;
    return ret == 0 ? -EIO : ret;
}

static uint64_t take_inode(struct caller *c)
{
    return c->node->backend ? c->node->backend->take_inode(c->node->backend->context) : 0;
}

/* ---- Making objects ------------------------------------------------------------------
 */

/* Its errors do not matter: who comes next tries again. */
static void make_object(struct caller *c, struct history *h)
{
    struct fs_result result;
    struct fs_op op = {.type = FS_MAKE,
                       .parent = FS_ROOT_INODE,
                       .inode = take_inode(c),
                       .mode = h->kind == OBJECT_NAMES ? S_IFDIR | 0755 : S_IFREG | 0644,
                       .name = (const uint8_t *)h->name,
                       .name_size = (uint16_t)strlen(h->name)};
    int ret = submit(c, &op, &result);
    if (ret == 0)
        h->inode = result.value;
    if (ret != -EEXIST || barrier(c) < 0 || !c->node->backend)
        return;
    uint64_t inode;
    if (find_name(c, FS_ROOT_INODE, h->name, strlen(h->name), &inode) == 0)
        h->inode = inode;
}

/* ---- Registers ----------------------------------------------------------------------
 */

/* The value, its length, and bytes that belong to it alone. */
static size_t fill(uint8_t *to, uint64_t value, size_t length)
{
    put_u64(to, value);
    put_u64(to + 8, length);
    for (size_t i = 16; i < length; i++)
        to[i] = (uint8_t)(value * 31 + i);
    return length;
}

static bool is_filled(const uint8_t *data, size_t length, uint64_t *ret)
{
    if (length < 16 || get_u64(data + 8) > length)
        return false;
    *ret = get_u64(data);
    for (size_t i = 16; i < get_u64(data + 8); i++)
        if (data[i] != (uint8_t)(*ret * 31 + i))
            return false;
    return true;
}

static void write_register(struct caller *c, struct history *h)
{
    static uint8_t data[16384];
    uint64_t value = ++values;
    size_t length = 16 + chance_below(CHANCE_CLIENT, plan.value_bytes);
    struct buf ranges = {0};
    struct fs_result result = {0};
    fill(data, value, length);
    fs_range_add(&ranges, 0, data, length);
    begin(c, h, REGISTER_WRITE, value, 0);
    struct fs_op op = {.type = FS_WRITE,
                       .inode = h->inode,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    c->call.logs = true;
    int ret = submit(c, &op, &result);
    end(c, ret, 0, 0);
    buf_release(&ranges);
}

/* As the mount writes what is larger than an operation: half of it unseen, then all of it
 * in place of what there is (S7). Where its session ends in between the half is nobody's. */
static void build_register(struct caller *c, struct history *h)
{
    static uint8_t data[16384];
    uint64_t value = ++values;
    size_t length = 16 + chance_below(CHANCE_CLIENT, plan.value_bytes), half = length / 2;
    struct buf ranges = {0};
    struct fs_result result = {0};
    fill(data, value, length);
    fs_range_add(&ranges, 0, data, half);
    c->call.logs = false;
    int ret = submit(c,
                     &(struct fs_op){.type = FS_BUILD,
                                     .ranges = ranges.data,
                                     .ranges_size = (uint32_t)ranges.length},
                     &result);
    buf_clear(&ranges);
    if (ret == 0)
        sim_sleep(chance_latency(CHANCE_CLIENT, plan.think_us));
    if (ret < 0 || !c->node->backend) {
        buf_release(&ranges);
        return;
    }
    fill(data, value, length); /* others have used it */
    fs_range_add(&ranges, half, data + half, length - half);
    begin(c, h, REGISTER_WRITE, value, 0);
    c->call.logs = true;
    struct fs_op op = {.type = FS_REPLACE,
                       .inode = h->inode,
                       .content = result.value,
                       .size = length,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    ret = submit(c, &op, &result);
    end(c, ret, 0, 0);
    buf_release(&ranges);
}

/* Whatever is applied underneath: it is read anew (G10). */
static void check_readable(const struct sim_node *n, int error)
{
    if (error == -EIO && n->node && !n->bad_disk && !n->stopping &&
        plan.read_error == 0 && gate_is_open(n->node))
        sim_fail("V19: %s cannot read what is whole", n->name);
}

/* -EAGAIN: no answer that counts. */
static int read_value(struct caller *c, struct history *h, uint64_t *ret)
{
    uint8_t *data = malloc(16384);
    size_t length = 0;
    ensure(data);
    *ret = 0;
    int error = -EIO;
    if (c->node->backend) {
        error = read_file(c, h->inode, data, &length);
        check_readable(c->node, error);
    }
    if (error == -ENOENT)
        error = -EIO;
    if (error == 0 && length > 0 && !is_filled(data, length, ret))
        sim_fail("%s reads %s torn: %zu bytes of %llu", c->node->name, h->name, length,
                 (unsigned long long)*ret);
    free(data);
    return error;
}

static void read_register(struct caller *c, struct history *h)
{
    uint64_t value = 0;
    begin(c, h, REGISTER_READ, 0, 0);
    c->call.logs = false;
    int ret = barrier(c);
    if (ret == 0)
        ret = read_value(c, h, &value);
    end(c, ret, value, 0);
}

/* ---- Lists --------------------------------------------------------------------------
 */

static void append_list(struct caller *c, struct history *h)
{
    uint8_t data[PIECE];
    uint64_t value = ++values;
    struct buf ranges = {0};
    struct fs_result result = {0};
    put_u64(data, value);
    put_u64(data + 8, ~value);
    fs_range_add(&ranges, 0, data, sizeof(data));
    begin(c, h, LIST_APPEND, value, 0);
    struct fs_op op = {.type = FS_WRITE,
                       .flags = FS_APPEND,
                       .inode = h->inode,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    c->call.logs = true;
    int ret = submit(c, &op, &result);
    end(c, ret, result.value / PIECE, 0);
    buf_release(&ranges);
}

static int read_pieces(struct caller *c, struct history *h, uint64_t *ret_count,
                       uint64_t *ret_hash)
{
    uint8_t *data = malloc(16384);
    size_t length = 0;
    ensure(data);
    int error = c->node->backend ? read_file(c, h->inode, data, &length) : -EIO;
    *ret_count = length / PIECE;
    *ret_hash = 0;
    for (size_t at = 0; error == 0 && at < length; at += PIECE) {
        uint64_t value = get_u64(data + at);
        if (length % PIECE || get_u64(data + at + 8) != ~value)
            sim_fail("%s reads list %s torn", c->node->name, h->name);
        *ret_hash = linear_list_hash(*ret_hash, value);
    }
    free(data);
    return error == -ENOENT ? -EIO : error;
}

static void read_list(struct caller *c, struct history *h)
{
    uint64_t count = 0, hash = 0;
    begin(c, h, LIST_READ, 0, 0);
    c->call.logs = false;
    int ret = barrier(c);
    if (ret == 0)
        ret = read_pieces(c, h, &count, &hash);
    end(c, ret, count, hash);
}

/* A read of what is here, asking nobody: it never goes back on one node. */
static void read_here(struct caller *c, struct history *h, unsigned at)
{
    uint64_t count, hash;
    if (read_pieces(c, h, &count, &hash) < 0)
        return;
    if (c->seen_of[at] == h && count < c->seen[at])
        sim_fail("%s shows %llu pieces of %s after %llu", c->node->name,
                 (unsigned long long)count, h->name, (unsigned long long)c->seen[at]);
    c->seen[at] = count;
    c->seen_of[at] = h;
}

/* ---- Names --------------------------------------------------------------------------
 */

static void change_names(struct caller *c, struct history *h)
{
    static const unsigned kinds[] = {NAMES_MAKE,   NAMES_MAKE,    NAMES_MKDIR,
                                     NAMES_UNLINK, NAMES_RMDIR,   NAMES_RENAME,
                                     NAMES_RENAME, NAMES_LINK,    NAMES_RENAME_NOREPLACE,
                                     NAMES_LINK,   NAMES_EXCHANGE};
    unsigned kind = kinds[chance_below(CHANCE_CLIENT, array_length(kinds))];
    uint64_t a = chance_below(CHANCE_CLIENT, NAMES);
    uint64_t b = (a + 1 + chance_below(CHANCE_CLIENT, NAMES - 1)) % NAMES;
    uint8_t name = (uint8_t)('a' + a), name2 = (uint8_t)('a' + b);
    struct fs_op op = {.parent = h->inode, .name = &name, .name_size = 1};
    struct fs_result result = {0};
    switch ((enum linear_names)kind) {
    case NAMES_MAKE:
        op.type = FS_MAKE;
        op.mode = S_IFREG | 0644;
        break;
    case NAMES_MKDIR:
        op.type = FS_MAKE;
        op.mode = S_IFDIR | 0755;
        break;
    case NAMES_UNLINK:
        op.type = FS_UNLINK;
        break;
    case NAMES_RMDIR:
        op.type = FS_RMDIR;
        break;
    case NAMES_RENAME:
    case NAMES_RENAME_NOREPLACE:
    case NAMES_EXCHANGE:
        op.type = FS_RENAME;
        op.parent2 = h->inode;
        op.name2 = &name2;
        op.name2_size = 1;
        op.flags = kind == NAMES_RENAME     ? 0
                   : kind == NAMES_EXCHANGE ? FS_EXCHANGE
                                            : FS_NOREPLACE;
        break;
    case NAMES_LINK: /* of what this node has at the name, as the kernel would find it */
        op.type = FS_LINK;
        op.name = &name2;
        if (!c->node->backend || find_name(c, h->inode, &name, 1, &op.inode) < 0)
            return;
        a = op.inode;
        break;
    case NAMES_LOOKUP:
        break;
    }
    if (op.type == FS_MAKE) { /* by its number, nobody needs to be told */
        op.inode = b = take_inode(c);
        if (!op.inode)
            return; /* none are reserved yet */
    }
    begin(c, h, kind, a, b);
    c->call.logs = true;
    int ret = submit(c, &op, &result);
    bool renames = op.type == FS_RENAME;
    end(c, ret, ret == 0 ? result.value : 0, ret == 0 && renames ? result.more : 0);
}

static void look_up(struct caller *c, struct history *h)
{
    uint64_t a = chance_below(CHANCE_CLIENT, NAMES), inode = 0;
    uint8_t name = (uint8_t)('a' + a);
    begin(c, h, NAMES_LOOKUP, a, 0);
    c->call.logs = false;
    int ret = barrier(c);
    if (ret == 0 && c->node->backend)
        ret = find_name(c, h->inode, &name, 1, &inode);
    else if (ret == 0)
        ret = -EIO;
    if (ret == -ENOENT)
        ret = 0;
    end(c, ret, inode, 0);
}

/* ---- Callers -------------------------------------------------------------------------
 */

static void call_once(struct caller *c)
{
    unsigned at =
        (unsigned)((plan.first_object + chance_below(CHANCE_CLIENT, plan.objects)) %
                   OBJECTS);
    struct history *h = objects[at];
    if (h->count >= OBJECT_CALLS)
        h = object_new(at);
    if (!h->inode) {
        make_object(c, h);
        return;
    }
    bool reads = chance_below(CHANCE_CLIENT, 3) == 0;
    bool builds = h->kind == OBJECT_REGISTER && chance_below(CHANCE_CLIENT, 4) == 0;
    if (h->kind == OBJECT_REGISTER)
        (reads ? read_register : builds ? build_register : write_register)(c, h);
    else if (h->kind == OBJECT_NAMES)
        (reads ? look_up : change_names)(c, h);
    else if (chance_below(CHANCE_CLIENT, 4) == 0)
        read_here(c, h, at);
    else
        (reads ? read_list : append_list)(c, h);
}

static void *client_main(void *arg)
{
    struct caller *c = arg;
    while (c->node->backend) {
        sim_sleep(chance_latency(CHANCE_CLIENT, plan.think_us));
        if (frozen || !c->node->backend)
            continue;
        call_once(c);
    }
    return NULL;
}

void clients_node_up(struct sim_node *n)
{
    lockers_node_up(n);
    for (unsigned k = 0; k < plan.clients && k < CLIENTS; k++) {
        struct caller *c = &callers[n->number][k];
        *c = (struct caller){.node = n, .number = k};
        sim_thread_new(n, client_main, c, chance_below(CHANCE_CLIENT, plan.think_us));
    }
}

/* What is on its way: by which request it would be known, had it been committed. */
static void note_pending(struct sim_node *n, struct caller *c)
{
    struct history *h = c->call.history;
    size_t at = c->call.at;
    /* Or it was answered, and its caller has not run since. */
    h->doubted[at] = !n->node || c->call.done;
    if (h->doubted[at])
        return;
    h->sessions[at] = 1; /* nobody's: it was never sent */
    for (struct client_op *op = n->node->client.head; op; op = op->next)
        if (op->op.data == c->call.request.op.data && op->request && c->call.logs) {
            h->sessions[at] = n->node->client.session;
            h->requests[at] = op->request;
        }
}

void clients_node_down(struct sim_node *n)
{
    lockers_node_down(n);
    for (unsigned k = 0; k < CLIENTS; k++) {
        struct caller *c = &callers[n->number][k];
        if (c->call.busy)
            note_pending(n, c);
        c->call.busy = false;
    }
}

/* ---- The histories -------------------------------------------------------------------
 */

static const struct linear_model *const models[] = {
    [OBJECT_REGISTER] = &linear_register,
    [OBJECT_LIST] = &linear_list,
    [OBJECT_NAMES] = &linear_names,
};

enum { BUDGET = 2000 * 1000 };

static uint64_t undecided, judged;

static void print_history(const struct linear_call *calls, size_t count, size_t stuck)
{
    for (size_t i = 0; i < count; i++)
        fprintf(stderr,
                "%s %4zu client %u: %llu..%lld kind %u (%llu, %llu) = %lld, %llu, %llu\n",
                i == stuck ? "->" : "  ", i, calls[i].client,
                (unsigned long long)calls[i].invoked, (long long)calls[i].returned,
                calls[i].kind, (unsigned long long)calls[i].a,
                (unsigned long long)calls[i].b, (long long)calls[i].error,
                (unsigned long long)calls[i].r1, (unsigned long long)calls[i].r2);
}

static void check_history(struct history *h)
{
    struct linear_call *calls = calloc(h->count + 1, sizeof(*calls));
    size_t count = 0, stuck;
    ensure(calls);
    for (size_t i = 0; i < h->count; i++) {
        bool open = h->calls[i].returned == UINT64_MAX;
        if (open && !h->doubted[i] && !verify_happened(h->sessions[i], h->requests[i]))
            continue;
        calls[count++] = h->calls[i];
    }
    enum linear_verdict verdict =
        linear_check(models[h->kind], calls, count, BUDGET, &stuck);
    if (verdict == LINEAR_NO) {
        print_history(calls, count, stuck);
        sim_fail("the history of %s is not linearizable", h->name);
    }
    judged++;
    undecided += verdict == LINEAR_UNDECIDED;
    free(calls);
}

void clients_check(void)
{
    for (struct history *h = histories; h; h = h->next)
        check_history(h);
}

uint64_t clients_undecided(void)
{
    return undecided;
}

uint64_t clients_judged(void)
{
    return judged;
}
