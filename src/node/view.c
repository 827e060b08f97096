/*
 * view.c - how other threads read the store: what mount, control socket and joins see.
 *
 * While the state lacks what was superseded on the way to where it was merged (G7), a
 * reader waits: `epoch` is odd then, and what was read while it changed does not count. A
 * reader that meets damaged bytes waits for their repair, and reads again (G9).
 */
#include "node_core.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>

/* Of CLOCK_MONOTONIC, for the condition; set by the first wait of a call. */
struct patience {
    bool set;
    struct timespec until;
};

static void patience_begin(const struct gate *g, struct patience *p)
{
    if (p->set)
        return;
    ensure(clock_gettime(CLOCK_MONOTONIC, &p->until) == 0);
    uint64_t ns = (uint64_t)p->until.tv_nsec + g->patience_us % 1000000 * 1000;
    p->until.tv_sec += (time_t)(g->patience_us / 1000000 + ns / 1000000000);
    p->until.tv_nsec = (long)(ns % 1000000000);
    p->set = true;
}

/* With the mutex held. False: it has run out. */
static bool wait_on(struct gate *g, struct patience *p)
{
    patience_begin(g, p);
    return pthread_cond_timedwait(&g->changed, &g->mutex, &p->until) != ETIMEDOUT;
}

static bool is_open(uint64_t epoch)
{
    return epoch % 2 == 0;
}

/* -EIO: the state was not complete in time. */
static int pass(struct gate *g, struct patience *p, uint64_t *ret_epoch)
{
    uint64_t epoch = atomic_load(&g->epoch);
    if (!is_open(epoch)) {
        pthread_mutex_lock(&g->mutex);
        bool more = true;
        while (!is_open(epoch = atomic_load(&g->epoch)) && more)
            more = wait_on(g, p);
        pthread_mutex_unlock(&g->mutex);
    }
    *ret_epoch = epoch;
    return is_open(epoch) ? 0 : -EIO;
}

/* Whether to read again: something was repaired since `repairs` was looked at. */
static bool wait_for_repair(struct gate *g, struct patience *p, uint64_t repairs)
{
    pthread_mutex_lock(&g->mutex);
    bool more = true;
    while (atomic_load(&g->repairs) == repairs && (g->repairing || g->told) && more)
        more = wait_on(g, p);
    bool again = more && atomic_load(&g->repairs) != repairs;
    pthread_mutex_unlock(&g->mutex);
    return again;
}

/* ---- The view: any thread ---------------------------------------------------------- */

static int view_get(void *context, const void *key, size_t key_size, struct buf *to,
                    uint64_t *ret_timestamp)
{
    struct node *n = context;
    struct gate *g = &n->gate;
    struct patience patience = {0};
    size_t length = to->length;
    for (;;) {
        uint64_t epoch, repairs = atomic_load(&g->repairs);
        int ret = pass(g, &patience, &epoch);
        if (ret < 0)
            return ret;
        ret = store_get(n->store, key, key_size, 0, to, ret_timestamp);
        bool counts = atomic_load(&g->epoch) == epoch;
        if (counts && ret != -EBADMSG)
            return ret;
        if (counts && !wait_for_repair(g, &patience, repairs))
            return -EIO;
        to->length = length;
    }
}

struct view_scan {
    int (*each)(void *arg, const struct fs_item *item);
    void *arg;
    bool given;
};

static int give_item(void *arg, const struct fs_item *item)
{
    struct view_scan *v = arg;
    v->given = true;
    return v->each(v->arg, item);
}

/* What was given from a state that went meanwhile cannot be taken back: -EIO, and who
 * reads several keys as one sees by view_retry that it is to begin anew. */
static int view_scan(void *context, const void *from, size_t from_size, const void *to,
                     size_t to_size, int (*each)(void *arg, const struct fs_item *item),
                     void *arg)
{
    struct node *n = context;
    struct patience patience = {0};
    for (;;) {
        struct view_scan v = {.each = each, .arg = arg};
        uint64_t epoch;
        int ret = pass(&n->gate, &patience, &epoch);
        if (ret < 0)
            return ret;
        ret = records_scan(store_scan, n->store, from, from_size, to, to_size, give_item,
                           &v);
        if (atomic_load(&n->gate.epoch) == epoch)
            return ret;
        if (v.given)
            return -EIO;
    }
}

static uint64_t view_begin(void *context)
{
    struct node *n = context;
    return store_read_begin(n->store);
}

static bool view_retry(void *context, uint64_t begun)
{
    struct node *n = context;
    return store_read_retry(n->store, begun);
}

/* ---- The loop's side --------------------------------------------------------------- */

void gate_init(struct node *n)
{
    struct gate *g = &n->gate;
    pthread_condattr_t attr;
    pthread_mutex_init(&g->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->changed, &attr);
    pthread_condattr_destroy(&attr);
    g->patience_us = NODE_READ_PATIENCE_US;
    n->view = (struct fs_view){.context = n,
                               .get = view_get,
                               .scan = view_scan,
                               .begin = view_begin,
                               .retry = view_retry};
}

bool gate_is_open(const struct node *n)
{
    return is_open(atomic_load(&n->gate.epoch));
}

void gate_set(struct node *n, bool open)
{
    struct gate *g = &n->gate;
    if (gate_is_open(n) == open)
        return;
    pthread_mutex_lock(&g->mutex);
    atomic_fetch_add(&g->epoch, 1);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

/* Any thread. True: nobody has told of it yet. */
bool gate_note_damage(struct node *n)
{
    struct gate *g = &n->gate;
    pthread_mutex_lock(&g->mutex);
    bool first = !g->told;
    g->told = true;
    pthread_mutex_unlock(&g->mutex);
    return first;
}

void gate_take_damage(struct node *n)
{
    pthread_mutex_lock(&n->gate.mutex);
    n->gate.told = false;
    n->gate.repairing = true; /* until gate_note_repairs says otherwise */
    pthread_mutex_unlock(&n->gate.mutex);
}

void gate_note_repairs(struct node *n, bool repairing, bool repaired)
{
    struct gate *g = &n->gate;
    pthread_mutex_lock(&g->mutex);
    g->repairing = repairing;
    if (repaired)
        atomic_fetch_add(&g->repairs, 1);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}
