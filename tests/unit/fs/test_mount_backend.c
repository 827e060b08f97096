/* test_mount_backend.c - a node for the mount's tests. */
#include "test_mount_backend.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SESSION = BACKEND_OTHER - 1, INODES = 10000 };

struct queued {
    struct queued *next;
    struct fs_request *request;
    bool killed; /* to be answered -EINTR */
};

struct orphaned {
    uint64_t inode, parent;
    char name[LIMIT_NAME_BYTES + 1];
    bool own;
};

/* With the lock held, when an operation is in: whether it has made an orphan. */
static void note_orphan(struct backend *b, const struct fs_op *op, bool own,
                        const struct fs_result *result)
{
    struct orphaned one = {.parent = op->parent, .own = own};
    const uint8_t *name = op->type == FS_RENAME ? op->name2 : op->name;
    size_t size = op->type == FS_RENAME ? op->name2_size : op->name_size;
    struct fs_key key;
    struct buf value = {0};
    if (op->type == FS_RENAME)
        one.parent = op->parent2;
    if (op->type == FS_RENAME || op->type == FS_UNLINK || op->type == FS_RMDIR)
        one.inode = op->type == FS_RENAME ? result->more : result->value;
    fs_key_orphan(&key, one.inode, SESSION);
    struct fs_view view = memory_view(&b->memory);
    if (one.inode && view.get(view.context, key.bytes, key.size, &value, NULL) == 0) {
        memcpy(one.name, name, size);
        buf_bytes(&b->orphans, &one, sizeof(one));
    }
    buf_release(&value);
}

static int evaluate(struct backend *b, const struct fs_op *op, uint64_t session,
                    struct fs_result *ret)
{
    struct fs_view view = memory_view(&b->memory);
    uint64_t reserved = op->type == FS_RESERVE ? op->size : 0;
    struct fs_change *change =
        memory_begin(&b->memory, session,
                     max_u64(clock_real_us(), b->memory.timestamp_us + 1 + reserved));
    int error = fs_evaluate(&view, op, change, ret);
    if (error) {
        memory_abort(&b->memory);
        return error;
    }
    b->memory.timestamp_us = change->timestamp_us;
    memory_commit(&b->memory);
    return 0;
}

/* Without the lock. */
static void tell_orphans(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    struct buf orphans = b->orphans;
    b->orphans = (struct buf){0};
    pthread_mutex_unlock(&b->lock);
    struct fs_mount *m = b->mount;
    for (size_t i = 0; i < orphans.length; i += sizeof(struct orphaned)) {
        const struct orphaned *one = (const void *)(orphans.data + i);
        if (m)
            fs_mount_orphaned(m, one->inode, one->parent, one->name, strlen(one->name),
                              one->own);
        else
            b->table.release(b, one->inode);
    }
    buf_release(&orphans);
}

/* With the lock held. */
static void release_all(struct backend *b)
{
    struct fs_result result;
    for (size_t i = 0; i < b->released.length; i += 8) {
        struct fs_op op = {
            .type = FS_RELEASE, .inodes = b->released.data + i, .inode_count = 1};
        ensure(evaluate(b, &op, SESSION, &result) == 0);
        b->releases++;
    }
    buf_clear(&b->released);
    pthread_cond_broadcast(&b->changed);
}

static void watch(struct backend *b)
{
    struct fs_inode inode;
    if (b->watched[0] && backend_stat(b, b->watched, &inode) == 0 && inode.size == 0)
        b->empties++;
}

/* What may hold of the session of `op` before it is evaluated. */
static int fence(struct backend *b, struct fs_request *r)
{
    bool other = r->session && r->session != b->session;
    r->session = other ? r->session : b->session;
    return other ? -EIO : 0;
}

static void tell_of_locks(struct backend *b, const struct fs_op *op)
{
    struct fs_mount *mount = b->mount;
    if (mount && (op->type == FS_LOCK || op->type == FS_UNLOCK || op->type == FS_ABANDON))
        fs_mount_locks_changed(mount, op->inode);
}

static void remove_made(struct backend *b)
{
    struct fs_result result;
    struct fs_op op = {.type = FS_UNLINK,
                       .parent = FS_ROOT_INODE,
                       .name = (const uint8_t *)b->remove_made,
                       .name_size = (uint16_t)strlen(b->remove_made)};
    ensure(evaluate(b, &op, SESSION, &result) == 0);
    note_orphan(b, &op, false, &result);
    b->remove_made = NULL;
}

/* With the lock held. */
static void perform(struct backend *b, struct queued *q)
{
    struct fs_request *r = q->request;
    struct fs_op op;
    ensure(fs_op_decode(r->op.data, r->op.length, &op) == 0);
    ensure(r->subject == fs_op_subject(&op));
    if (q->killed) {
        r->error = -EINTR;
    } else if (b->fail_type == (uint32_t)op.type) {
        r->error = b->fail_error;
        b->failed++;
    } else {
        r->result = (struct fs_result){0};
        r->error = fence(b, r);
        if (!r->error)
            r->error = evaluate(b, &op, b->session, &r->result);
        if (!r->error)
            note_orphan(b, &op, true, &r->result);
        b->told = op;
        b->counts[op.type]++;
        b->total++;
        watch(b);
        if (b->remove_made && op.type == FS_MAKE)
            remove_made(b);
    }
}

