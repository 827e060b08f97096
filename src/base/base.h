/*
 * base.h - what every folder stands on: bounded readers and writers of bytes, a growable
 * buffer, the checksum, clocks, randomness, the log, assertions, and every limit.
 *
 * Errors: functions that can fail return 0 or a negative errno, and leave their outputs
 * (ret_*) untouched on failure. Threads: everything here may be called from any thread; an
 * object belongs to one thread at a time.
 */
#ifndef TIERCE_BASE_H
#define TIERCE_BASE_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Limits: every bound of the system, in one place ------------------------------- */

#define KiB ((size_t)1024)
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)

/* The simulator is built with small bounds, so that what fills in hours fills in minutes. */
#ifdef TIERCE_SMALL
#define LIMIT_OF(usual, small) (small)
#else
#define LIMIT_OF(usual, small) (usual)
#endif

enum {
    LIMIT_NAME_BYTES = 255,           /* a file name, a node's name */
    LIMIT_PATH_BYTES = 4095,          /* a path, a symlink's target */
    LIMIT_MEMBERS = 32,               /* nodes of a cluster, learners included */
    LIMIT_ADDRESS_BYTES = 280,        /* HOST:PORT */
    LIMIT_INLINE_BYTES = 4096,        /* content kept in the inode's own record */
    LIMIT_EXTENT_BYTES = 64 * 1024,   /* one extent (G10) */
    LIMIT_KEYDIR_INLINE_BYTES = 16,   /* a value that sits in the keydir */
    LIMIT_KEY_BYTES = 512,            /* class byte, two u64 and a name, with room */
    LIMIT_WRITE_BUFFER_BYTES = LIMIT_OF(1 << 20, 64 << 10), /* buffered per inode before it is committed */
    LIMIT_ENTRY_BYTES = LIMIT_OF(4 << 20, 224 << 10), /* one entry, entry record included (G2) */
    LIMIT_ENTRY_RECORDS = 4096,       /* data records of one entry */
    LIMIT_FRAME_BYTES = (4 << 20) + (64 << 10), /* value of one frame */
    LIMIT_JOIN_FRAME_BYTES = 8 << 10, /* a frame from a peer that has no certificate yet */
    LIMIT_SESSION_WINDOW = LIMIT_OF(1024, 32), /* requests of a session that may be in flight (S2) */
    LIMIT_SESSIONS = 256,             /* open ones, of all nodes together */
    LIMIT_PARKED_BYTES = LIMIT_OF(8 << 20, 64 << 10), /* of a session's operations that wait in order */
    LIMIT_CONNECTIONS = 2048,         /* of the TLS port, all together */
    LIMIT_UNPROVEN_CONNECTIONS = 256, /* of those: still in handshake, or before HELLO */
    LIMIT_APPEND_BYTES = LIMIT_OF(1 << 20, 16 << 10), /* entries in one APPEND frame, unless one is larger */
    LIMIT_SEND_QUEUE_BYTES = LIMIT_OF(8 << 20, 64 << 10), /* unsent bytes of a connection before it is full */
    LIMIT_FLIGHT_BYTES = LIMIT_OF(8 << 20, 64 << 10), /* of entries sent to a peer, and not yet durable there */
    LIMIT_LOCAL_CONNECTIONS = 128,    /* of the control socket */
    LIMIT_UNWRITTEN_BYTES = LIMIT_OF(64 << 20, 1 << 20), /* received from a leader, and not on this disk */
    LIMIT_INFLIGHT_BYTES = 64 << 20,  /* proposed and not yet applied on a leader */
};

#define LIMIT_FILE_BYTES ((uint64_t)1 << 40) /* EFBIG beyond */

_Static_assert(LIMIT_ENTRY_BYTES < LIMIT_FRAME_BYTES, "an entry fits a frame");
_Static_assert(2 * LIMIT_WRITE_BUFFER_BYTES < LIMIT_ENTRY_BYTES,
               "a buffer and the write that overfilled it fit an entry");

/* ---- Assertions ---------------------------------------------------------------------- */

/* States what a caller or this code must keep; checked in every build. What comes from
 * disk, network, kernel or user is handled, never asserted. */
