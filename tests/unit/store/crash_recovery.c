/*
 * crash_recovery.c - the process stops at any call of a scenario, and the power goes in
 * the start that follows: what that start found in the page cache is not yet on disk (G4).
 */
#include "crash.h"

enum { LOOSE_MAX = 4096, SAMPLES = 6 };

struct starts {
    const struct truth *truth;
    uint64_t random;
    uint64_t cuts, disks;
};

/* Changes before the start are lost with odds of (8 - `older`) / 8, its own likewise. */
static void try_crash(struct starts *b, const struct memory_disk *disk, size_t before,
                      uint64_t older, uint64_t own)
{
    static bool keep[LOOSE_MAX];
    size_t loose = memory_disk_loose(disk);
    ensure(loose <= LOOSE_MAX);
    for (size_t i = 0; i < loose; i++)
        keep[i] = random_next(&b->random) % 8 < (i < before ? older : own);
    struct fixture after;
    fixture_init_on(&after, memory_disk_crash(disk, keep, SIZE_MAX), SMALL_SEGMENT);
    check_recovered(b->truth, &after);
    if (b->disks++ % 16 == 0)
        check_goes_on(b->truth, &after);
    fixture_release(&after);
}

/* Whether the power went at this call of the start. */
static bool start_and_cut(struct starts *b, const struct memory_disk *stopped,
                          uint64_t call)
{
    struct fixture f;
    fixture_init_on(&f, memory_disk_copy(stopped), SMALL_SEGMENT);
    size_t before = memory_disk_loose(f.disk);
    memory_disk_cut_power(f.disk, memory_disk_calls(f.disk) + call);
    bool cut = fixture_open(&f) != 0;
    try_crash(b, f.disk, before, 0, 8);
    for (unsigned n = 0; n < SAMPLES; n++)
        try_crash(b, f.disk, before, n % 2 ? 4 : 7, 4);
    fixture_release(&f);
    b->cuts += cut;
    return cut;
}

void crash_recovery_everywhere(scenario *what)
{
    static struct scenario_run r;
    struct starts b = {.truth = &r.truth, .random = 0x5eed};
    bool stopped = true;
    for (uint64_t at = 1; stopped; at++) {
        scenario_begin(&r);
        memory_disk_cut_power(r.f.disk, memory_disk_calls(r.f.disk) + at);
        what(&r);
        stopped = r.cut;
        for (uint64_t call = 1; start_and_cut(&b, r.f.disk, call); call++)
            ;
        fixture_release(&r.f);
    }
    print_message("%llu cuts of a start, %llu disks\n", (unsigned long long)b.cuts,
                  (unsigned long long)b.disks);
    assert_true(b.cuts > 100);
}
