/*
 * hole.c - a log that ends before entries which were here (G6): recovery found that what
 * follows its end is damaged, and left it as it is.
 *
 * The leader sends those entries again. They are appended where they stood, with the
 * bytes they had: that is the repair in place. Where the log reaches the first entry of a
 * segment that is there, that file is taken into the log instead of a new one. A crash
 * meanwhile leaves the same hole, or a smaller one. The hole is closed, and what may
 * stand behind the log's end is cut off, newest segment first (G3), when
 *   - the log has reached the last entry that is known to have been here (the claim), or
 *   - an entry of a higher term than the claim's, or a truncation, shows that the entries
 *     behind were never committed and have been replaced.
 */
#include "store_internal.h"

static size_t beyond_left(const struct store *s)
{
    return s->beyond_count - s->beyond_first;
}

static struct segment *next_beyond(const struct store *s)
{
    if (s->claim_index == 0 || beyond_left(s) == 0)
        return NULL;
    struct segment *next = s->beyond[s->beyond_first];
    return next->first_index == s->end.index + 1 ? next : NULL;
}

bool hole_has_room(const struct store *s)
{
    return next_beyond(s) != NULL;
}

size_t hole_close_operations(const struct store *s)
{
    return beyond_left(s) + 1;
}

void hole_close(struct store *s)
{
    while (beyond_left(s) > 0) {
        job_add(s, OP_UNLINK)->segment = s->beyond[--s->beyond_count];
        s->dropped = true;
        s->behind = true;
    }
    if (s->behind)
        log_cut_active(s, s->end.index);
    s->behind = false;
    if (s->claim_index > 0)
        damage_ended_hole(s);
    s->claim_index = s->claim_term = 0;
}

/* Leaves the active segment for the one that holds the next entry. */
static int adopt_next(struct store *s, struct segment *next)
{
    if (store_reserve_segment(s) != 0)
        return -ENOMEM;
    struct segment *former = store_active(s);
    former->limit_bytes = former->used;
    store_add_segment(s, next); /* with the reference */
    s->beyond_first++;
    s->behind = true;
    struct op *op = job_add(s, OP_ROLL);
    op->adopt = true;
    op->segment = segment_ref(former);
    op->next = segment_ref(next);
    op->offset = former->used;
    return 0;
}

static bool is_successor(const struct store *s, const struct segment *next)
{
    return !next->before_known ||
           (next->before.term == s->end.term && next->before.crc == s->end.crc);
}

int hole_before_append(struct store *s, const struct store_entry *head)
{
    if (s->claim_index == 0)
        return 0;
    if (job_reserve(s, hole_close_operations(s) + 3) != 0) /* and roll, and append */
        return -ENOMEM;
    struct segment *next = next_beyond(s);
    if (head->term > s->claim_term || (next && !is_successor(s, next)))
        hole_close(s);
    else if (next)
        return adopt_next(s, next);
    return 0;
}

void hole_after_append(struct store *s)
{
    if (s->claim_index > 0 && s->end.index >= s->claim_index)
        hole_close(s);
}
