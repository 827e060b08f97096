/*
 * check_state.c - V9 and V12: what a node knows is what was committed, up to what it has
 * applied. After every step by a digest that each change of a keydir keeps up; in full
 * now and then. V25: what a mount holds is there.
 */
#include "ledger.h"

#include "store_internal.h"

#include <errno.h>

/* ---- At each step ------------------------------------------------------------------ */

enum { KEYDIRS = 4 }; /* of a node at once: its own, and one that is being installed */

static struct counted {
    const struct map *map; /* NULL: free */
    uint64_t digest;       /* of its keys and their versions */
} counted[SIM_NODES][KEYDIRS];

int __real_map_append(struct map *map, struct keydir_node *node);
int __wrap_map_append(struct map *map, struct keydir_node *node);
struct keydir_node *__real_map_put(struct map *map, struct keydir_node *node);
struct keydir_node *__wrap_map_put(struct map *map, struct keydir_node *node);
struct keydir_node *__real_map_remove(struct map *map, const uint8_t *key, size_t size);
struct keydir_node *__wrap_map_remove(struct map *map, const uint8_t *key, size_t size);
void __real_map_release(struct map *map);
void __wrap_map_release(struct map *map);

static uint64_t digest_of(const struct keydir_node *node)
{
    return ledger_key_digest(keydir_key(node), keydir_key_size(node), node->timestamp_us);
}

/* An empty one where it is new. */
static struct counted *counted_of(const struct sim_node *n, const struct map *map)
{
    struct counted *all = counted[n->number], *free_one = NULL;
    for (int i = 0; i < KEYDIRS; i++) {
        if (all[i].map == map)
            return &all[i];
        if (!all[i].map && !free_one)
            free_one = &all[i];
    }
    ensure(free_one);
    *free_one = (struct counted){.map = map};
    return free_one;
}

static void count(const struct map *map, const struct keydir_node *came,
                  const struct keydir_node *went)
{
    if (!sim_at_node)
        return; /* the world's own: it makes the first entry */
    struct counted *c = counted_of(sim_at_node, map);
    c->digest += (came ? digest_of(came) : 0) - (went ? digest_of(went) : 0);
}

int __wrap_map_append(struct map *map, struct keydir_node *node)
{
    int ret = __real_map_append(map, node);
    if (ret == 0)
        count(map, node, NULL);
    return ret;
}

struct keydir_node *__wrap_map_put(struct map *map, struct keydir_node *node)
{
    struct keydir_node *former = __real_map_put(map, node);
    count(map, node, former);
    return former;
}

struct keydir_node *__wrap_map_remove(struct map *map, const uint8_t *key, size_t size)
{
    struct keydir_node *former = __real_map_remove(map, key, size);
    count(map, NULL, former);
    return former;
}

void __wrap_map_release(struct map *map)
{
    if (sim_at_node)
        counted_of(sim_at_node, map)->map = NULL;
    __real_map_release(map);
}

void verify_forget_state(const struct sim_node *n)
{
    memset(counted[n->number], 0, sizeof(counted[n->number]));
}

/* Until E is applied it lacks what was superseded on the way there (G7). */
static bool is_whole(const struct sim_node *n)
{
    return store_is_ready(n->node->store) && !snapshot_is_installing(n->node);
}

void verify_keydir(const struct sim_node *n)
{
    struct store *s = n->node->store;
    uint64_t at = store_applied(s);
    if (at < 2 || at > ledger_last() || !is_whole(n))
        return;
    if (counted_of(n, &s->keydir->map)->digest != ledger_at(at)->digest)
        sim_fail("V9: the keydir of %s at %llu is not what was committed", n->name,
                 (unsigned long long)at);
}

/* ---- In full ----------------------------------------------------------------------- */

/* A pointer leads to what is committed: to an entry that is applied, or to merged files. */
static void check_place(const struct sim_node *n, const struct keydir_node *node)
{
    const struct store *s = n->node->store;
    uint64_t place = keydir_place(node);
    const struct segment *file = place_segment(s->slots, place);
    if (!file || file->kind != SEGMENT_LOG)
        return;
    uint64_t applied = store_applied(n->node->store);
    if (file->first_index > applied)
        sim_fail("V9: %s points into entry %llu or later, and has applied %llu", n->name,
                 (unsigned long long)file->first_index, (unsigned long long)applied);
    uint64_t next = applied + 1 - file->first_index;
    if (next < file->count && place_offset(place) >= file->offsets[next])
        sim_fail("V9: %s points behind entry %llu, which is the last it has applied",
                 n->name, (unsigned long long)applied);
}

static uint64_t scan_keydir(const struct sim_node *n)
{
    const struct keydir *keydir = n->node->store->keydir;
    struct keydir_cursor cursor;
    uint64_t digest = 0;
    const struct keydir_node *node = keydir_seek(keydir, &cursor, "", 0);
    for (; node; node = keydir_next(&cursor)) {
        check_place(n, node);
        digest += digest_of(node);
    }
    return digest;
}

static uint64_t session_digest(const struct session *s)
{
    uint64_t d =
        ledger_mix(ledger_mix(s->number, s->node_id), ledger_mix(s->nonce, s->highest));
    for (size_t i = 0; i < LIMIT_SESSION_WINDOW; i++) {
        const struct window_slot *slot = session_slot(s, i);
        if (slot && slot->request)
            d += ledger_mix(ledger_mix(slot->request, slot->index),
                            ledger_hash(slot->result, STORE_RESULT_BYTES));
    }
    return d;
}

/* Until an entry changes them, a node that has joined knows the members of its
 * tierce.conf, itself among them. */
