/*
 * log.c - the loop's side of the log: append, roll, truncate, apply.
 *
 * State in memory changes at once, the disk follows by the operations of the pending job,
 * in the same order. Everything an operation needs is allocated before anything is
 * changed.
 */
#include "store_internal.h"

struct segment *store_active(const struct store *s)
{
    ensure(s->segment_count > 0);
    return s->segments[s->segment_count - 1];
}

struct segment *store_segment_of(const struct store *s, uint64_t index)
{
    ensure(index > s->base.index && index <= s->end.index);
    size_t low = 0, high = s->segment_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (s->segments[middle]->first_index <= index)
            low = middle;
        else
            high = middle;
    }
    return s->segments[low];
}

uint64_t store_new_file_ids(struct store *s, uint64_t count)
{
    return atomic_fetch_add(&s->next_file_id, count);
}

uint64_t store_new_file_id(struct store *s)
{
    return store_new_file_ids(s, 1);
}

int store_reserve_segment(struct store *s)
{
    if (s->segment_count < s->segment_capacity)
        return 0;
    size_t capacity = s->segment_capacity ? 2 * s->segment_capacity : 16;
    struct segment **segments = realloc(s->segments, capacity * sizeof(*segments));
    if (!segments)
        return -ENOMEM;
    s->segments = segments;
    s->segment_capacity = capacity;
    return 0;
}

void store_add_segment(struct store *s, struct segment *segment)
{
    ensure(s->segment_count < s->segment_capacity);
    s->segments[s->segment_count++] = segment;
}

uint64_t store_last_index(const struct store *s)
{
    return s->end.index;
}

uint64_t store_applied(const struct store *s)
{
    return s->applied.index;
}

struct store_point store_applied_point(const struct store *s)
{
    return (struct store_point){.index = s->applied.index,
                                .term = s->applied.term,
                                .timestamp_us = s->applied.timestamp_us,
                                .crc = s->applied.crc};
}

void store_chain(const struct store *s, uint64_t *ret_term, uint32_t *ret_crc,
                 uint64_t *ret_timestamp_us)
{
    *ret_term = s->end.term;
    *ret_crc = s->end.crc;
    *ret_timestamp_us = s->end.timestamp_us;
}

bool store_continues(const struct store *s, const struct store_entry *entry)
{
    return chain_continues(&s->end, entry);
}

uint64_t store_unwritten_bytes(const struct store *s)
{
    return s->unwritten_bytes;
}

/* ---- Room -------------------------------------------------------------------------- */

static uint64_t room_left(const struct segment *segment)
{
    return segment->limit_bytes - min_u64(segment->limit_bytes, segment->used);
}

/* A spare that is being prepared counts where the disk, as last looked at, has its bytes.
 */
static bool can_roll(const struct store *s)
{
    if (s->spare_state == SPARE_PENDING)
        return s->stats.disk_free_bytes >= s->segment_bytes;
    return s->spare_state == SPARE_READY;
}

int store_has_room(const struct store *s, uint64_t length)
{
    if (length <= room_left(store_active(s)) || hole_has_room(s))
        return 0;
    return can_roll(s) && length <= s->segment_bytes - SEGMENT_HEADER ? 0 : -ENOSPC;
}

enum store_space store_space(const struct store *s)
{
    if (s->spare_state == SPARE_NONE ||
        s->stats.disk_free_bytes < RESERVE_SEGMENTS * s->segment_bytes)
        return STORE_SPACE_LOW;
    return STORE_SPACE_OK;
}

/* Reserves a file id for the next spare. */
static struct segment *next_spare(struct store *s)
{
    return segment_new(s, SEGMENT_LOG, store_new_file_id(s));
}

static void ask_for_spare(struct store *s, struct segment *spare)
{
    struct op *op = job_add(s, OP_SPACE);
    if (!spare)
        return;
    ensure(!s->spare);
    s->spare = spare;
    s->spare_state = SPARE_PENDING;
    op->segment = segment_ref(spare);
}

int store_refresh_space(struct store *s)
{
    if (job_reserve(s, 1) != 0)
        return -ENOMEM;
    struct segment *spare = NULL;
    if (!s->spare && !s->spare_lent) {
        spare = next_spare(s);
        if (!spare)
            return -ENOMEM;
    }
    ask_for_spare(s, spare);
    return 0;
}

/* ---- Append ------------------------------------------------------------------------ */

