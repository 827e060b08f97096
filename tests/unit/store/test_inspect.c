/*
 * test_inspect.c - what inspect says of stores that are whole, torn, damaged in every
 * byte, and lack a file; and that it changes nothing.
 */
#include "transfer.h"

#include <fcntl.h>
#include <inttypes.h>

struct seen {
    unsigned problems, notes, segments, merged, hints, entries, records, states;
    unsigned commit_hints, manifests, scrubs, incoming, incoming_files;
    uint64_t received;
    char problem[STORE_ERROR_BYTES], note[STORE_ERROR_BYTES];
    uint64_t last_index, first_file;
    int stop_at, facts; /* returns -EPIPE at the stop_at-th fact */
};

static const struct fact_field *field_of(const struct fact *fact, const char *name)
{
    for (size_t i = 0; i < fact->count; i++)
        if (strcmp(fact->fields[i].name, name) == 0)
            return &fact->fields[i];
    return NULL;
}

static int see(void *context, const struct fact *fact)
{
    struct seen *seen = context;
    const struct {
        const char *kind;
        unsigned *count;
    } counts[] = {{"problem", &seen->problems},
                  {"note", &seen->notes},
                  {"segment", &seen->segments},
                  {"merged", &seen->merged},
                  {"hint", &seen->hints},
                  {"entry", &seen->entries},
                  {"record", &seen->records},
                  {"hard_state", &seen->states},
                  {"commit_hint", &seen->commit_hints},
                  {"manifest", &seen->manifests},
                  {"scrub", &seen->scrubs},
                  {"incoming", &seen->incoming},
                  {"incoming_file", &seen->incoming_files}};
    for (size_t i = 0; i < array_length(counts); i++)
        *counts[i].count += strcmp(counts[i].kind, fact->kind) == 0;
    const struct fact_field *what = field_of(fact, "what");
    bool note = strcmp(fact->kind, "note") == 0;
    if (what && (note || !seen->problem[0])) /* the last, and the first */
        snprintf(note ? seen->note : seen->problem, STORE_ERROR_BYTES, "%s",
                 (const char *)what->data);
    const struct fact_field *last = field_of(fact, "last_index");
    if (last)
        seen->last_index = last->number;
    const struct fact_field *received = field_of(fact, "received");
    if (received && strcmp(fact->kind, "incoming") == 0)
        seen->received = received->number;
    const struct fact_field *first = field_of(fact, "first_file");
    if (first)
        seen->first_file = first->number;
    return ++seen->facts == seen->stop_at ? -EPIPE : 0;
}

static struct seen inspect_on(struct memory_disk *disk, bool verify, const char *file)
{
    struct seen seen = {0};
    struct store_io io = memory_disk_io(disk);
    struct store_inspect_options options = {
        .io = &io, .path = "d", .verify = verify, .fact = see, .context = &seen};
    uint64_t problems = 0;
    char error[STORE_ERROR_BYTES] = "";
    int rc = file ? store_inspect_file(&options, file, &problems, error)
                  : store_inspect(&options, &problems, error);
    if (rc != 0)
        fail_msg("%s", error);
    assert_int_equal(problems, seen.problems);
    assert_int_equal(memory_disk_open_count(disk), 0);
    return seen;
}

static struct seen verify(struct fixture *f)
{
    return inspect_on(f->disk, true, NULL);
}

/* A store of several segments, closed, all of it said to be committed. */
static void make_log(struct fixture *f, unsigned entries)
{
    fixture_init(f, SMALL_SEGMENT);
    fixture_reopen(f);
    for (unsigned i = 0; i < entries; i++) {
        char key[32], value[128];
        snprintf(key, sizeof(key), "key %u", i % 7);
        memset(value, 'a' + (int)(i % 26), sizeof(value));
        value[i % 2 ? 10 : sizeof(value) - 1] = 0;
        struct put puts[] = {{.key = key, .value = i % 5 ? value : NULL},
                             {.key = "other", .value = "small"}};
        append(f, 1, puts, 2);
        run(f);
        apply_to(f, store_last_index(f->s));
    }
    assert_int_equal(store_set_commit_hint(f->s, store_last_index(f->s)), 0);
    assert_int_equal(store_set_hard_state(f->s, 1, 5), 0);
    run(f);
    fixture_close(f);
}

