/*
 * merge_plan.c - which files a round merges.
 *
 * Each candidate is judged by its share of dead bytes: what is won for what is copied.
 * The log goes from its beginning only, so its candidates are judged by the best prefix:
 * dead segments behind a live one make it worth copying. A round takes the best ones, and
 * those not much worse, until its output is about one segment.
 */
#include "merge.h"

enum {
    SHARE_FULL = 1000, /* thousandths */
    SHARE_MIN = 125,
    SHARE_MIN_LOW = 30, /* where the disk is nearly full */
    SMALL_PART = 8,     /* of a segment */
    SMALL_FILES = 8,
};

/* A header is nothing that merging gives back: a small file would be rewritten for ever.
 */
static uint64_t live_of(const struct segment *segment)
{
    uint64_t live = atomic_load_explicit(&segment->live_bytes, memory_order_relaxed);
    return min_u64(segment->used, SEGMENT_HEADER + live + segment->kept_bytes);
}

static uint64_t share_of(uint64_t dead, uint64_t bytes)
{
    return bytes ? dead * SHARE_FULL / bytes : 0;
}

struct candidate {
    struct segment *segment;
    uint64_t share;
};

struct plan {
    struct store *s;
    struct segment **log; /* may be merged now */
    size_t log_count, log_taken;
    struct candidate *merged; /* the best first */
    size_t merged_count, merged_taken;
    uint64_t live, dead, bytes; /* of what is taken */
    uint64_t behind;            /* dead in the log's best prefix, behind what is taken */
    uint64_t live_max;          /* of the output's records */
    uint64_t dead_min;          /* what makes a round worth it */
    uint64_t share_min;
    bool worn; /* one that is worn is taken */
};

/* Tombstones that may go now are small, and many, and slow down every start: a file of
 * them counts by records. */
static struct candidate candidate_of(struct segment *segment,
                                     const struct manifest_file *file)
{
    uint64_t share = share_of(segment->used - live_of(segment), segment->used);
    if (segment->worn) /* whatever is dead in it */
        share = SHARE_FULL;
    if (segment->kept_bytes == 0)
        share = max_u64(share, share_of(file->tombstones, file->records));
    return (struct candidate){segment, share};
}

static int compare_share(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return (x->share < y->share) - (x->share > y->share);
}

/* The share of the best prefix of what is left of the log, and its dead bytes. */
static uint64_t log_share(const struct plan *p, uint64_t *ret_dead)
{
    uint64_t best = 0, dead = 0, bytes = 0;
    *ret_dead = 0;
    for (size_t i = p->log_taken; i < p->log_count; i++) {
        dead += p->log[i]->used - live_of(p->log[i]);
        bytes += p->log[i]->used;
        if (share_of(dead, bytes) > best) {
            best = share_of(dead, bytes);
            *ret_dead = dead;
        }
    }
    return best;
}

static uint64_t merged_share(const struct plan *p)
{
    return p->merged_taken < p->merged_count ? p->merged[p->merged_taken].share : 0;
}

/* What is copied of it: without its header, for on a full disk even that has no room. */
static uint64_t copied_of(const struct segment *segment)
{
    return live_of(segment) - min_u64(live_of(segment), SEGMENT_HEADER);
}

/* The first one may be larger than a round's output should be, unless the disk is low. */
static bool fits(const struct plan *p, const struct segment *segment)
{
    if (p->log_taken + p->merged_taken >= MERGE_VICTIMS)
        return false;
    bool first = p->bytes == 0 && store_space(p->s) == STORE_SPACE_OK;
    return first || p->live + copied_of(segment) <= p->live_max;
}

static void take(struct plan *p, const struct segment *segment)
{
    p->live += copied_of(segment);
    p->worn = p->worn || segment->worn;
    p->dead += segment->used - live_of(segment);
    p->bytes += segment->used;
}

/* The best first. Once the round is worth it, what is added may be a little worse. */
static void choose(struct plan *p)
{
    bool log_fits = true;
    uint64_t least = p->share_min;
    for (;;) {
        uint64_t prefix_dead, log = log_share(p, &prefix_dead);
        uint64_t merged = merged_share(p);
        if (!log_fits)
            log = 0;
        if (max_u64(log, merged) < least)
            return;
        bool from_log = log >= merged;
        struct segment *next =
            from_log ? p->log[p->log_taken] : p->merged[p->merged_taken].segment;
        if (!fits(p, next)) {
            if (!from_log)
                return; /* those that follow have less to give */
            log_fits = false;
            continue;
        }
        if (p->dead < p->dead_min)
            least = max_u64(p->share_min, max_u64(log, merged) * 3 / 4);
        if (from_log)
            p->behind = prefix_dead - (next->used - live_of(next));
        take(p, next);
        *(from_log ? &p->log_taken : &p->merged_taken) += 1;
    }
}

/* Where small files have become many, they go along: their number stays in proportion to
 * their bytes, and each is copied but a few times until it is not small any more. */
static void add_small(struct plan *p)
{
    size_t count = 0;
    for (size_t i = p->merged_taken; i < p->merged_count; i++)
        count += p->merged[i].segment->used < p->s->segment_bytes / SMALL_PART;
    for (size_t i = p->merged_taken; count >= SMALL_FILES && i < p->merged_count; i++) {
        struct candidate small = p->merged[i];
        if (small.segment->used >= p->s->segment_bytes / SMALL_PART ||
            !fits(p, small.segment))
            continue;
        take(p, small.segment);
        p->merged[i] = p->merged[p->merged_taken];
        p->merged[p->merged_taken++] = small;
    }
}

