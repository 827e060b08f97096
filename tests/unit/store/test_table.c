/*
 * test_table.c - the decision table of recovery (docs/format.md) over all combinations of
 * its inputs: what is damaged and how, the commit hint, what entries say was committed,
 * the state of each hint file, and a manifest. The verdict is worked out here a second
 * time, from what was done to the files. Then the store is used: a torn log goes on, a
 * hole is filled, with a restart in the middle, until all bytes are what they were.
 *
 * White-box: merged files and the manifest are made by hand.
 */
#include "fixture.h"
#include "store_internal.h"

enum { ENTRIES = 8, SEGMENTS = 3, TERM = 9, MERGED = 3, MERGED_ID = 40 };

static const uint64_t last_of[SEGMENTS + 1] = {0, 3, 6, ENTRIES};

enum spoil {
    SPOIL_NOTHING,
    SPOIL_HEAD,   /* the entry record: its length cannot be believed */
    SPOIL_BODY,   /* a data record: the length is intact */
    SPOIL_ZEROS,  /* all of it: a lost write */
    SPOIL_LENGTH, /* the file ends in the middle of it */
    SPOIL_KINDS,
};

enum hint_state {
    HINT_WHOLE,
    HINT_MISSING,
    HINT_CUT,   /* without its end */
    HINT_BLOCK, /* its records are damaged, its trailer is not */
    HINT_STALE, /* of other content */
    HINT_STATES,
};

struct input {
    uint64_t commit_hint, said;
    uint64_t applied; /* E; 0: no manifest */
    bool left_over;   /* what is merged has not been removed */
    uint64_t at;      /* what is spoiled */
    enum spoil spoil;
    enum hint_state hints[SEGMENTS + 1]; /* of segments 1, 2; of the merged file: 0 */
};

static uint64_t term_of(uint64_t index)
{
    return 1 + index / 3;
}

static unsigned segment_of(uint64_t index)
{
    return index <= last_of[1] ? 1 : index <= last_of[2] ? 2 : 3;
}

/* ---- The log as it was ------------------------------------------------------------- */

struct world { /* for each of (said, applied, commit hint) */
    struct fixture f;
    struct store_bytes *entries[ENTRIES + 1];
};

static void key_of(uint64_t index, char key[8])
{
    snprintf(key, 8, "k%u", (unsigned)(index % 3));
}

static char value_byte(uint64_t index)
{
    return (char)('a' + index);
}

static bool is_tombstone(uint64_t index)
{
    return index == 2 || index == 5;
}

static void write_entries(struct world *w, const struct input *in)
{
    static char value[1250];
    for (uint64_t i = 1; i <= ENTRIES; i++) {
        char key[8];
        key_of(i, key);
        memset(value, value_byte(i), sizeof(value));
        struct put put = {key, is_tombstone(i) ? NULL : value,
                          is_tombstone(i) ? 0 : sizeof(value)};
        w->entries[i] = make_entry(w->f.s, term_of(i), min_u64(in->said, i - 1), &put, 1);
        assert_int_equal(store_append(w->f.s, w->entries[i], false), 0);
    }
    assert_int_equal(store_set_hard_state(w->f.s, TERM, 3), 0);
    if (in->commit_hint > 0)
        assert_int_equal(store_set_commit_hint(w->f.s, in->commit_hint), 0);
    run(&w->f);
    assert_int_equal(w->f.s->segment_count, SEGMENTS);
    for (unsigned i = 1; i <= SEGMENTS; i++)
        assert_int_equal(segment_last(w->f.s->segments[i - 1]), last_of[i]);
}

/* The newest entry of this key up to `limit`; 0: none. */
static uint64_t newest(unsigned key, uint64_t limit)
{
    for (uint64_t i = limit; i > 0; i--)
        if (i % 3 == key)
            return i;
    return 0;
}

/* What stays of entries 1 .. MERGED at E: the tombstone does not, as there is nothing
 * older. */
