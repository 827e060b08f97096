/*
 * overlay.h - what this host's processes have written to one inode and what is not
 * committed yet (K11), as data: no locks, no I/O, no operations.
 *
 * An overlay is a queue of layers over the committed value. Each layer becomes one
 * operation, in order; only the last one takes writes, until it is sealed:
 *
 *   write    positioned ranges, laid over what is below; or, without any, a new size
 *   append   bytes for the end of the file, wherever that is when they are committed
 * (K12) replace  a new value from nothing (O_TRUNC): hides all below. When it grows, its
 * ranges are moved out into a *build*, whose bytes then live under a content id
 *
 *   open --seal--> sealed --(the owner commits it)--> popped
 *
 * A layer's id changes when a replace layer is begun anew, so that "my write is in layer
 * 7" is false once somebody truncated it away.
 */
#ifndef TIERCE_FS_OVERLAY_H
#define TIERCE_FS_OVERLAY_H

#include "base.h"

enum {
    OVERLAY_RANGES = 1024, /* ranges of a layer before it is full */
    OVERLAY_SLOTS = 32, /* slots they touch before it is full; with one write more ... */
    OVERLAY_SLOTS_MAX = 52, /* ... at most this, which evaluation takes (FS_OP_SLOTS) */
    OVERLAY_GRAIN_BYTES = 4096, /* what holds data is told in multiples of this */
};

struct overlay_range {
    uint64_t offset;
    struct buf data;
};

/* Ascending, not overlapping, not touching. */
struct overlay_ranges {
    struct overlay_range *at;
    size_t count, room;
    uint64_t bytes;
};

enum overlay_kind {
    OVERLAY_WRITE,
    OVERLAY_APPEND,
    OVERLAY_REPLACE,
};

/* Attributes that are to be set with a layer's commit, after its bytes. */
struct overlay_attributes {
    uint32_t set; /* enum fs_set, without FS_SET_SIZE */
    uint32_t mode, uid, gid;
    int64_t atime_ns, mtime_ns;
};

struct mount_call;

/* Stretches of a file; beyond as many, the last one reaches over what is between. */
enum { SPANS = 8 };
struct span {
    uint64_t from, end;
};
struct spans {
    size_t count;
    struct span at[SPANS];
};

struct overlay_layer {
    struct overlay_layer *next;
    uint64_t id;
    enum overlay_kind kind;
    bool sealed;
    bool written;  /* bytes or a size came since it was begun */
    bool sized;    /* write: `size` is set after the ranges; replace: always */
    bool building; /* replace: `build` is on its way */
    bool stale;    /* replace: begun anew while building; the build's result is void */
    bool strayed;  /* append: the kernel assumed another offset for one of the writes */
    uint64_t size;
    uint64_t content;   /* replace: content id of the builds so far, 0: none */
    uint64_t built_end; /* replace: end of what is in `content` or on its way there */
    struct overlay_ranges ranges, build;
    struct overlay_attributes attributes;
    int64_t written_ns; /* the owner's: shown as mtime and ctime, and committed (M23) */
    /* The owner's: writes that the kernel's pages may lack (M24). */
    struct spans overtaken;
    struct mount_call *waiting; /* the owner's: who waits for its commit */
    uint64_t session; /* the owner's: in which alone it may be committed; 0: in any */
};

struct overlay {
    struct overlay_layer *first, *last;
};

void overlay_release(struct overlay *o);
bool overlay_empty(const struct overlay *o);
struct overlay_layer *overlay_find(const struct overlay *o, uint64_t id); /* NULL: gone */
/* The layer that takes writes now; NULL: none does. */
struct overlay_layer *overlay_open(const struct overlay *o);

/* Takes a write into the last layer, or into a new one with the next id. `offset` is the
 * kernel's; an append into a replace layer goes to that layer's end. *ret_id: where it
 * went. -ENOMEM: nothing changed. */
int overlay_write(struct overlay *o, uint64_t *next_id, uint64_t offset, const void *data,
                  size_t length, bool append, uint64_t *ret_id);
/* O_TRUNC: begins a new value, or the open one anew. Layers that nobody waits for and
 * that are not on their way (`flying` is, or NULL) are hidden for ever by it, and
 * dropped. */
int overlay_replace(struct overlay *o, uint64_t *next_id,
                    const struct overlay_layer *flying, uint64_t *ret_id);
/* Cuts or extends the open replace layer. False: this cuts into what was built, which
 * cannot be undone there; the caller must seal the layer, whose commit then does it. */
bool overlay_resize(struct overlay *o, uint64_t size);
/* Makes [from, end) of the open replace layer zeros. False: some of it was built, which
 * cannot be undone there: as above, then it is the committed value's. -ENOMEM. */
int overlay_punch(struct overlay *o, uint64_t from, uint64_t end, bool *ret_done);
/* A sealed layer at the end that sets attributes, and the size where `size` is not NULL:
 * the open one where there is no size to set, else a new one. */
int overlay_set(struct overlay *o, uint64_t *next_id,
                const struct overlay_attributes *attributes, const uint64_t *size,
                struct overlay_layer **ret);
/* Bytes that are, or will be, stored of a file of `size`, where the value below has `base`; what
 * is written over counts twice till then, and holes do not. */
uint64_t overlay_stored(const struct overlay *o, uint64_t base, uint64_t size);
/* Where its last byte ends; of an append: where the kernel thinks so. */
uint64_t overlay_layer_end(const struct overlay_layer *layer);
bool overlay_full(const struct overlay_layer *layer);
/* Whether one operation takes all its ranges. */
bool overlay_fits(const struct overlay_layer *layer);
/* Moves the first ranges, as many as one operation takes, into the build. */
int overlay_build(struct overlay_layer *layer);
/* The build arrived (content id) or is void. */
void overlay_built(struct overlay_layer *layer, uint64_t content);
/* Takes the first layer out of the queue; free it with overlay_layer_free(). */
struct overlay_layer *overlay_pop(struct overlay *o);
void overlay_layer_free(struct overlay_layer *layer);
/* Ends a queue: moves all layers of `from` behind those of `to`. */
void overlay_move(struct overlay *to, struct overlay *from);

/* Whether the committed value is hidden; *ret_content: what is read in its place (0:
 * zeros). */
bool overlay_hides_base(const struct overlay *o, uint64_t *ret_content);
/* Lays the layers over `window`, which holds `length` bytes of the base from `offset` on.
 * `base_size` is the base's size (or anything beyond the window, if it is beyond).
 * Returns the size of the whole. */
uint64_t overlay_apply(const struct overlay *o, uint64_t base_size, uint64_t offset,
                       uint8_t *window, size_t length);
uint64_t overlay_size(const struct overlay *o, uint64_t base_size);
/* The first stretch that was written to, in whole grains, and ends behind `offset`; what was
 * cut away again may be in it. Without what is built. False: there is none. */
bool overlay_data(const struct overlay *o, uint64_t offset, uint64_t *ret_start,
                  uint64_t *ret_end);
/* Panics unless the ranges and the queue are as said above. */
void check_overlay(const struct overlay *o);

#endif