#define ensure(condition)                                                                \
    do {                                                                                 \
        if (__builtin_expect(!(condition), 0))                                           \
            ensure_failed(#condition, __FILE__, __LINE__);                               \
    } while (0)

_Noreturn void ensure_failed(const char *condition, const char *file, int line);

#define array_length(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(pointer, type, member)                                              \
    ((type *)((char *)(pointer)-offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- Reading bytes that may be wrong ------------------------------------------------- */

/* A cursor over [at, end). A read beyond the end returns 0 (or NULL), marks the reader bad
 * and moves it to the end; the caller checks once, at the end, with reader_done(). */
struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

struct reader reader_of(const void *data, size_t length);
/* A u16 length and that many bytes. */
const uint8_t *reader_string(struct reader *r, size_t *ret_length);
/* A string copied to a NUL-terminated array; bad where it does not fit or holds a NUL. */
void reader_cstring(struct reader *r, char *to, size_t size);
/* Whether every read was good and nothing is left: "fields fill their frame exactly". */
bool reader_done(const struct reader *r);

/* ---- Writing bytes into a bounded place ----------------------------------------------- */

/* A growable byte string. Allocation failure makes it `failed`: further writes do nothing,
 * and the caller checks once. {0} is a valid empty buffer. */
struct buf {
    uint8_t *data;
    size_t length;
    size_t capacity;
    bool failed;
};

void buf_release(struct buf *b); /* frees; leaves a valid empty buffer */
void buf_clear(struct buf *b);   /* empty, keeps its memory */
void buf_reserve(struct buf *b, size_t more);
/* `length` uninitialised bytes at the end; NULL on failure. */
uint8_t *buf_extend(struct buf *b, size_t length);
void buf_bytes(struct buf *b, const void *data, size_t length);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
void buf_be64(struct buf *b, uint64_t v);
void buf_string(struct buf *b, const void *data, size_t length); /* u16 length, bytes */
void buf_cstring(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3))); /* text, without its NUL */
/* Gives the bytes to the caller, who frees them; the buffer is empty. */
uint8_t *buf_steal(struct buf *b, size_t *ret_length);

/* In place, for fixed layouts. */
static inline void put_u16(uint8_t *to, uint16_t v)
{
    v = htole16(v);
    memcpy(to, &v, sizeof(v));
}

static inline void put_u32(uint8_t *to, uint32_t v)
{
    v = htole32(v);
    memcpy(to, &v, sizeof(v));
}

static inline void put_u64(uint8_t *to, uint64_t v)
{
    v = htole64(v);
    memcpy(to, &v, sizeof(v));
}

static inline void put_be64(uint8_t *to, uint64_t v)
{
    v = htobe64(v);
    memcpy(to, &v, sizeof(v));
}

static inline uint16_t get_u16(const uint8_t *from)
{
    uint16_t v;
    memcpy(&v, from, sizeof(v));
    return le16toh(v);
}

static inline uint32_t get_u32(const uint8_t *from)
{
    uint32_t v;
    memcpy(&v, from, sizeof(v));
    return le32toh(v);
}

static inline uint64_t get_u64(const uint8_t *from)
{
    uint64_t v;
    memcpy(&v, from, sizeof(v));
    return le64toh(v);
}

static inline uint64_t get_be64(const uint8_t *from)
{
    uint64_t v;
    memcpy(&v, from, sizeof(v));
    return be64toh(v);
}

/* ---- The bounded reader's numbers: little-endian, but for be64 ----------------------- */

static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

/* `length` bytes, pointing into the reader's memory; NULL where there are fewer. */
static inline const uint8_t *reader_bytes(struct reader *r, size_t length)
{
    if (reader_left(r) < length) {
        r->bad = true;
        r->at = r->end;
        return NULL;
    }
    const uint8_t *at = r->at;
    r->at += length;
    return at;
}

static inline uint8_t reader_u8(struct reader *r)
{
    const uint8_t *at = reader_bytes(r, 1);
    return at ? at[0] : 0;
}

static inline uint16_t reader_u16(struct reader *r)
{
    const uint8_t *at = reader_bytes(r, 2);
    return at ? get_u16(at) : 0;
}

static inline uint32_t reader_u32(struct reader *r)
{
    const uint8_t *at = reader_bytes(r, 4);
    return at ? get_u32(at) : 0;
}

static inline uint64_t reader_u64(struct reader *r)
{
    const uint8_t *at = reader_bytes(r, 8);
    return at ? get_u64(at) : 0;
}

/* Big-endian, as keys are, so that they sort. */
static inline uint64_t reader_be64(struct reader *r)
{
    const uint8_t *at = reader_bytes(r, 8);
    return at ? get_be64(at) : 0;
}

/* ---- Checksum, clocks, chance ---------------------------------------------------------- */

/* CRC-32 (IEEE 802.3, as in zlib) of data, continuing from `crc` (0 to begin). */
uint32_t crc32_of(uint32_t crc, const void *data, size_t length);

uint64_t clock_boot_us(void); /* CLOCK_BOOTTIME: timeouts, leases (L3) */
uint64_t clock_real_us(void); /* since 1970: timestamps */

void random_bytes(void *to, size_t length); /* from the kernel; cannot fail */
uint64_t random_u64(void);
/* Deterministic, for seeded decisions: xorshift64*. *state must not be 0. */
uint64_t random_next(uint64_t *state);

/* Lower-case hex; `to` holds 2 * length + 1. hex_parse: 0, or -EINVAL unless `text` is
 * exactly 2 * length digits. */
void hex_format(char *to, const void *data, size_t length);
int hex_parse(const char *text, void *to, size_t length);

/* ---- Facts: what was found somewhere, for people and for programs ---------------------- */

enum fact_type {
    FACT_NUMBER,
    FACT_ID,    /* a number that is shown as hexadecimal digits */
    FACT_TEXT,  /* `data` is a string */
    FACT_BYTES, /* anything, shown as text where it is */
    FACT_HEX,   /* anything, shown as hexadecimal digits */
    FACT_FLAG,
};

struct fact_field {
    const char *name;
    enum fact_type type;
    uint64_t number; /* NUMBER, ID, FLAG */
    const void *data;
    size_t size; /* BYTES, HEX */
};

/* One line: what kind of thing, and its fields. All of it is its maker's. */
struct fact {
    const char *kind;
    const struct fact_field *fields;
    size_t count;
};

/* ---- The log ---------------------------------------------------------------------------- */

/* Only node, cli and fs/FUSE speak; libraries return errors. One line a message, written
 * with one write(2): time, level, text. To stderr unless log_open() named a file. */
enum log_level { LOG_DEBUG_LEVEL, LOG_INFO_LEVEL, LOG_WARN_LEVEL, LOG_ERROR_LEVEL };

int log_open(const char *path); /* append to this file from now on */
void log_set_level(enum log_level level);
void log_at(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#define log_debug(...) log_at(LOG_DEBUG_LEVEL, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO_LEVEL, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN_LEVEL, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR_LEVEL, __VA_ARGS__)
/* Logs an error and ends the process at once, without clean-up (a failed sync, section 3). */
_Noreturn void log_fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