static void merge_by_hand(struct world *w, uint64_t applied)
{
    struct merged_writer *writer;
    struct store *s = w->f.s;
    assert_int_equal(merged_writer_new(s, MERGED_ID, &writer), 0);
    for (unsigned key = 0; key < 3; key++) {
        uint64_t i = newest(key, applied);
        if (i == 0 || i > MERGED || is_tombstone(i))
            continue;
        const struct store_bytes *b = w->entries[i];
        assert_int_equal(merged_writer_put(writer, b->data + STORE_ENTRY_HEADER,
                                           b->length - STORE_ENTRY_HEADER, NULL),
                         0);
    }
    struct manifest_file file;
    uint64_t hint_bytes;
    assert_int_equal(merged_writer_finish(writer, &file, &hint_bytes), 0);
    merged_writer_free(writer);
    struct store_entry last;
    ensure(store_entry_decode(w->entries[MERGED]->data, w->entries[MERGED]->length,
                              &last) == 0);
    uint8_t state[8];
    put_u64(state, applied);
    struct manifest m = {.merged = chain_after(&last),
                         .applied_index = applied,
                         .applied_term = term_of(applied),
                         .first_file = s->segments[1]->file_id,
                         .count = 1,
                         .files = &file,
                         .state = state,
                         .state_size = sizeof(state)};
    assert_int_equal(manifest_write(s, &m, w->f.error), 0);
}

static const char *hint_file(unsigned id)
{
    static char path[64];
    snprintf(path, sizeof(path), "d/log/%016x.hint", id);
    return path;
}

static void world_init(struct world *w, const struct input *in)
{
    fixture_init(&w->f, SMALL_SEGMENT);
    fixture_reopen(&w->f);
    write_entries(w, in);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t bytes;
        struct segment *segment = w->f.s->segments[i];
        assert_int_equal(segment->file_id, i + 1);
        assert_int_equal(hint_build(w->f.s, segment, segment->used, &bytes), 0);
    }
    if (in->applied > 0) {
        merge_by_hand(w, in->applied);
        if (!in->left_over) {
            memory_disk_remove(w->f.disk, segment_file(1));
            memory_disk_remove(w->f.disk, hint_file(1));
        }
    }
    fixture_close(&w->f);
}

static void world_release(struct world *w)
{
    for (unsigned i = 1; i <= ENTRIES; i++)
        store_bytes_unref(w->entries[i]);
    fixture_release(&w->f);
}

/* ---- What is done to it ------------------------------------------------------------ */

static void spoil_entry(struct memory_disk *disk, uint64_t index, enum spoil spoil)
{
    static const uint8_t zeros[2048];
    const char *file = segment_file(segment_of(index));
    uint64_t offset = entry_offset(disk, file, index);
    uint8_t head[STORE_ENTRY_HEADER];
    memory_disk_peek(disk, file, offset, head, sizeof(head));
    uint32_t length = get_u32(head + STORE_RECORD_HEADER + 1 + 72);
    ensure(length < sizeof(zeros));
    if (spoil == SPOIL_HEAD)
        memory_disk_poke(disk, file, offset + 30, "?", 1);
    else if (spoil == SPOIL_BODY)
        memory_disk_poke(disk, file, offset + STORE_ENTRY_HEADER + 5, "?", 1);
    else if (spoil == SPOIL_ZEROS)
        memory_disk_poke(disk, file, offset, zeros, length);
    else
        memory_disk_resize(disk, file, offset + length - 3);
}

static void spoil_hint(struct memory_disk *disk, unsigned id, enum hint_state state)
{
    const char *path = hint_file(id);
    uint8_t byte;
    if (state == HINT_MISSING) {
        memory_disk_remove(disk, path);
    } else if (state == HINT_CUT) {
        memory_disk_resize(disk, path, memory_disk_size(disk, path) - 1);
    } else if (state == HINT_BLOCK || state == HINT_STALE) {
        uint64_t at = state == HINT_BLOCK ? SEGMENT_HEADER + 12 : 40;
        memory_disk_peek(disk, path, at, &byte, 1);
        byte ^= 1;
        memory_disk_poke(disk, path, at, &byte, 1);
        uint8_t head[SEGMENT_HEADER];
        memory_disk_peek(disk, path, 0, head, sizeof(head));
        put_u32(head + 60, crc32_of(0, head, 60)); /* intact, of another length */
        memory_disk_poke(disk, path, 0, head, sizeof(head));
    }
}

