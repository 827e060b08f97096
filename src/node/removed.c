/*
 * removed.c - the nodes that were members once. Their certificates are good still, and
 * their voices must not be heard: from the entry on that removes it, where that is applied,
 * a node is no peer and its connections are turned away. It stops when it hears so, and
 * leaves word in its directory for whoever starts it again.
 *
 * Made of the records `C removed` alone, so that every node has the same.
 */
#include "node_core.h"

#include <errno.h>

/* Where it stands, or would. */
static size_t place_of(const struct removed *r, uint64_t id)
{
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool removed_find(const struct node *n, uint64_t id)
{
    size_t at = place_of(&n->removed, id);
    return at < n->removed.count && n->removed.ids[at] == id;
}

static int note(struct removed *r, uint64_t id)
{
    size_t at = place_of(r, id);
    if (at < r->count && r->ids[at] == id)
        return 0;
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 16;
        uint64_t *ids = reallocarray(r->ids, room, sizeof(*ids));
        if (!ids)
            return -ENOMEM;
        r->ids = ids;
        r->room = room;
    }
    memmove(r->ids + at + 1, r->ids + at, (r->count - at) * sizeof(r->ids[0]));
    r->ids[at] = id;
    r->count++;
    return 0;
}

/* 0: the key is another's. */
static uint64_t id_of(const void *key, size_t key_size)
{
    struct fs_key first;
    cluster_key_removed(&first, 0);
    if (key_size != first.size || memcmp(key, first.bytes, first.size - 8) != 0)
        return 0;
    return get_be64((const uint8_t *)key + first.size - 8);
}

int removed_note_record(struct node *n, const struct store_record *record)
{
    uint64_t id = record->value ? id_of(record->key, record->key_size) : 0;
    return id ? note(&n->removed, id) : 0;
}

static int each(void *arg, const struct store_item *item)
{
    uint64_t id = id_of(item->key, item->key_size);
    return id ? note(arg, id) : 0;
}

int removed_load(struct node *n)
{
    struct fs_key from, to;
    cluster_key_removed(&from, 1);
    cluster_key_removed(&to, UINT64_MAX);
    return store_scan(n->store, from.bytes, from.size, to.bytes, to.size, each,
                      &n->removed);
}

void removed_release(struct node *n)
{
    free(n->removed.ids);
    n->removed = (struct removed){0};
}

#define WHY "this node was removed from the cluster"

int removed_admit(const struct node *n, uint64_t id, char text[WIRE_ERROR_BYTES])
{
    if (!removed_find(n, id))
        return WIRE_REFUSAL_NONE;
    snprintf(text, WIRE_ERROR_BYTES, WHY);
    return WIRE_REFUSAL_REMOVED;
}

static void turn_away(struct node *n, uint64_t id)
{
    struct wire_connection *c;
    while ((c = wire_find(n->endpoint, id))) {
        peers_forget(n, c);
        node_forget(n, c); /* closed() does not follow */
        wire_turn_away(c, WIRE_REFUSAL_REMOVED, WHY);
    }
}

void removed_applied(struct node *n)
{
    for (size_t i = 0; i < n->removed.count; i++)
        turn_away(n, n->removed.ids[i]);
    peers_refresh(n); /* nor are they guests */
    if (removed_find(n, n->directory.node_id))
        node_removed(n);
}
