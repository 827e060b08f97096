/*
 * test_readers.c - threads read while the loop appends and applies. They must never see
 * half an entry (within begin and retry), a value that was not written, or time going
 * back. Made for the thread and address sanitizers as much as for its own assertions.
 */
#include "fixture.h"

#include <pthread.h>

enum { READERS = 3, KEYS = 40, ROUNDS = 3000, ENTRY_KEYS = 3 };

struct shared {
    struct store *s;
    _Atomic bool stop;
    _Atomic uint64_t reads;
};

/* Every value says its key and its round, in 40 bytes (on disk) or in 8 (in the keydir).
 */
static size_t format_value(char to[64], unsigned key, unsigned round)
{
    int n = snprintf(to, 64, "%02u:%05u", key, round);
    if (key % 2 == 0)
        n += snprintf(to + n, 64 - (size_t)n, " and bytes up to some forty");
    return (size_t)n;
}

static void format_key(char to[8], unsigned key)
{
    snprintf(to, 8, "k%02u", key);
}

/* The round of a key's value; -1: there is none. */
static int read_round(struct store *s, unsigned key)
{
    struct buf got = {0};
    char name[8], expected[64];
    unsigned said, round;
    format_key(name, key);
    int rc = store_get(s, name, strlen(name), 0, &got, NULL);
    if (rc == -ENOENT)
        return -1;
    ensure(rc == 0);
    buf_u8(&got, 0);
    ensure(sscanf((char *)got.data, "%u:%u", &said, &round) == 2 && said == key);
    ensure(got.length - 1 == format_value(expected, key, round));
    ensure(memcmp(got.data, expected, got.length - 1) == 0);
    buf_release(&got);
    return (int)round;
}

static int see_ordered(void *arg, const struct store_item *item)
{
    char *last = arg;
    char name[8] = {0};
    ensure(item->key_size < sizeof(name));
    memcpy(name, item->key, item->key_size);
    ensure(strcmp(last, name) < 0);
    strcpy(last, name);
    return 0;
}

/* Keys of one group are written by one entry, all with one round: a consistent look finds
 * them equal. */
static void look_at_group(struct store *s, unsigned group)
{
    int rounds[ENTRY_KEYS];
    uint64_t begun;
    do {
        begun = store_read_begin(s);
        for (unsigned i = 0; i < ENTRY_KEYS; i++)
            rounds[i] = read_round(s, group * ENTRY_KEYS + i);
    } while (store_read_retry(s, begun));
    for (unsigned i = 1; i < ENTRY_KEYS; i++)
        ensure(rounds[i] == rounds[0]);
}

static void *reader(void *arg)
{
    struct shared *shared = arg;
    int newest[KEYS];
    memset(newest, -1, sizeof(newest));
    uint64_t random = 1234567;
    while (!shared->stop) {
        unsigned key = (unsigned)(random_next(&random) % KEYS);
        int round = read_round(shared->s, key);
        ensure(round < 0 || round >= newest[key]);
        newest[key] = round < 0 ? newest[key] : round;
        look_at_group(shared->s, key % (KEYS / ENTRY_KEYS));
        char last[8] = "";
        ensure(store_scan(shared->s, "k", 1, NULL, 0, see_ordered, last) == 0);
        shared->reads++;
    }
    return NULL;
}

/* Reads old entries back, as a driver does for a follower that is behind. */
static void read_back(struct fixture *f, uint64_t first)
{
    struct store_read *read;
    struct store_bytes *bytes;
    uint64_t last;
    assert_int_equal(store_read_plan(f->s, first, 10000, &read), 0);
    assert_int_equal(store_read_run(read, &bytes, &last), 0);
    store_read_free(read);
    store_bytes_unref(bytes);
}

static void write_group(struct fixture *f, unsigned group, unsigned round, bool remove)
{
    char names[ENTRY_KEYS][8], values[ENTRY_KEYS][64];
    struct put puts[ENTRY_KEYS];
    for (unsigned i = 0; i < ENTRY_KEYS; i++) {
        unsigned key = group * ENTRY_KEYS + i;
        format_key(names[i], key);
        size_t size = format_value(values[i], key, round);
        puts[i] = (struct put){names[i], remove ? NULL : values[i], size};
    }
    if (remove)
        for (unsigned i = 0; i < ENTRY_KEYS; i++)
            puts[i].value_size = 0;
    append(f, 1, puts, ENTRY_KEYS);
}

static void test_readers(void **state)
{
    struct fixture f;
    pthread_t threads[READERS];
    fixture_init(&f, 1 << 20);
    fixture_reopen(&f);
    struct shared shared = {.s = f.s};
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, &shared), 0);
    uint64_t random = 42;
    for (unsigned round = 0; round < ROUNDS || shared.reads < READERS; round++) {
        unsigned group = (unsigned)(random_next(&random) % (KEYS / ENTRY_KEYS));
        write_group(&f, group, round % 100000, random_next(&random) % 8 == 0);
        if (round % 4 == 3) {
            run(&f);
            apply_to(&f, store_last_index(f.s));
        }
        if (round % 500 == 499)
            read_back(&f, 1);
    }
    shared.stop = true;
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    run(&f);
    apply_to(&f, store_last_index(f.s));
    store_check(f.s);
    struct store_stats stats;
    store_stats(f.s, &stats);
    assert_int_equal(stats.bad_reads, 0);
    fixture_release(&f);
}

/* ---- Renames ----------------------------------------------------------------------- */

enum { FILLERS = 60, RENAMES = 2000 };

static int count_names(void *arg, const struct store_item *item)
{
    ++*(unsigned *)arg;
    return 0;
}

/* A file is renamed to a higher name, over and over. The new name is put before the old
 * one goes, so a scan upwards, with no retry, meets at least one of them. */
static void *name_watcher(void *arg)
{
    struct shared *shared = arg;
    while (!shared->stop) {
        unsigned names = 0;
        store_scan(shared->s, "n", 1, "o", 1, count_names, &names);
        ensure(names >= 1); /* more, where renames overtook the scan */
        shared->reads++;
    }
    return NULL;
}

static void test_rename(void **state)
{
    struct fixture f;
    pthread_t thread;
    char names[FILLERS + 2][8];
    struct put puts[FILLERS + 2];
    fixture_init(&f, 1 << 20);
    fixture_reopen(&f);
    put_one(&f, "n000000", "x");
    struct shared shared = {.s = f.s};
    assert_int_equal(pthread_create(&thread, NULL, name_watcher, &shared), 0);
    for (unsigned i = 0; i < RENAMES || shared.reads < RENAMES; i++) {
        /* The tombstone first, and much to do before the new name comes. */
        for (unsigned k = 0; k < FILLERS + 2; k++) {
            snprintf(names[k], sizeof(names[k]), "z%05u", k);
            puts[k] = (struct put){names[k], "filler", 0};
        }
        snprintf(names[0], sizeof(names[0]), "n%06u", i % 1000000);
        puts[0].value = NULL;
        snprintf(names[FILLERS + 1], sizeof(names[0]), "n%06u", (i + 1) % 1000000);
        append(&f, 1, puts, FILLERS + 2);
        run(&f);
        apply_to(&f, store_last_index(f.s));
    }
    shared.stop = true;
    pthread_join(thread, NULL);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_rename),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
