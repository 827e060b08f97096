/* write.c - rows of what writing costs: time beside a plain file, and bytes. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    LARGE_BYTES = 1 << 20,
    BATCH = 8,  /* values of LARGE_BYTES in one sync */
    ROUNDS = 9, /* the plain file and the store take turns */
    SEGMENTS_A_ROUND = 8,
    SINGLES = 100, /* in one turn */
    OVERWRITE_KEYS = 1000000,
    SMOKE_KEYS = 20000,
    OVERWRITE_BYTES = 1024,
    TIMES_OVER = 10,
};

static int plain_open(struct bench *b, const char *name)
{
    int fd = open(path_in(b, name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        die("open", path_in(b, name));
    return fd;
}

static void plain_write(int fd, struct iovec *iov, int count, uint64_t offset)
{
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += iov[i].iov_len;
    if (pwritev(fd, iov, count, (off_t)offset) != (ssize_t)length || fdatasync(fd) != 0)
        die("write", strerror(errno));
}

/* Files of a segment's size, one after the other. All stay until the turn is over, as the
 * store's do: pages that were just given back are cheaper than others. */
static double plain_large(struct bench *b, uint8_t *value, unsigned files)
{
    char name[32];
    uint64_t begun = now_ns();
    for (unsigned i = 0; i < files; i++) {
        snprintf(name, sizeof(name), "plain-%u", i);
        int fd = plain_open(b, name);
        for (unsigned at = 0; at < SEGMENT_MIB / BATCH; at++) {
            struct iovec iov[BATCH];
            for (unsigned k = 0; k < BATCH; k++)
                iov[k] = (struct iovec){value, LARGE_BYTES};
            plain_write(fd, iov, BATCH, (uint64_t)at * BATCH * LARGE_BYTES);
        }
        close(fd);
    }
    double took_ns = (double)(now_ns() - begun);
    for (unsigned i = 0; i < files; i++) {
        snprintf(name, sizeof(name), "plain-%u", i);
        unlink(path_in(b, name));
    }
    return (double)files * SEGMENT_MIB * LARGE_BYTES / took_ns * 1e3;
}

/* As a node does: the next entries are made while the log thread writes. */
static double store_large(struct bench *b, uint8_t *value, unsigned files)
{
    struct rig rig;
    uint8_t key[KEY_BYTES];
    unsigned values = files * SEGMENT_MIB;
    rig_make(&rig, path_in(b, "store"));
    rig_start_log(&rig);
    uint64_t begun = now_ns();
    for (unsigned i = 0; i < values; i++) {
        key_of(i % SEGMENT_MIB, key);
        rig_put(&rig, key, sizeof(key), value, LARGE_BYTES);
        rig_entry(&rig);
        if (i % BATCH == BATCH - 1)
            rig_commit(&rig);
    }
    rig_finish_log(&rig);
    double took_ns = (double)(now_ns() - begun);
    rig_close(&rig);
    remove_tree(path_in(b, "store"));
    return (double)values * LARGE_BYTES / took_ns * 1e3;
}

void row_append(struct bench *b)
{
    unsigned files = b->smoke ? 1 : SEGMENTS_A_ROUND, rounds = b->smoke ? 1 : ROUNDS;
    double plain[ROUNDS], store[ROUNDS], ratio[ROUNDS];
    uint8_t *value = malloc(LARGE_BYTES);
    if (!value)
        die("append", strerror(ENOMEM));
    memset(value, 'v', LARGE_BYTES);
    plain_large(b, value, files); /* whatever comes first pays for more */
    for (unsigned i = 0; i < rounds; i++) {
        plain[i] = plain_large(b, value, files);
        store[i] = store_large(b, value, files);
        ratio[i] = store[i] / plain[i];
    }
    print_line(b, &(struct line){.row = "append_1m",
                                 .unit = "MB/s",
                                 .value = median(store, rounds),
                                 .yardstick = median(plain, rounds),
                                 .ratio = median(ratio, rounds),
                                 .mark = 0.9});
    free(value);
}

/* ---- Bytes ------------------------------------------------------------------------- */

static void written(struct bench *b, const char *row, size_t value_bytes,
                    unsigned records, double mark)
{
    struct rig rig;
    uint64_t bytes = (b->smoke ? 4 : 256) * MiB, done = 0;
    uint8_t *value = calloc(1, value_bytes), key[KEY_BYTES];
    if (!value)
        die(row, strerror(ENOMEM));
    rig_make(&rig, path_in(b, "store"));
    uint64_t before = bytes_written(), number = 0, unsynced = 0;
    while (done < bytes) {
        for (unsigned i = 0; i < records; i++, done += value_bytes) {
            key_of(number++ % 100000, key);
            rig_put(&rig, key, sizeof(key), value, value_bytes);
        }
        rig_entry(&rig);
        if ((unsynced += records * value_bytes) >= MiB) {
            store_set_commit_hint(rig.s, store_applied(rig.s));
            rig_commit(&rig);
            unsynced = 0;
        }
    }
    rig_commit(&rig);
    print_line(b,
               &(struct line){.row = row,
                              .unit = "bytes",
                              .value = (double)(bytes_written() - before) / (double)done,
                              .mark = mark,
                              .at_most = true});
    rig_close(&rig);
    free(value);
    remove_tree(path_in(b, "store"));
}

void row_written(struct bench *b)
{
    written(b, "written_64k", 64 << 10, 1, 1.01);
    written(b, "written_1m", 1 << 20, 1, 1.01);
    written(b, "written_256", VALUE_BYTES, 1, 1.6);
    written(b, "written_256_by_16", VALUE_BYTES, 16, 1.2);
}

/* ---- Beside merges ----------------------------------------------------------------- */

/* What is on disk above two segments, by live bytes. */
static double space_of(struct bench *b, struct rig *rig)
{
    struct store_stats stats;
    store_stats(rig->s, &stats);
    double segments = 2.0 * SEGMENT_MIB * MiB;
    return ((double)disk_use(path_in(b, "store")) - segments) / (double)stats.live_bytes;
}

/* Uniform: which key is overwritten is drawn for each. Entries of one record, a sync for
 * 64 of them. */
void row_overwrite(struct bench *b)
{
    struct rig rig;
    uint64_t keys = b->smoke ? SMOKE_KEYS : OVERWRITE_KEYS, random = 99;
    uint64_t puts = (b->smoke ? 1 : TIMES_OVER) * keys;
    uint8_t key[KEY_BYTES], value[OVERWRITE_BYTES] = {0};
    double space = 0;
    rig_make(&rig, path_in(b, "store"));
    rig_start_background(&rig);
    rig_fill(&rig, keys, sizeof(value));
    uint64_t before = bytes_written();
    for (uint64_t i = 0; i < puts; i++) {
        key_of(random_next(&random) % keys, key);
        rig_put(&rig, key, sizeof(key), value, sizeof(value));
        rig_entry(&rig);
        if (i % 64 == 63)
            rig_commit(&rig);
        if (i % 16384 == 16383) {
            double now = space_of(b, &rig);
            space = now > space ? now : space;
            store_set_commit_hint(rig.s, store_applied(rig.s));
        }
    }
    rig_commit(&rig);
    double bytes = (double)(bytes_written() - before);
    print_line(b, &(struct line){.row = "overwrite_written",
                                 .unit = "bytes",
                                 .value = bytes / (double)(puts * sizeof(value)),
                                 .mark = 2.5,
                                 .at_most = true});
    print_line(b, &(struct line){.row = "overwrite_space",
                                 .unit = "times the live bytes, and two segments",
                                 .value = space,
                                 .mark = b->smoke ? 99 : 2,
                                 .at_most = true});
    rig_close(&rig);
    remove_tree(path_in(b, "store"));
}

/* ---- One at a time ----------------------------------------------------------------- */

void row_single(struct bench *b)
{
    struct rig rig;
    unsigned rounds = b->smoke ? 1 : ROUNDS, singles = b->smoke ? 10 : SINGLES;
    double plain[ROUNDS * SINGLES], store[ROUNDS * SINGLES];
    uint8_t key[KEY_BYTES], value[VALUE_BYTES] = {0};
    size_t n = 0;
    int fd = plain_open(b, "plain");
    rig_make(&rig, path_in(b, "store"));
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < singles; i++) {
            struct iovec iov = {value, sizeof(value)};
            uint64_t begun = now_ns();
            plain_write(fd, &iov, 1, (n + i) * sizeof(value));
            plain[n + i] = (double)(now_ns() - begun) / 1e3;
        }
        for (unsigned i = 0; i < singles; i++, n++) {
            key_of(n, key);
            uint64_t begun = now_ns();
            rig_put(&rig, key, sizeof(key), value, sizeof(value));
            rig_entry(&rig);
            rig_commit(&rig);
            store[n] = (double)(now_ns() - begun) / 1e3;
        }
    }
    double ours = median(store, n), yardstick = median(plain, n);
    print_line(b, &(struct line){.row = "single_256",
                                 .unit = "us",
                                 .value = ours,
                                 .yardstick = yardstick,
                                 .ratio = ours / yardstick,
                                 .mark = 1.2,
                                 .at_most = true});
    rig_close(&rig);
    close(fd);
    remove_tree(path_in(b, "store"));
    unlink(path_in(b, "plain"));
}
