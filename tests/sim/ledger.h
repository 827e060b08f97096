/*
 * ledger.h - what was ever written, and what of it is committed: the one truth that nodes
 * are held against.
 */
#ifndef TIERCE_SIM_LEDGER_H
#define TIERCE_SIM_LEDGER_H

#include "sim.h"

struct written { /* an entry, by (index, term) */
    uint64_t hash, prev_term, crc;
};

struct decided {           /* an index that is committed */
    uint64_t term, hash;   /* of the whole entry */
    uint64_t by_term;      /* committed in this term at the latest */
    uint64_t digest;       /* of all keys and their versions after it */
    uint64_t state_digest; /* of sessions and members after it; 0: nobody looked yet */
};

uint64_t ledger_hash(const void *data, size_t length);
uint64_t ledger_mix(uint64_t a, uint64_t b);

/* V3: fails where another entry has that index and term, but for `again`. */
void ledger_write(const struct store_entry *e, uint64_t hash, bool again);
const struct written *ledger_written(uint64_t index, uint64_t term); /* NULL: never */

/* The next one. V10: fails where its request was committed before. */
void ledger_decide(const struct store_entry *e, const uint8_t *data, size_t length,
                   uint64_t hash);
uint64_t ledger_last(void);
/* The session ended with the removal of its node, which may not know it yet. */
bool ledger_took(uint64_t session);
struct decided *ledger_at(uint64_t index);
/* Of a live key: the value's hash. */
bool ledger_value(const void *key, size_t size, uint64_t *ret_hash);
/* What a key and its version add to the digest. */
uint64_t ledger_key_digest(const void *key, size_t size, uint64_t timestamp_us);

#endif
