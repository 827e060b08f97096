/* tail.c - the newest entries in memory: all that are not applied, and some that are. */
#include "store_internal.h"

static struct tail_entry *slot(const struct tail *tail, size_t i)
{
    return &tail->ring[(tail->start + i) & (tail->capacity - 1)];
}

int tail_reserve(struct tail *tail)
{
    if (tail->count < tail->capacity)
        return 0;
    size_t capacity = tail->capacity ? 2 * tail->capacity : 64;
    struct tail_entry *ring = calloc(capacity, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    for (size_t i = 0; i < tail->count; i++)
        ring[i] = *slot(tail, i);
    free(tail->ring);
    tail->ring = ring;
    tail->capacity = capacity;
    tail->start = 0;
    return 0;
}

void tail_push(struct tail *tail, struct store_bytes *bytes, uint64_t index, bool ahead)
{
    ensure(tail->count < tail->capacity);
    if (tail->count == 0)
        tail->first = index;
    ensure(index == tail->first + tail->count);
    *slot(tail, tail->count++) =
        (struct tail_entry){.bytes = store_bytes_ref(bytes), .ahead = ahead};
    tail->bytes += bytes->length;
}

struct tail_entry *tail_at(const struct tail *tail, uint64_t index)
{
    if (index < tail->first || index - tail->first >= tail->count)
        return NULL;
    return slot(tail, (size_t)(index - tail->first));
}

void tail_pop_last(struct tail *tail)
{
    ensure(tail->count > 0);
    struct tail_entry *last = slot(tail, --tail->count);
    tail->bytes -= last->bytes->length;
    store_bytes_unref(last->bytes);
}

static void pop_first(struct tail *tail)
{
    struct tail_entry *first = slot(tail, 0);
    tail->bytes -= first->bytes->length;
    store_bytes_unref(first->bytes);
    tail->start = (tail->start + 1) & (tail->capacity - 1);
    tail->first++;
    tail->count--;
}

void tail_trim(struct tail *tail, uint64_t applied)
{
    while (tail->count > 0 && tail->bytes > TAIL_CACHE_BYTES && tail->first <= applied)
        pop_first(tail);
}

void tail_drop(struct tail *tail, uint64_t index)
{
    while (tail->count > 0 && tail->first <= index)
        pop_first(tail);
}

void tail_release(struct tail *tail)
{
    while (tail->count > 0)
        pop_first(tail);
    free(tail->ring);
    *tail = (struct tail){0};
}
