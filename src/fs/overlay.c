/* overlay.c - layers of uncommitted writes over an inode's committed value (K11, K12). */
#include "overlay.h"

#include "fs.h"

#include <errno.h>

/* ---- Ranges ---- */

static uint64_t range_end(const struct overlay_range *r)
{
    return r->offset + r->data.length;
}

static void ranges_release(struct overlay_ranges *s)
{
    for (size_t i = 0; i < s->count; i++)
        buf_release(&s->at[i].data);
    free(s->at);
    *s = (struct overlay_ranges){0};
}

static uint64_t ranges_end(const struct overlay_ranges *s)
{
    return s->count ? range_end(&s->at[s->count - 1]) : 0;
}

/* The first range that ends at or after `offset`. */
static size_t ranges_find(const struct overlay_ranges *s, uint64_t offset)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (range_end(&s->at[middle]) < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int ranges_insert(struct overlay_ranges *s, size_t i, uint64_t offset,
                         const void *data, size_t length)
{
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 4;
        struct overlay_range *at = realloc(s->at, room * sizeof(*at));
        if (!at)
            return -ENOMEM;
        s->at = at;
        s->room = room;
    }
    struct overlay_range fresh = {.offset = offset};
    buf_bytes(&fresh.data, data, length);
    if (fresh.data.failed)
        return -ENOMEM;
    memmove(&s->at[i + 1], &s->at[i], (s->count - i) * sizeof(s->at[0]));
    s->at[i] = fresh;
    s->count++;
    s->bytes += length;
    return 0;
}

/* The bytes fall into, or continue, one range: the usual, a stream of writes. */
static int ranges_extend(struct overlay_ranges *s, struct overlay_range *r,
                         uint64_t offset, const void *data, size_t length)
{
    size_t from = (size_t)(offset - r->offset), end = from + length;
    if (end > r->data.length) {
        size_t more = end - r->data.length;
        if (!buf_extend(&r->data, more)) {
            r->data.failed = false; /* what it holds is untouched */
            return -ENOMEM;
        }
        s->bytes += more;
    }
    memcpy(r->data.data + from, data, length);
    return 0;
}

/* Ranges i..j-1 and the new bytes become one. */
static int ranges_merge(struct overlay_ranges *s, size_t i, size_t j, uint64_t offset,
                        const void *data, size_t length)
{
    uint64_t start = min_u64(offset, s->at[i].offset);
    uint64_t end = max_u64(offset + length, range_end(&s->at[j - 1]));
    struct overlay_range whole = {.offset = start};
    if (!buf_extend(&whole.data, (size_t)(end - start)))
        return -ENOMEM;
    for (size_t k = i; k < j; k++) {
        struct overlay_range *r = &s->at[k];
        memcpy(whole.data.data + (r->offset - start), r->data.data, r->data.length);
        s->bytes -= r->data.length;
        buf_release(&r->data);
    }
    memcpy(whole.data.data + (offset - start), data, length);
    s->bytes += whole.data.length;
    s->at[i] = whole;
    memmove(&s->at[i + 1], &s->at[j], (s->count - j) * sizeof(s->at[0]));
    s->count -= j - i - 1;
    return 0;
}

static int ranges_put(struct overlay_ranges *s, uint64_t offset, const void *data,
                      size_t length)
{
    if (!length)
        return 0;
    size_t i = ranges_find(s, offset), j = i;
    while (j < s->count && s->at[j].offset <= offset + length)
        j++;
    if (i == j)
        return ranges_insert(s, i, offset, data, length);
    if (j == i + 1 && s->at[i].offset <= offset)
        return ranges_extend(s, &s->at[i], offset, data, length);
    return ranges_merge(s, i, j, offset, data, length);
}