static void make_import_at(struct fixture *f, unsigned records, uint64_t timestamp_us,
                           struct store_point *end)
{
    struct store_import *import;
    struct store_builder b = {0};
    struct store_entry head = {.index = 1, .term = 1};
    fixture_init_on(f, memory_disk_new(), SMALL_SEGMENT);
    f->options.io = &f->io;
    assert_int_equal(store_import_new(&f->options, &import, f->error), 0);
    for (unsigned i = 0; i < records; i++) {
        char key[32], value[200] = "";
        struct store_bytes *bytes;
        snprintf(key, sizeof(key), "key %04u", i);
        store_builder_begin(&b, timestamp_us + i);
        store_builder_put(&b, key, strlen(key), value, i % 200);
        assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
        assert_int_equal(store_import_record(import, bytes->data + STORE_ENTRY_HEADER,
                                             bytes->length - STORE_ENTRY_HEADER,
                                             f->error),
                         0);
        store_bytes_unref(bytes);
    }
    *end = (struct store_point){.index = 77,
                                .term = 3,
                                .timestamp_us = timestamp_us + records + 100,
                                .crc = 0x1234};
    assert_int_equal(store_import_finish(import, end, "state", 5, f->error), 0);
    store_import_free(import);
    store_builder_release(&b);
}

static void make_import(struct fixture *f, unsigned records, struct store_point *end)
{
    make_import_at(f, records, 1000, end);
}

/* ---- Whole ------------------------------------------------------------------------- */

static void test_says_what_is_there(void **state)
{
    struct fixture f;
    make_log(&f, 60);
    struct memory_disk *before = memory_disk_copy(f.disk);
    struct seen seen = verify(&f);
    if (seen.problems)
        fail_msg("%s", seen.problem);
    assert_true(seen.segments >= 3);
    assert_int_equal(seen.notes, seen.segments - 1); /* no task has made hints yet */
    assert_non_null(strstr(seen.note, "missing: the next start makes it"));
    assert_int_equal(seen.states, 2);
    assert_int_equal(seen.last_index, 60);
    seen = inspect_on(f.disk, false, NULL);
    assert_int_equal(seen.last_index, 60);
    assert_int_equal(seen.problems, 0);
    seen = inspect_on(f.disk, false, segment_file(1));
    assert_int_equal(seen.problems, 0);
    assert_true(seen.entries > 5);
    assert_int_equal(seen.records, 2 * seen.entries);
    assert_int_equal(inspect_on(f.disk, false, "d/raft.state").states, 2);
    assert_int_equal(inspect_on(f.disk, false, "d/commit.hint").commit_hints, 2);
    assert_true(memory_disk_equal(f.disk, before));
    memory_disk_free(before);
    fixture_release(&f);
}

static void test_says_what_was_merged(void **state)
{
    struct fixture f;
    struct store_point end;
    make_import(&f, 120, &end);
    struct seen seen = verify(&f);
    if (seen.problems)
        fail_msg("%s", seen.problem);
    assert_true(seen.merged >= 2);
    assert_int_equal(seen.hints, seen.merged);
    assert_int_equal(seen.first_file, seen.merged + 1);
    assert_int_equal(seen.manifests, 1);
    const char *file = "d/log/0000000000000001.mrg";
    seen = inspect_on(f.disk, false, file);
    unsigned records = seen.records;
    assert_true(records > 10);
    seen = inspect_on(f.disk, false, "d/log/0000000000000001.hint");
    assert_int_equal(seen.records, records);
    assert_int_equal(seen.problems, 0);
    fixture_release(&f);
}

