/* extent.c - reading slots, extents and names, for evaluation and for readers alike. */
#include "extent.h"

#include <errno.h>

uint64_t trims_floor(const uint8_t *trims, uint32_t count, uint64_t offset)
{
    uint64_t floor = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (get_u64(trims + i * TRIM_RECORD_BYTES) > offset)
            break;
        floor = get_u64(trims + i * TRIM_RECORD_BYTES + 8);
    }
    return floor;
}

struct slot_scan {
    struct slot *slot;
    uint64_t floor;
    uint32_t end; /* of the extent before */
};

static int slot_item(void *arg, const struct fs_item *item)
{
    struct slot_scan *scan = arg;
    struct slot *slot = scan->slot;
    if (item->key_size != 17)
        return -EBADMSG;
    uint64_t start = get_be64(item->key + 9) - slot->offset;
    uint64_t length = item->value_size;
    if (start % GRAIN_BYTES || start < scan->end || length == 0 ||
        start + length > SLOT_BYTES || (length > GRAIN_BYTES && length % GRAIN_BYTES))
        return -EBADMSG;
    scan->end = (uint32_t)(start + length);
    slot->extents[slot->count++] = (struct extent){
        .start = (uint32_t)start,
        .length = (uint32_t)length,
        .timestamp_us = item->timestamp_us,
        .is_void = item->timestamp_us < scan->floor,
    };
    return 0;
}

int slot_load(const struct fs_view *view, uint64_t content, uint64_t offset,
              uint64_t floor, struct slot *ret)
{
    ensure(offset % SLOT_BYTES == 0);
    *ret = (struct slot){.content = content, .offset = offset};
    struct slot_scan scan = {.slot = ret, .floor = floor};
    struct fs_key from, to;
    fs_key_extent(&from, content, offset);
    fs_key_extent(&to, content, offset + SLOT_BYTES);
    return view->scan(view->context, from.bytes, from.size, to.bytes, to.size, slot_item,
                      &scan);
}

int extent_get(const struct fs_view *view, const struct slot *slot,
               const struct extent *extent, struct buf *scratch)
{
    struct fs_key key;
    uint64_t timestamp;
    fs_key_extent(&key, slot->content, slot->offset + extent->start);
    buf_clear(scratch);
    int error = view->get(view->context, key.bytes, key.size, scratch, &timestamp);
    if (error)
        return error;
    if (scratch->failed)
        return -ENOMEM;
    if (scratch->length != extent->length || timestamp != extent->timestamp_us)
        return -EBADMSG;
    return 0;
}

bool name_value_read(const uint8_t *value, size_t size, uint64_t *ret_inode,
                     uint8_t *ret_type)
{
    if (!value || size != NAME_VALUE_BYTES)
        return false;
    *ret_inode = get_u64(value);
    *ret_type = value[8];
    return *ret_inode != 0;
}

int name_get(const struct fs_view *view, uint64_t parent, const void *name,
             size_t name_size, uint64_t *ret_inode, uint8_t *ret_type)
{
    struct fs_key key;
    uint64_t timestamp, inode;
    uint8_t type;
    struct buf value = {0};
    if (name_size > LIMIT_NAME_BYTES)
        return -ENAMETOOLONG;
    fs_key_name(&key, parent, name, name_size);
    int error = view->get(view->context, key.bytes, key.size, &value, &timestamp);
    if (error == 0 && value.failed)
        error = -ENOMEM;
    if (error == 0 && !name_value_read(value.data, value.length, &inode, &type))
        error = -EBADMSG;
    buf_release(&value);
    if (error)
        return error;
    *ret_inode = inode;
    *ret_type = type;
    return 0;
}