static uint64_t state_digest(const struct node *n, uint64_t at)
{
    struct buf members = {0};
    uint64_t d = 0;
    for (const struct session *s = n->sessions; s; s = s->next)
        d += ledger_mix(session_digest(s), 7);
    if (verify_members_since() && at >= verify_members_since())
        members_encode(&n->members_applied, &members);
    d = ledger_mix(d, ledger_hash(members.data, members.length));
    buf_release(&members);
    return d | 1;
}

static bool has_key(struct sim_node *n, const struct fs_key *key)
{
    const struct keydir *keydir = n->node->store->keydir;
    struct keydir_cursor cursor;
    const struct keydir_node *node = keydir_seek(keydir, &cursor, key->bytes, key->size);
    return node && keydir_key_size(node) == key->size &&
           memcmp(keydir_key(node), key->bytes, key->size) == 0;
}

/* V25, for as long as the session lives by which it is held (S8). */
static void check_held(struct sim_node *n)
{
    struct fs_key inode, orphan;
    if (!n->backend || !n->orphan || !session_find(n->node, n->orphan_session))
        return;
    fs_key_inode(&inode, n->orphan);
    fs_key_orphan(&orphan, n->orphan, n->orphan_session);
    if (!has_key(n, &inode) || !has_key(n, &orphan))
        sim_fail("V25: %s holds inode %llu, which has no name, and it is gone", n->name,
                 (unsigned long long)n->orphan);
}

static void check_node(struct sim_node *n)
{
    struct store *s = n->node->store;
    uint64_t at = store_applied(s);
    if (at < 2 || at > ledger_last())
        return;
    verify_merges(n);
    if (!is_whole(n))
        return;
    if (scan_keydir(n) != ledger_at(at)->digest)
        sim_fail("V9: the keydir of %s at %llu is not what was committed", n->name,
                 (unsigned long long)at);
    uint64_t d = state_digest(n->node, at);
    if (ledger_at(at)->state_digest == 0)
        ledger_at(at)->state_digest = d;
    else if (ledger_at(at)->state_digest != d)
        sim_fail("V12: sessions and members of %s at %llu are not those of others",
                 n->name, (unsigned long long)at);
    lockers_check(n);
    check_held(n);
}

void verify_full(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->up || !n->node || !n->node->driver.raft || !n->node->store ||
            !n->serves || loop_has_ended(n))
            continue;
        sim_at_node = n;
        check_node(n);
        sim_at_node = NULL;
    }
}

static int read_item(void *arg, const struct store_item *item)
{
    struct buf *keys = arg;
    buf_u32(keys, item->key_size);
    buf_bytes(keys, item->key, item->key_size);
    return 0;
}

/* Every value, from the disk. Those that rotted are counted: the store hears of them by this,
 * and has them repaired. */
static size_t read_all(struct sim_node *n)
{
    struct store *s = n->node->store;
    size_t bad = 0;
    struct buf value = {0}, keys = {0};
    store_scan(s, NULL, 0, NULL, 0, read_item, &keys);
    for (size_t at = 0; at < keys.length;) {
        uint32_t size = get_u32(keys.data + at);
        const uint8_t *key = keys.data + at + 4;
        at += 4 + size;
        buf_clear(&value);
        int ret = store_get(s, key, size, 0, &value, NULL);
        if (ret == -EBADMSG && n->bad_disk) {
            bad++;
            continue;
        }
        if (ret < 0)
            sim_fail("V9: %s cannot read a value: %s", n->name, strerror(-ret));
        uint64_t hash;
        if (!ledger_value(key, size, &hash) ||
            hash != ledger_hash(value.data, value.length))
            sim_fail("V9: %s has another value than was committed", n->name);
    }
    buf_release(&value);
    buf_release(&keys);
    return bad;
}

struct leftovers {
    struct node *node;
    size_t count;
};

/* A P record: session 0 is for what is to be reclaimed. */
static int look_for_leftover(void *arg, const struct store_item *item)
{
    struct leftovers *l = arg;
    uint64_t session = item->value ? get_u64(item->value) : 0;
    if (session && !session_find(l->node, session))
        l->count++;
    return 0;
}

size_t verify_leftovers(void)
{
    const uint8_t from[1] = {FS_CLASS_CONTENT}, to[1] = {FS_CLASS_CONTENT + 1};
    struct sim_node *n = sim_leader();
    if (!n || !n->up || !n->serves)
        return 1;
    struct leftovers l = {.node = n->node};
    sim_at_node = n;
    store_scan(n->node->store, from, 1, to, 1, look_for_leftover, &l);
    sim_at_node = NULL;
    return l.count;
}

/* An O record that stands for nobody who holds the inode. */
static int look_for_orphan(void *arg, const struct store_item *item)
{
    struct leftovers *l = arg;
    uint64_t inode, session;
    if (!fs_key_is_orphan(item->key, item->key_size, &inode, &session))
        return 0;
    const struct sim_node *holder = sim_of_id(node_of_session(l->node, session));
    if (!holder || holder->orphan != inode || holder->orphan_session != session)
        l->count++;
    return 0;
}

size_t verify_orphans(void)
{
    const uint8_t from[1] = {FS_CLASS_ORPHAN}, to[1] = {FS_CLASS_ORPHAN + 1};
    struct sim_node *n = sim_leader();
    if (!n || !n->up || !n->serves)
        return 1;
    struct leftovers l = {.node = n->node};
    sim_at_node = n;
    store_scan(n->node->store, from, 1, to, 1, look_for_orphan, &l);
    sim_at_node = NULL;
    return l.count;
}

size_t verify_end(void)
{
    size_t bad = 0;
    verify_full();
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->up || !n->node || !n->serves ||
            store_applied(n->node->store) != ledger_last())
            continue;
        sim_at_node = n;
        bad += read_all(n);
        sim_at_node = NULL;
    }
    return bad;
}