static void ranges_cut(struct overlay_ranges *s, uint64_t size)
{
    while (s->count && ranges_end(s) > size) {
        struct overlay_range *r = &s->at[s->count - 1];
        size_t keep = r->offset < size ? (size_t)(size - r->offset) : 0;
        s->bytes -= r->data.length - keep;
        r->data.length = keep;
        if (keep)
            return;
        buf_release(&r->data);
        s->count--;
    }
}

static void ranges_remove(struct overlay_ranges *s, size_t i)
{
    s->bytes -= s->at[i].data.length;
    buf_release(&s->at[i].data);
    s->count--;
    memmove(&s->at[i], &s->at[i + 1], (s->count - i) * sizeof(s->at[0]));
}

static void ranges_apply(const struct overlay_ranges *s, uint64_t offset, uint8_t *window,
                         size_t length)
{
    for (size_t i = ranges_find(s, offset); i < s->count; i++) {
        const struct overlay_range *r = &s->at[i];
        uint64_t from = max_u64(r->offset, offset);
        uint64_t end = min_u64(range_end(r), offset + length);
        if (r->offset >= offset + length)
            return;
        if (from < end)
            memcpy(window + (from - offset), r->data.data + (from - r->offset),
                   (size_t)(end - from));
    }
}

/* How many slots (aligned LIMIT_EXTENT_BYTES) the first `count` ranges touch: an entry
 * may have to write each of them anew (G10). */
static size_t ranges_slots(const struct overlay_ranges *s, size_t count)
{
    size_t slots = 0;
    uint64_t next = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t first = max_u64(next, s->at[i].offset / LIMIT_EXTENT_BYTES);
        uint64_t end = (range_end(&s->at[i]) - 1) / LIMIT_EXTENT_BYTES + 1;
        if (end > first)
            slots += (size_t)(end - first);
        next = max_u64(next, end);
    }
    return slots;
}

/* Splits the range i so that its first part has `length` bytes. */
static int ranges_split(struct overlay_ranges *s, size_t i, size_t length)
{
    struct overlay_range *r = &s->at[i];
    size_t rest = r->data.length - length;
    int error = ranges_insert(s, i + 1, r->offset + length, r->data.data + length, rest);
    if (error)
        return error;
    s->at[i].data.length = length;
    s->bytes -= rest;
    return 0;
}

/* Takes [from, end) out: -ENOMEM where that would need one range more. */
static int ranges_punch(struct overlay_ranges *s, uint64_t from, uint64_t end)
{
    size_t i = ranges_find(s, from);
    if (i < s->count && s->at[i].offset < from && range_end(&s->at[i]) > from) {
        int error = ranges_split(s, i, (size_t)(from - s->at[i].offset));
        if (error)
            return error;
    }
    if (i < s->count && s->at[i].offset < from)
        i++;
    while (i < s->count && range_end(&s->at[i]) <= end)
        ranges_remove(s, i);
    if (i < s->count && s->at[i].offset < end) {
        struct overlay_range *r = &s->at[i];
        size_t cut = (size_t)(end - r->offset);
        memmove(r->data.data, r->data.data + cut, r->data.length - cut);
        r->data.length -= cut;
        r->offset = end;
        s->bytes -= cut;
    }
    return 0;
}

/* The first range that ends behind `offset`, as far as its grains reach. */
static void ranges_data(const struct overlay_ranges *s, uint64_t offset, uint64_t *start,
                        uint64_t *end)
{
    const uint64_t grain = OVERLAY_GRAIN_BYTES;
    size_t i = ranges_find(s, offset - offset % grain);
    while (i < s->count && (range_end(&s->at[i]) + grain - 1) / grain * grain <= offset)
        i++;
    if (i == s->count || s->at[i].offset / grain * grain >= *start)
        return;
    *start = s->at[i].offset / grain * grain;
    *end = (range_end(&s->at[i]) + grain - 1) / grain * grain;
}

/* ---- Layers ---- */

void overlay_layer_free(struct overlay_layer *layer)
{
    ensure(!layer->waiting);
    ranges_release(&layer->ranges);
    ranges_release(&layer->build);
    free(layer);
}

