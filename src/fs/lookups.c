/* lookups.c - open addressing, probed one after another; what is removed leaves no gap. */
#include "lookups.h"

enum { ROOM_FIRST = 4 };

static uint64_t hash_of(uint64_t inode)
{
    return inode * 0x9e3779b97f4a7c15u;
}

static struct lookup_shard *shard_of(struct lookups *l, uint64_t inode)
{
    return &l->shards[hash_of(inode) >> 54];
}

_Static_assert(LOOKUP_SHARDS == 1 << (64 - 54), "the hash's highest bits say which");

static uint32_t slot_of(const struct lookup_shard *s, uint64_t inode)
{
    return (uint32_t)(hash_of(inode) >> 22) & (s->room - 1);
}

/* Where it is, or the free place where it would be. */
static struct lookup *place_of(const struct lookup_shard *s, uint64_t inode)
{
    uint32_t i = slot_of(s, inode);
    while (s->at[i].inode && s->at[i].inode != inode)
        i = (i + 1) & (s->room - 1);
    return &s->at[i];
}

static void resize(struct lookup_shard *s, uint32_t room)
{
    struct lookup_shard new = {.room = room, .used = s->used};
    new.at = calloc(room, sizeof(*new.at));
    if (!new.at)
        log_fatal("out of memory for what the kernel has looked up");
    for (uint32_t i = 0; i < s->room; i++)
        if (s->at[i].inode)
            *place_of(&new, s->at[i].inode) = s->at[i];
    free(s->at);
    *s = new;
}

struct lookup *lookups_find(struct lookups *l, uint64_t inode)
{
    const struct lookup_shard *s = shard_of(l, inode);
    struct lookup *found = s->room ? place_of(s, inode) : NULL;
    return found && found->inode ? found : NULL;
}

struct lookup *lookups_get(struct lookups *l, uint64_t inode)
{
    ensure(inode);
    struct lookup_shard *s = shard_of(l, inode);
    struct lookup *found = lookups_find(l, inode);
    if (found)
        return found;
    if (4 * (s->used + 1) > 3 * s->room)
        resize(s, s->room ? 2 * s->room : ROOM_FIRST);
    found = place_of(s, inode);
    *found = (struct lookup){.inode = inode};
    s->used++;
    l->count++;
    return found;
}

/* Moves those behind it up, as far as their own places allow. */
static void close_gap(struct lookup_shard *s, uint32_t gap)
{
    uint32_t mask = s->room - 1;
    for (uint32_t i = (gap + 1) & mask; s->at[i].inode; i = (i + 1) & mask) {
        uint32_t home = slot_of(s, s->at[i].inode);
        if (((i - home) & mask) < ((i - gap) & mask))
            continue; /* its own place lies behind the gap */
        s->at[gap] = s->at[i];
        gap = i;
    }
    s->at[gap] = (struct lookup){0};
}

void lookups_remove(struct lookups *l, struct lookup *lookup)
{
    struct lookup_shard *s = shard_of(l, lookup->inode);
    close_gap(s, (uint32_t)(lookup - s->at));
    s->used--;
    l->count--;
    if (s->room > ROOM_FIRST && 8 * s->used < s->room)
        resize(s, s->room / 2);
}

void lookups_release(struct lookups *l)
{
    for (size_t i = 0; i < LOOKUP_SHARDS; i++)
        free(l->shards[i].at);
    *l = (struct lookups){0};
}
