/*
 * read.c - rows of what reading costs. White-box in one thing: where a record is, for the
 * bare pread that is the yardstick.
 */
#include "rig.h"
#include "store_internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    GET_KEYS = 1000000,
    SMOKE_KEYS = 20000,
    SAMPLE = 200000, /* gets in one turn */
    ROUNDS = 9,
    THREADS_MAX = 64,
    PHASE_MS = 500,
};

static uint64_t key_count(const struct bench *b)
{
    return b->smoke ? SMOKE_KEYS : GET_KEYS;
}

/* ---- One thread -------------------------------------------------------------------- */

struct sample {
    uint8_t key[KEY_BYTES];
    int fd;
    uint64_t offset; /* of the value */
};

static struct sample *draw_sample(struct bench *b, struct store *s)
{
    struct sample *sample = calloc(SAMPLE, sizeof(*sample));
    uint64_t random = 42;
    if (!sample)
        die("get", strerror(ENOMEM));
    for (unsigned i = 0; i < SAMPLE; i++) {
        key_of(random_next(&random) % key_count(b), sample[i].key);
        const struct keydir_node *node = keydir_find(s->keydir, sample[i].key, KEY_BYTES);
        ensure(node);
        uint64_t place = keydir_place(node);
        sample[i].fd = place_segment(s->slots, place)->fd;
        sample[i].offset = place_offset(place) + STORE_RECORD_HEADER + KEY_BYTES;
    }
    return sample;
}

static double plain_reads(const struct sample *sample)
{
    uint8_t value[VALUE_BYTES];
    uint64_t begun = thread_cpu_ns();
    for (unsigned i = 0; i < SAMPLE; i++)
        if (pread(sample[i].fd, value, sizeof(value), (off_t)sample[i].offset) !=
            sizeof(value))
            die("pread", strerror(errno));
    return (double)(thread_cpu_ns() - begun) / SAMPLE;
}

static double store_gets(struct store *s, const struct sample *sample)
{
    struct buf got = {0};
    uint64_t begun = thread_cpu_ns();
    for (unsigned i = 0; i < SAMPLE; i++) {
        buf_clear(&got);
        if (store_get(s, sample[i].key, KEY_BYTES, 0, &got, NULL) != 0 ||
            got.length != VALUE_BYTES)
            die("get", "not the value that was put");
    }
    uint64_t took = thread_cpu_ns() - begun;
    buf_release(&got);
    return (double)took / SAMPLE;
}

/* CPU time, so that other work on the machine does not count: nothing waits here. */
void row_get(struct bench *b)
{
    struct rig rig;
    unsigned rounds = b->smoke ? 1 : ROUNDS;
    double plain[ROUNDS], store[ROUNDS], ratio[ROUNDS];
    rig_make(&rig, path_in(b, "store"));
    rig_fill(&rig, key_count(b), VALUE_BYTES);
    struct sample *sample = draw_sample(b, rig.s);
    plain_reads(sample); /* into the page cache */
    for (unsigned i = 0; i < rounds; i++) {
        plain[i] = plain_reads(sample);
        store[i] = store_gets(rig.s, sample);
        ratio[i] = store[i] / plain[i];
    }
    print_line(b, &(struct line){.row = "get_256",
                                 .unit = "ns",
                                 .value = median(store, rounds),
                                 .yardstick = median(plain, rounds),
                                 .ratio = median(ratio, rounds),
                                 .mark = 2.5,
                                 .at_most = true});
    free(sample);
    rig_close(&rig);
    remove_tree(path_in(b, "store"));
}

/* ---- All cores, beside a writer ---------------------------------------------------- */

struct crowd {
    struct store *s;
    uint64_t keys;
    _Atomic bool stop;
};

struct reader_thread {
    struct crowd *crowd;
    pthread_t thread;
    uint64_t seed, gets, cpu_ns;
};

static void *read_on(void *arg)
{
    struct reader_thread *t = arg;
    struct buf got = {0};
    uint8_t key[KEY_BYTES];
    uint64_t begun = thread_cpu_ns();
    for (; !t->crowd->stop; t->gets++) {
        key_of(random_next(&t->seed) % t->crowd->keys, key);
        buf_clear(&got);
        if (store_get(t->crowd->s, key, KEY_BYTES, 0, &got, NULL) != 0)
            die("get", "not there");
    }
    t->cpu_ns = thread_cpu_ns() - begun;
    buf_release(&got);
    return NULL;
}

