/*
 * left_out.c - what of a cluster's records does not go into a new cluster: classes C and S,
 * which were its own, locks (L and W), whose sessions are, and content that a session was building (P with a session, and its
 * extents): nobody will finish it.
 */
#include "backup.h"

#include <errno.h>

/* What is to become of a content id. */
struct progress {
    uint64_t content, timestamp_us;
    bool building; /* by a session */
};

static bool is_of_content(const struct store_record *record)
{
    return record->key_size == 9 && record->key[0] == FS_CLASS_CONTENT;
}

int left_out_note(struct left_out *l, const struct store_record *record)
{
    if (!is_of_content(record))
        return 0;
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct progress *progress = realloc(l->progress, capacity * sizeof(*progress));
        if (!progress)
            return -ENOMEM;
        l->progress = progress;
        l->capacity = capacity;
    }
    l->progress[l->count++] =
        (struct progress){.content = get_be64(record->key + 1),
                          .timestamp_us = record->timestamp_us,
                          .building = record->value && record->value_size == 16 &&
                                      get_u64(record->value) != 0};
    return 0;
}

static int compare_progress(const void *a, const void *b)
{
    const struct progress *x = a, *y = b;
    if (x->content != y->content)
        return x->content < y->content ? -1 : 1;
    return (x->timestamp_us < y->timestamp_us) - (x->timestamp_us > y->timestamp_us);
}

/* Of each id the newest counts; those that are being built stay. */
void left_out_settle(struct left_out *l)
{
    size_t kept = 0;
    uint64_t last = 0; /* no content has this id */
    if (l->count)
        qsort(l->progress, l->count, sizeof(*l->progress), compare_progress);
    for (size_t i = 0; i < l->count; i++) {
        struct progress p = l->progress[i];
        if (p.content != last && p.building)
            l->progress[kept++] = p;
        last = p.content;
    }
    l->count = kept;
}

static int compare_content(const void *content, const void *p)
{
    uint64_t x = *(const uint64_t *)content, y = ((const struct progress *)p)->content;
    return (x > y) - (x < y);
}

bool left_out_holds(const struct left_out *l, const uint8_t *key, size_t size)
{
    if (backup_is_cluster_key(key, size))
        return true;
    if (size < 9 || (key[0] != FS_CLASS_CONTENT && key[0] != FS_CLASS_EXTENT))
        return false;
    uint64_t content = get_be64(key + 1);
    return l->count && bsearch(&content, l->progress, l->count, sizeof(*l->progress),
                               compare_content);
}

void left_out_release(struct left_out *l)
{
    free(l->progress);
    *l = (struct left_out){0};
}

int left_out_state(const struct members *members, struct buf *to)
{
    struct buf encoded = {0};
    members_encode(members, &encoded);
    buf_u32(to, version_format(members->version));
    buf_u32(to, (uint32_t)encoded.length);
    buf_bytes(to, encoded.data, encoded.length);
    buf_u32(to, 0);
    int result = encoded.failed || to->failed ? -ENOMEM : 0;
    buf_release(&encoded);
    return result;
}
