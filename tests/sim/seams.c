/*
 * seams.c - what a node has from its host: clocks, randomness, a log, RCU, a mailbox, its
 * directory's files, the kernel's side of a mount.
 */
#include "sim.h"

#include "control.h"
#include "store_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

/* ---- Clocks and chance: base's clock.c ------------------------------------------------
 */

enum { BOOTED_US = 1000 * 1000 };
#define EPOCH_US ((uint64_t)1767225600 * 1000000) /* 2026 */

uint64_t clock_boot_us(void)
{
    struct sim_node *n = sim_at_node;
    if (!n)
        return sim_now + BOOTED_US;
    return n->boot_base + (uint64_t)((double)(sim_now - n->true_base) * n->rate);
}

uint64_t clock_real_us(void)
{
    int64_t offset = sim_at_node ? sim_at_node->real_offset : 0;
    return (uint64_t)((int64_t)(EPOCH_US + clock_boot_us()) + offset);
}

uint64_t random_next(uint64_t *state)
{
    ensure(*state != 0);
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1DULL;
}

/* In a scenario a node draws by its name and life alone, however often. */
static uint64_t draw(void)
{
    if (!plan.exact || !sim_at_node)
        return chance(CHANCE_NODE);
    uint64_t state = (sim_at_node->number + 1) * 1000003 + sim_at_node->life * 7919;
    random_next(&state);
    return random_next(&state);
}

void random_bytes(void *to, size_t length)
{
    uint8_t *at = to;
    while (length) {
        uint64_t v = draw();
        size_t n = min_u64(length, sizeof(v));
        memcpy(at, &v, n);
        at += n;
        length -= n;
    }
}

uint64_t random_u64(void)
{
    return draw();
}

/* ---- The log: base's log.c
 * -------------------------------------------------------------- */

int log_open(const char *path)
{
    return 0;
}

void log_set_level(enum log_level level)
{
}

static void say(enum log_level level, const char *format, va_list args)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char text[900];
    vsnprintf(text, sizeof(text), format, args);
    trace("%s: %s", names[level], text);
}

void log_at(enum log_level level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(level, format, args);
    va_end(args);
}

void log_fatal(const char *format, ...)
{
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    trace("fatal: %s", text);
    ensure(sim_at_node);
    sim_died(sim_at_node, text);
    abort();
}

void ensure_failed(const char *condition, const char *file, int line)
{
    sim_fail("%s:%d: must hold, and does not: %s", file, line, condition);
}

/* ---- Read-side sections: store's reading.c
 * ------------------------------------------------ */

struct deferred {
    struct deferred *next;
    struct rcu_head *head;
    void (*release)(struct rcu_head *head);
};

static void run_deferred(struct sim_node *n)
{
    struct deferred *d = n->deferred;
    n->deferred = NULL;
    n->deferred_tail = &n->deferred;
    while (d) {
        struct deferred *next = d->next;
        d->release(d->head);
        free(d);
        d = next;
    }
}

/* No section that began before is left: there is none at all. */
static void grace_passed(void *arg)
{
    struct sim_node *n = arg;
    n->deferring = false;
    if (n->sections == 0)
        run_deferred(n);
}

static void defer_soon(struct sim_node *n)
{
    if (n->deferring || !n->deferred)
        return;
    n->deferring = true;
    sim_after(1 + chance_below(CHANCE_CPU, 2000), n, grace_passed, n);
}

void reading_begin(void)
{
    if (sim_at_node)
        sim_at_node->sections++;
}

void reading_end(void)
{
    struct sim_node *n = sim_at_node;
    if (!n)
        return;
    n->sections--;
    if (n->sections == 0)
        defer_soon(n);
}

void reading_defer(struct rcu_head *head, void (*release)(struct rcu_head *head))
{
    struct sim_node *n = sim_at_node;
    if (!n)
        return; /* a store that the world itself looks into: it leaks */
    struct deferred *d = malloc(sizeof(*d));
    ensure(d);
    *d = (struct deferred){.head = head, .release = release};
    if (!n->deferred)
        n->deferred_tail = &n->deferred;
    *n->deferred_tail = d;
    n->deferred_tail = &d->next;
    defer_soon(n);
}

void reading_deferred(void)
{
}

void reading_barrier(void)
{
    struct sim_node *n = sim_at_node;
    if (!n)
        return;
    while (n->sections > 0)
        sim_sleep(10);
    run_deferred(n);
}

/* ---- The mailbox: node's mail.c
 * ------------------------------------------------------------ */

struct letter {
    struct node *node;
    struct mail *mail;
};

static void letter_read(void *arg)
{
    struct letter letter = *(struct letter *)arg;
    free(arg);
    letter.mail->deliver(letter.node, letter.mail);
}

static void letter_arrived(void *arg)
{
    struct letter *letter = arg;
    if (sim_at_node->loop)
        loop_post(sim_at_node, letter_read, letter);
}

