/*
 * space.c - how much is on disk, how much of it is dead, how much of the log must stay.
 *
 * The promise is: never more than twice the live bytes, and two segments (the active one
 * and the spare). What is neither a live record nor its share of the hints is *dead*: as
 * many bytes as are live, less their hints, may be. A merge is due some segments before,
 * and not before half of that in a small store: the room in which it makes its output,
 * while writers go on. The later, the more it wins for what it copies. Where records are
 * so small that their hints fill that room, a quarter of the live bytes must be dead all
 * the same: else every byte were copied again and again for nothing.
 */
#include "store_internal.h"

enum { ROOM_SEGMENTS = 4 };

void space_measure(const struct store *s, struct space *ret)
{
    struct space space = {.live = s->keydir->live_bytes};
    for (size_t i = 0; i + 1 < s->segment_count; i++) {
        space.data += s->segments[i]->used;
        space.hints += s->segments[i]->hint_bytes;
    }
    for (size_t i = 0; i < s->merged_count; i++) {
        space.data += s->merged[i]->used;
        space.hints += s->merged[i]->hint_bytes;
    }
    /* The active segment's live bytes are none of these. */
    const struct segment *active = store_active(s);
    uint64_t live =
        space.live - min_u64(space.live, atomic_load_explicit(&active->live_bytes,
                                                              memory_order_relaxed));
    uint64_t dead = space.data - min_u64(space.data, live);
    uint64_t live_hints = 0;
    if (space.data > 0)
        live_hints = (uint64_t)((double)space.hints * (double)(space.data - dead) /
                                (double)space.data);
    space.dead = dead + space.hints - live_hints;
    space.bound = space.live - min_u64(space.live, live_hints);
    uint64_t room = max_u64(ROOM_SEGMENTS * s->segment_bytes, space.live / 4);
    space.trigger = max_u64(space.bound - min_u64(space.bound, room),
                            space.live / 2 - min_u64(space.live / 2, live_hints));
    space.trigger = max_u64(space.trigger, space.live / 4);
    *ret = space;
}

/* From where the merge is due to half-way to the bound, in thousandths: the other half is
 * for what is written while the fastest merge goes on. */
static uint32_t hurry_of(const struct store *s, const struct space *space)
{
    if (store_space(s) == STORE_SPACE_LOW)
        return HURRY_FULL;
    if (space->dead <= space->trigger)
        return 0;
    uint64_t over = space->dead - space->trigger;
    uint64_t width = space->bound - min_u64(space->bound, space->trigger);
    width = max_u64(width, s->segment_bytes) / 2;
    return over >= width ? HURRY_FULL : (uint32_t)(over * HURRY_FULL / width);
}

void space_update(struct store *s)
{
    struct space space;
    space_measure(s, &space);
    atomic_store_explicit(&s->merge_hurry, hurry_of(s, &space), memory_order_relaxed);
}

/* ---- What must stay of the log ----------------------------------------------------- */

void store_set_retention(struct store *s, uint64_t keep_from)
{
    s->keep_from = keep_from;
}

int store_pin_log(struct store *s, uint64_t first, struct store_pin **ret)
{
    if (first <= s->base.index || first > s->end.index + 1)
        return -ENOENT;
    struct store_pin *pin = calloc(1, sizeof(*pin));
    if (!pin)
        return -ENOMEM;
    pin->first = first;
    pin->next = s->pins;
    s->pins = pin;
    *ret = pin;
    return 0;
}

void store_unpin_log(struct store *s, struct store_pin *pin)
{
    if (!pin)
        return;
    struct store_pin **at = &s->pins;
    while (*at != pin) {
        ensure(*at);
        at = &(*at)->next;
    }
    *at = pin->next;
    free(pin);
}

bool space_is_sealed(const struct store *s, size_t i)
{
    return i + 1 < s->segment_count && s->segments[i]->sealed;
}

static uint64_t lowest_pin(const struct store *s)
{
    uint64_t lowest = UINT64_MAX;
    for (const struct store_pin *pin = s->pins; pin; pin = pin->next)
        lowest = min_u64(lowest, pin->first);
    return lowest;
}

static uint64_t log_bytes(const struct store *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->segment_count; i++)
        bytes += s->segments[i]->used;
    return bytes;
}

/* A segment goes only when it is applied and hinted, no transfer reads it, and either no
 * member that is behind needs it, or there is more than enough of the log behind it (G8).
 */
size_t space_mergeable(const struct store *s, uint64_t now_us)
{
    uint64_t applied = min_u64(s->applied.index, lowest_pin(s) - 1);
    uint64_t behind = log_bytes(s);
    size_t count = 0;
    for (; space_is_sealed(s, count); count++) {
        const struct segment *segment = s->segments[count];
        uint64_t last = segment_last(segment);
        behind -= segment->used;
        if (last > applied || segment->hint_bytes == 0 ||
            segment->hurt_until_us > now_us ||
            (last >= s->keep_from && behind < s->retain_bytes))
            break;
    }
    return count;
}
