/* check.c - the invariants I1-I9 of README.md, verified; I10-I13 in check_files.c. */
#include "store_internal.h"

struct check {
    struct store *s;
    bool reading; /* files too */
    struct chain chain;
    struct buf bytes;
    uint64_t *live; /* by slot */
    uint64_t live_bytes;
};

/* Without reading any file. */
static void check_place(struct check *c, const struct keydir_node *node)
{
    const struct store *s = c->s;
    uint64_t place = keydir_place(node), bytes = keydir_record_bytes(node);
    const struct segment *segment = place_segment(s->slots, place);
    ensure(place != PLACE_GONE && segment);
    ensure(place_offset(place) + bytes <= segment->used);
    ensure(!store_is_ready(s) || node->timestamp_us <= s->applied.timestamp_us);
    c->live[segment->slot] += bytes;
    c->live_bytes += bytes;
}

static void check_value(struct check *c, const struct keydir_node *node)
{
    buf_clear(&c->bytes);
    ensure(read_value(c->s, node, 0, &c->bytes) == 0);
    const uint8_t *value = keydir_value(node);
    ensure(!value || node->value_size == 0 ||
           memcmp(value, c->bytes.data, node->value_size) == 0);
}

static uint64_t check_live(struct check *c, const struct segment *segment)
{
    uint64_t bytes = c->live[segment->slot];
    ensure(bytes == atomic_load(&segment->live_bytes));
    c->live[segment->slot] = 0;
    return bytes;
}

/* Where it has not been counted yet. */
static uint64_t check_other_live(struct check *c, const struct keydir_node *node)
{
    const struct segment *segment = place_segment(c->s->slots, keydir_place(node));
    return c->live[segment->slot] > 0 ? check_live(c, segment) : 0;
}

/* I2: a pointer leads to an intact record of its key and timestamp, which is applied, in
 * a file of the lists. I9: the records pointed to are each file's live bytes, and the
 * keydir's. */
static void check_keydir(struct check *c)
{
    static _Thread_local uint64_t live[LIMIT_SEGMENTS]; /* zeros between two checks */
    struct store *s = c->s;
    struct keydir_cursor cursor;
    c->live = live;
    const struct keydir_node *node = keydir_seek(s->keydir, &cursor, "", 0);
    for (; node; node = keydir_next(&cursor)) {
        check_place(c, node);
        if (c->reading)
            check_value(c, node);
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < s->segment_count; i++)
        sum += check_live(c, s->segments[i]);
    for (size_t i = 0; i < s->merged_count; i++)
        sum += check_live(c, s->merged[i]);
    node = keydir_seek(s->keydir, &cursor, "", 0);
    for (; node; node = keydir_next(&cursor)) /* and files of a round that is under way */
        sum += check_other_live(c, node);
    ensure(c->live_bytes == s->keydir->live_bytes && sum == c->live_bytes);
}

/* I3: segments follow each other without a gap, their offsets grow. */
static void check_segments(struct store *s)
{
    uint64_t next = s->base.index + 1, file_id = 0;
    ensure(s->segment_count > 0);
    for (size_t i = 0; i < s->segment_count; i++) {
        const struct segment *segment = s->segments[i];
        ensure(segment->first_index == next);
        ensure(segment->file_id < s->next_file_id);
        uint64_t offset = SEGMENT_HEADER;
        for (size_t k = 0; k < segment->count; k++) {
            ensure(segment->offsets[k] == offset);
            offset += segment_entry_length(segment, segment->first_index + k);
        }
        ensure(offset == segment->used && segment->used <= UINT32_MAX);
        next = segment_last(segment) + 1;
        file_id = max_u64(file_id, segment->file_id);
    }
    ensure(next == s->end.index + 1);
    ensure((s->spare_state == SPARE_NONE) == !s->spare);
    ensure(!s->spare || (s->spare->file_id > file_id && s->spare->count == 0));
}

