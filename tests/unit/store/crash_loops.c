/* crash_loops.c - a scenario cut, failed and starved at every place; see crash.h. */
#include "crash.h"

#include <urcu-bp.h>

enum { LOOSE_MAX = 4096, LOOSE_TRIED = 16 };

/* ---- The loop over cuts and subsets ------------------------------------------------ */

struct subsets {
    struct scenario_run *run;
    size_t loose, older; /* the changes of the last two calls begin after the older */
    bool keep[LOOSE_MAX];
    size_t order[LOOSE_MAX];
    uint64_t random;
    uint64_t disks;
};

static void try_crash(struct subsets *b, const struct memory_crash *crash)
{
    struct fixture after;
    fixture_init_on(&after, memory_disk_crash_with(b->run->f.disk, crash), SMALL_SEGMENT);
    check_recovered(&b->run->truth, &after);
    if (b->disks++ % 16 == 0)
        check_goes_on(&b->run->truth, &after);
    fixture_release(&after);
}

/* Where the changes of the last two calls that left any begin. */
static size_t count_older(const struct memory_disk *disk)
{
    size_t at = memory_disk_loose(disk);
    for (int calls = 0; at > 0 && calls < 2; calls++) {
        uint64_t call = memory_disk_loose_call(disk, at - 1);
        while (at > 0 && memory_disk_loose_call(disk, at - 1) == call)
            at--;
    }
    return at;
}

enum older { OLDER_KEPT, OLDER_LOST, OLDER_BY_CHANCE };

static bool by_chance(struct subsets *b)
{
    return random_next(&b->random) >> 40 & 1;
}

/* Every subset of the last two calls' changes, with what is older all kept, or none. */
static void try_every_subset(struct subsets *b, enum older older)
{
    size_t recent = b->loose - b->older;
    bool all = recent < 63 && ((uint64_t)1 << recent) <= CRASH_EXHAUSTIVE;
    uint64_t count = all ? (uint64_t)1 << recent : CRASH_EXHAUSTIVE;
    for (uint64_t n = 0; n < count; n++) {
        for (size_t i = 0; i < b->older; i++)
            b->keep[i] = older == OLDER_BY_CHANCE ? by_chance(b) : older == OLDER_KEPT;
        for (size_t i = 0; i < recent; i++)
            b->keep[b->older + i] = all ? n >> i & 1 : n < 2 ? n == 1 : by_chance(b);
        try_crash(b, &(struct memory_crash){.keep = b->keep, .torn = SIZE_MAX});
    }
}

static void shuffle(struct subsets *b)
{
    for (size_t i = 0; i < b->loose; i++)
        b->order[i] = i;
    for (size_t i = b->loose; i > 1; i--) {
        size_t other = random_next(&b->random) % i, kept = b->order[i - 1];
        b->order[i - 1] = b->order[other];
        b->order[other] = kept;
    }
}

/* Any of what is loose, dense or sparse, one write torn at some byte. */
static void try_samples(struct subsets *b)
{
    for (unsigned n = 0; b->loose > 0 && n < CRASH_SAMPLES; n++) {
        uint64_t odds = random_next(&b->random) % 8;
        for (size_t i = 0; i < b->loose; i++)
            b->keep[i] = random_next(&b->random) % 8 >= odds;
        struct memory_crash crash = {
            .keep = b->keep,
            .torn = random_next(&b->random) % b->loose,
            .torn_bytes = random_next(&b->random) % 512,
            .torn_tail = n % 2,
        };
        b->keep[crash.torn] = true;
        try_crash(b, &crash);
    }
}

/* The changes of the last two calls in another order: they are of one file, or the store
 * has not asked for an order between them. */
static void try_orders(struct subsets *b)
{
    for (unsigned n = 0; b->loose > 1 && n < CRASH_SAMPLES / 4; n++) {
        shuffle(b);
        for (size_t i = 0; i < b->loose; i++)
            b->keep[i] = n == 0 || random_next(&b->random) % 4 > 0;
        try_crash(b, &(struct memory_crash){
                         .keep = b->keep, .order = b->order, .torn = SIZE_MAX});
    }
}

static void try_subsets(struct subsets *b, struct scenario_run *r)
{
    b->run = r;
    b->loose = memory_disk_loose(r->f.disk);
    b->older = count_older(r->f.disk);
    ensure(b->loose <= LOOSE_MAX);
    try_every_subset(b, OLDER_KEPT);
    if (b->older > 0) {
        try_every_subset(b, OLDER_LOST);
        try_every_subset(b, OLDER_BY_CHANCE);
    }
    try_samples(b);
    try_orders(b);
}