/* A copy of a file, of any name, with nothing beside it. */
static struct seen inspect_copy(struct fixture *f, const char *file, const char *copy)
{
    struct fixture away = {.disk = memory_disk_new()};
    away.io = memory_disk_io(away.disk);
    size_t size = memory_disk_size(f->disk, file);
    uint8_t *bytes = malloc(size);
    memory_disk_peek(f->disk, file, 0, bytes, size);
    int fd = away.io.open(away.io.context, copy, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    away.io.close(away.io.context, fd);
    memory_disk_resize(away.disk, copy, size);
    memory_disk_poke(away.disk, copy, 0, bytes, size);
    free(bytes);
    struct seen seen = inspect_on(away.disk, false, copy);
    memory_disk_free(away.disk);
    return seen;
}

static void test_looks_at_a_file_without_its_neighbours(void **state)
{
    static const char *const merged[] = {"d/log/0000000000000001.mrg",
                                         "d/log/0000000000000001.hint", "d/log/MANIFEST"};
    static const char *const logged[] = {"d/log/0000000000000001.seg",
                                         "d/log/0000000000000001.hint", "d/raft.state",
                                         "d/commit.hint"};
    struct fixture f;
    struct store_point end;
    make_import(&f, 40, &end);
    for (size_t i = 0; i < array_length(merged); i++) {
        struct seen seen = inspect_copy(&f, merged[i], "copy");
        assert_int_equal(seen.problems, 0);
        assert_int_equal(seen.notes, i == 1);
        assert_true(seen.records > 10 || i == 2);
        assert_true(seen.manifests == (i == 2));
        if (i == 1)
            assert_non_null(strstr(seen.note, "0000000000000001.mrg is not beside it"));
    }
    fixture_release(&f);
    make_log(&f, 45);
    fixture_reopen(&f); /* makes hints */
    fixture_close(&f);
    for (size_t i = 0; i < array_length(logged); i++) {
        struct seen seen = inspect_copy(&f, logged[i], "copy");
        assert_int_equal(seen.problems, 0);
        assert_int_equal(seen.notes, i == 1);
        assert_true(i >= 2 || (seen.entries > 5 && seen.records > 1));
        assert_int_equal(seen.states, i == 2 ? 2 : 0);
        if (i == 1)
            assert_non_null(strstr(seen.note, "0000000000000001.seg is not beside it"));
    }
    fixture_release(&f);
}

/* By its own checksums alone, without its data file. */
static void test_notices_every_byte_of_a_hint_alone(void **state)
{
    static const char file[] = "d/log/0000000000000001.hint";
    struct fixture f;
    make_log(&f, 45);
    fixture_reopen(&f);
    fixture_close(&f);
    uint64_t size = memory_disk_size(f.disk, file);
    for (uint64_t at = 0; at < size; at++) {
        memory_disk_flip(f.disk, file, at, (unsigned)(at % 8));
        struct seen seen = inspect_copy(&f, file, "a.hint");
        if (!seen.problems)
            fail_msg("byte %" PRIu64 " is wrong, and nothing is said", at);
        memory_disk_flip(f.disk, file, at, (unsigned)(at % 8));
    }
    fixture_release(&f);
}

/* One that is put beside another file that has its name. */
static void test_notes_that_a_hint_is_of_another_length(void **state)
{
    struct fixture f;
    struct store_point end;
    make_import(&f, 20, &end);
    memory_disk_resize(f.disk, "d/log/0000000000000001.mrg", 100);
    struct seen seen = inspect_on(f.disk, false, "d/log/0000000000000001.hint");
    assert_int_equal(seen.problems, 0);
    assert_int_equal(seen.notes, 1);
    assert_non_null(strstr(seen.note, "100 bytes"));
    fixture_release(&f);
}

/* ---- Damage ------------------------------------------------------------------------ */

/* Every bit that counts is found, whichever is wrong: `step` bytes apart. */
static void flip_all(struct fixture *f, const char *path, uint64_t from, uint64_t to,
                     bool note_will_do)
{
    for (uint64_t at = from; at < to; at++) {
        memory_disk_flip(f->disk, path, at, (unsigned)(at % 8));
        struct seen seen = verify(f);
        if (!seen.problems && !(note_will_do && seen.notes))
            fail_msg("%s: byte %" PRIu64 " is wrong, and nothing is said", path, at);
        memory_disk_flip(f->disk, path, at, (unsigned)(at % 8));
    }
    assert_int_equal(verify(f).problems, 0);
}

static void test_notices_every_byte_of_the_log(void **state)
{
    struct fixture f;
    make_log(&f, 45);
    struct seen seen = verify(&f);
    assert_true(seen.segments >= 2);
    for (unsigned id = 1; id < seen.segments; id++)
        flip_all(&f, segment_file(id), 0, memory_disk_size(f.disk, segment_file(id)),
                 false);
    const char *last = segment_file(seen.segments);
    uint64_t end = entry_offset(f.disk, last, 45);
    flip_all(&f, last, 0, end + STORE_ENTRY_HEADER, false);
    flip_all(&f, last, memory_disk_size(f.disk, last) - 10,
             memory_disk_size(f.disk, last), true);
    flip_all(&f, "d/raft.state", 0, 64, false);
    flip_all(&f, "d/raft.state", 4096, 4096 + 64, false);
    flip_all(&f, "d/commit.hint", 0, 64, true);
    flip_all(&f, "d/commit.hint", 4096, 4096 + 64, true);
    fixture_release(&f);
}

static void test_notices_every_byte_of_what_was_merged(void **state)
{
    struct fixture f;
    struct store_point end;
    make_import(&f, 40, &end);
    const char *const files[] = {"d/log/0000000000000001.mrg",
                                 "d/log/0000000000000001.hint", "d/log/MANIFEST"};
    for (size_t i = 0; i < array_length(files); i++)
        flip_all(&f, files[i], 0, memory_disk_size(f.disk, files[i]), false);
    fixture_release(&f);
}

/* The bytes of a file of the one disk in the place of the other's. */
static void exchange(struct fixture *f, const struct fixture *other, const char *file)
{
    size_t size = memory_disk_size(other->disk, file);
    uint8_t *bytes = malloc(size);
    memory_disk_peek(other->disk, file, 0, bytes, size);
    memory_disk_resize(f->disk, file, size);
    memory_disk_poke(f->disk, file, 0, bytes, size);
    free(bytes);
}

/* Intact, and of another merge: what it says of a file is not what the file holds. */
static void test_notices_another_manifest(void **state)
{
    struct fixture f, other;
    struct store_point end;
    make_import(&f, 20, &end);
    make_import_at(&other, 20, 1001, &end);
    exchange(&f, &other, "d/log/MANIFEST");
    struct seen seen = verify(&f);
    assert_int_equal(seen.problems, seen.merged);
    assert_non_null(strstr(seen.problem, "MANIFEST says"));
    fixture_release(&f);
    fixture_release(&other);
}

/* Intact, and of a file that has the same name and size, but another content. */
static void test_notices_a_hint_of_another_file(void **state)
{
    static const char file[] = "d/log/0000000000000001.hint";
    struct fixture f, other;
    struct store_point end;
    make_import(&f, 20, &end);
    make_import_at(&other, 20, 1001, &end);
    exchange(&f, &other, file);
    struct seen seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "does not say what is in"));
    fixture_release(&f);
    fixture_release(&other);
}

