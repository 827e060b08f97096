/*
 * content.c - changing what is stored of a file, slot by slot (README E1-E6).
 *
 * An edit takes in one slot: extents that a change cuts into are loaded into a buffer of
 * the slot's size and taken away; grains written to are emitted as the longest extents
 * possible, the others of a cut extent as aligned blocks of a power of two of grains. So
 * a grain is emitted anew by later cuts at most log2(16) times, whatever their order.
 */
#include "evaluate.h"

#include <errno.h>

struct edit {
    struct slot slot;
    bool open;
    uint8_t *bytes; /* of the slot; zeros where nothing was loaded or written */
    uint16_t end[SLOT_GRAINS]; /* bytes there are of each grain */
    bool written[SLOT_GRAINS]; /* grains that the change itself touched */
    bool taken[SLOT_GRAINS];   /* extents, by place in `slot`, that are taken away */
    bool emitted[SLOT_GRAINS]; /* grains that an emitted extent begins with */
};

static int edit_open(struct eval *e, struct edit *edit, uint64_t offset)
{
    const struct content *c = &e->content;
    uint32_t trims = (uint32_t)(c->trims.length / TRIM_RECORD_BYTES);
    if (!e->slot_bytes)
        e->slot_bytes = malloc(SLOT_BYTES);
    if (!e->slot_bytes)
        return -ENOMEM;
    *edit = (struct edit){.open = true, .bytes = e->slot_bytes};
    memset(edit->bytes, 0, SLOT_BYTES);
    int error = slot_load(e->view, c->id, offset,
                          trims_floor(c->trims.data, trims, offset), &edit->slot);
    for (unsigned i = 0; i < edit->slot.count; i++)
        edit->taken[i] = edit->slot.extents[i].is_void;
    return error;
}

/* Says that [start, end) of the slot is in the buffer. */
static void edit_mark(struct edit *edit, uint32_t start, uint32_t end, bool written)
{
    for (uint32_t g = start / GRAIN_BYTES; g * GRAIN_BYTES < end; g++) {
        uint32_t there = (uint32_t)min_u64(end - g * GRAIN_BYTES, GRAIN_BYTES);
        if (edit->end[g] < there)
            edit->end[g] = (uint16_t)there;
        if (written)
            edit->written[g] = true;
    }
}

/* Takes an extent away, keeping its bytes for what is left of it. */
static int edit_take(struct eval *e, struct edit *edit, unsigned i)
{
    const struct extent *extent = &edit->slot.extents[i];
    int error = extent_get(e->view, &edit->slot, extent, &e->scratch);
    if (error)
        return error == -ENOENT ? -EIO : error;
    memcpy(edit->bytes + extent->start, e->scratch.data, extent->length);
    edit_mark(edit, extent->start, extent->start + extent->length, false);
    edit->taken[i] = true;
    return 0;
}

static int edit_write(struct eval *e, struct edit *edit, uint32_t start,
                      const uint8_t *data, uint32_t length)
{
    uint32_t from = start / GRAIN_BYTES * GRAIN_BYTES;
    uint32_t end = start + length;
    for (unsigned i = 0; i < edit->slot.count; i++) {
        const struct extent *x = &edit->slot.extents[i];
        uint32_t x_end = x->start + x->length;
        if (edit->taken[i] || x->start >= end || x_end <= from)
            continue;
        if (start <= x->start && x_end <= end) {
            edit->taken[i] = true; /* nothing is left of it: not read */
            continue;
        }
        int error = edit_take(e, edit, i);
        if (error)
            return error;
    }
    memcpy(edit->bytes + start, data, length);
    edit_mark(edit, start, end, true);
    return 0;
}

/* Makes [start, end) a hole, before anything is written to the slot. */
static int edit_zero(struct eval *e, struct edit *edit, uint32_t start, uint32_t end)
{
    for (unsigned i = 0; i < edit->slot.count; i++) {
        const struct extent *x = &edit->slot.extents[i];
        uint32_t x_end = x->start + x->length;
        if (edit->taken[i] || x->start >= end || x_end <= start)
            continue;
        if (start <= x->start && x_end <= end) {
            edit->taken[i] = true;
            continue;
        }
        int error = edit_take(e, edit, i);
        if (error)
            return error;
    }
    memset(edit->bytes + start, 0, end - start);
    for (uint32_t g = start / GRAIN_BYTES; g * GRAIN_BYTES < end; g++) {
        uint32_t base = g * GRAIN_BYTES;
        if (base + edit->end[g] <= end) /* nothing is left behind the hole */
            edit->end[g] =
                (uint16_t)min_u64(edit->end[g], start > base ? start - base : 0);
    }
    return 0;
}