static bool has_segment(const struct input *in, unsigned i)
{
    return i > 1 || in->applied == 0;
}

static void damage(struct fixture *f, const struct input *in)
{
    if (in->spoil != SPOIL_NOTHING)
        spoil_entry(f->disk, in->at, in->spoil);
    for (unsigned i = 1; i <= 2; i++)
        if (has_segment(in, i))
            spoil_hint(f->disk, i, in->hints[i]);
    if (in->applied > 0)
        spoil_hint(f->disk, MERGED_ID, in->hints[0]);
}

/* ---- What that must come to -------------------------------------------------------- */

struct verdict {
    uint64_t hinted; /* entries up to here are known by hints */
    uint64_t last, commit;
    bool hole;
    uint64_t claim_index, claim_term;
    unsigned rebuilt;
};

static bool is_spoiled(const struct input *in, unsigned segment)
{
    return in->spoil != SPOIL_NOTHING && segment_of(in->at) == segment;
}

/* Its length fits, and its trailer can be read. */
static bool hint_proves(const struct input *in, unsigned i)
{
    bool cut = is_spoiled(in, i) && in->spoil == SPOIL_LENGTH;
    return !cut && (in->hints[i] == HINT_WHOLE || in->hints[i] == HINT_BLOCK);
}

static uint64_t first_segment(const struct input *in)
{
    return in->applied > 0 ? 2 : 1;
}

/* The segments that need not be walked. */
static void judge_hints(const struct input *in, uint64_t proven, struct verdict *v)
{
    v->hinted = in->applied > 0 ? MERGED : 0;
    v->rebuilt = in->applied > 0 && in->hints[0] != HINT_WHOLE;
    bool intact = true;
    for (unsigned i = (unsigned)first_segment(in); i <= 2 && intact; i++) {
        bool usable = hint_proves(in, i) && in->hints[i] == HINT_WHOLE;
        /* One with a bad block is proven, so that it is made again too. */
        bool rebuilt = !usable && !is_spoiled(in, i) && last_of[i] <= proven;
        v->rebuilt += rebuilt;
        intact = usable || rebuilt;
        if (intact)
            v->hinted = last_of[i];
    }
    /* Those behind one that is left out may have been made again before. */
}

static uint64_t said_by(const struct input *in, uint64_t index)
{
    return min_u64(in->said, index - 1);
}

static struct verdict judge(const struct input *in)
{
    struct verdict v = {0};
    uint64_t proven = max_u64(in->commit_hint, in->applied), later = 0, reached = 0;
    for (unsigned i = (unsigned)first_segment(in); i <= 2; i++)
        if (hint_proves(in, i))
            proven = max_u64(proven, last_of[i]);
    judge_hints(in, proven, &v);
    bool noticed = in->spoil != SPOIL_NOTHING && in->at > v.hinted;
    v.last = noticed ? in->at - 1 : ENTRIES;
    for (uint64_t i = v.last + 2; i <= ENTRIES; i++) {
        bool is_reached = segment_of(i) > segment_of(in->at) || in->spoil == SPOIL_BODY;
        if (is_reached) {
            reached = i;
            later = max_u64(later, said_by(in, i));
        }
    }
    bool later_segment = noticed && segment_of(in->at) < SEGMENTS;
    v.hole = noticed && (later_segment || proven > v.last || later > v.last);
    proven = max_u64(proven, later);
    for (uint64_t i = v.hinted + 1; i <= v.last; i++)
        proven = max_u64(proven, said_by(in, i));
    v.commit = min_u64(proven, v.last);
    if (!v.hole)
        return v;
    v.claim_index = max_u64(reached, proven);
    v.claim_term = term_of(v.claim_index);
    return v;
}

/* ---- That it does ------------------------------------------------------------------ */

static void describe(const struct input *in, const struct verdict *v)
{
    print_error("commit hint %u, said %u, E %u%s, entry %u spoiled (%d), hints %d %d %d: "
                "last %u, commit %u, hole %d, claim %u of term %u, rebuilt %u\n",
                (unsigned)in->commit_hint, (unsigned)in->said, (unsigned)in->applied,
                in->left_over ? " left over" : "", (unsigned)in->at, in->spoil,
                in->hints[0], in->hints[1], in->hints[2], (unsigned)v->last,
                (unsigned)v->commit, v->hole, (unsigned)v->claim_index,
                (unsigned)v->claim_term, v->rebuilt);
}