/* Each alone is mended by the next start, or by other nodes; both are not. */
static void test_notices_a_merged_file_and_its_hint(void **state)
{
    static const char file[] = "d/log/0000000000000001.mrg";
    static const char hint[] = "d/log/0000000000000001.hint";
    struct fixture f;
    struct store_point end;
    make_import(&f, 20, &end);
    memory_disk_flip(f.disk, file, 64 + 30, 0); /* in a record */
    struct seen seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    memory_disk_flip(f.disk, hint, 64 + 40, 0); /* in its records */
    seen = verify(&f);
    assert_int_equal(seen.problems, 3);
    assert_null(strstr(seen.problem, "cannot be started"));
    memory_disk_remove(f.disk, hint);
    seen = verify(&f);
    assert_int_equal(seen.problems, 2);
    assert_non_null(strstr(seen.note, "missing: the next start makes it"));
    memory_disk_flip(f.disk, file, 64 + 30, 0);
    seen = verify(&f);
    assert_int_equal(seen.problems, 0);
    assert_int_equal(seen.notes, 1);
    fixture_release(&f);
}

/* Nothing is removed by a start that is refused, and the files are verified as ever. */
static void test_without_a_manifest(void **state)
{
    struct fixture f;
    struct store_point end;
    make_import(&f, 120, &end);
    unsigned merged = verify(&f).merged;
    memory_disk_flip(f.disk, "d/log/MANIFEST", 20, 0);
    struct seen seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "the node cannot be started"));
    assert_int_equal(seen.notes, 0);
    assert_int_equal(seen.merged, merged);
    memory_disk_flip(f.disk, "d/log/0000000000000001.mrg", 64 + 30, 0);
    assert_int_equal(verify(&f).problems, 2);
    fixture_release(&f);
}