void mail_post(struct node *n, struct mail *mail)
{
    struct letter *letter = malloc(sizeof(*letter));
    ensure(letter && sim_at_node);
    *letter = (struct letter){n, mail};
    sim_after(5, sim_at_node, letter_arrived, letter);
}

int mailbox_init(struct node *n)
{
    return 0;
}

void mailbox_release(struct node *n)
{
}

/* ---- The directory's files
 * --------------------------------------------------------------- */

int __wrap_directory_open(struct directory *ret, const char *path,
                          char error[NODE_ERROR_BYTES]);
struct store_options __wrap_directory_store_options(const struct directory *d);
struct store_options __real_directory_store_options(const struct directory *d);
void __wrap_directory_release(struct directory *d);
int __wrap_directory_mark_removed(const struct directory *d,
                                  char error[NODE_ERROR_BYTES]);

const struct store_io store_io_posix; /* nobody's */
const uint8_t sim_cluster[STORE_CLUSTER_ID_BYTES] = {0x51, 0x12};

int __wrap_directory_open(struct directory *ret, const char *path,
                          char error[NODE_ERROR_BYTES])
{
    struct sim_node *n = sim_at_node;
    *ret = (struct directory){.path = strdup(path),
                              .lock_fd = -1,
                              .node_id = n->id,
                              .segment_bytes = plan.segment_bytes,
                              .members = n->members};
    memcpy(ret->cluster_id, sim_cluster, sizeof(ret->cluster_id));
    strcpy(ret->name, n->name);
    strcpy(ret->listen, n->address);
    strcpy(ret->advertise, n->address);
    n->node = container_of(ret, struct node, directory);
    return 0;
}

void __wrap_directory_release(struct directory *d)
{
    free(d->path);
}

int __wrap_directory_mark_removed(const struct directory *d, char error[NODE_ERROR_BYTES])
{
    sim_at_node->removed = true;
    return 0;
}

struct store_options __wrap_directory_store_options(const struct directory *d)
{
    struct store_options o = __real_directory_store_options(d);
    o.io = sim_disk_io(sim_at_node);
    o.retain_bytes = plan.retain_bytes;
    o.scrub_period_us = plan.scrub_us;
    return o;
}

void recover_clean(const char *data)
{
}

/* ---- The kernel's side of the mount
 * -------------------------------------------------------- */

struct fs_mount {
    struct sim_node *node;
};

int fs_mount_start(struct fs_mount **ret, const struct fs_mount_options *options,
                   const struct fs_backend *backend, char error[FS_ERROR_BYTES])
{
    *ret = calloc(1, sizeof(**ret));
    ensure(*ret);
    (*ret)->node = sim_at_node;
    sim_at_node->backend = backend;
    sim_at_node->orphan = 0;
    return 0;
}

int fs_mount_stop(struct fs_mount *m, bool force)
{
    m->node->backend = NULL;
    m->node->serves = false;
    m->node->orphan = 0;
    while (m->node->readers > 0)
        sim_wait(&m->node->readers, UINT64_MAX);
    return 0;
}

void fs_mount_free(struct fs_mount *m)
{
    free(m);
}

void fs_mount_replaced(struct fs_mount *m)
{
}

/* Who waits for a lock looks again and again. */
void fs_mount_locks_changed(struct fs_mount *m, uint64_t inode)
{
}

/* Of every other one those that are newer are held by some process, until the next one is. */
void fs_mount_orphaned(struct fs_mount *m, uint64_t inode, uint64_t parent,
                       const void *name, size_t size, bool own)
{
    struct sim_node *n = m->node;
    const struct fs_backend *b = n->backend;
    bool sure;
    if (!b)
        return;
    bool holds = inode % 2 && inode > n->orphan; /* what was released is not held again */
    uint64_t released = holds ? n->orphan : inode == n->orphan ? 0 : inode;
    if (holds) {
        n->orphan = inode;
        n->orphan_session = b->session(b->context, &sure);
        fault(orphan_held);
    }
    if (released)
        b->release(b->context, released);
}

void fs_mount_unnamed(struct fs_mount *m, uint64_t parent, const void *name, size_t size)
{
}

unsigned fs_mounts_clean(const char *source)
{
    return 0;
}

/* ---- Not simulated: the control socket, and strangers that join
 * ----------------------------- */

void metrics_write(struct node *n, struct buf *to)
{
    sim_fail("a look at the metrics");
}

void control_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f)
{
    sim_fail("a control frame");
}

void control_tick(struct node *n)
{
}

void control_closed(struct node *n, struct wire_connection *c)
{
}

void join_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f)
{
    sim_fail("a JOIN frame");
}

void control_backups_unpin(struct node *n)
{
}

void control_backups_release(struct node *n)
{
}