static struct overlay_layer *layer_push(struct overlay *o, uint64_t *next_id,
                                        enum overlay_kind kind)
{
    struct overlay_layer *layer = calloc(1, sizeof(*layer));
    if (!layer)
        return NULL;
    layer->id = (*next_id)++;
    layer->kind = kind;
    layer->sized = kind == OVERLAY_REPLACE;
    if (o->last) {
        o->last->sealed = true;
        o->last->next = layer;
    } else {
        o->first = layer;
    }
    o->last = layer;
    return layer;
}

static struct overlay_layer *last_replace(const struct overlay *o)
{
    struct overlay_layer *found = NULL;
    for (struct overlay_layer *l = o->first; l; l = l->next)
        if (l->kind == OVERLAY_REPLACE)
            found = l;
    return found;
}

static void zero_from(uint64_t size, uint64_t offset, uint8_t *window, size_t length)
{
    if (size >= offset + length)
        return;
    size_t keep = size > offset ? (size_t)(size - offset) : 0;
    memset(window + keep, 0, length - keep);
}

static uint64_t layer_apply(const struct overlay_layer *l, uint64_t size, uint64_t offset,
                            uint8_t *window, size_t length)
{
    if (l->kind == OVERLAY_REPLACE) {
        zero_from(l->size, offset, window, length);
        if (l->building && !l->stale)
            ranges_apply(&l->build, offset, window, length);
    }
    ranges_apply(&l->ranges, offset, window, length);
    if (!l->sized)
        return max_u64(size, ranges_end(&l->ranges));
    zero_from(l->size, offset, window, length);
    return l->size;
}

/* ---- Public ---- */

void overlay_release(struct overlay *o)
{
    while (o->first)
        overlay_layer_free(overlay_pop(o));
}

bool overlay_empty(const struct overlay *o)
{
    return !o->first;
}

struct overlay_layer *overlay_find(const struct overlay *o, uint64_t id)
{
    struct overlay_layer *l = o->first;
    while (l && l->id != id)
        l = l->next;
    return l;
}

struct overlay_layer *overlay_open(const struct overlay *o)
{
    return o->last && !o->last->sealed ? o->last : NULL;
}

int overlay_write(struct overlay *o, uint64_t *next_id, uint64_t offset, const void *data,
                  size_t length, bool append, uint64_t *ret_id)
{
    struct overlay_layer *l = overlay_open(o);
    enum overlay_kind kind = append ? OVERLAY_APPEND : OVERLAY_WRITE;
    if (!l || (l->kind != OVERLAY_REPLACE && l->kind != kind)) {
        l = layer_push(o, next_id, kind);
        if (!l)
            return -ENOMEM;
    }
    if (append && l->kind == OVERLAY_REPLACE) {
        offset = l->size;
    } else if (append && l->ranges.count) {
        l->strayed |= offset != ranges_end(&l->ranges);
        offset = ranges_end(&l->ranges);
    }
    int error = ranges_put(&l->ranges, offset, data, length);
    if (error)
        return error;
    l->written = true;
    if (l->sized)
        l->size = max_u64(l->size, offset + length);
    *ret_id = l->id;
    return 0;
}

/* Drops what a new value hides. Returns what of it is to be done with that value. */
static uint32_t drop_hidden(struct overlay *o, const struct overlay_layer *flying)
{
    struct overlay_layer **at = &o->first, *last = NULL;
    uint32_t set = 0;
    while (*at) {
        struct overlay_layer *l = *at;
        bool sets = l->attributes.set & ~(uint32_t)FS_SET_NO_SETID;
        if (l != flying && !l->waiting && !sets && !l->building) {
            *at = l->next;
            set |= l->attributes.set;
            overlay_layer_free(l);
        } else {
            last = l;
            at = &l->next;
        }
    }
    o->last = last;
    return set;
}

