/* position.c - places in a directory, as numbers: see position.h. */
#include "position.h"

#include <errno.h>

enum { TAIL_BYTES = 5, TAIL_BITS = 8 * TAIL_BYTES };

enum { SLOT_BYTES = sizeof(uint32_t), LOAD = 2, SLOTS_LEAST = 16 };

/* What a prefix takes beside its bytes: its end, and at most four slots. */
enum { PREFIX_BYTES = sizeof(uint32_t) + 2 * LOAD * SLOT_BYTES };
enum { PREFIXES_MOST = POSITION_BYTES / PREFIX_BYTES, NUMBERS = (1 << 23) - 2 };
_Static_assert(3 * PREFIXES_MOST < NUMBERS, "numbers of prefixes that are kept differ");

/* ---- Places ---- */

void position_set(struct position *p, const void *name, size_t size)
{
    ensure(size <= sizeof(p->bytes));
    memcpy(p->bytes, name, size);
    p->size = (uint16_t)size;
    p->beyond = false;
}

bool position_is_before(const struct position *p, const void *name, size_t size)
{
    int order = memcmp(name, p->bytes, min_u64(size, p->size));
    if (order)
        return order > 0;
    return size > p->size && !p->beyond;
}

/* ---- Prefixes ---- */

static size_t prefixes_count(const struct prefixes *p)
{
    return p->ends.length / sizeof(uint32_t);
}

static uint32_t prefix_end(const struct prefixes *p, size_t i)
{
    return get_u32(p->ends.data + i * sizeof(uint32_t));
}

static const uint8_t *prefix_at(const struct prefixes *p, size_t i, size_t *ret_size)
{
    uint32_t begin = i ? prefix_end(p, i - 1) : 0;
    *ret_size = prefix_end(p, i) - begin;
    return p->bytes.data + begin;
}

/* NULL: it is not among them. */
static const uint8_t *prefix_in(const struct prefixes *p, uint64_t number,
                                size_t *ret_size)
{
    if (number < p->first || number - p->first >= prefixes_count(p))
        return NULL;
    return prefix_at(p, number - p->first, ret_size);
}

static const uint8_t *prefix_get(const struct positions *all, uint64_t number,
                                 size_t *ret_size)
{
    const uint8_t *found = prefix_in(&all->now, number, ret_size);
    return found ? found : prefix_in(&all->former, number, ret_size);
}

/* The older half goes. */
static void prefixes_turn(struct positions *all)
{
    struct prefixes empty = all->former;
    buf_clear(&empty.bytes);
    buf_clear(&empty.ends);
    buf_clear(&empty.slots);
    all->former = all->now;
    all->now = empty;
    all->now.first = all->former.first + prefixes_count(&all->former);
    if (all->now.first + PREFIXES_MOST > NUMBERS)
        all->now.first = 0;
    all->depth = 0;
}

/* The slot where it is, or is to be. */
static uint8_t *prefix_slot(const struct prefixes *p, const void *prefix, size_t size)
{
    size_t slots = p->slots.length / SLOT_BYTES, length;
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)prefix)[i]) * 0x100000001b3;
    for (size_t i = hash ^ hash >> 32;; i++) {
        uint8_t *slot = p->slots.data + i % slots * SLOT_BYTES;
        uint32_t number = get_u32(slot);
        if (!number)
            return slot;
        const uint8_t *other = prefix_at(p, number - 1, &length);
        if (length == size && memcmp(other, prefix, size) == 0)
            return slot;
    }
}

/* Makes room for one more. */
static int prefixes_grow(struct prefixes *p, size_t size)
{
    size_t slots = p->slots.length / SLOT_BYTES, count = prefixes_count(p), length;
    buf_reserve(&p->bytes, size + 1); /* the empty one is not NULL */
    buf_reserve(&p->ends, sizeof(uint32_t));
    if (LOAD * (count + 1) > slots) {
        slots = max_u64(SLOTS_LEAST, 2 * slots);
        buf_clear(&p->slots);
        uint8_t *data = buf_extend(&p->slots, slots * SLOT_BYTES);
        if (data)
            memset(data, 0, slots * SLOT_BYTES);
        for (size_t i = 0; data && i < count; i++) {
            const uint8_t *prefix = prefix_at(p, i, &length);
            put_u32(prefix_slot(p, prefix, length), (uint32_t)i + 1);
        }
    }
    return p->bytes.failed || p->ends.failed || p->slots.failed ? -ENOMEM : 0;
}

