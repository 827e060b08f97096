/*
 * main.c - seeds: each in a process of its own, so that none sees what another left, and
 * one that dies names itself.
 */
#include "sim.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SEED_S = 900,     /* one that takes longer hangs */
    ALL_FAULTS = 200, /* a campaign of that many seeds has had every fault */
    UNDECIDED = 50,   /* at most one history of that many may take too long */
};

int __real_clock_gettime(clockid_t id, struct timespec *ret);

struct result { /* shared with the parent */
    uint64_t hash, steps, simulated_us, answered, live_us, judged, undecided;
    uint64_t faults[FAULT_COUNT];
};

static struct {
    uint64_t from, seeds, jobs;
    bool trace, story, twice, here, stop;
} options = {.from = 1, .seeds = 1, .jobs = 1};

static double seconds(void)
{
    struct timespec t;
    __real_clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_seed(uint64_t seed, struct result *result)
{
    trace_file = options.trace ? stdout : NULL;
    trace_story = options.story ? stdout : NULL;
    world_begin(seed);
    plan_draw(seed);
    sim_format(plan.voters);
    clients_begin();
    for (unsigned i = 0; i < plan.voters; i++)
        sim_boot(&sim_nodes[i]);
    plan_start_faults();
    plan_run();
    result->hash = trace_hash;
    result->steps = sim_steps;
    result->simulated_us = sim_now;
    result->answered = clients_answered();
    result->judged = clients_judged();
    result->undecided = clients_undecided();
    result->live_us = election_longest_us;
    memcpy(result->faults, fault_counts, sizeof(fault_counts));
}

static pid_t spawn(uint64_t seed, struct result *result)
{
    fflush(NULL);
    pid_t pid = fork();
    ensure(pid >= 0);
    if (pid == 0) {
        alarm(SEED_S);
        run_seed(seed, result);
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

static void add(struct result *total, const struct result *r)
{
    total->steps += r->steps;
    total->simulated_us += r->simulated_us;
    total->answered += r->answered;
    total->judged += r->judged;
    total->undecided += r->undecided;
    if (r->live_us > total->live_us)
        total->live_us = r->live_us;
    for (int i = 0; i < FAULT_COUNT; i++)
        total->faults[i] += r->faults[i];
}

static void report(const struct result *total, double wall, double cpu)
{
    printf(
        "seeds %llu from %llu: %.1f a second, %.1f simulated hours, %.0f times real time "
        "a core, %llu calls answered, %llu steps\n",
        (unsigned long long)options.seeds, (unsigned long long)options.from,
        (double)options.seeds / wall, (double)total->simulated_us / 3.6e9,
        (double)total->simulated_us / 1e6 / cpu, (unsigned long long)total->answered,
        (unsigned long long)total->steps);
    printf("histories: %llu, too long to judge: %llu\n",
           (unsigned long long)total->judged, (unsigned long long)total->undecided);
    printf("first answer after faults froze: at most %.1f election timeouts\n",
           (double)total->live_us / (2.0 * NODE_ELECTION_US));
    for (int i = 0; i < FAULT_COUNT; i++)
        printf("  %-20s %llu\n", fault_names[i], (unsigned long long)total->faults[i]);
}

struct job {
    pid_t pid;
    uint64_t seed;
};

static unsigned failures;
static struct result *results; /* one a job */

static void failed(uint64_t seed, int status)
{
    printf("seed %llu failed (%s %d); to see it: tests/sim/run.sh --seed %llu --trace\n",
           (unsigned long long)seed, WIFSIGNALED(status) ? "signal" : "status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
           (unsigned long long)seed);
    failures++;
}

static double cpu_of_children(void)
{
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 +
           (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6;
}

static int campaign(void)
{
    struct job jobs[64] = {0};
    struct result total = {0};
    uint64_t next = options.from, end = options.from + options.seeds, running = 0;
    double began = seconds();
    while ((next < end && !(options.stop && failures)) || running > 0) {
        for (uint64_t j = 0; j < options.jobs && next < end; j++)
            if (!jobs[j].pid && !(options.stop && failures)) {
                memset(&results[j], 0, sizeof(results[j]));
                jobs[j] = (struct job){spawn(next, &results[j]), next};
                next++;
                running++;
            }
        int status;
        pid_t pid = wait(&status);
        for (uint64_t j = 0; j < options.jobs; j++)
            if (jobs[j].pid == pid) {
                if (status)
                    failed(jobs[j].seed, status);
                add(&total, &results[j]);
                jobs[j].pid = 0;
                running--;
            }
    }
    report(&total, seconds() - began, cpu_of_children());
    bool all = true;
    for (int i = 0; i < FAULT_COUNT; i++)
        all &= total.faults[i] > 0;
    if (!all && options.seeds >= ALL_FAULTS)
        printf("a fault never happened\n");
    bool vague = total.undecided * UNDECIDED > total.judged;
    if (vague)
        printf("more than one history in %d was too long to judge: shorten them "
               "(client.c)\n",
               UNDECIDED);
    return failures || vague || (!all && options.seeds >= ALL_FAULTS);
}

/* The same seed gives the same trace. */
static int compare_runs(void)
{
    for (uint64_t seed = options.from; seed < options.from + options.seeds; seed++) {
        for (int i = 0; i < 2; i++) {
            int status;
            memset(&results[i], 0, sizeof(results[i]));
            waitpid(spawn(seed, &results[i]), &status, 0);
            if (status)
                failed(seed, status);
        }
        if (results[0].hash != results[1].hash) {
            printf("seed %llu gave two traces\n", (unsigned long long)seed);
            failures++;
        }
    }
    return failures != 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: simulator [--seeds N] [--from S] [--seed S] [--jobs J] "
                    "[--trace | --story] [--twice] [--stop] [--here]\n"
                    "       simulator --play SCRIPT\n");
    return 2;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 0;
        if (strcmp(argv[i], "--trace") == 0)
            options.trace = true;
        else if (strcmp(argv[i], "--story") == 0)
            options.story = true;
        else if (strcmp(argv[i], "--twice") == 0)
            options.twice = true;
        else if (strcmp(argv[i], "--stop") == 0) /* at the first that fails */
            options.stop = true;
        else if (strcmp(argv[i], "--here") == 0) /* in this process, for a debugger */
            options.here = true;
        else if (strcmp(argv[i], "--play") == 0 && i + 1 < argc) {
            scenario_play(argv[i + 1], stdout);
            return 0;
        } else if (strcmp(argv[i], "--seeds") == 0 && ++i < argc)
            options.seeds = value;
        else if (strcmp(argv[i], "--from") == 0 && ++i < argc)
            options.from = value;
        else if (strcmp(argv[i], "--seed") == 0 && ++i < argc)
            options.from = value;
        else if (strcmp(argv[i], "--jobs") == 0 && ++i < argc)
            options.jobs = value;
        else
            return usage();
    }
    if (options.jobs < 1 || options.jobs > 64)
        return usage();
    results = mmap(NULL, 64 * sizeof(*results), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ensure(results != MAP_FAILED);
    if (options.here)
        run_seed(options.from, &results[0]);
    else
        return options.twice ? compare_runs() : campaign();
    return 0;
}