static void test_notices_a_file_of_another_cluster(void **state)
{
    static const char *const files[] = {"d/raft.state", "d/log/0000000000000001.seg"};
    for (size_t i = 0; i < array_length(files); i++) {
        struct fixture f, other;
        make_log(&f, 10);
        fixture_init(&other, SMALL_SEGMENT);
        memset(other.options.cluster_id, 0x77, STORE_CLUSTER_ID_BYTES);
        memory_disk_free(other.disk);
        other.disk = memory_disk_new();
        other.io = memory_disk_io(other.disk);
        assert_int_equal(store_create(&other.options, other.error), 0);
        fixture_reopen(&other);
        fixture_close(&other);
        exchange(&f, &other, files[i]);
        struct seen seen = verify(&f);
        assert_true(seen.problems >= 1);
        seen = inspect_on(f.disk, false, NULL);
        assert_non_null(strstr(seen.problem, "7777"));
        fixture_release(&f);
        fixture_release(&other);
    }
}

/* Without reading them, the lengths of merged files are told apart. */
static void test_notices_a_length_at_a_glance(void **state)
{
    static const char file[] = "d/log/0000000000000001.mrg";
    struct fixture f;
    struct store_point end;
    make_import(&f, 20, &end);
    memory_disk_remove(f.disk, "d/log/0000000000000001.hint"); /* it would tell too */
    assert_int_equal(inspect_on(f.disk, false, NULL).problems, 0);
    memory_disk_resize(f.disk, file, memory_disk_size(f.disk, file) + 1);
    struct seen seen = inspect_on(f.disk, false, NULL);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "bytes"));
    fixture_release(&f);
}

static void test_tells_torn_from_damaged(void **state)
{
    struct fixture f;
    make_log(&f, 45);
    struct seen seen = verify(&f);
    const char *last = segment_file(seen.segments);
    uint64_t offset = entry_offset(f.disk, last, 45);
    memory_disk_flip(f.disk, last, offset + STORE_ENTRY_HEADER + 30, 0);
    seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "commit.hint"));
    memory_disk_remove(f.disk, "d/commit.hint");
    seen = verify(&f);
    assert_int_equal(seen.problems, 0);
    assert_non_null(strstr(seen.note, "torn"));
    /* The one before it is proven by this one's commit field, whatever became of its
     * body. */
    memory_disk_flip(f.disk, last, entry_offset(f.disk, last, 44) + STORE_ENTRY_HEADER,
                     0);
    seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "later entry"));
    fixture_release(&f);

    make_log(&f, 45);
    memory_disk_remove(f.disk, "d/commit.hint");
    memory_disk_flip(f.disk, segment_file(1),
                     entry_offset(f.disk, segment_file(1), 2) + 150, 0);
    seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "next segment"));
    fixture_release(&f);
}

static void test_notices_what_is_missing(void **state)
{
    struct fixture f;
    struct store_point end;
    make_log(&f, 60);
    assert_true(verify(&f).segments >= 3);
    memory_disk_remove(f.disk, segment_file(2));
    struct seen seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    memory_disk_remove(f.disk, segment_file(1));
    seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "begins with"));
    memory_disk_remove(f.disk, "d/raft.state");
    assert_int_equal(verify(&f).problems, 2);
    fixture_release(&f);

    make_import(&f, 40, &end);
    memory_disk_remove(f.disk, "d/log/0000000000000001.hint");
    assert_int_equal(verify(&f).problems, 0); /* it is made anew */
    memory_disk_remove(f.disk, "d/log/0000000000000001.mrg");
    seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "missing"));
    fixture_release(&f);
}

static void test_notices_an_old_state(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    append_one(&f, 9, "a", "b");
    run(&f);
    fixture_close(&f);
    struct seen seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "term 9"));
    fixture_release(&f);
}

