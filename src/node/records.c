/*
 * records.c - the name space asks for items and puts records, the store has them: the
 * same in each other's terms.
 */
#include "node_internal.h"

struct item_adapter {
    int (*each)(void *arg, const struct fs_item *item);
    void *arg;
};

static int adapt_item(void *arg, const struct store_item *item)
{
    struct item_adapter *a = arg;
    struct fs_item out = {item->key, item->key_size, item->value, item->value_size,
                          item->timestamp_us};
    return a->each(a->arg, &out);
}

int records_scan(store_scan_fn *scan, struct store *s, const void *from, size_t from_size,
                 const void *to, size_t to_size,
                 int (*each)(void *arg, const struct fs_item *item), void *arg)
{
    struct item_adapter a = {each, arg};
    return scan(s, from, from_size, to, to_size, adapt_item, &a);
}

static uint64_t put(void *context, const void *key, size_t key_size, const void *value,
                    size_t value_size)
{
    return store_builder_put(context, key, key_size, value, value_size);
}

struct fs_change records_change(struct store_builder *b, uint64_t timestamp_us)
{
    return (struct fs_change){.context = b,
                              .put = put,
                              .timestamp_us = timestamp_us,
                              .records = b->record_count};
}