/* I4: base <= applied <= durable <= end, the hint within. */
static void check_order(const struct store *s)
{
    ensure(s->base.index <= s->applied.index && s->applied.index <= s->durable);
    ensure(s->durable <= s->end.index);
    ensure(s->hint <= max_u64(s->end.index, s->claim_index));
    ensure(s->claim_index == 0 || s->claim_index > s->end.index);
    ensure(s->applied.timestamp_us <= s->end.timestamp_us);
    ensure((s->sequence & 1) == 0);
}

/* I5: what is not applied is in memory; the tail ends where the log does. */
static void check_tail(const struct store *s)
{
    uint64_t bytes = 0;
    ensure(s->tail.count > 0 || s->applied.index == s->end.index);
    if (s->tail.count > 0) {
        ensure(s->tail.first <= s->applied.index + 1);
        ensure(s->tail.first + s->tail.count == s->end.index + 1);
    }
    for (size_t i = 0; i < s->tail.count; i++) {
        uint64_t index = s->tail.first + i;
        const struct store_bytes *entry = tail_at(&s->tail, index)->bytes;
        ensure(entry->length == segment_entry_length(store_segment_of(s, index), index));
        bytes += entry->length;
    }
    ensure(bytes == s->tail.bytes);
}

/* I6: ahead holds what was appended as ahead and is not applied, the newest of each key.
 */
static int check_ahead_record(void *arg, const struct store_record *record,
                              uint32_t offset)
{
    const struct check *c = arg;
    const struct skip_node *node = skip_find(&c->s->ahead, record->key, record->key_size);
    ensure(node && ahead_node_of(node)->timestamp_us >= record->timestamp_us);
    return 0;
}

static void check_ahead(struct check *c)
{
    struct store *s = c->s;
    for (struct skip_node *at = s->ahead.head[0]; at; at = at->next[0]) {
        const struct ahead_node *node = ahead_node_of(at);
        ensure(node->index > s->applied.index && node->index <= s->end.index);
        const struct tail_entry *entry = tail_at(&s->tail, node->index);
        ensure(entry && entry->ahead && entry->bytes == node->bytes);
    }
    for (uint64_t i = s->applied.index + 1; i <= s->end.index; i++) {
        const struct tail_entry *entry = tail_at(&s->tail, i);
        if (entry->ahead)
            store_entry_each(entry->bytes->data, entry->bytes->length, check_ahead_record,
                             c);
    }
}

/* I7: on disk each durable entry is intact, continues the chain, and equals the cached
 * one. */
static void check_entry(struct check *c, uint64_t index)
{
    struct store *s = c->s;
    const struct segment *segment = store_segment_of(s, index);
    uint32_t length = segment_entry_length(segment, index);
    buf_clear(&c->bytes);
    uint8_t *data = buf_extend(&c->bytes, length);
    ensure(data);
    ensure(read_full(s->io, segment->fd, data, length,
                     segment->offsets[index - segment->first_index]) == (ssize_t)length);
    struct store_entry entry;
    ensure(store_entry_verify(data, length, &entry) == 0 && entry.length == length);
    ensure(chain_continues(&c->chain, &entry));
    c->chain = chain_after(&entry);
    const struct tail_entry *cached = tail_at(&s->tail, index);
    ensure(!cached || memcmp(cached->bytes->data, data, length) == 0);
    ensure(index != s->applied.index || c->chain.crc == s->applied.crc);
}

static void check_memory(struct check *c)
{
    struct store *s = c->s;
    keydir_check(s->keydir);
    skip_check(&s->ahead);
    check_segments(s);
    check_order(s);
    check_tail(s);
    check_keydir(c);
    check_ahead(c);
}

void store_check(struct store *s)
{
    struct check c = {.s = s, .reading = true, .chain = s->base};
    check_memory(&c);
    for (uint64_t index = s->base.index + 1; index <= s->durable; index++)
        check_entry(&c, index);
    ensure(s->durable != s->end.index || c.chain.crc == s->end.crc); /* I8 */
    buf_release(&c.bytes);
    check_files(s);
}

#ifdef TIERCE_CHECKS
/* What a running task moves is not looked at. */
void check_step(struct store *s)
{
    struct check c = {.s = s};
    if (s->shared && !s->task && keydir_count(s->keydir) <= CHECK_STEP_KEYS)
        check_memory(&c);
}
#endif
