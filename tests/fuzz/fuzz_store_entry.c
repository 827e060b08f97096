/*
 * fuzz_store_entry.c - every decoder of the store: records, entries, segment headers,
 * slots.
 *
 * The first byte chooses the decoder, and whether checksums are put right before (so that
 * the checks behind them are reached too). What is accepted must make sense.
 */
#include "fuzz.h"
#include "store_internal.h"

enum { NEWEST = 2 }; /* a program that reads two formats */

static int each_record(void *arg, const struct store_record *record, uint32_t offset)
{
    ensure(record->key_size >= 1 && record->key_size <= LIMIT_KEY_BYTES);
    ensure(record->value || record->value_size == 0);
    ensure(offset >= STORE_ENTRY_HEADER);
    ++*(uint32_t *)arg;
    return 0;
}

static void try_entry(const uint8_t *data, size_t length)
{
    struct store_entry head, entry;
    bool decoded = store_entry_decode(data, length, &head) == 0;
    bool verified = store_entry_verify(data, length, &entry) == 0;
    ensure(decoded || !verified);
    if (!verified)
        return;
    ensure(entry.length <= length && entry.index == head.index);
    uint32_t count = 0;
    ensure(store_entry_each(data, entry.length, each_record, &count) == 0);
    ensure(count == entry.record_count);
}

static void try_record(const uint8_t *data, size_t length)
{
    struct reader r = reader_of(data, length);
    struct store_record record;
    while (reader_left(&r) > 0 && store_record_read(&r, &record) == 0)
        ensure(record.key >= data && record.key + record.key_size <= r.at);
}

static void try_segment(const uint8_t *data, size_t length)
{
    struct segment_head head;
    uint8_t again[SEGMENT_HEADER];
    if (segment_head_decode(data, length, NEWEST, &head) != 0)
        return;
    segment_head_encode(again, &head);
    ensure(memcmp(again, data, sizeof(again)) == 0);
}

static void try_slots(const uint8_t *data, size_t length)
{
    struct hard_state state, state_again;
    struct commit_hint hint, hint_again;
    uint8_t again[SLOT_BYTES];
    if (hard_state_decode(data, length, NEWEST, &state) == 0) {
        hard_state_encode(again, &state);
        ensure(hard_state_decode(again, sizeof(again), NEWEST, &state_again) == 0);
        ensure(state.term == state_again.term && state.vote == state_again.vote);
    }
    if (commit_hint_decode(data, length, NEWEST, &hint) == 0) {
        commit_hint_encode(again, &hint);
        ensure(commit_hint_decode(again, sizeof(again), NEWEST, &hint_again) == 0);
        ensure(hint.commit == hint_again.commit && hint.term == hint_again.term);
    }
}

/* As far as the sizes can be followed. */
static void put_record_sums_right(uint8_t *data, size_t length)
{
    for (size_t at = 0; length - at >= STORE_RECORD_HEADER;) {
        uint64_t key = get_u32(data + at + 12), value = get_u32(data + at + 16);
        uint64_t size =
            STORE_RECORD_HEADER + key + (value == STORE_TOMBSTONE ? 0 : value);
        if (size > length - at)
            return;
        put_u32(data + at, crc32_of(0, data + at + 4, size - 4));
        at += size;
    }
}

static void put_slot_sum_right(uint8_t *data, size_t length)
{
    if (length >= SLOT_BYTES)
        put_u32(data + 60, crc32_of(0, data, 60));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t length = size - 1;
    uint8_t *copy =
        malloc(length ? length : 1); /* exact, so that a read beyond is seen */
    ensure(copy);
    memcpy(copy, data + 1, length);
    if (data[0] & 4)
        data[0] & 2 ? put_slot_sum_right(copy, length)
                    : put_record_sums_right(copy, length);
    switch (data[0] & 3) {
    case 0:
        try_entry(copy, length);
        break;
    case 1:
        try_record(copy, length);
        break;
    case 2:
        try_segment(copy, length);
        break;
    case 3:
        try_slots(copy, length);
        break;
    }
    free(copy);
    return 0;
}