/* Leaves the active segment for the spare, and asks for the next one. */
static int roll(struct store *s)
{
    if (store_reserve_segment(s) != 0 || job_reserve(s, 2) != 0)
        return -ENOMEM;
    struct segment *spare = next_spare(s);
    if (!spare)
        return -ENOMEM;
    ensure(s->spare);
    struct segment *former = store_active(s), *next = s->spare;
    s->spare = NULL;
    s->spare_state = SPARE_NONE;
    next->first_index = s->end.index + 1;
    next->limit_bytes = s->segment_bytes;
    former->limit_bytes = former->used;
    store_add_segment(s, next);
    struct op *op = job_add(s, OP_ROLL);
    op->segment = segment_ref(former);
    op->next = segment_ref(next);
    op->offset = former->used;
    ask_for_spare(s, spare);
    return 0;
}

int store_adopt(struct store *s, struct store_bytes *entry,
                const struct store_entry *head, bool ahead)
{
    struct segment *active = store_active(s);
    if (segment_reserve(active, 1) != 0 || tail_reserve(&s->tail) != 0)
        return -ENOMEM;
    if (ahead && ahead_add(&s->ahead, entry, head->index) != 0)
        return -ENOMEM;
    tail_push(&s->tail, entry, head->index, ahead);
    segment_add(active, (uint32_t)active->used, head->length);
    s->end = chain_after(head);
    return 0;
}

/* Room that a hole had is room all the same where this entry closes it: what lay behind
 * is removed before a spare is made of its space. */
static int make_way(struct store *s, const struct store_entry *head)
{
    bool had_room = hole_has_room(s);
    struct segment *spare = NULL;
    if (had_room && !s->spare && !(spare = next_spare(s)))
        return -ENOMEM;
    int rc = hole_before_append(s, head);
    bool rolls = rc == 0 && head->length > room_left(store_active(s));
    ensure(!rolls || had_room || store_has_room(s, head->length) == 0);
    if (rolls && spare) {
        s->spare = spare;
        s->spare_state = SPARE_PENDING;
    } else {
        segment_unref_unread(spare);
    }
    return rolls ? roll(s) : rc;
}

int store_append(struct store *s, struct store_bytes *entry, bool ahead)
{
    struct store_entry head;
    ensure(!s->installing);
    ensure(store_entry_decode(entry->data, entry->length, &head) == 0);
    ensure(head.length == entry->length);
    ensure(store_continues(s, &head));
    if (make_way(s, &head) != 0)
        return -ENOMEM;
    struct segment *active = store_active(s);
    uint64_t offset = active->used;
    if (job_reserve(s, 1) != 0 || store_adopt(s, entry, &head, ahead) != 0)
        return -ENOMEM;
    struct op *op = job_add(s, OP_APPEND);
    op->segment = segment_ref(active);
    op->bytes = store_bytes_ref(entry);
    op->offset = offset;
    op->index = head.index;
    op->generation = s->generation;
    s->unwritten_bytes += head.length;
    hole_after_append(s);
    check_step(s);
    return 0;
}

void store_set_generation(struct store *s, uint64_t generation)
{
    s->generation = generation;
}

/* ---- Truncate (G3) ----------------------------------------------------------------- */

/* The ahead view of what stays. Nobody leads with a log it drops entries of, but what is
 * ahead stays visible as long as it is there. */
static int ahead_up_to(const struct store *s, uint64_t last, struct skip_list *ret)
{
    skip_init(ret);
    for (uint64_t index = s->applied.index + 1; index <= last; index++) {
        struct tail_entry *entry = tail_at(&s->tail, index);
        if (entry->ahead && ahead_add(ret, entry->bytes, index) != 0) {
            ahead_clear(ret);
            return -ENOMEM;
        }
    }
    return 0;
}

static struct chain chain_at(const struct store *s, uint64_t index)
{
    if (index == s->applied.index)
        return s->applied;
    struct store_entry head;
    struct store_bytes *bytes = tail_at(&s->tail, index)->bytes;
    ensure(store_entry_decode(bytes->data, bytes->length, &head) == 0);
    return chain_after(&head);
}

static void drop_last_segment(struct store *s)
{
    struct segment *last = store_active(s);
    job_add(s, OP_UNLINK)->segment = last; /* with the list's reference */
    s->segment_count--;
    s->dropped = true;
}

