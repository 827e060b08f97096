/*
 * inspect_lost.c - looking at what may be lost: scrub.state, and incoming/, a snapshot
 * that was being received. What is wrong with them is a note, as the store does not count
 * on them: a scrub begins anew, and what is bad is fetched again.
 */
#include "inspect.h"

enum { SCRUB_BYTES = 64, STATE_FIXED = 44 };

#define INCOMING_BYTES ((uint64_t)300 << 20) /* of STATE, at most */

static const char scrub_magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'S', 'C'};
static const char state_magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'I', 'N'};

static int means_nothing(struct inspection *x, const char *path, const char *why)
{
    return inspect_note(x, path, "%s: it means nothing, and may be removed", why);
}

/* ---- scrub.state ------------------------------------------------------------------- */

static bool is_of_another(const struct inspection *x, const uint8_t *cluster_id)
{
    return x->has_cluster &&
           memcmp(cluster_id, x->place.cluster_id, STORE_CLUSTER_ID_BYTES) != 0;
}

int inspect_scrub_file(struct inspection *x, const char *path, struct image *image)
{
    const uint8_t *data;
    size_t length;
    int rc = image_look(image, 0, SCRUB_BYTES, &data, &length);
    if (rc != 0)
        return inspect_unreadable(x, path, rc);
    bool good = length == SCRUB_BYTES && memcmp(data, scrub_magic, 8) == 0 &&
                get_u32(data + 60) == crc32_of(0, data, 60);
    if (!good)
        return means_nothing(x, path, "damaged, or not written whole");
    if (format_check(get_u32(data + 8), x->place.format_newest) != 0)
        return means_nothing(x, path, "of another format");
    fact_begin(x, "scrub");
    fact_text(x, "file", inspect_name(x, path));
    fact_number(x, "complete_us", get_u64(data + 32));
    fact_id(x, "next_file", get_u64(data + 40));
    fact_id(x, "limit_file", get_u64(data + 48));
    fact_hex(x, "cluster", data + 16, STORE_CLUSTER_ID_BYTES);
    rc = fact_end(x);
    if (rc == 0 && is_of_another(x, data + 16))
        rc = means_nothing(x, path, "of another cluster");
    return rc;
}

/* ---- incoming/STATE ---------------------------------------------------------------- */

struct incoming_state {
    uint64_t sender;
    const uint8_t *received; /* u64 each, in the image's window */
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    struct manifest manifest;
};

static int decode_state(const uint8_t *data, size_t length, uint32_t newest,
                        struct incoming_state *ret)
{
    uint8_t described[STORE_CLUSTER_ID_BYTES];
    if (length < STATE_FIXED + 8 || memcmp(data, state_magic, 8) != 0 ||
        get_u32(data + length - 4) != crc32_of(0, data, length - 4) ||
        format_check(get_u32(data + 8), newest) != 0)
        return -EBADMSG;
    struct reader r = reader_of(data + 16, length - 16 - 4);
    memcpy(ret->cluster_id, reader_bytes(&r, STORE_CLUSTER_ID_BYTES),
           STORE_CLUSTER_ID_BYTES);
    ret->sender = reader_u64(&r);
    uint32_t count = reader_u32(&r);
    if (count > reader_left(&r) / 8)
        return -EBADMSG;
    ret->received = reader_bytes(&r, (size_t)count * 8);
    uint32_t size = reader_u32(&r);
    const uint8_t *description = reader_bytes(&r, size);
    if (!reader_done(&r))
        return -EBADMSG;
    int rc = manifest_decode(description, size, newest, &ret->manifest, described);
    return rc == 0 && ret->manifest.count != count ? -EBADMSG : rc;
}

static int say_state(struct inspection *x, const char *path, uint64_t bytes,
                     const struct incoming_state *state)
{
    const struct manifest *m = &state->manifest;
    uint64_t received = 0, total = 0;
    for (size_t i = 0; i < m->count; i++) {
        received += get_u64(state->received + 8 * i);
        total += m->files[i].bytes - min_u64(m->files[i].bytes, SEGMENT_HEADER);
    }
    fact_begin(x, "incoming");
    fact_text(x, "file", inspect_name(x, path));
    fact_number(x, "bytes", bytes);
    fact_id(x, "sender", state->sender);
    fact_number(x, "files", m->count);
    fact_number(x, "received", received);
    fact_number(x, "of", total);
    fact_number(x, "merged_index", m->merged.index);
    fact_number(x, "applied_index", m->applied_index);
    fact_number(x, "applied_term", m->applied_term);
    fact_hex(x, "cluster", state->cluster_id, STORE_CLUSTER_ID_BYTES);
    return fact_end(x);
}

static int say_file(struct inspection *x, const struct incoming_state *state, size_t i)
{
    const struct manifest_file *f = &state->manifest.files[i];
    fact_begin(x, "incoming_file");
    fact_id(x, "file_id", f->file_id);
    fact_number(x, "received", get_u64(state->received + 8 * i));
    fact_number(x, "bytes", f->bytes);
    fact_number(x, "records", f->records);
    fact_number(x, "tombstones", f->tombstones);
    return fact_end(x);
}

/* 1: it is good, and told; 0: it is not. */
static int take_state(struct inspection *x, const char *path, struct image *image,
                      struct incoming_state *ret)
{
    const uint8_t *data;
    size_t length;
    if (image->size > INCOMING_BYTES)
        return means_nothing(x, path, "larger than it can be");
    int rc = image_look(image, 0, (size_t)image->size, &data, &length);
    if (rc != 0)
        return inspect_unreadable(x, path, rc);
    rc = decode_state(data, length, x->place.format_newest, ret);
    if (rc == -ENOMEM)
        return inspect_unreadable(x, path, rc);
    if (rc != 0)
        return means_nothing(x, path, "damaged, or of another format");
    rc = say_state(x, path, image->size, ret);
    if (rc == 0 && is_of_another(x, ret->cluster_id))
        return means_nothing(x, path, "of another cluster");
    return rc == 0 ? 1 : rc;
}

