/*
 * state_files.c - the two small files that are written in place: raft.state (G5) and
 * commit.hint (G6). Each has two slots of 64 bytes, at offsets 0 and 4096:
 *
 *         raft.state              commit.hint
 *   0  magic "tierceHS"        magic "tierceCH"
 *   8  version u32             version u32
 *  12  reserved u32, 0         reserved u32, 0
 *  16  cluster_id, 16 bytes    cluster_id, 16 bytes
 *  32  sequence u64            commit u64
 *  40  term u64                term u64, of that entry; 0: not told
 *  48  vote u64                reserved, 12 zeros
 *  56  reserved u32, 0
 *  60  crc32 u32, over bytes 0-59 (both)
 *
 * Of two valid slots the one with the higher sequence (commit) counts. A hard state is
 * written and synced to one slot, then to the other, before it is acted upon. A hint goes
 * to the slot that does not hold the newest one.
 */
#include "store_internal.h"

static const char state_magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'H', 'S'};
static const char hint_magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'C', 'H'};

enum { SLOT_CRC = 60 };

static void slot_begin(uint8_t to[SLOT_BYTES], const char *magic, uint32_t format,
                       const uint8_t *cluster_id)
{
    memset(to, 0, SLOT_BYTES);
    memcpy(to, magic, 8);
    put_u32(to + 8, format);
    memcpy(to + 16, cluster_id, STORE_CLUSTER_ID_BYTES);
}

static void slot_end(uint8_t to[SLOT_BYTES])
{
    put_u32(to + SLOT_CRC, crc32_of(0, to, SLOT_CRC));
}

/* In every version a slot has this size, and magic, version and crc these places. */
static int slot_check(const uint8_t *data, size_t length, const char *magic,
                      uint32_t newest)
{
    if (length < SLOT_BYTES || memcmp(data, magic, 8) != 0 ||
        get_u32(data + SLOT_CRC) != crc32_of(0, data, SLOT_CRC))
        return -EBADMSG;
    return format_check(get_u32(data + 8), newest);
}

void hard_state_encode(uint8_t to[SLOT_BYTES], const struct hard_state *state)
{
    slot_begin(to, state_magic, state->format, state->cluster_id);
    put_u64(to + 32, state->sequence);
    put_u64(to + 40, state->term);
    put_u64(to + 48, state->vote);
    slot_end(to);
}

int hard_state_decode(const uint8_t *data, size_t length, uint32_t newest,
                      struct hard_state *ret)
{
    int rc = slot_check(data, length, state_magic, newest);
    if (rc != 0)
        return rc;
    ret->format = get_u32(data + 8);
    ret->sequence = get_u64(data + 32);
    ret->term = get_u64(data + 40);
    ret->vote = get_u64(data + 48);
    memcpy(ret->cluster_id, data + 16, STORE_CLUSTER_ID_BYTES);
    return 0;
}

void commit_hint_encode(uint8_t to[SLOT_BYTES], const struct commit_hint *hint)
{
    slot_begin(to, hint_magic, hint->format, hint->cluster_id);
    put_u64(to + 32, hint->commit);
    put_u64(to + 40, hint->term);
    slot_end(to);
}

int commit_hint_decode(const uint8_t *data, size_t length, uint32_t newest,
                       struct commit_hint *ret)
{
    int rc = slot_check(data, length, hint_magic, newest);
    if (rc != 0)
        return rc;
    ret->format = get_u32(data + 8);
    ret->commit = get_u64(data + 32);
    ret->term = get_u64(data + 40);
    memcpy(ret->cluster_id, data + 16, STORE_CLUSTER_ID_BYTES);
    return 0;
}

void hard_state_path(struct path *ret, const char *directory, const char *suffix)
{
    snprintf(ret->text, sizeof(ret->text), "%s/raft.state%s", directory, suffix);
}

void commit_hint_path(struct path *ret, const char *directory)
{
    snprintf(ret->text, sizeof(ret->text), "%s/commit.hint", directory);
}

static int slot_write(const struct store_io *io, int fd, uint8_t bytes[SLOT_BYTES],
                      int slot)
{
    struct iovec iov = {bytes, SLOT_BYTES};
    int rc = write_full(io, fd, &iov, 1, (uint64_t)slot * SLOT_STRIDE);
    return rc == 0 ? io->sync(io->context, fd) : rc;
}

int hard_state_write(const struct store_io *io, int fd, const struct hard_state *state,
                     int slot)
{
    uint8_t bytes[SLOT_BYTES];
    hard_state_encode(bytes, state);
    return slot_write(io, fd, bytes, slot);
}

int commit_hint_write(const struct store_io *io, int fd, const struct commit_hint *hint,
                      int slot)
{
    uint8_t bytes[SLOT_BYTES];
    commit_hint_encode(bytes, hint);
    return slot_write(io, fd, bytes, slot);
}

static ssize_t slot_read(const struct store_io *io, int fd, uint8_t bytes[SLOT_BYTES],
                         int slot)
{
    return read_full(io, fd, bytes, SLOT_BYTES, (uint64_t)slot * SLOT_STRIDE);
}

/* A slot of a newer format beside a good old one still means: a newer tierce was here. */
int hard_state_read(const struct store_io *io, int fd, uint32_t newest,
                    struct hard_state *ret, int *ret_slot)
{
    int found = -EBADMSG;
    struct hard_state best = {0};
    for (int slot = 0; slot < 2; slot++) {
        uint8_t bytes[SLOT_BYTES];
        struct hard_state state;
        ssize_t n = slot_read(io, fd, bytes, slot);
        if (n < 0)
            return (int)n;
        int rc = hard_state_decode(bytes, (size_t)n, newest, &state);
        if (rc == -EPROTONOSUPPORT)
            return rc;
        if (rc == 0 && (found < 0 || state.sequence > best.sequence)) {
            best = state;
            found = slot;
        }
    }
    if (found < 0)
        return found;
    *ret = best;
    *ret_slot = found;
    return 0;
}

int commit_hint_read(const struct store_io *io, int fd, uint32_t newest,
                     struct commit_hint *ret, int *ret_slot)
{
    int found = -EBADMSG;
    struct commit_hint best = {0};
    for (int slot = 0; slot < 2; slot++) {
        uint8_t bytes[SLOT_BYTES];
        struct commit_hint hint;
        ssize_t n = slot_read(io, fd, bytes, slot);
        if (n < 0)
            return (int)n;
        int rc = commit_hint_decode(bytes, (size_t)n, newest, &hint);
        if (rc == -EPROTONOSUPPORT)
            return rc;
        if (rc == 0 && (found < 0 || hint.commit > best.commit)) {
            best = hint;
            found = slot;
        }
    }
    if (found < 0)
        return found;
    *ret = best;
    *ret_slot = found;
    return 0;
}