/* Takes the entries after `index` out of the last segment. */
void log_cut_active(struct store *s, uint64_t index)
{
    struct segment *active = store_active(s);
    size_t keep = (size_t)(index + 1 - active->first_index);
    if (keep < active->count) {
        active->used = active->offsets[keep];
        active->count = keep;
    }
    active->limit_bytes = s->segment_bytes;
    active->sealed = false;
    struct op *op = job_add(s, OP_TRUNCATE);
    op->segment = segment_ref(active);
    op->offset = active->used;
    op->index = index;
    op->generation = s->generation;
    s->pending->lowest_truncate = min_u64(s->pending->lowest_truncate, index);
}

int store_truncate(struct store *s, uint64_t index, uint64_t generation)
{
    ensure(!s->installing);
    ensure(index >= s->applied.index && index <= s->end.index);
    ensure(index >= min_u64(s->hint, s->end.index)); /* the hint may lie beyond a hole */
    struct skip_list ahead;
    if (job_reserve(s, s->segment_count + 1 + hole_close_operations(s)) != 0 ||
        ahead_up_to(s, index, &ahead) != 0)
        return -ENOMEM;
    ahead_clear(&s->ahead);
    s->ahead = ahead;
    s->generation = generation;
    if (s->claim_index > 0)
        hole_close(s);
    struct chain end = chain_at(s, index);
    while (store_active(s)->first_index > index + 1)
        drop_last_segment(s);
    log_cut_active(s, index);
    while (s->end.index > index) {
        tail_pop_last(&s->tail);
        s->end.index--;
    }
    s->end = end;
    s->durable = min_u64(s->durable, index);
    check_step(s);
    return 0;
}

/* ---- Small files ------------------------------------------------------------------- */

int store_set_hard_state(struct store *s, uint64_t term, uint64_t vote)
{
    if (job_reserve(s, 1) != 0)
        return -ENOMEM;
    struct op *op = job_add(s, OP_HARD_STATE);
    op->sequence = ++s->hard_sequence;
    op->term = term;
    op->vote = vote;
    return 0;
}

/* Of the last one that is applied, or a later one: those are all in memory. */
static uint64_t term_at(const struct store *s, uint64_t index)
{
    if (index == s->applied.index)
        return s->applied.term;
    const struct tail_entry *entry = tail_at(&s->tail, index);
    ensure(entry);
    struct store_entry head;
    ensure(store_entry_decode(entry->bytes->data, entry->bytes->length, &head) == 0);
    return head.term;
}

/* Everything up to a hint is on disk before it: operations are in order (G6). */
int store_set_commit_hint(struct store *s, uint64_t commit)
{
    ensure(commit >= s->applied.index && commit <= s->end.index);
    if (commit <= s->hint)
        return 0;
    if (job_reserve(s, 1) != 0)
        return -ENOMEM;
    struct op *op = job_add(s, OP_COMMIT_HINT);
    s->hint = commit;
    s->hint_slot = !s->hint_slot;
    op->index = commit;
    op->term = term_at(s, commit);
    op->sequence = (uint64_t)s->hint_slot;
    return 0;
}

/* ---- Apply ------------------------------------------------------------------------- */

struct store_bytes *store_entry_cached(struct store *s, uint64_t index)
{
    struct tail_entry *entry = tail_at(&s->tail, index);
    return entry ? store_bytes_ref(entry->bytes) : NULL;
}

int store_apply(struct store *s, uint64_t index, struct store_entry *ret_entry,
                struct store_bytes **ret_bytes)
{
    ensure(!s->installing);
    ensure(index == s->applied.index + 1 && index <= s->durable);
    struct store_bytes *entry = tail_at(&s->tail, index)->bytes;
    struct store_entry head;
    ensure(store_entry_decode(entry->data, entry->length, &head) == 0);
    struct segment *segment = store_segment_of(s, index);
    uint32_t offset = segment->offsets[index - segment->first_index];
    struct keydir_change *change;
    if (keydir_prepare(s->keydir, entry, &head, segment, offset, &change) != 0)
        return -ENOMEM;
    __atomic_store_n(&s->sequence, s->sequence + 1, __ATOMIC_RELEASE);
    keydir_commit(s->keydir, change, entry, s->shared);
    __atomic_store_n(&s->sequence, s->sequence + 1, __ATOMIC_RELEASE);
    ahead_applied(&s->ahead, entry, index);
    s->applied = chain_after(&head);
    if (ret_entry)
        *ret_entry = head;
    if (ret_bytes)
        *ret_bytes = store_bytes_ref(entry);
    tail_trim(&s->tail, s->applied.index);
    check_step(s);
    return 0;
}