void crash_everywhere(scenario *what)
{
    static struct scenario_run r;
    static struct subsets b;
    b = (struct subsets){.random = 0x5eed};
    uint64_t cuts = 0;
    memory_disk_faults();
    for (bool cut = true; cut; cuts++) {
        scenario_begin(&r);
        memory_disk_cut_power(r.f.disk, memory_disk_calls(r.f.disk) + cuts + 1);
        what(&r);
        try_subsets(&b, &r);
        cut = r.cut;
        fixture_release(&r.f);
    }
    struct memory_disk_faults faults = memory_disk_faults();
    print_message("%llu cuts, %llu disks\n", (unsigned long long)cuts,
                  (unsigned long long)b.disks);
    assert_true(cuts > 5 && b.disks > 100);
    assert_true(faults.cut && faults.lost && faults.torn && faults.reordered);
}

/* ---- The Nth call fails ------------------------------------------------------------ */

/* G4: what was recovered is on disk, whatever the page cache pretended. Of what is loose
 * nothing is kept, or one change of it. */
static void check_durable(const struct truth *t, struct fixture *found)
{
    size_t loose = memory_disk_loose(found->disk);
    for (size_t i = 0; i <= min_u64(loose, LOOSE_TRIED); i++) {
        bool keep[LOOSE_MAX] = {false};
        ensure(loose < LOOSE_MAX);
        keep[i] = i < loose;
        struct fixture lost;
        fixture_init_on(&lost, memory_disk_crash(found->disk, keep, SIZE_MAX),
                        SMALL_SEGMENT);
        check_recovered(t, &lost);
        assert_int_equal(lost.recovery.term, found->recovery.term);
        assert_int_equal(lost.recovery.vote, found->recovery.vote);
        assert_true(lost.recovery.last_index >= found->recovery.last_index);
        fixture_release(&lost);
    }
}

static void check_stopped(struct scenario_run *r)
{
    if (r->cut && !strstr(r->f.error, " d/") && !strstr(r->f.error, " d:"))
        fail_msg("this names no file: %s", r->f.error);
    struct fixture after; /* as after the process stopped */
    fixture_init_on(&after, memory_disk_copy(r->f.disk), SMALL_SEGMENT);
    check_recovered(&r->truth, &after);
    check_durable(&r->truth, &after);
    check_goes_on(&r->truth, &after);
    fixture_release(&after);
    fixture_release(&r->f);
}

void fail_everywhere(scenario *what)
{
    static struct scenario_run r;
    static const int errors[] = {-EIO, -ENOSPC, -EDQUOT, -ENOMEM};
    bool failed = true;
    memory_disk_faults();
    for (uint64_t at = 1; failed; at++) {
        failed = false;
        for (size_t e = 0; e < array_length(errors); e++) {
            scenario_begin(&r);
            memory_disk_fail_call(r.f.disk, memory_disk_calls(r.f.disk) + at, errors[e]);
            memory_disk_set_forgetful(r.f.disk, true);
            what(&r);
            failed = failed || memory_disk_faults().failed > 0;
            check_stopped(&r);
        }
        scenario_begin(&r);
        memory_disk_shorten_call(r.f.disk, memory_disk_calls(r.f.disk) + at);
        what(&r);
        assert_false(r.cut); /* the rest is written with the next call */
        check_stopped(&r);
    }
}

/* ---- Memory and reads fail --------------------------------------------------------- */

/* Runs it with one fault set by `inject`; whether there was one. */
static bool run_with(scenario *what, void (*inject)(struct scenario_run *r, uint64_t at),
                     uint64_t at, const char *kind)
{
    static struct scenario_run r;
    rcu_barrier();
    int64_t before = alloc_live();
    scenario_begin(&r);
    alloc_failures();
    memory_disk_faults();
    r.injected = 0;
    inject(&r, at);
    what(&r);
    alloc_fail(0);
    memory_disk_fail_read(r.f.disk, 0, 0);
    bool injected = r.injected + alloc_failures() + memory_disk_faults().failed > 0;
    check_stopped(&r);
    rcu_barrier();
    if (alloc_live() != before)
        fail_msg("%s %llu: %lld allocations leak", kind, (unsigned long long)at,
                 (long long)(alloc_live() - before));
    return injected;
}

static void inject_starvation(struct scenario_run *r, uint64_t at)
{
    alloc_fail(at);
}

static void inject_long_starvation(struct scenario_run *r, uint64_t at)
{
    alloc_fail_from(at);
}

static void inject_read_error(struct scenario_run *r, uint64_t at)
{
    memory_disk_fail_read(r->f.disk, memory_disk_reads(r->f.disk) + at, -EIO);
}

void starve_everywhere(scenario *what)
{
    uint64_t at = 1;
    while (run_with(what, inject_starvation, at, "allocation"))
        at++;
    print_message("%llu allocations\n", (unsigned long long)at - 1);
    assert_true(at > 10);
    at = 1;
    while (run_with(what, inject_long_starvation, at, "allocations from"))
        at++;
}

void fail_reads_everywhere(scenario *what)
{
    uint64_t at = 1;
    while (run_with(what, inject_read_error, at, "read"))
        at++;
    print_message("%llu reads\n", (unsigned long long)at - 1);
    assert_true(at > 10);
}