int overlay_replace(struct overlay *o, uint64_t *next_id,
                    const struct overlay_layer *flying, uint64_t *ret_id)
{
    struct overlay_layer *l = overlay_open(o);
    if (l && l->kind == OVERLAY_REPLACE) {
        ranges_release(&l->ranges);
        l->stale = l->building;
        l->size = l->content = l->built_end = 0;
        l->written = false;
        l->id = (*next_id)++;
    } else {
        struct overlay above = {0};
        l = layer_push(&above, next_id, OVERLAY_REPLACE);
        if (!l)
            return -ENOMEM;
        l->attributes.set = drop_hidden(o, flying);
        overlay_move(o, &above);
    }
    *ret_id = l->id;
    return 0;
}

bool overlay_resize(struct overlay *o, uint64_t size)
{
    struct overlay_layer *l = overlay_open(o);
    ensure(l && l->kind == OVERLAY_REPLACE);
    bool cuts_build = size < l->built_end && size > 0;
    if (size == 0) { /* as if begun anew, by the same */
        l->stale = l->building;
        l->content = l->built_end = 0;
    }
    ranges_cut(&l->ranges, size);
    l->size = size;
    l->written = true;
    return !cuts_build;
}

int overlay_punch(struct overlay *o, uint64_t from, uint64_t end, bool *ret_done)
{
    struct overlay_layer *l = overlay_open(o);
    ensure(l && l->kind == OVERLAY_REPLACE);
    int error = 0;
    end = min_u64(end, l->size);
    *ret_done = from >= end || from >= l->built_end;
    if (from < end)
        error = ranges_punch(&l->ranges, from, end);
    l->written = true;
    return error;
}

int overlay_set(struct overlay *o, uint64_t *next_id,
                const struct overlay_attributes *attributes, const uint64_t *size,
                struct overlay_layer **ret)
{
    struct overlay_layer *l = overlay_open(o);
    if (!l || size) { /* bytes and a size are two operations */
        l = layer_push(o, next_id, OVERLAY_WRITE);
        if (!l)
            return -ENOMEM;
    }
    if (size) {
        l->sized = true;
        l->size = *size;
    }
    uint32_t before = l->attributes.set & FS_SET_NO_SETID; /* by a write: then these */
    l->attributes = *attributes;
    l->attributes.set |= before;
    l->sealed = true;
    *ret = l;
    return 0;
}

uint64_t overlay_stored(const struct overlay *o, uint64_t base, uint64_t size)
{
    for (const struct overlay_layer *l = o->first; l; l = l->next) {
        if (l->kind == OVERLAY_REPLACE)
            base = l->built_end;
        base += l->ranges.bytes;
    }
    return min_u64(base, size);
}

uint64_t overlay_layer_end(const struct overlay_layer *layer)
{
    return ranges_end(&layer->ranges);
}

bool overlay_full(const struct overlay_layer *layer)
{
    return layer->ranges.bytes >= LIMIT_WRITE_BUFFER_BYTES ||
           layer->ranges.count >= OVERLAY_RANGES ||
           ranges_slots(&layer->ranges, layer->ranges.count) >= OVERLAY_SLOTS;
}

bool overlay_fits(const struct overlay_layer *layer)
{
    return layer->ranges.bytes <= 2 * LIMIT_WRITE_BUFFER_BYTES &&
           ranges_slots(&layer->ranges, layer->ranges.count) <= OVERLAY_SLOTS_MAX;
}

