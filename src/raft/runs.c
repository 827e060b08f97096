/*
 * runs.c - the log as the core knows it: where each term ends. Memory grows with the
 * changes of term, not with the entries.
 */
#include <errno.h>

#include "raft_internal.h"

enum { RUNS_FIRST = 16 };

/* The first run that reaches `index`; count where none does. */
static size_t runs_locate(const struct runs *l, uint64_t index)
{
    size_t low = 0, high = l->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l->at[middle].last < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void runs_release(struct runs *l)
{
    free(l->at);
    *l = (struct runs){0};
}

int runs_reserve(struct runs *l, size_t more)
{
    if (l->capacity - l->count >= more)
        return 0;
    size_t capacity = max_u64(2 * l->capacity, max_u64(RUNS_FIRST, l->count + more));
    struct raft_run *at = realloc(l->at, capacity * sizeof(*at));
    if (!at)
        return -ENOMEM;
    l->at = at;
    l->capacity = capacity;
    return 0;
}

void runs_append(struct runs *l, uint64_t last, uint64_t term)
{
    ensure(last > runs_last_index(l));
    ensure(term && term >= runs_last_term(l));
    if (l->count && l->at[l->count - 1].term == term) {
        l->at[l->count - 1].last = last;
        return;
    }
    ensure(l->count < l->capacity);
    l->at[l->count++] = (struct raft_run){.last = last, .term = term};
}

void runs_truncate(struct runs *l, uint64_t to)
{
    ensure(to >= l->base_index && to <= runs_last_index(l));
    l->count = runs_locate(l, to + 1);
    if (!l->count && to == l->base_index)
        return;
    uint64_t before = l->count ? l->at[l->count - 1].last : l->base_index;
    if (before < to)
        l->at[l->count++].last = to;
}

void runs_compact(struct runs *l, uint64_t to)
{
    ensure(to >= l->base_index && to <= runs_last_index(l));
    l->base_term = runs_term_of(l, to);
    l->base_index = to;
    size_t gone = runs_locate(l, to + 1);
    l->count -= gone;
    memmove(l->at, l->at + gone, l->count * sizeof(*l->at));
}

void runs_restart(struct runs *l, uint64_t index, uint64_t term)
{
    l->count = 0;
    l->base_index = index;
    l->base_term = term;
}

uint64_t runs_last_index(const struct runs *l)
{
    return l->count ? l->at[l->count - 1].last : l->base_index;
}

uint64_t runs_last_term(const struct runs *l)
{
    return l->count ? l->at[l->count - 1].term : l->base_term;
}

uint64_t runs_term_of(const struct runs *l, uint64_t index)
{
    if (index < l->base_index || index > runs_last_index(l))
        return 0;
    if (index == l->base_index)
        return l->base_term;
    return l->at[runs_locate(l, index)].term;
}

uint64_t runs_newest_at(const struct runs *l, uint64_t index, uint64_t term)
{
    index = min_u64(index, runs_last_index(l));
    if (index <= l->base_index)
        return l->base_index;
    size_t i = runs_locate(l, index);
    if (l->at[i].term <= term)
        return index;
    while (i && l->at[i - 1].term > term)
        i--;
    return i ? l->at[i - 1].last : l->base_index;
}

uint64_t runs_difference(const struct runs *l, uint64_t after, const struct raft_run *at,
                         size_t count)
{
    uint64_t index = max_u64(after, l->base_index) + 1;
    for (size_t i = 0; i < count; i++) {
        while (index <= at[i].last) {
            if (runs_term_of(l, index) != at[i].term)
                return index;
            uint64_t end = l->at[runs_locate(l, index)].last;
            index = min_u64(end, at[i].last) + 1;
        }
    }
    return 0;
}

bool runs_follow(const struct raft_run *at, size_t count, uint64_t index, uint64_t term,
                 uint64_t max)
{
    for (size_t i = 0; i < count; i++) {
        if (at[i].last <= index || at[i].term < term || !at[i].term || at[i].term > max)
            return false;
        index = at[i].last;
        term = at[i].term;
    }
    return true;
}