static bool values_are_right(struct fixture *f, const struct input *in, uint64_t commit)
{
    bool right = true;
    struct buf got = {0};
    for (unsigned key = 0; key < 3; key++) {
        char name[8];
        uint64_t i = newest(key, commit);
        snprintf(name, sizeof(name), "k%u", key);
        buf_clear(&got);
        int rc = store_get(f->s, name, strlen(name), 0, &got, NULL);
        bool bad = in->spoil != SPOIL_NOTHING && in->at == i && in->spoil != SPOIL_HEAD;
        if (i == 0 || is_tombstone(i))
            right = right && rc == -ENOENT;
        else if (bad)
            right = right && rc == -EBADMSG;
        else
            right = right && rc == 0 && got.length == 1250 &&
                    got.data[7] == (uint8_t)value_byte(i);
    }
    buf_release(&got);
    return right;
}

static bool opens_as(struct fixture *f, const struct input *in, const struct verdict *v)
{
    if (fixture_open(f) != 0) {
        print_error("%s\n", f->error);
        return false;
    }
    const struct store_recovery *got = &f->recovery;
    bool same = got->last_index == v->last && got->commit == v->commit &&
                got->claim_index == v->claim_index && got->claim_term == v->claim_term &&
                (got->damage[0] != 0) == v->hole &&
                got->base_index == (in->applied > 0 ? MERGED : 0) && got->term == TERM &&
                got->vote == 3;
    if (!same)
        print_error("got last %u, commit %u, claim %u of term %u, '%s'\n",
                    (unsigned)got->last_index, (unsigned)got->commit,
                    (unsigned)got->claim_index, (unsigned)got->claim_term, got->damage);
    return same && store_is_ready(f->s) == (got->commit >= in->applied);
}

static bool same_file(const struct memory_disk *a, const struct memory_disk *b,
                      const char *path, uint64_t length)
{
    uint8_t x[SMALL_SEGMENT], y[SMALL_SEGMENT];
    memory_disk_peek(a, path, 0, x, length);
    memory_disk_peek(b, path, 0, y, length);
    return memcmp(x, y, length) == 0;
}

/* The leader sends what is missing, a restart comes in the middle. */
static bool fill_hole(struct world *w, struct fixture *f, const struct input *in,
                      const struct verdict *v, uint64_t pause)
{
    for (uint64_t i = v->last + 1; i <= v->claim_index; i++) {
        if (store_has_room(f->s, w->entries[i]->length) != 0)
            return false;
        assert_int_equal(store_append(f->s, w->entries[i], false), 0);
        run(f);
        if (i != pause || i == v->claim_index)
            continue;
        fixture_reopen(f);
        /* What was cut off with the file's end is still missing, nothing else. */
        bool healed = in->spoil != SPOIL_LENGTH || i >= last_of[segment_of(in->at)];
        if (f->recovery.claim_index != (healed ? 0 : v->claim_index) ||
            f->recovery.claim_term != (healed ? 0 : v->claim_term) ||
            f->recovery.last_index != (healed ? v->claim_index : i)) {
            print_error("after %u: last %u, claim %u of term %u\n", (unsigned)i,
                        (unsigned)f->recovery.last_index,
                        (unsigned)f->recovery.claim_index,
                        (unsigned)f->recovery.claim_term);
            return false;
        }
        i = f->recovery.last_index;
    }
    apply_to(f, v->claim_index);
    fixture_reopen(f);
    store_check(f->s);
    bool whole = f->recovery.damage[0] == 0 && f->recovery.claim_index == 0 &&
                 f->recovery.last_index == v->claim_index;
    fixture_close(f);
    /* What was filled is what was there. */
    for (unsigned i = (unsigned)first_segment(in); whole && i <= SEGMENTS; i++) {
        uint64_t length = i < SEGMENTS ? memory_disk_size(w->f.disk, segment_file(i)) : 0;
        if (last_of[i] <= v->claim_index && length > 0)
            whole = memory_disk_size(f->disk, segment_file(i)) == length &&
                    same_file(f->disk, w->f.disk, segment_file(i), length);
    }
    if (!whole)
        print_error("after filling: last %u, claim %u, '%s'\n",
                    (unsigned)f->recovery.last_index, (unsigned)f->recovery.claim_index,
                    f->recovery.damage);
    return whole;
}