/* A commit hint that was copied from another time: intact, and of another term. */
static void test_notices_another_commit_hint(void **state)
{
    struct fixture f;
    make_log(&f, 10);
    struct commit_hint hint = {.commit = 10, .term = 2, .format = 1};
    uint8_t slot[SLOT_BYTES];
    memcpy(hint.cluster_id, f.options.cluster_id, sizeof(hint.cluster_id));
    commit_hint_encode(slot, &hint);
    for (uint64_t i = 0; i < 2; i++)
        memory_disk_poke(f.disk, "d/commit.hint", i * SLOT_STRIDE, slot, sizeof(slot));
    struct seen seen = verify(&f);
    assert_int_equal(seen.problems, 1);
    assert_non_null(strstr(seen.problem, "commit.hint says 2"));
    fixture_release(&f);
}

/* ---- What may be lost -------------------------------------------------------------- */

enum { PARTS_SEGMENT = 16 << 10 };

/* Of the first of its files all is here, and of the others nothing. */
static void make_incoming(struct fixture *a, struct fixture *b)
{
    struct transfer t;
    sender_init(a, 60, 500, 9000);
    fixture_init(b, PARTS_SEGMENT);
    fixture_reopen(b);
    transfer_open(&t, a, b);
    uint32_t file = 0, length;
    uint64_t offset;
    while (store_incoming_next(t.in, &file, &offset, &length) && file == 0)
        transfer_run(&t, b, 1);
    assert_true(file > 0);
    transfer_close(&t, a);
    fixture_close(b);
}

static struct seen verify_lost(struct fixture *f)
{
    struct seen seen = verify(f);
    if (seen.problems)
        fail_msg("%s", seen.problem);
    return seen;
}

static void test_shows_a_snapshot_on_its_way(void **state)
{
    static const char file[] = "d/incoming/STATE";
    struct fixture a, b;
    make_incoming(&a, &b);
    struct seen seen = verify_lost(&b);
    assert_int_equal(seen.incoming, 1);
    assert_true(seen.incoming_files > 1 && seen.received > 500);
    assert_int_equal(seen.notes, 0);
    assert_int_equal(inspect_on(b.disk, false, file).incoming_files, seen.incoming_files);
    assert_int_equal(inspect_copy(&b, file, "copy").incoming, 1);
    for (uint64_t at = 0; at < memory_disk_size(b.disk, file); at++) {
        memory_disk_flip(b.disk, file, at, (unsigned)(at % 8));
        seen = verify_lost(&b);
        assert_int_equal(seen.incoming, 0);
        assert_true(seen.notes > 1); /* its parts */
        assert_non_null(strstr(seen.note, "means nothing, and may be removed"));
        memory_disk_flip(b.disk, file, at, (unsigned)(at % 8));
    }
    memory_disk_remove(b.disk, file);
    seen = verify_lost(&b);
    assert_non_null(strstr(seen.note, "does not tell of it"));
    fixture_release(&a);
    fixture_release(&b);
}

static void test_judges_the_parts_of_a_snapshot(void **state)
{
    struct fixture a, b;
    struct path part;
    make_incoming(&a, &b);
    incoming_part_path(&part, "d", a.s->manifest.files[0].file_id);
    uint64_t size = memory_disk_size(b.disk, part.text);
    assert_true(size > 1000);
    for (uint64_t at = SEGMENT_HEADER; at < size; at += 7) {
        memory_disk_flip(b.disk, part.text, at, (unsigned)(at % 8));
        struct seen seen = verify_lost(&b);
        assert_int_equal(seen.notes, 1);
        assert_non_null(strstr(seen.note, "is damaged"));
        assert_int_equal(inspect_on(b.disk, false, NULL).notes, 0); /* not read */
        memory_disk_flip(b.disk, part.text, at, (unsigned)(at % 8));
    }
    memory_disk_resize(b.disk, part.text, size - 1);
    assert_non_null(strstr(verify_lost(&b).note, "STATE says"));
    memory_disk_remove(b.disk, part.text);
    assert_non_null(strstr(verify_lost(&b).note, "missing"));
    fixture_release(&a);
    fixture_release(&b);
}

