/* merging.c - see the header. */
#include "merging.h"

#include "store_internal.h" /* which files have hints */

void open_new(struct fixture *f, uint64_t segment_bytes)
{
    fixture_init(f, segment_bytes);
    fixture_reopen(f);
}

/* A value that says whose it is, of at least 17 bytes: not in the keydir. */
const char *value_of(unsigned key, unsigned version, size_t size)
{
    static char value[16384];
    ensure(size >= 20 && size < sizeof(value));
    int n = snprintf(value, sizeof(value), "%08u.%010u.", key, version);
    memset(value + n, 'a' + (int)(version % 26), size - (size_t)n);
    value[size] = 0;
    return value;
}

const char *key_of(unsigned key)
{
    static char text[16];
    snprintf(text, sizeof(text), "key%05u", key);
    return text;
}

void put_key(struct fixture *f, unsigned key, unsigned version, size_t size)
{
    put_one(f, key_of(key), value_of(key, version, size));
}

struct store_stats stats_of(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->s, &stats);
    return stats;
}

uint64_t base_of(struct fixture *f)
{
    uint64_t term;
    return store_base(f->s, &term);
}

/* Puts until the active segment has been left `rolls` times. */
unsigned fill_segments_with(struct fixture *f, unsigned key, unsigned rolls, size_t size)
{
    uint64_t segments = stats_of(f).segments + rolls;
    for (; stats_of(f).segments < segments; key++)
        put_key(f, key, 0, size);
    return key;
}

unsigned fill_segments(struct fixture *f, unsigned key, unsigned rolls)
{
    return fill_segments_with(f, key, rolls, 200);
}

const char *file_of(uint64_t id, const char *suffix)
{
    static char path[64];
    snprintf(path, sizeof(path), "d/log/%016llx.%s", (unsigned long long)id, suffix);
    return path;
}

struct names {
    unsigned seg, mrg, hint, new, manifest, other;
};

static int count_name(void *arg, const char *name)
{
    struct names *names = arg;
    const char *dot = strrchr(name, '.');
    if (strcmp(name, "MANIFEST") == 0)
        names->manifest++;
    else if (dot && strcmp(dot, ".seg") == 0)
        names->seg++;
    else if (dot && strcmp(dot, ".mrg") == 0)
        names->mrg++;
    else if (dot && strcmp(dot, ".hint") == 0)
        names->hint++;
    else if (dot && strcmp(dot, ".new") == 0)
        names->new ++;
    else
        names->other++;
    return 0;
}

/* Exactly the files that belong to the store. */
void check_names(struct fixture *f)
{
    struct names names = {0};
    struct store_stats stats = stats_of(f);
    assert_int_equal(f->io.list(f->io.context, "d/log", count_name, &names), 0);
    assert_int_equal(names.seg, stats.segments);
    assert_int_equal(names.mrg, stats.merged_files);
    unsigned hinted = 0;
    for (size_t i = 0; i < f->s->segment_count; i++)
        hinted += f->s->segments[i]->hint_bytes > 0;
    assert_int_equal(names.hint, hinted + stats.merged_files);
    assert_int_equal(names.new, f->s->spare_state == SPARE_READY);
    assert_int_equal(names.other, 0);
}

/* A store in which a merge of log and merged files is due, tombstones among them. */
void make_due(struct fixture *f)
{
    open_new(f, SEGMENT);
    for (unsigned i = 0; i < 100; i++)
        put_key(f, i % 30, i, 400);
    run_tasks(f);
    for (unsigned i = 0; i < 60; i++)
        put_key(f, i % 25, 1000 + i, 400);
    for (unsigned i = 0; i < 10; i++)
        put_one(f, key_of(i), NULL);
    while (stats_of(f).segments < 4)
        put_key(f, 20, 2000, 400);
}

void check_due(struct fixture *f)
{
    for (unsigned i = 0; i < 10; i++)
        assert_value(f->s, key_of(i), NULL);
    for (unsigned i = 10; i < 20; i++)
        assert_value(f->s, key_of(i), value_of(i, 1000 + 25 + i, 400));
    assert_value(f->s, key_of(20), value_of(20, 2000, 400));
    for (unsigned i = 21; i < 25; i++)
        assert_value(f->s, key_of(i), value_of(i, 1000 + 25 + i, 400));
    for (unsigned i = 25; i < 30; i++)
        assert_value(f->s, key_of(i), value_of(i, 60 + i, 400));
}

/* One task; negative: the error that ended it. */
int try_task(struct fixture *f)
{
    f->now_us += 2000000;
    struct store_task *task = store_next_task(f->s, f->now_us);
    if (!task)
        return 0;
    do {
        uint64_t wait_us;
        int rc;
        while ((rc = store_run_task(task, &wait_us, f->error)) == 1)
            ;
        if (rc != 0)
            return rc;
    } while (store_step_task(f->s, task));
    return 1;
}
