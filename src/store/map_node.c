/* map_node.c - single nodes of the keydir's map: searched, copied, cut. */
#include "map.h"

#define LOW_BITS  0x0101010101010101u
#define HIGH_BITS 0x8080808080808080u

/* The first `size` bytes, at most 8, as a number that sorts as they do. */
static uint64_t head_of(const uint8_t *bytes, size_t size)
{
    if (size >= 8)
        return get_be64(bytes);
    uint64_t head = 0;
    for (size_t i = 0; i < 8; i++)
        head = head << 8 | (i < size ? bytes[i] : 0);
    return head;
}

uint8_t map_tag(const uint8_t *key, size_t size)
{
    uint64_t hash = size;
    for (; size >= 8; key += 8, size -= 8)
        hash = (hash ^ get_u64(key)) * 0x9e3779b97f4a7c15 ^ hash >> 29;
    hash = (hash ^ head_of(key, size)) * 0x9e3779b97f4a7c15;
    return (uint8_t)(hash >> 56);
}

/* ---- Leaves ------------------------------------------------------------------------ */

static bool is_key(const struct keydir_node *record, const uint8_t *key, size_t size)
{
    return record->key_size == size && memcmp(record->bytes, key, size) == 0;
}

/* Eight tags at a time: a byte of `x` is 0 where the tag is right. A carry may mark a
 * byte behind such a one besides: the key tells. */
int map_leaf_find(const struct map_leaf *leaf, const uint8_t *key, size_t size,
                  uint8_t tag)
{
    for (unsigned first = 0; first < leaf->node.count; first += 8) {
        uint64_t x = get_u64(leaf->tags + first) ^ tag * LOW_BITS;
        uint64_t found = (x - LOW_BITS) & ~x & HIGH_BITS;
        for (; found; found &= found - 1) {
            unsigned at = first + (unsigned)__builtin_ctzll(found) / 8;
            if (at < leaf->node.count &&
                is_key(map_load_record(&leaf->records[at]), key, size))
                return (int)at;
        }
    }
    return -1;
}

unsigned map_leaf_seek(const struct map_leaf *leaf, const uint8_t *key, size_t size)
{
    unsigned low = 0, high = leaf->node.count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct keydir_node *record = map_load_record(&leaf->records[middle]);
        if (key_compare(record->bytes, record->key_size, key, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void map_leaf_set(struct map_leaf *leaf, unsigned at, struct keydir_node *record)
{
    leaf->tags[at] = map_tag(record->bytes, record->key_size);
    leaf->records[at] = record;
}

void map_leaf_slice(struct map_leaf *to, const struct map_leaf *from, unsigned first,
                    unsigned last)
{
    to->node.level = 0;
    to->rising = false;
    to->node.count = (uint16_t)(last - first);
    to->claims = from->claims;
    to->claim_epoch = from->claim_epoch;
    memcpy(to->tags, from->tags + first, last - first);
    memcpy(to->records, from->records + first, (last - first) * sizeof(to->records[0]));
}

void map_leaf_insert(struct map_leaf *leaf, unsigned at, struct keydir_node *record)
{
    unsigned behind = leaf->node.count - at;
    ensure(leaf->node.count < MAP_WIDTH);
    memmove(leaf->tags + at + 1, leaf->tags + at, behind);
    memmove(leaf->records + at + 1, leaf->records + at,
            behind * sizeof(leaf->records[0]));
    map_leaf_set(leaf, at, record);
    leaf->rising = behind == 0;
    leaf->node.count++;
}

void map_leaf_remove(struct map_leaf *leaf, unsigned at)
{
    unsigned behind = leaf->node.count - at - 1;
    memmove(leaf->tags + at, leaf->tags + at + 1, behind);
    memmove(leaf->records + at, leaf->records + at + 1,
            behind * sizeof(leaf->records[0]));
    leaf->node.count--;
}

/* ---- Inner nodes ------------------------------------------------------------------- */

static size_t common(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    size_t size = a_size < b_size ? a_size : b_size, n = 0;
    while (n < size && a[n] == b[n])
        n++;
    return n;
}

/* One byte more than both have in common tells the right one from the left. */
size_t map_separator_size(const struct keydir_node *left, const struct keydir_node *right)
{
    size_t same = common(left->bytes, left->key_size, right->bytes, right->key_size);
    ensure(same < right->key_size);
    return same + 1;
}

void map_inner_settle(struct map_inner *inner)
{
    unsigned count = inner->node.count - 1u;
    inner->prefix = NULL;
    inner->prefix_size = 0;
    if (count == 0)
        return;
    const struct map_separator *first = inner->separators[0];
    const struct map_separator *last = inner->separators[count - 1];
    inner->prefix = first->bytes;
    inner->prefix_size =
        (uint16_t)common(first->bytes, first->size, last->bytes, last->size);
    for (unsigned i = 0; i < count; i++)
        inner->heads[i] = head_of(inner->separators[i]->bytes + inner->prefix_size,
                                  inner->separators[i]->size - inner->prefix_size);
}

unsigned map_inner_seek(const struct map_inner *inner, const uint8_t *key, size_t size)
{
    unsigned low = 0, high = inner->node.count - 1u;
    size_t prefix_size = inner->prefix_size;
    if (prefix_size > 0) {
        size_t common = size < prefix_size ? size : prefix_size;
        int order = common > 0 ? memcmp(key, inner->prefix, common) : 0;
        if (order != 0)
            return order < 0 ? low : high;
        if (size < prefix_size)
            return low;
    }
    uint64_t head = head_of(key + prefix_size, size - prefix_size);
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct map_separator *separator = inner->separators[middle];
        bool below = inner->heads[middle] < head ||
                     (inner->heads[middle] == head &&
                      key_compare(separator->bytes, separator->size, key, size) <= 0);
        low = below ? middle + 1 : low;
        high = below ? high : middle;
    }
    return low;
}