static void test_shows_how_far_a_scrub_was(void **state)
{
    static const char file[] = "d/scrub.state";
    struct fixture f;
    uint8_t block[64] = "tierceSC";
    make_log(&f, 10);
    put_u32(block + 8, 1);
    memcpy(block + 16, f.options.cluster_id, STORE_CLUSTER_ID_BYTES);
    put_u64(block + 32, 1234567);
    put_u32(block + 60, crc32_of(0, block, 60));
    f.io.close(f.io.context, f.io.open(f.io.context, file, O_RDWR | O_CREAT, 0600));
    memory_disk_resize(f.disk, file, sizeof(block));
    memory_disk_poke(f.disk, file, 0, block, sizeof(block));
    struct seen seen = verify_lost(&f);
    assert_int_equal(seen.scrubs, 1);
    assert_int_equal(seen.notes, 0);
    assert_int_equal(inspect_copy(&f, file, "copy").scrubs, 1);
    for (uint64_t at = 0; at < sizeof(block); at++) {
        memory_disk_flip(f.disk, file, at, (unsigned)(at % 8));
        seen = verify_lost(&f);
        assert_int_equal(seen.notes, 1);
        assert_non_null(strstr(seen.note, "may be removed"));
        memory_disk_flip(f.disk, file, at, (unsigned)(at % 8));
    }
    memory_disk_resize(f.disk, file, 63);
    assert_int_equal(verify_lost(&f).notes, 1);
    fixture_release(&f);
}

/* ---- What cannot be looked at ------------------------------------------------------ */

static void test_says_what_it_cannot_read(void **state)
{
    struct fixture f;
    make_log(&f, 30);
    struct seen seen = {.stop_at = 3};
    struct store_inspect_options options = {
        .io = &f.io, .path = "d", .verify = true, .fact = see, .context = &seen};
    uint64_t problems;
    assert_int_equal(store_inspect(&options, &problems, f.error), -EPIPE);
    assert_int_equal(seen.facts, 3);
    options.path = "elsewhere";
    assert_int_equal(store_inspect(&options, &problems, f.error), -ENOENT);
    assert_int_equal(store_inspect_file(&options, "d/none", &problems, f.error), -ENOENT);
    /* Each call that reads fails once: a problem, or an error; never nothing. */
    options.path = "d";
    uint64_t before = memory_disk_reads(f.disk);
    seen = (struct seen){0};
    assert_int_equal(store_inspect(&options, &problems, f.error), 0);
    uint64_t calls = memory_disk_reads(f.disk) - before;
    assert_true(calls > 10);
    unsigned told = 0;
    for (uint64_t i = 1; i <= calls; i++) {
        memory_disk_fail_read(f.disk, memory_disk_reads(f.disk) + i, -EIO);
        seen = (struct seen){0};
        problems = 0;
        int rc = store_inspect(&options, &problems, f.error);
        told += rc != 0 || problems > 0;
        assert_int_equal(memory_disk_open_count(f.disk), 0);
    }
    memory_disk_fail_read(f.disk, 0, 0);
    /* Looks at the next segment's first index, and whether a file is there, come twice.
     */
    assert_true(told + 3 * verify(&f).segments + 3 >= calls);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_says_what_is_there),
        cmocka_unit_test(test_says_what_was_merged),
        cmocka_unit_test(test_looks_at_a_file_without_its_neighbours),
        cmocka_unit_test(test_notices_every_byte_of_a_hint_alone),
        cmocka_unit_test(test_notes_that_a_hint_is_of_another_length),
        cmocka_unit_test(test_notices_every_byte_of_the_log),
        cmocka_unit_test(test_notices_every_byte_of_what_was_merged),
        cmocka_unit_test(test_notices_another_manifest),
        cmocka_unit_test(test_notices_a_hint_of_another_file),
        cmocka_unit_test(test_notices_a_merged_file_and_its_hint),
        cmocka_unit_test(test_without_a_manifest),
        cmocka_unit_test(test_notices_a_file_of_another_cluster),
        cmocka_unit_test(test_notices_a_length_at_a_glance),
        cmocka_unit_test(test_tells_torn_from_damaged),
        cmocka_unit_test(test_notices_what_is_missing),
        cmocka_unit_test(test_notices_an_old_state),
        cmocka_unit_test(test_notices_another_commit_hint),
        cmocka_unit_test(test_shows_a_snapshot_on_its_way),
        cmocka_unit_test(test_judges_the_parts_of_a_snapshot),
        cmocka_unit_test(test_shows_how_far_a_scrub_was),
        cmocka_unit_test(test_says_what_it_cannot_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