/* Removes everything from `cut` on, which is behind all that was written. */
static int edit_cut(struct eval *e, struct edit *edit, uint32_t cut)
{
    for (unsigned i = 0; i < edit->slot.count; i++) {
        const struct extent *x = &edit->slot.extents[i];
        if (edit->taken[i] || x->start + x->length <= cut)
            continue;
        if (x->start >= cut) {
            edit->taken[i] = true;
            continue;
        }
        int error = edit_take(e, edit, i);
        if (error)
            return error;
    }
    for (uint32_t g = 0; g < SLOT_GRAINS; g++) {
        uint32_t left = cut > g * GRAIN_BYTES ? cut - g * GRAIN_BYTES : 0;
        edit->end[g] = (uint16_t)min_u64(edit->end[g], left);
        ensure(left > 0 || !edit->written[g]);
    }
    return 0;
}

static void edit_emit(struct eval *e, struct edit *edit, unsigned grain, uint32_t length)
{
    struct fs_key key;
    uint32_t start = grain * GRAIN_BYTES;
    fs_key_extent(&key, e->content.id, edit->slot.offset + start);
    eval_put(e, &key, edit->bytes + start, length);
    e->content.bytes += length;
    edit->emitted[grain] = true;
}

/* Written grains from g on: one extent, and the last of them apart where it is not whole
 * (an append to it then re-emits no more than that grain). Returns the grain behind. */
static unsigned emit_written(struct eval *e, struct edit *edit, unsigned g)
{
    unsigned end = g;
    while (end < SLOT_GRAINS && edit->written[end])
        end++;
    unsigned whole = edit->end[end - 1] == GRAIN_BYTES ? end : end - 1;
    if (whole > g)
        edit_emit(e, edit, g, (whole - g) * GRAIN_BYTES);
    if (whole < end)
        edit_emit(e, edit, whole, edit->end[whole]);
    return end;
}

/* What is left of cut extents, from g on: the largest aligned block of whole grains. */
static unsigned emit_left(struct eval *e, struct edit *edit, unsigned g)
{
    unsigned end = g;
    while (end < SLOT_GRAINS && !edit->written[end] && edit->end[end] == GRAIN_BYTES)
        end++;
    if (end == g) {
        edit_emit(e, edit, g, edit->end[g]);
        return g + 1;
    }
    unsigned block = SLOT_GRAINS;
    while (g % block || g + block > end)
        block /= 2;
    edit_emit(e, edit, g, block * GRAIN_BYTES);
    return g + block;
}

static void edit_close(struct eval *e, struct edit *edit)
{
    if (!edit->open)
        return;
    edit->open = false;
    for (unsigned g = 0; g < SLOT_GRAINS;) {
        if (edit->written[g])
            g = emit_written(e, edit, g);
        else if (edit->end[g])
            g = emit_left(e, edit, g);
        else
            g++;
    }
    for (unsigned i = 0; i < edit->slot.count; i++) {
        const struct extent *x = &edit->slot.extents[i];
        if (!edit->taken[i])
            continue;
        e->content.bytes -= x->length;
        if (edit->emitted[x->start / GRAIN_BYTES])
            continue; /* its key was put already (G2) */
        struct fs_key key;
        fs_key_extent(&key, e->content.id, edit->slot.offset + x->start);
        eval_delete(e, &key);
    }
}

/* The edit of the slot at `offset`; the one before is closed. */
static int edit_move(struct eval *e, struct edit *edit, uint64_t offset)
{
    if (edit->open && edit->slot.offset == offset)
        return 0;
    edit_close(e, edit);
    return edit_open(e, edit, offset);
}