int inspect_incoming_file(struct inspection *x, const char *path, struct image *image)
{
    struct incoming_state state = {0};
    int rc = take_state(x, path, image, &state);
    for (size_t i = 0; i < state.manifest.count && rc == 1; i++) {
        int told = say_file(x, &state, i);
        rc = told == 0 ? 1 : told;
    }
    manifest_release(&state.manifest);
    return rc == 1 ? 0 : rc;
}

/* ---- Its parts --------------------------------------------------------------------- */

/* 1: a whole and valid record; 0: none. `ret`: its length by its sizes. */
static int look_at_record(struct image *image, uint64_t at, uint64_t end, size_t *ret)
{
    const uint8_t *data;
    size_t length;
    struct store_record record;
    int rc = image_look(image, at, STORE_RECORD_HEADER, &data, &length);
    if (rc != 0)
        return rc;
    *ret = inspect_record_bytes(data, length);
    if (*ret == 0 || *ret > end - at)
        return 0;
    rc = image_look(image, at, *ret, &data, &length);
    if (rc != 0)
        return rc;
    struct reader r = reader_of(data, length);
    return store_record_read(&r, &record) == 0 && reader_done(&r);
}

/* Up to `end`, behind which more is to come, where the last one may be cut; unless it is
 * the end of the file, `whole`. */
static int verify_records(struct inspection *x, const char *path, struct image *image,
                          uint64_t end, bool whole)
{
    size_t length = 0;
    for (uint64_t at = SEGMENT_HEADER; at < end; at += length) {
        int rc = look_at_record(image, at, end, &length);
        if (rc < 0)
            return inspect_unreadable(x, path, rc);
        bool cut = end - at < STORE_RECORD_HEADER || length > end - at;
        if (rc == 0 && cut && !whole)
            break;
        if (rc == 0)
            return inspect_note(x, path,
                                "the record at %llu is damaged: all of this is fetched "
                                "again, and may be removed",
                                (unsigned long long)at);
    }
    return 0;
}

static int look_at_part(struct inspection *x, const struct incoming_state *state,
                        size_t i)
{
    struct path path;
    struct image image;
    const struct manifest_file *file = &state->manifest.files[i];
    uint64_t received = get_u64(state->received + 8 * i);
    incoming_part_path(&path, x->place.path, file->file_id);
    int rc = image_open(x, path.text, WINDOW_BYTES, &image);
    if (rc == -ENOENT && received == 0)
        return 0;
    if (rc == -ENOENT)
        return inspect_note(x, path.text, "missing: it is fetched again");
    if (rc != 0)
        return inspect_unreadable(x, path.text, rc);
    x->files++;
    x->bytes += image.size;
    uint64_t there = image.size - min_u64(image.size, SEGMENT_HEADER);
    if (there < received)
        rc = inspect_note(x, path.text,
                          "of %llu bytes, and STATE says that %llu and the header were "
                          "here: the rest is fetched again",
                          (unsigned long long)image.size, (unsigned long long)received);
    if (rc == 0 && x->options->verify)
        rc = verify_records(
            x, path.text, &image, SEGMENT_HEADER + min_u64(received, there),
            there >= received && received + SEGMENT_HEADER == file->bytes);
    image_close(&image);
    return rc;
}

static bool is_described(const struct incoming_state *state, uint64_t id)
{
    for (size_t i = 0; i < state->manifest.count; i++)
        if (state->manifest.files[i].file_id == id)
            return true;
    return false;
}

static int note_strays(struct inspection *x, const struct incoming_state *state)
{
    struct path path;
    int rc = 0;
    for (size_t i = 0; i < x->parts.count && rc == 0; i++) {
        incoming_part_path(&path, x->place.path, x->parts.ids[i]);
        if (!is_described(state, x->parts.ids[i]))
            rc = means_nothing(x, path.text, "incoming/STATE does not tell of it");
    }
    return rc;
}

/* One that is bad tells of no part. */
static int inspect_incoming(struct inspection *x)
{
    struct path path;
    struct image image;
    struct incoming_state state = {0};
    incoming_path(&path, x->place.path, "STATE");
    int rc = image_open(x, path.text, WINDOW_BYTES, &image);
    if (rc == -ENOENT || rc == -ENOTDIR)
        return note_strays(x, &state);
    if (rc != 0)
        return inspect_unreadable(x, path.text, rc);
    x->files++;
    x->bytes += image.size;
    rc = take_state(x, path.text, &image, &state);
    bool good = rc == 1;
    if (good)
        rc = 0;
    for (size_t i = 0; good && i < state.manifest.count && rc == 0; i++) {
        rc = say_file(x, &state, i);
        if (rc == 0)
            rc = look_at_part(x, &state, i);
    }
    if (!good) {
        manifest_release(&state.manifest);
        state = (struct incoming_state){0};
    }
    if (rc == 0)
        rc = note_strays(x, &state);
    manifest_release(&state.manifest);
    image_close(&image);
    return rc;
}

int inspect_lost(struct inspection *x)
{
    struct path path;
    bool missing;
    scrub_state_path(&path, x->place.path);
    int rc = inspect_small(x, path.text, inspect_scrub_file, &missing);
    return rc ? rc : inspect_incoming(x);
}