static struct queued *ready(struct backend *b)
{
    if (!b->held)
        return b->first;
    struct queued *q = b->first;
    while (q && !q->killed)
        q = q->next;
    return q;
}

static void dequeue(struct backend *b, struct queued *q)
{
    struct queued **at = &b->first;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    if (b->end == &q->next)
        b->end = at;
}

static void *loop_main(void *arg)
{
    struct backend *b = arg;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        struct queued *q;
        while (!(q = ready(b)) && !b->stopping && !b->released.length)
            pthread_cond_wait(&b->changed, &b->lock);
        if (b->released.length) {
            release_all(b);
            continue;
        }
        if (!q)
            break;
        if (b->delay_us) {
            pthread_mutex_unlock(&b->lock);
            usleep(b->delay_us);
            pthread_mutex_lock(&b->lock);
        }
        dequeue(b, q);
        perform(b, q);
        b->queued_count--;
        pthread_cond_broadcast(&b->changed);
        struct fs_op told = b->told;
        b->told.type = 0;
        pthread_mutex_unlock(&b->lock);
        tell_orphans(b);
        tell_of_locks(b, &told);
        q->request->done(q->request);
        free(q);
        pthread_mutex_lock(&b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* ---- What the mount calls ---- */

static uint64_t view_begin(void *context)
{
    struct fs_view view = memory_view(&((struct backend *)context)->memory);
    return view.begin(view.context);
}

static bool view_retry(void *context, uint64_t begun)
{
    struct fs_view view = memory_view(&((struct backend *)context)->memory);
    return view.retry(view.context, begun);
}

static int view_get(void *context, const void *key, size_t key_size, struct buf *to,
                    uint64_t *ret_timestamp)
{
    struct backend *b = context;
    struct fs_view view = memory_view(&b->memory);
    int error = view.get(view.context, key, key_size, to, ret_timestamp);
    void (*after_get)(void) = b->after_get;
    if (after_get)
        after_get();
    return error;
}

static int view_scan(void *context, const void *from, size_t from_size, const void *to,
                     size_t to_size, int (*each)(void *arg, const struct fs_item *item),
                     void *arg)
{
    struct backend *b = context;
    struct fs_view view = memory_view(&b->memory);
    return view.scan(view.context, from, from_size, to, to_size, each, arg);
}

static void on_submit(void *context, struct fs_request *request)
{
    struct backend *b = context;
    struct queued *q = calloc(1, sizeof(*q));
    ensure(q);
    q->request = request;
    pthread_mutex_lock(&b->lock);
    *b->end = q;
    b->end = &q->next;
    b->queued_count++;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void on_interrupt(void *context, struct fs_request *request, bool fatal)
{
    struct backend *b = context;
    pthread_mutex_lock(&b->lock);
    b->interrupts++;
    b->fatal_interrupts += fatal;
    for (struct queued *q = b->first; q; q = q->next)
        if (q->request == request)
            q->killed |= fatal;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static uint64_t on_session(void *context, bool *ret_sure)
{
    struct backend *b = context;
    *ret_sure = !b->unsure;
    return b->session;
}

static bool on_writable(void *context)
{
    struct backend *b = context;
    return !b->alone;
}

static bool on_has_room(void *context)
{
    struct backend *b = context;
    return !b->full;
}

static void on_release(void *context, uint64_t inode)
{
    struct backend *b = context;
    pthread_mutex_lock(&b->lock);
    buf_u64(&b->released, inode);
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static uint64_t on_take_inode(void *context)
{
    struct backend *b = context;
    pthread_mutex_lock(&b->lock);
    bool any = !b->no_inodes && b->next_inode < b->last_inode;
    uint64_t inode = any ? b->next_inode++ : 0;
    pthread_mutex_unlock(&b->lock);
    return inode;
}

static void on_space(void *context, uint64_t *ret_free, uint64_t *ret_total,
                     uint64_t *ret_keys)
{
    struct backend *b = context;
    *ret_free = 1 * GiB;
    *ret_total = 4 * GiB;
    *ret_keys = b->memory.count;
}

static int on_text(void *context, enum fs_text which, struct buf *to)
{
    struct backend *b = context;
    if (b->no_texts)
        return -ENOMEM;
    buf_printf(to, "text %d, asked for %u times\n", which, ++b->texts);
    while (which == FS_TEXT_METRICS && to->length < LONG_TEXT_BYTES)
        buf_printf(to, "%zu\n", to->length);
    return 0;
}

static void on_unmounted(void *context)
{
    struct backend *b = context;
    pthread_mutex_lock(&b->lock);
    b->unmounted = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

/* ---- What the tests call ---- */

void backend_start(struct backend *b)
{
    *b = (struct backend){.session = SESSION};
    b->end = &b->first;
    memory_init(&b->memory);
    b->memory.timestamp_us = clock_real_us();
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    struct fs_result result;
    struct fs_change *change = memory_begin(&b->memory, 0, 0);
    struct fs_key key = {.size = 9, .bytes = {FS_CLASS_SESSION}};
    put_be64(key.bytes + 1, SESSION);
    change->records++;
    change->put(change->context, key.bytes, key.size, "0123456789abcdef", 16);
    memory_commit(&b->memory);
    for (int i = 0; i < INODES / 1000; i++) {
        struct fs_op op = {.type = FS_RESERVE, .size = 1000};
        ensure(evaluate(b, &op, SESSION, &result) == 0);
        b->next_inode = b->next_inode ? b->next_inode : result.value;
    }
    b->last_inode = result.value + 1000;
    b->table = (struct fs_backend){
        .context = b,
        .view = {.context = b,
                 .get = view_get,
                 .scan = view_scan,
                 .begin = view_begin,
                 .retry = view_retry},
        .submit = on_submit,
        .interrupt = on_interrupt,
        .writable = on_writable,
        .has_room = on_has_room,
        .release = on_release,
        .take_inode = on_take_inode,
        .space = on_space,
        .session = on_session,
        .text = on_text,
        .unmounted = on_unmounted,
    };
    ensure(pthread_create(&b->loop, NULL, loop_main, b) == 0);
}

void backend_stop(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    b->held = false;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->loop, NULL);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->changed);
    memory_release(&b->memory);
    buf_release(&b->orphans);
    buf_release(&b->released);
}

void backend_hold(struct backend *b, bool held)
{
    pthread_mutex_lock(&b->lock);
    b->held = held;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

void backend_await_queued(struct backend *b, unsigned count)
{
    pthread_mutex_lock(&b->lock);
    while (b->queued_count < count)
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

bool backend_is_unmounted(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    bool unmounted = b->unmounted;
    pthread_mutex_unlock(&b->lock);
    return unmounted;
}

void backend_await_unmounted(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->unmounted)
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

void backend_fail(struct backend *b, uint32_t type, int error)
{
    pthread_mutex_lock(&b->lock);
    b->fail_type = type;
    b->fail_error = error;
    pthread_mutex_unlock(&b->lock);
}

/* Also waits for what is on its way. */
void backend_reset_counts(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    while (b->queued_count)
        pthread_cond_wait(&b->changed, &b->lock);
    memset(b->counts, 0, sizeof(b->counts));
    b->total = b->failed = b->empties = 0;
    pthread_mutex_unlock(&b->lock);
}

unsigned backend_total(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    unsigned total = b->total;
    pthread_mutex_unlock(&b->lock);
    return total;
}

unsigned backend_count(struct backend *b, uint32_t type)
{
    pthread_mutex_lock(&b->lock);
    unsigned count = b->counts[type];
    pthread_mutex_unlock(&b->lock);
    return count;
}

int backend_do(struct backend *b, const struct fs_op *op, struct fs_result *ret)
{
    pthread_mutex_lock(&b->lock);
    int error = evaluate(b, op, BACKEND_OTHER, ret);
    if (!error)
        note_orphan(b, op, false, ret);
    pthread_mutex_unlock(&b->lock);
    tell_orphans(b);
    tell_of_locks(b, op);
    return error;
}

bool backend_is_there(struct backend *b, uint64_t inode)
{
    struct fs_view view = memory_view(&b->memory);
    struct fs_inode found;
    struct buf scratch = {0};
    int error = fs_stat(&view, inode, &scratch, &found);
    buf_release(&scratch);
    return !error;
}

void backend_await_gone(struct backend *b, uint64_t inode)
{
    pthread_mutex_lock(&b->lock);
    while (backend_is_there(b, inode))
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

int backend_stat(struct backend *b, const char *name, struct fs_inode *ret)
{
    struct fs_view view = memory_view(&b->memory);
    struct buf scratch = {0};
    uint64_t number;
    int error = fs_lookup(&view, FS_ROOT_INODE, name, strlen(name), &number);
    if (!error)
        error = fs_stat(&view, number, &scratch, ret);
    ret->inline_bytes = NULL;
    buf_release(&scratch);
    return error;
}

char *backend_value(struct backend *b, const char *name, size_t *ret_size)
{
    struct fs_view view = memory_view(&b->memory);
    struct fs_inode inode;
    if (backend_stat(b, name, &inode) != 0)
        return NULL;
    char *value = calloc(1, inode.size + 1);
    ensure(value);
    ensure(fs_read(&view, inode.inode, 0, inode.size, (uint8_t *)value, ret_size) == 0);
    return value;
}

void backend_put(struct backend *b, const char *name, const void *data, size_t size)
{
    struct buf ranges = {0};
    struct fs_result result;
    if (size)
        fs_range_add(&ranges, 0, data, size);
    struct fs_op op = {.type = FS_MAKE,
                       .flags = FS_OVER,
                       .parent = FS_ROOT_INODE,
                       .name = (const uint8_t *)name,
                       .name_size = (uint16_t)strlen(name),
                       .mode = S_IFREG | 0644,
                       .size = size,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    ensure(backend_do(b, &op, &result) == 0);
    buf_release(&ranges);
}
