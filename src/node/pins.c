/*
 * pins.c - snapshots that other nodes fetch from this one: kept from merges until they
 * are done with.
 *
 *   pins_take --> FETCHED chunk by chunk --pins_installed--> FOLLOWED by the log
 *                    |                                          |
 *                    '--it failed, or stands still--> gone <----'--it has caught up
 *
 * A node that asks for a snapshot pins one: merges and truncations leave its files alone,
 * and the log after them. It gets the same again where it comes back in time, so that it
 * goes on where it was cut off. Once it is installed there the files may go, but the log
 * only as far as the node has received it: were a merge to take what was written during a
 * long transfer, the next snapshot would have to follow, and the next.
 *
 * What is kept from merges makes the log grow. So a pin lasts only while the other node
 * gets on, not while it asks for the same again and again; and all of them go where the
 * log has become longer than it is worth: than twice what is live, and some, after which
 * the other node would not catch up by it either; or on a nearly full disk, by what a
 * merge would give back. Then none is made anew before merges have shortened it.
 */
#include "control.h"
#include "node_core.h"

#include <errno.h>

static void unpin(struct node *n, struct pinned *gone)
{
    for (struct pinned **at = &n->pinned; *at; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            break;
        }
    store_snapshot_close(n->store, gone->snapshot);
    store_unpin_log(n->store, gone->log);
    free(gone);
}

/* Of one node there is one that is fetched, or followed. */
static struct pinned *pinned_by(struct node *n, uint64_t peer)
{
    struct pinned *p = n->pinned;
    while (p && (p->peer != peer || p->closed))
        p = p->next;
    return p;
}

/* Of the log. On a nearly full disk what is kept for who is behind (G8) is no reason. */
static bool is_too_much(struct node *n)
{
    struct store_stats stats;
    store_stats(n->store, &stats);
    if (store_space(n->store) == STORE_SPACE_LOW)
        return stats.log_bytes >
               stats.live_bytes + STORE_RETAIN_BYTES + 2 * n->directory.segment_bytes;
    return stats.log_bytes > 2 * stats.live_bytes + n->pins_bytes;
}

static int pin(struct node *n, uint64_t peer, struct pinned **ret)
{
    if (is_too_much(n))
        return -EBUSY;
    struct pinned *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    int error = store_snapshot_open(n->store, &p->snapshot);
    if (error < 0) {
        free(p);
        return error;
    }
    p->base = n->base;
    p->first = n->base + 1;
    p->number = random_u64() | 1;
    p->peer = peer;
    p->used_us = node_now();
    p->next = n->pinned;
    n->pinned = p;
    *ret = p;
    return 0;
}

struct pinned *pins_find(struct node *n, uint64_t peer, uint64_t number)
{
    struct pinned *p = pinned_by(n, peer);
    return p && p->number == number && !p->installed ? p : NULL;
}

struct pinned *pins_still(struct node *n, uint64_t peer)
{
    struct pinned *p = pinned_by(n, peer);
    if (!p || (p->base == n->base && !p->installed))
        return p;
    p->closed = true; /* the log goes on from another one now, or it begins anew */
    return NULL;
}

int pins_take(struct node *n, uint64_t peer, struct pinned **ret)
{
    *ret = pins_still(n, peer);
    return *ret ? 0 : pin(n, peer, ret);
}

void pins_read(struct pinned *p)
{
    p->reading++;
}

void pins_have_read(struct pinned *p, uint32_t file, uint64_t end, int error)
{
    p->reading--;
    /* Damage of what is dead here is repaired by nobody but the merge that leaves it out,
     * and what was merged is what the next snapshot is of. */
    p->closed |= error == -EBADMSG || error == -EIO;
    if (error < 0 || file < p->file || (file == p->file && end <= p->offset))
        return;
    p->file = file;
    p->offset = end;
    p->used_us = node_now();
}

void pins_keep(struct pinned *p)
{
    p->used_us = node_now();
}

void pins_installed(struct pinned *p)
{
    p->installed = true;
    p->used_us = node_now();
}

/* ---- The log behind it ------------------------------------------------------------- */

/* True: the log from `first` on is held, and what is before it is not by this one. */
static bool hold_log(struct node *n, struct pinned *p, uint64_t first)
{
    struct store_pin *log;
    if (store_pin_log(n->store, first, &log) < 0)
        return false;
    store_unpin_log(n->store, p->log);
    p->log = log;
    p->first = first;
    store_snapshot_close(n->store, p->snapshot);
    p->snapshot = NULL;
    return true;
}

/* What the leader knows of it tells how far it has come; what others know is nothing. */
static void follow(struct node *n, struct pinned *p, uint64_t now_us)
{
    struct raft_peer_status status;
    if ((!p->log && !hold_log(n, p, p->first)) ||
        !raft_peer_status(n->driver.raft, p->peer, now_us, &status)) {
        p->closed = true;
        return;
    }
    if (!node_is_leader(n) || status.snapshot || status.match < p->first)
        return;
    if (status.match + NODE_PROMOTE_LAG >= store_last_index(n->store))
        p->closed = true; /* from here on raft_floor() keeps what it needs */
    else if (hold_log(n, p, status.match + 1))
        p->used_us = now_us;
}

void pins_init(struct node *n)
{
    n->pins_bytes = NODE_PINS_BYTES;
}

/* Backups keep the log as well. */
static void give_up_all(struct node *n)
{
    for (struct pinned *p = n->pinned; p; p = p->next) {
        if (!p->closed)
            log_warn("node %016llx does not keep up with what is written here, and its "
                     "snapshot is given up: too much of the log would have to be kept",
                     (unsigned long long)p->peer);
        p->closed = true;
    }
    control_backups_unpin(n);
}

void pins_tick(struct node *n, uint64_t now_us)
{
    if (is_too_much(n))
        give_up_all(n);
    struct pinned *next;
    for (struct pinned *p = n->pinned; p; p = next) {
        next = p->next;
        if (p->reading > 0)
            continue;
        if (p->installed && !p->closed)
            follow(n, p, now_us);
        if (p->closed || now_us - p->used_us > NODE_SNAPSHOT_IDLE_US)
            unpin(n, p);
    }
}

/* Nobody reads. */
void pins_release(struct node *n)
{
    while (n->pinned)
        unpin(n, n->pinned);
}