static int edit_range(struct eval *e, struct edit *edit, uint64_t offset,
                      const uint8_t *data, uint32_t length)
{
    int error = 0;
    while (length && !error) {
        uint32_t start = (uint32_t)(offset % SLOT_BYTES);
        uint32_t part = (uint32_t)min_u64(length, SLOT_BYTES - start);
        error = edit_move(e, edit, offset - start);
        if (!error)
            error = edit_write(e, edit, start, data, part);
        offset += part;
        data += part;
        length -= part;
    }
    return error;
}

struct trim {
    struct buf found; /* { offset u64, length u64 }* */
    unsigned count;
    uint64_t next; /* the offset of the first that is not in `found` */
};

static int trim_item(void *arg, const struct fs_item *item)
{
    struct trim *trim = arg;
    if (item->key_size != 17)
        return -EBADMSG;
    trim->next = get_be64(item->key + 9);
    if (trim->count == RECLAIM_EXTENTS)
        return 1;
    buf_u64(&trim->found, trim->next);
    buf_u64(&trim->found, item->value_size);
    trim->count++;
    return 0;
}

/* Up to RECLAIM_EXTENTS extents in [from, end); 1: there are more. */
static int trim_scan(struct eval *e, uint64_t content, uint64_t from, uint64_t end,
                     struct trim *trim)
{
    struct fs_key first, last;
    fs_key_extent(&first, content, from);
    fs_key_extent(&last, content, end);
    int more = e->view->scan(e->view->context, first.bytes, first.size, last.bytes,
                             last.size, trim_item, trim);
    return trim->found.failed ? -ENOMEM : more;
}

static void delete_found(struct eval *e, uint64_t content, const struct trim *trim,
                         uint64_t below, uint64_t *bytes)
{
    for (unsigned i = 0; i < trim->count; i++) {
        struct fs_key key;
        uint64_t offset = get_u64(trim->found.data + i * 16);
        if (offset >= below)
            break;
        fs_key_extent(&key, content, offset);
        eval_delete(e, &key);
        *bytes -= get_u64(trim->found.data + i * 16 + 8);
    }
}

/* Removes all extents from the slot at `from` on: now where they are few, else up to the
 * next unit now, and the rest is void (E6) until FS_RECLAIM has deleted it. */
static int content_trim(struct eval *e, uint64_t from)
{
    struct content *c = &e->content;
    struct trim trim = {0};
    uint64_t unit = (from + TRIM_UNIT_BYTES - 1) / TRIM_UNIT_BYTES * TRIM_UNIT_BYTES;
    int more = trim_scan(e, c->id, from, UINT64_MAX, &trim);
    size_t keep = 0;
    while (keep < c->trims.length && get_u64(c->trims.data + keep) < unit)
        keep += TRIM_RECORD_BYTES;
    if (more > 0 && keep == TRIM_MAX * TRIM_RECORD_BYTES)
        more = -EBUSY;
    if (more >= 0) {
        c->trims.length = keep;
        if (more > 0) {
            buf_u64(&c->trims, unit);
            buf_u64(&c->trims, e->change->timestamp_us);
        }
        delete_found(e, c->id, &trim, more ? unit : UINT64_MAX, &c->bytes);
    }
    buf_release(&trim.found);
    return more < 0 ? more : 0;
}

int content_write(struct eval *e, const uint8_t *base, size_t base_size,
                  const uint8_t *ranges, size_t ranges_size, uint64_t cut)
{
    struct edit edit = {0};
    struct reader r = reader_of(ranges, ranges_size);
    uint64_t offset;
    const uint8_t *data;
    uint32_t length;
    int error = edit_range(e, &edit, 0, base, (uint32_t)base_size);
    while (!error && fs_range_next(&r, &offset, &data, &length))
        error = edit_range(e, &edit, offset, data, length);
    if (!error && cut != CONTENT_UNCUT && cut % SLOT_BYTES) {
        error = edit_move(e, &edit, cut - cut % SLOT_BYTES);
        if (!error)
            error = edit_cut(e, &edit, (uint32_t)(cut % SLOT_BYTES));
    }
    if (!error)
        edit_close(e, &edit);
    if (!error && cut != CONTENT_UNCUT)
        error = content_trim(e, (cut + SLOT_BYTES - 1) / SLOT_BYTES * SLOT_BYTES);
    return error;
}

/* The part of a range that lies before `end`, written into the edited slot; the range
 * becomes what is left of it. */
