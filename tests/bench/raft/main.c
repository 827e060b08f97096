/*
 * main.c - clients that speak the protocol to a node, and what the machine can do beside
 * them; raft.py runs it. A line of JSON for each report.
 *
 *   raft_bench run DATA PROBE ADDRESS LEADER TERM CLIENTS LINKS BYTES PAUSE_US LIMIT [spread]
 *   raft_bench records FILE BYTES
 *   raft_bench sequential FILE BYTES
 *
 * DATA: the directory of a node that does not run, whose CA signs the clients' certificates.
 * LEADER: its id, in hexadecimal. Reports once for each line of standard input.
 */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void die(const char *what, const char *why)
{
    fprintf(stderr, "raft_bench: %s: %s\n", what, why);
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct probe *probe;

static void print(struct results *r)
{
    static struct samples syncs;
    probe_take(probe, &syncs);
    printf("{\"writes\":%llu,\"seconds\":%.3f,\"p50_us\":%u,\"p99_us\":%u,\"p999_us\":%u,"
           "\"trip_p50_us\":%u,\"sync_p50_us\":%u,\"syncs\":%zu,\"trips\":%zu}\n",
           (unsigned long long)r->writes, (double)r->ns / 1e9,
           samples_quantile(&r->writes_us, 0.5), samples_quantile(&r->writes_us, 0.99),
           samples_quantile(&r->writes_us, 0.999), samples_quantile(&r->trips_us, 0.5),
           samples_quantile(&syncs, 0.5), syncs.count, r->trips_us.count);
    fflush(stdout);
}

static int run(int argc, char **argv)
{
    if (argc < 12)
        die("run", "too few arguments");
    struct load load = {.address = argv[4],
                        .leader_id = strtoull(argv[5], NULL, 16),
                        .term = strtoull(argv[6], NULL, 10),
                        .clients = (unsigned)atoi(argv[7]),
                        .links = (unsigned)atoi(argv[8]),
                        .value_bytes = (uint32_t)atoi(argv[9]),
                        .pause_us = (unsigned)atoi(argv[10]),
                        .limit = strtoull(argv[11], NULL, 10),
                        .spread = argc > 12 && strcmp(argv[12], "spread") == 0};
    if (load.clients > CLIENTS_MAX || load.links > LINKS_MAX || load.links == 0)
        die("run", "too many clients");
    struct authority *a = authority_open(argv[2]);
    probe = probe_start(argv[3], 10);
    clients_run(a, &load, print);
    authority_free(a);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 3 ? argv[1] : "";
    if (strcmp(what, "run") == 0)
        return run(argc, argv);
    if (strcmp(what, "records") == 0)
        printf("%.1f\n", probe_records(argv[2], strtoull(argv[3], NULL, 10)));
    else if (strcmp(what, "sequential") == 0)
        printf("%.0f\n", probe_sequential(argv[2], strtoull(argv[3], NULL, 10)));
    else
        die("raft_bench", "run, records or sequential");
    return 0;
}