/* ---- The round --------------------------------------------------------------------- */

static bool fill(struct store *s, struct merge *m, const struct plan *p)
{
    size_t count = p->log_taken + p->merged_taken;
    /* Two that follow each other are larger than a segment together. */
    uint64_t outputs = 3 * (p->bytes / s->segment_bytes + 1);
    m->victims = calloc(count, sizeof(*m->victims));
    m->heap = calloc(count, sizeof(struct merge_source *));
    m->observers = calloc(s->merged_count + 1, sizeof(*m->observers));
    m->outputs = calloc(outputs, sizeof(*m->outputs));
    if (!m->victims || !m->heap || !m->observers || !m->outputs)
        return false;
    for (size_t i = 0; i < p->log_taken; i++)
        m->victims[m->victim_count++].segment = segment_ref(p->log[i]);
    for (size_t i = 0; i < p->merged_taken; i++)
        m->victims[m->victim_count++].segment = segment_ref(p->merged[i].segment);
    for (size_t i = 0; i < m->victim_count; i++)
        atomic_store_explicit(&m->victims[i].segment->merging, true,
                              memory_order_relaxed);
    for (size_t i = 0; i < s->merged_count; i++) {
        if (atomic_load_explicit(&s->merged[i]->merging, memory_order_relaxed))
            continue;
        m->observers[m->observer_count++] = (struct merge_source){
            .segment = segment_ref(s->merged[i]),
            .min_timestamp_us = s->manifest.files[i].min_timestamp_us};
    }
    m->log_count = p->log_taken;
    m->merged = s->base; /* the last hint of the log's victims says more */
    m->first_id = m->next_id = store_new_file_ids(s, outputs);
    m->end_id = m->first_id + outputs;
    return true;
}

static bool is_candidate(const struct segment *segment, uint64_t now_us)
{
    return segment->hurt_until_us <= now_us && segment->hint_bytes > 0;
}

static bool any_worn(const struct store *s, uint64_t now_us)
{
    for (size_t i = 0; i < s->merged_count; i++)
        if (s->merged[i]->worn && is_candidate(s->merged[i], now_us))
            return true;
    return false;
}

static void choose_all(struct plan *p)
{
    p->log_taken = p->merged_taken = 0;
    p->live = p->dead = p->bytes = p->behind = 0;
    p->worn = false;
    choose(p);
    if (p->bytes > 0)
        add_small(p);
}

/* A round that only copies live segments is worth it where the next ones come to what is
 * dead behind them: each such segment is copied once. */
static bool is_worth_it(const struct plan *p, bool due)
{
    return p->bytes > 0 && (p->worn || (due && p->dead + p->behind >= p->dead_min));
}

/* What the manifest takes. */
static bool is_full(const struct store *s)
{
    uint64_t manifest = s->manifest.state_size + 64 * (s->manifest.count + 16);
    return s->stats.disk_free_bytes < 2 * manifest;
}

/* For what may still come before the spare is made again. */
static bool has_room_meanwhile(const struct store *s)
{
    const struct segment *active = store_active(s);
    uint64_t left = active->limit_bytes - min_u64(active->limit_bytes, active->used);
    return left >= min_u64(LIMIT_ENTRY_BYTES, s->segment_bytes / 16);
}

/* On a disk that others have filled no round has room: then the space that is reserved for
 * the log is lent to one. It gives back more than it takes, and the spare is made again. */
static bool plan_with_spare(struct store *s, struct merge *m, struct plan *p)
{
    if (s->spare_state != SPARE_READY || !has_room_meanwhile(s))
        return false;
    uint64_t room = s->stats.disk_free_bytes + s->segment_bytes;
    p->live_max = min_u64(s->segment_bytes, room / 4 * 3);
    choose_all(p);
    if (!is_worth_it(p, true))
        return false;
    m->spare = s->spare;
    s->spare = NULL;
    s->spare_state = SPARE_NONE;
    s->spare_lent = true;
    return true;
}

static void gather(struct plan *p, uint64_t now_us)
{
    struct store *s = p->s;
    for (size_t i = 0; i < s->merged_count; i++) {
        if (is_candidate(s->merged[i], now_us))
            p->merged[p->merged_count++] =
                candidate_of(s->merged[i], &s->manifest.files[i]);
    }
    if (p->merged_count > 0)
        qsort(p->merged, p->merged_count, sizeof(*p->merged), compare_share);
}

bool merge_plan(struct store *s, struct merge *m, uint64_t now_us)
{
    struct space space;
    space_measure(s, &space);
    bool low = store_space(s) == STORE_SPACE_LOW;
    bool due = low || space.dead > space.trigger;
    if (!store_is_ready(s) || (!due && !any_worn(s, now_us)))
        return false;
    struct plan p = {.s = s,
                     .log = s->segments,
                     .log_count = space_mergeable(s, now_us),
                     .live_max = s->segment_bytes,
                     .dead_min = s->segment_bytes / (low ? 64 : 16),
                     .share_min = low ? SHARE_MIN_LOW : SHARE_MIN};
    if (low)
        p.live_max = min_u64(p.live_max, s->stats.disk_free_bytes / 8 * 7);
    p.merged = calloc(s->merged_count + 1, sizeof(*p.merged));
    if (!p.merged)
        return false;
    gather(&p, now_us);
    choose_all(&p);
    bool planned = is_worth_it(&p, due);
    if (low && (!planned || is_full(s)))
        planned = plan_with_spare(s, m, &p);
    planned = planned && fill(s, m, &p);
    free(p.merged);
    return planned;
}