/* The number of a prefix, which is added where it is not there yet. */
static int prefix_number(struct positions *all, const void *prefix, size_t size,
                         uint64_t *ret)
{
    struct prefixes *p = &all->now;
    if (p->bytes.length + (prefixes_count(p) + 1) * PREFIX_BYTES + size > POSITION_BYTES)
        prefixes_turn(all);
    int error = prefixes_grow(p, size);
    if (error)
        return error;
    uint8_t *slot = prefix_slot(p, prefix, size);
    if (!get_u32(slot)) {
        buf_bytes(&p->bytes, prefix, size);
        buf_u32(&p->ends, (uint32_t)p->bytes.length);
        put_u32(slot, (uint32_t)prefixes_count(p));
    }
    *ret = p->first + get_u32(slot) - 1;
    return 0;
}

/* ---- Numbers ---- */

static size_t common_bytes(const uint8_t *a, size_t a_size, const uint8_t *b,
                           size_t b_size)
{
    size_t i = 0;
    while (i < a_size && i < b_size && a[i] == b[i])
        i++;
    return i;
}

/* A prefix of the name, of `least` bytes or more: one that was used for its neighbours
 * where that will do. Names come in ascending order: what the name does not begin with is
 * not needed again. */
static int prefix_for(struct positions *all, const uint8_t *name, size_t size,
                      size_t least, uint64_t *ret, size_t *ret_size)
{
    while (all->depth) {
        uint64_t number = all->active[all->depth - 1];
        size_t length;
        const uint8_t *prefix = prefix_get(all, number, &length);
        if (prefix && length <= size && memcmp(prefix, name, length) == 0) {
            if (length < least)
                break;
            *ret = number;
            *ret_size = length;
            return 0;
        }
        all->depth--;
    }
    int error = prefix_number(all, name, least, ret);
    if (error)
        return error;
    if (all->depth == POSITION_DEPTH)
        all->depth--;
    all->active[all->depth++] = *ret;
    *ret_size = least;
    return 0;
}

int positions_number(struct positions *all, const void *name, size_t size,
                     const void *next, size_t next_size, uint64_t *ret)
{
    uint64_t prefix, tail = 0;
    size_t skip;
    size_t same = next ? common_bytes(name, size, next, next_size) : 0;
    size_t least = same < TAIL_BYTES ? 0 : same + 1 - TAIL_BYTES;
    int error = prefix_for(all, name, size, least, &prefix, &skip);
    if (error)
        return error;
    const uint8_t *bytes = name;
    for (size_t i = skip; i < skip + TAIL_BYTES; i++)
        tail = tail << 8 | (i < size ? bytes[i] : 0);
    *ret = (prefix + 1) << TAIL_BITS | tail;
    return 0;
}

int positions_find(const struct positions *all, uint64_t number, struct position *ret)
{
    size_t size;
    uint64_t prefix = number >> TAIL_BITS;
    const uint8_t *bytes = prefix ? prefix_get(all, prefix - 1, &size) : NULL;
    if (!bytes || size + TAIL_BYTES > LIMIT_NAME_BYTES)
        return -EINVAL;
    position_set(ret, bytes, size);
    for (int shift = TAIL_BITS - 8; shift >= 0; shift -= 8) {
        ret->bytes[ret->size] = (uint8_t)(number >> shift);
        ret->size += ret->bytes[ret->size] != 0;
    }
    ret->beyond = (uint8_t)number != 0;
    return 0;
}

static void prefixes_release(struct prefixes *p)
{
    buf_release(&p->bytes);
    buf_release(&p->ends);
    buf_release(&p->slots);
}

void positions_release(struct positions *all)
{
    prefixes_release(&all->now);
    prefixes_release(&all->former);
    *all = (struct positions){0};
}