int overlay_build(struct overlay_layer *layer)
{
    ensure(layer->kind == OVERLAY_REPLACE && !layer->building && layer->ranges.count);
    struct overlay_ranges *s = &layer->ranges;
    size_t take = 0;
    uint64_t bytes = 0;
    if (s->at[0].data.length > 2 * LIMIT_WRITE_BUFFER_BYTES) {
        int error = ranges_split(s, 0, LIMIT_WRITE_BUFFER_BYTES);
        if (error)
            return error;
    }
    while (take < s->count &&
           (!take || (bytes + s->at[take].data.length <= 2 * LIMIT_WRITE_BUFFER_BYTES &&
                      ranges_slots(s, take + 1) <= OVERLAY_SLOTS_MAX))) {
        bytes += s->at[take].data.length;
        take++;
    }
    struct overlay_ranges rest = {.count = s->count - take, .bytes = s->bytes - bytes};
    if (rest.count) {
        rest.at = calloc(rest.count, sizeof(rest.at[0]));
        if (!rest.at)
            return -ENOMEM;
        rest.room = rest.count;
        memcpy(rest.at, s->at + take, rest.count * sizeof(rest.at[0]));
    }
    layer->build = *s;
    layer->build.count = take;
    layer->build.bytes = bytes;
    layer->ranges = rest;
    layer->building = true;
    layer->built_end = max_u64(layer->built_end, ranges_end(&layer->build));
    return 0;
}

void overlay_built(struct overlay_layer *layer, uint64_t content)
{
    ensure(layer->building);
    if (!layer->stale)
        layer->content = content;
    ranges_release(&layer->build);
    layer->building = layer->stale = false;
}

struct overlay_layer *overlay_pop(struct overlay *o)
{
    struct overlay_layer *l = o->first;
    o->first = l->next;
    if (!o->first)
        o->last = NULL;
    l->next = NULL;
    return l;
}

void overlay_move(struct overlay *to, struct overlay *from)
{
    if (!from->first)
        return;
    if (to->last) {
        to->last->sealed = true;
        to->last->next = from->first;
    } else {
        to->first = from->first;
    }
    to->last = from->last;
    *from = (struct overlay){0};
}

bool overlay_hides_base(const struct overlay *o, uint64_t *ret_content)
{
    const struct overlay_layer *l = last_replace(o);
    if (!l)
        return false;
    *ret_content = l->content;
    return true;
}

uint64_t overlay_apply(const struct overlay *o, uint64_t base_size, uint64_t offset,
                       uint8_t *window, size_t length)
{
    const struct overlay_layer *l = last_replace(o);
    uint64_t size = base_size;
    zero_from(size, offset, window, length);
    for (l = l ? l : o->first; l; l = l->next)
        size = layer_apply(l, size, offset, window, length);
    return size;
}

uint64_t overlay_size(const struct overlay *o, uint64_t base_size)
{
    return overlay_apply(o, base_size, 0, NULL, 0);
}

bool overlay_data(const struct overlay *o, uint64_t offset, uint64_t *ret_start,
                  uint64_t *ret_end)
{
    const struct overlay_layer *l = last_replace(o);
    uint64_t start = UINT64_MAX, end = 0;
    for (l = l ? l : o->first; l; l = l->next) {
        ranges_data(&l->ranges, offset, &start, &end);
        ranges_data(&l->build, offset, &start, &end);
    }
    if (!end)
        return false;
    *ret_start = start;
    *ret_end = end;
    return true;
}

static void check_ranges(const struct overlay_ranges *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->count; i++) {
        ensure(s->at[i].data.length > 0);
        ensure(!i || s->at[i].offset > range_end(&s->at[i - 1]));
        bytes += s->at[i].data.length;
    }
    ensure(bytes == s->bytes && s->count <= s->room);
}

void check_overlay(const struct overlay *o)
{
    uint64_t id = 0;
    ensure(!o->first == !o->last);
    for (const struct overlay_layer *l = o->first; l; l = l->next) {
        check_ranges(&l->ranges);
        check_ranges(&l->build);
        ensure(l->id > id);
        ensure(l->sealed || l == o->last);
        ensure(l->kind == OVERLAY_REPLACE || !l->building);
        ensure(l->kind != OVERLAY_APPEND || l->ranges.count <= 1);
        ensure(!l->sized || ranges_end(&l->ranges) <= l->size);
        id = l->id;
    }
    ensure(!o->last || !o->last->next);
}