/* Overwrites for a while; the entries of each commit are applied one after the other. */
static uint64_t write_for(struct rig *rig, uint64_t keys, uint64_t until_ns)
{
    static uint64_t random = 4711;
    uint8_t key[KEY_BYTES], value[VALUE_BYTES] = {0};
    uint64_t puts = 0;
    for (; now_ns() < until_ns; puts += 64) {
        for (int i = 0; i < 64; i++) {
            key_of(random_next(&random) % keys, key);
            rig_put(rig, key, sizeof(key), value, sizeof(value));
            rig_entry(rig);
        }
        rig_commit(rig);
    }
    return puts;
}

/* Gets of one core in a second of its time. */
static double gets_per_core(struct bench *b, struct rig *rig, bool beside_writer)
{
    struct crowd crowd = {.s = rig->s, .keys = key_count(b)};
    struct reader_thread threads[THREADS_MAX] = {0};
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    count = count < THREADS_MAX ? count : THREADS_MAX;
    for (long i = 0; i < count; i++) {
        threads[i].crowd = &crowd;
        threads[i].seed = (uint64_t)i + 1;
        if (pthread_create(&threads[i].thread, NULL, read_on, &threads[i]) != 0)
            die("start", "a thread");
    }
    if (beside_writer)
        write_for(rig, crowd.keys, now_ns() + PHASE_MS * 1000000ull);
    else
        usleep(PHASE_MS * 1000);
    crowd.stop = true;
    uint64_t gets = 0, cpu_ns = 0;
    for (long i = 0; i < count; i++) {
        pthread_join(threads[i].thread, NULL);
        gets += threads[i].gets;
        cpu_ns += threads[i].cpu_ns;
    }
    return (double)gets / (double)cpu_ns * 1e9;
}

void row_beside_writer(struct bench *b)
{
    struct rig rig;
    unsigned rounds = b->smoke ? 1 : ROUNDS;
    double without[ROUNDS], beside[ROUNDS], ratio[ROUNDS];
    rig_make(&rig, path_in(b, "store"));
    rig_fill(&rig, key_count(b), VALUE_BYTES);
    for (unsigned i = 0; i < rounds; i++) {
        without[i] = gets_per_core(b, &rig, false);
        beside[i] = gets_per_core(b, &rig, true);
        ratio[i] = beside[i] / without[i];
    }
    print_line(b, &(struct line){.row = "gets_beside_writer",
                                 .unit = "gets per CPU second",
                                 .value = median(beside, rounds),
                                 .yardstick = median(without, rounds),
                                 .ratio = median(ratio, rounds),
                                 .mark = 0.9});
    rig_close(&rig);
    remove_tree(path_in(b, "store"));
}

/* ---- A directory ------------------------------------------------------------------- */

static void put_names(struct rig *rig, uint64_t names)
{
    for (uint64_t i = 0; i < names; i++) {
        char key[64] = "D\0\0\0\0\0\0\0\1", value[16] = {0};
        /* A number that has no factor in common with `names`: each is put once. */
        int n = snprintf(key + 9, sizeof(key) - 9, "file-%07llu.txt",
                         (unsigned long long)(i * 7368787 % names));
        rig_put(rig, key, 9 + (size_t)n, value, sizeof(value));
        if (i % (16 * LIMIT_ENTRY_RECORDS) == 0 && rig->records > 0) {
            rig_entry(rig);
            rig_commit(rig);
        }
    }
    rig_entry(rig);
    rig_commit(rig);
}

static int count_name(void *arg, const struct store_item *item)
{
    uint64_t *sum = arg;
    sum[0]++;
    sum[1] += item->key[item->key_size - 1] + item->value[15];
    return 0;
}

void row_scan(struct bench *b)
{
    struct rig rig;
    unsigned rounds = b->smoke ? 1 : ROUNDS;
    uint64_t names = key_count(b);
    double rate[ROUNDS];
    rig_make(&rig, path_in(b, "store"));
    put_names(&rig, names);
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t sum[2] = {0}, begun = thread_cpu_ns();
        store_scan(rig.s, "D", 1, "E", 1, count_name, sum);
        rate[i] = (double)names / (double)(thread_cpu_ns() - begun) * 1e9;
        if (sum[0] != names)
            die("scan", "not all names");
    }
    print_line(b, &(struct line){.row = "scan",
                                 .unit = "names/s",
                                 .value = median(rate, rounds),
                                 .mark = 5e6});
    rig_close(&rig);
    remove_tree(path_in(b, "store"));
}