static bool goes_on(struct fixture *f, const struct verdict *v)
{
    struct put put = {"new", "after the cut", 0};
    append(f, TERM, &put, 1);
    run(f);
    apply_to(f, v->last + 1);
    fixture_reopen(f);
    return f->recovery.last_index == v->last + 1 && f->recovery.claim_index == 0;
}

/* Sanitized builds take one in so many. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { ONE_IN = 29 };
#else
enum { ONE_IN = 1 };
#endif

static bool try_one(struct world *w, const struct input *in, unsigned number)
{
    struct verdict v = judge(in);
    struct fixture f;
    fixture_init_on(&f, memory_disk_copy(w->f.disk), SMALL_SEGMENT);
    f.unchecked = true;
    damage(&f, in);
    bool right = opens_as(&f, in, &v);
    if (right && f.recovery.hints_rebuilt < v.rebuilt) {
        print_error("%u hints rebuilt\n", (unsigned)f.recovery.hints_rebuilt);
        right = false;
    }
    /* Before E what is merged lacks what was superseded (G7). */
    if (right && v.commit >= in->applied && !values_are_right(&f, in, v.commit)) {
        print_error("a value is wrong\n");
        right = false;
    }
    bool hidden = in->spoil != SPOIL_NOTHING && in->at <= v.hinted;
    if (right && v.hole)
        right = fill_hole(w, &f, in, &v, v.last + 1 + number % 3);
    else if (right && !hidden)
        right = goes_on(&f, &v);
    if (!right)
        describe(in, &v);
    fixture_release(&f);
    return right;
}

/* ---- All combinations -------------------------------------------------------------- */

static void try_hints(struct world *w, struct input *in, unsigned *number)
{
    unsigned most = in->applied > 0 ? HINT_STATES : 1;
    for (unsigned merged = 0; merged < most; merged++)
        for (unsigned first = 0; first < (has_segment(in, 1) ? HINT_STATES : 1); first++)
            for (unsigned second = 0; second < HINT_STATES; second++) {
                in->hints[0] = (enum hint_state)merged;
                in->hints[1] = (enum hint_state)first;
                in->hints[2] = (enum hint_state)second;
                if (++*number % ONE_IN == 0 && !try_one(w, in, *number))
                    fail();
            }
}

static void try_spoils(struct world *w, struct input *in, unsigned *number)
{
    uint64_t first = in->applied > 0 ? MERGED + 1 : 1;
    in->spoil = SPOIL_NOTHING;
    try_hints(w, in, number);
    for (in->at = first; in->at <= ENTRIES; in->at++)
        for (int spoil = SPOIL_HEAD; spoil < SPOIL_KINDS; spoil++) {
            in->spoil = (enum spoil)spoil;
            try_hints(w, in, number);
        }
}

static void try_worlds(uint64_t applied, bool left_over, unsigned *number)
{
    static const uint64_t said[] = {0, 4, 7};
    for (size_t i = 0; i < array_length(said); i++)
        for (uint64_t hint = 0; hint <= ENTRIES; hint++) {
            struct world w = {0};
            struct input in = {.commit_hint = hint,
                               .said = said[i],
                               .applied = applied,
                               .left_over = left_over};
            world_init(&w, &in);
            try_spoils(&w, &in, number);
            world_release(&w);
        }
}

static void test_without_manifest(void **state)
{
    unsigned number = 0;
    try_worlds(0, false, &number);
    print_message("%u combinations\n", number);
}

static void test_with_manifest(void **state)
{
    static const uint64_t applied[] = {3, 5, 8};
    unsigned number = 0;
    for (size_t i = 0; i < array_length(applied); i++) {
        try_worlds(applied[i], false, &number);
        try_worlds(applied[i], true, &number);
    }
    print_message("%u combinations\n", number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_manifest),
        cmocka_unit_test(test_with_manifest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
