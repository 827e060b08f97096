/*
 * test_load.c - the keydir from hints of several files. White-box: hints are written as
 * they are never made, to say what each case is about.
 */
#include "fixture.h"
#include "store_internal.h"

enum { FILES = 7, KEYS = 3000, DATA_BYTES = 8 << 20 };

/* What a file says of a key: the n-th version, or nothing. */
struct version {
    uint64_t timestamp_us; /* 0: nothing */
    bool tombstone;
};

static struct version versions[FILES][KEYS];

static void name_key(unsigned key, char to[32])
{
    snprintf(to, 32, "%s-%05u", key % 3 ? "a directory" : "b", key);
}

/* In key order. */
static unsigned nth_key(unsigned n)
{
    unsigned of_b = (KEYS + 2) / 3, of_a = KEYS - of_b;
    return n < of_a ? n / 2 * 3 + 1 + n % 2 : (n - of_a) * 3;
}

static uint32_t offset_of(unsigned key)
{
    return SEGMENT_HEADER + key * 64;
}

static int write_file(struct store *s, unsigned file)
{
    struct hint_info info = {
        .kind = SEGMENT_MERGED, .file_id = 100 + file, .data_bytes = DATA_BYTES};
    struct hint_writer *w;
    uint64_t bytes;
    int rc = hint_writer_new(s, &info, &w);
    if (rc != 0)
        return rc;
    for (unsigned n = 0; rc == 0 && n < KEYS; n++) {
        char name[32];
        unsigned key = nth_key(n);
        const struct version *v = &versions[file][key];
        name_key(key, name);
        struct hint_record r = {.key = (uint8_t *)name,
                                .key_size = (uint32_t)strlen(name),
                                .timestamp_us = v->timestamp_us,
                                .offset = offset_of(key),
                                .value_size = v->tombstone ? STORE_TOMBSTONE : 20 + file};
        if (v->timestamp_us > 0)
            rc = hint_writer_record(w, &r);
    }
    if (rc == 0)
        rc = hint_writer_finish(w, &bytes);
    hint_writer_free(w);
    return rc;
}

/* Into a keydir of its own, from `count` files. */
struct loaded {
    struct keydir *keydir;
    struct load_source sources[FILES];
    size_t bad;
};

static int load(struct fixture *f, unsigned count, struct loaded *ret)
{
    *ret = (struct loaded){.keydir = keydir_new(f->s->slots), .bad = SIZE_MAX};
    assert_non_null(ret->keydir);
    for (unsigned i = 0; i < count; i++) {
        struct load_source *source = &ret->sources[i];
        source->segment = segment_new(f->s, SEGMENT_MERGED, 100 + i);
        assert_non_null(source->segment);
        assert_int_equal(
            hint_reader_new(f->s, 100 + i, SEGMENT_MERGED, DATA_BYTES, &source->hint), 0);
    }
    return keydir_load_all(ret->keydir, ret->sources, count, &ret->bad);
}

static void loaded_release(struct loaded *l)
{
    for (unsigned i = 0; i < FILES; i++) {
        hint_reader_free(l->sources[i].hint);
        if (l->sources[i].segment)
            segment_unref_unread(l->sources[i].segment);
    }
    keydir_free(l->keydir);
}

/* The file with the newest version of a key. */
static unsigned newest(unsigned count, unsigned key)
{
    unsigned best = 0;
    for (unsigned i = 1; i < count; i++)
        if (versions[i][key].timestamp_us > versions[best][key].timestamp_us)
            best = i;
    return best;
}

static void check_loaded(const struct loaded *l, unsigned count)
{
    uint64_t live[FILES] = {0}, keys = 0;
    for (unsigned key = 0; key < KEYS; key++) {
        char name[32];
        name_key(key, name);
        unsigned file = newest(count, key);
        const struct version *v = &versions[file][key];
        const struct keydir_node *node = keydir_find(l->keydir, name, strlen(name));
        assert_true((node != NULL) == (v->timestamp_us > 0 && !v->tombstone));
        if (!node)
            continue;
        assert_int_equal(node->timestamp_us, v->timestamp_us);
        assert_int_equal(node->value_size, 20 + file);
        assert_int_equal(keydir_place(node),
                         place_of(l->sources[file].segment, offset_of(key)));
        live[file] += keydir_record_bytes(node);
        keys++;
    }
    assert_int_equal(keydir_count(l->keydir), keys);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(atomic_load(&l->sources[i].segment->live_bytes), live[i]);
    keydir_check(l->keydir);
}

/* Of each key some files have a version, in any order, one in four a tombstone. */
static void draw_versions(uint64_t seed)
{
    for (unsigned key = 0; key < KEYS; key++) {
        for (unsigned i = 0; i < FILES; i++) {
            uint64_t draw = random_next(&seed) >> 20;
            versions[i][key] = (struct version){
                .timestamp_us = draw % 3 ? 1 + (draw >> 8) % 100000 * FILES + i : 0,
                .tombstone = (draw >> 4) % 4 == 0};
        }
    }
}

static void test_newest_wins(void **state)
{
    struct fixture f;
    struct loaded l;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    draw_versions(12);
    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(write_file(f.s, i), 0);
    for (unsigned count = 0; count <= FILES; count++) {
        assert_int_equal(load(&f, count, &l), 0);
        if (count > 0)
            check_loaded(&l, count);
        assert_int_equal(count == 0 ? keydir_count(l.keydir) : 0, 0);
        loaded_release(&l);
    }
    fixture_release(&f);
}

/* Which hint it is, so that it can be made again. */
static void test_damaged(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    draw_versions(13);
    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(write_file(f.s, i), 0);
    for (unsigned bad = 0; bad < FILES; bad++) {
        struct path path;
        struct loaded l;
        uint8_t byte;
        hint_path(&path, f.options.path, 100 + bad);
        memory_disk_peek(f.disk, path.text, 5000, &byte, 1);
        byte ^= 1;
        memory_disk_poke(f.disk, path.text, 5000, &byte, 1);
        assert_int_equal(load(&f, FILES, &l), -EBADMSG);
        assert_int_equal(l.bad, bad);
        loaded_release(&l);
        byte ^= 1;
        memory_disk_poke(f.disk, path.text, 5000, &byte, 1);
    }
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_newest_wins),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
