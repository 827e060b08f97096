/*
 * ahead.c - what a leader has appended and not yet applied: for every key the newest
 * record. A change is evaluated against this laid over the keydir. The loop alone uses
 * it.
 */
#include "store_internal.h"

const struct ahead_node *ahead_node_of(const struct skip_node *node)
{
    return container_of(node, struct ahead_node, skip);
}

static void node_free(struct skip_node *node)
{
    if (!node)
        return;
    struct ahead_node *ahead = container_of(node, struct ahead_node, skip);
    store_bytes_unref(ahead->bytes);
    free(ahead);
}

struct adding {
    struct skip_list *list;
    struct store_bytes *bytes;
    uint64_t index;
    struct skip_node *made; /* chained by next[0] */
};

static int make_node(void *arg, const struct store_record *record, uint32_t offset)
{
    struct adding *a = arg;
    unsigned height = skip_draw_height(a->list);
    struct ahead_node *node =
        malloc(sizeof(*node) + skip_extra(height, record->key_size));
    if (!node)
        return -ENOMEM;
    node->index = a->index;
    node->timestamp_us = record->timestamp_us;
    node->bytes = store_bytes_ref(a->bytes);
    node->value = record->value;
    node->value_size = record->value_size;
    skip_node_init(&node->skip, height, record->key, record->key_size);
    node->skip.next[0] = a->made;
    a->made = &node->skip;
    return 0;
}

int ahead_add(struct skip_list *ahead, struct store_bytes *entry, uint64_t index)
{
    struct adding a = {.list = ahead, .bytes = entry, .index = index};
    int rc = store_entry_each(entry->data, entry->length, make_node, &a);
    while (a.made) {
        struct skip_node *node = a.made;
        a.made = node->next[0];
        node_free(rc == 0 ? skip_put(ahead, node) : node);
    }
    return rc;
}

struct applying {
    struct skip_list *list;
    uint64_t index;
};

static int drop_record(void *arg, const struct store_record *record, uint32_t offset)
{
    struct applying *a = arg;
    struct skip_node *node = skip_find(a->list, record->key, record->key_size);
    if (node && ahead_node_of(node)->index == a->index)
        node_free(skip_remove(a->list, record->key, record->key_size));
    return 0;
}

void ahead_applied(struct skip_list *ahead, const struct store_bytes *entry,
                   uint64_t index)
{
    struct applying a = {.list = ahead, .index = index};
    if (ahead->count > 0)
        store_entry_each(entry->data, entry->length, drop_record, &a);
}

void ahead_clear(struct skip_list *ahead)
{
    for (struct skip_node *at = ahead->head[0]; at;) {
        struct skip_node *next = at->next[0];
        node_free(at);
        at = next;
    }
    memset(ahead->head, 0, sizeof(ahead->head));
    ahead->count = 0;
}
