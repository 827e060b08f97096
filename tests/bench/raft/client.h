/*
 * client.h - clients of a cluster that speak its protocol: the sessions of a node that is
 * no member, over few connections. What the files of the benchmark of consensus share.
 */
#ifndef TIERCE_BENCH_CLIENT_H
#define TIERCE_BENCH_CLIENT_H

#include "base.h"

enum { CLIENTS_MAX = 256, LINKS_MAX = 16 };

_Noreturn void die(const char *what, const char *why);
uint64_t now_ns(void);

/* ---- identity.c: certificates by the cluster's own CA ------------------------------- */

struct wire_identity;
struct authority; /* a CA's key, out of the store of a node that does not run */

struct authority *authority_open(const char *data);
void authority_free(struct authority *a);
/* Of a node that is no member; its strings stay as long as the process. */
struct wire_identity authority_certify(const struct authority *a, uint64_t node_id);

/* ---- probe.c: what the machine can do ----------------------------------------------- */

/* Times, in microseconds, to be asked for their quantiles. */
struct samples {
    uint32_t *us;
    size_t count, capacity;
};
void samples_add(struct samples *s, uint64_t ns);
/* 0: there are none. Sorts them. */
uint32_t samples_quantile(struct samples *s, double q);
void samples_clear(struct samples *s);

/* A thread that writes and syncs as a log does, in a file of its own, now and then. */
struct probe;
struct probe *probe_start(const char *path, unsigned pause_ms);
void probe_take(struct probe *p, struct samples *to); /* since the last time */
/* Synced records of `bytes` a second, one after the other, for a second. */
double probe_records(const char *path, size_t bytes);
/* Bytes a second of a file of `bytes` that is written from one end to the other, and
 * synced each 64 MiB. */
double probe_sequential(const char *path, uint64_t bytes);

/* ---- client.c ----------------------------------------------------------------------- */

struct load {
    const char *address;
    uint64_t leader_id, term;
    unsigned clients, links;
    uint32_t value_bytes;
    bool spread;       /* each write behind the last one of its file */
    unsigned pause_us; /* of a client, between two of its writes */
    uint64_t limit;    /* writes of all; 0: none */
};

struct results {
    uint64_t writes, ns; /* since the last report */
    struct samples writes_us, trips_us;
};

/* Runs until standard input ends, or the limit is reached; each line there is answered by a call of `report`,
 * and so is the end. */
void clients_run(const struct authority *a, const struct load *load,
                 void (*report)(struct results *r));

#endif