static int edit_part(struct eval *e, struct edit *edit, uint64_t end, uint64_t *offset,
                     const uint8_t **data, uint32_t *length)
{
    uint32_t part = (uint32_t)min_u64(*length, end - *offset);
    int error = edit_write(e, edit, (uint32_t)(*offset % SLOT_BYTES), *data, part);
    *offset += part;
    *data += part;
    *length -= part;
    return error;
}

int content_overwrite(struct eval *e, uint64_t from, uint64_t end, const uint8_t *ranges,
                      size_t ranges_size)
{
    struct edit edit = {0};
    struct reader r = reader_of(ranges, ranges_size);
    uint64_t offset = 0;
    const uint8_t *data = NULL;
    uint32_t length = 0;
    int error = 0;
    while (from < end && !error) {
        uint64_t base = from - from % SLOT_BYTES;
        uint64_t next = min_u64(end, base + SLOT_BYTES);
        error = edit_move(e, &edit, base);
        if (!error)
            error = edit_zero(e, &edit, (uint32_t)(from - base), (uint32_t)(next - base));
        while (!error && (length || fs_range_next(&r, &offset, &data, &length)) &&
               offset < next)
            error = edit_part(e, &edit, next, &offset, &data, &length);
        from = next;
    }
    if (!error)
        edit_close(e, &edit);
    return error;
}

int content_punch(struct eval *e, uint64_t from, uint64_t end, uint64_t *ret_end)
{
    struct content *c = &e->content;
    struct trim trim = {0};
    uint64_t first = (from + SLOT_BYTES - 1) / SLOT_BYTES * SLOT_BYTES;
    uint64_t last = end / SLOT_BYTES * SLOT_BYTES;
    *ret_end = end;
    if (first >= last)
        return content_overwrite(e, from, end, NULL, 0);
    int more = content_overwrite(e, from, first, NULL, 0);
    if (!more)
        more = trim_scan(e, c->id, first, last, &trim);
    if (more >= 0)
        delete_found(e, c->id, &trim, UINT64_MAX, &c->bytes);
    if (more > 0)
        *ret_end = trim.next;
    if (!more)
        more = content_overwrite(e, last, end, NULL, 0);
    buf_release(&trim.found);
    return more < 0 ? more : 0;
}

int content_drop(struct eval *e, uint64_t content, bool recorded)
{
    struct trim trim = {0};
    struct fs_key key;
    uint64_t bytes = 0;
    int more = trim_scan(e, content, 0, UINT64_MAX, &trim);
    if (more >= 0 && (more > 0 || trim.count > DROP_EXTENTS)) {
        content_record_put(e, content, 0, 0);
    } else if (more == 0) {
        delete_found(e, content, &trim, UINT64_MAX, &bytes);
        fs_key_content(&key, content);
        if (recorded)
            eval_delete(e, &key);
    }
    buf_release(&trim.found);
    return more < 0 ? more : 0;
}

bool content_value_read(const uint8_t *value, size_t size, enum content_record *ret,
                        uint64_t *ret_session, uint64_t *ret_more)
{
    if (!value || size != CONTENT_VALUE_BYTES)
        return false;
    *ret_session = get_u64(value);
    *ret_more = get_u64(value + 8);
    *ret = *ret_session ? CONTENT_BUILDING
           : *ret_more  ? CONTENT_TRIMMED
                        : CONTENT_DROPPED;
    return true;
}

int content_record_get(struct eval *e, uint64_t content, enum content_record *ret,
                       uint64_t *ret_session, uint64_t *ret_more)
{
    struct fs_key key;
    uint64_t timestamp;
    fs_key_content(&key, content);
    buf_clear(&e->scratch);
    int error =
        e->view->get(e->view->context, key.bytes, key.size, &e->scratch, &timestamp);
    if (error)
        return error;
    if (!content_value_read(e->scratch.data, e->scratch.length, ret, ret_session,
                            ret_more))
        return -EBADMSG;
    return 0;
}

void content_record_put(struct eval *e, uint64_t content, uint64_t session, uint64_t more)
{
    struct fs_key key;
    uint8_t value[CONTENT_VALUE_BYTES];
    fs_key_content(&key, content);
    put_u64(value, session);
    put_u64(value + 8, more);
    eval_put(e, &key, value, sizeof(value));
}
