/*
 * recover.c - a cluster of one node out of what a stopped node has: the way out when a
 * majority is lost for good.
 *
 *   DATA/recovery/ is filled: a new cluster's store, made of the old one's records as they
 *        are when all of its log is applied; its identity; tierce.conf last
 *   --> then, and only then, its files take the place of DATA's, tierce.conf last
 *   --> what is left in DATA/recovery/ is removed
 *
 * Until recovery/tierce.conf is there nothing has happened, and the node starts as ever.
 * From then until it is gone the node does not start (directory_look), and `recover`, run
 * again, goes on where it was: each step is a rename, and what was moved is not there any
 * more.
 */
#include "backup.h"
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct recover {
    struct directory old, *made;
    char *stage; /* DATA/recovery */
    struct store *store;
    struct store_import *import;
    struct left_out left_out;
    char *error;
};

/* ---- What is there ----------------------------------------------------------------- */

static int note_end(void *context, const struct fact *fact)
{
    struct node_recovery *r = context;
    uint64_t index = 0, term = 0;
    for (size_t i = 0; i < fact->count; i++) {
        const struct fact_field *field = &fact->fields[i];
        if (!strcmp(field->name, "last_index") || !strcmp(field->name, "merged_index"))
            index = field->number;
        if (!strcmp(field->name, "last_term") || !strcmp(field->name, "merged_term"))
            term = field->number;
    }
    if (index > r->last_index) {
        r->last_index = index;
        r->last_term = term;
    }
    return 0;
}

static void note_directory(const struct directory *d, struct node_recovery *ret)
{
    strcpy(ret->name, d->name);
    memcpy(ret->cluster, d->cluster_id, sizeof(ret->cluster));
}

/* One without tierce.conf is no node's. */
static int take_directory(struct directory *d, const char *data,
                          char error[NODE_ERROR_BYTES])
{
    char *file = directory_file(data, DIRECTORY_CONF);
    int result = file && !access(file, F_OK) ? 0 : directory_look(data, error);
    free(file);
    return result ? result : directory_take(d, data, error);
}

/* Changes nothing. */
static int look(const char *data, struct node_recovery *ret, char error[NODE_ERROR_BYTES])
{
    struct directory *d = calloc(1, sizeof(*d));
    if (!d)
        return node_error(error, -ENOMEM, "out of memory");
    d->lock_fd = -1;
    uint64_t problems;
    struct node_inspect what = {.data = data, .fact = note_end, .context = ret};
    int result = take_directory(d, data, error);
    if (!result) {
        note_directory(d, ret);
        directory_release(d); /* the lock is looked at, not held, below */
        result = node_inspect(&what, &problems, error);
    }
    free(d);
    return result;
}

static char *path_in(const struct recover *r, const char *name)
{
    return directory_file(r->old.path, name);
}

static bool is_made(const struct recover *r)
{
    char *file = directory_file(r->stage, DIRECTORY_CONF);
    bool is = file && !access(file, F_OK);
    free(file);
    return is;
}

/* ---- The old store ----------------------------------------------------------------- */

static int incomplete(struct recover *r, const char *why)
{
    return node_error(r->error, -EBADMSG,
                      "%s cannot be recovered from: %s; recover another node of the "
                      "cluster, or `tierce restore` a backup",
                      r->old.path, why);
}

/* Everything in the log counts as committed: who could say otherwise is gone. */
static int apply_all(struct recover *r)
{
    int result = 0;
    for (uint64_t i = store_applied(r->store) + 1;
         !result && i <= store_last_index(r->store); i++)
        result = store_apply(r->store, i, NULL, NULL);
    if (result)
        return node_error(r->error, result, "cannot apply the log of %s: %s", r->old.path,
                          strerror(-result));
    if (!store_last_index(r->store))
        return incomplete(r, "its node has joined and then received nothing");
    if (!store_is_ready(r->store))
        return incomplete(r, "its node was behind, and has received only a part of what "
                             "it was being sent");
    return 0;
}

static int open_old(struct recover *r)
{
    struct store_options options = directory_store_options(&r->old);
    struct store_recovery recovery;
    char text[STORE_ERROR_BYTES] = "";
    int result = store_open(&r->store, &options, &recovery, text);
    if (result)
        return node_error(r->error, result, "cannot open the store: %s", text);
    if (recovery.claim_index > recovery.last_index)
        return incomplete(r, recovery.damage[0] ? recovery.damage
                                                : "the end of its log is damaged");
    return apply_all(r);
}

/* ---- The new one ------------------------------------------------------------------- */

static int note_content(void *arg, const struct store_item *item)
{
    struct store_record record = {.timestamp_us = item->timestamp_us,
                                  .key = item->key,
                                  .key_size = item->key_size,
                                  .value = item->value,
                                  .value_size = item->value_size};
    return left_out_note(arg, &record);
}

/* Values of this class sit in the keydir. */
static int find_left_out(struct recover *r)
{
    const uint8_t from[1] = {FS_CLASS_CONTENT}, to[1] = {FS_CLASS_CONTENT + 1};
    int result = store_scan(r->store, from, 1, to, 1, note_content, &r->left_out);
    left_out_settle(&r->left_out);
    return result ? node_error(r->error, result, "out of memory") : 0;
}

static int import_records(struct recover *r, const struct buf *records)
{
    struct reader reader = reader_of(records->data, records->length);
    while (reader_left(&reader)) {
        struct store_record record;
        char text[STORE_ERROR_BYTES] = "";
        const uint8_t *at = reader.at;
        int result = store_record_read(&reader, &record);
        ensure(result == 0); /* they were checked when they were copied */
        if (left_out_holds(&r->left_out, record.key, record.key_size))
            continue;
        result = store_import_record(r->import, at, (size_t)(reader.at - at), text);
        if (result)
            return node_error(r->error, result, "%s", text);
    }
    return 0;
}

static int copy_all(struct recover *r)
{
    struct buf records = {0}, after = {0}, last = {0};
    int result = 0;
    do {
        buf_clear(&records);
        buf_clear(&after);
        buf_bytes(&after, last.data, last.length);
        result = after.failed ? -ENOMEM
                              : store_copy(r->store, after.data, after.length,
                                           CONTROL_PIECE_BYTES, &records, &last);
        if (result == -EBADMSG)
            result = incomplete(r, "a record in it is damaged (`tierce inspect --verify` "
                                   "tells which)");
        else if (result)
            node_error(r->error, result, "cannot read the store of %s: %s", r->old.path,
                       strerror(-result));
        else
            result = import_records(r, &records);
    } while (!result && last.length);
    buf_release(&records);
    buf_release(&after);
    buf_release(&last);
    return result;
}

/* struct setup_source: as of the end of the old log. */
static int make_store(void *context, const struct store_options *options,
                      const struct members *members, char error[NODE_ERROR_BYTES])
{
    struct recover *r = context;
    struct store_point end = store_applied_point(r->store);
    struct buf state = {0};
    char text[STORE_ERROR_BYTES] = "";
    int result = store_import_new(options, &r->import, text);
    if (result)
        return node_error(error, result, "cannot make the store: %s", text);
    result = copy_all(r);
    if (!result && left_out_state(members, &state))
        result = node_error(error, -ENOMEM, "out of memory");
    if (!result) {
        result = store_import_finish(r->import, &end, state.data, state.length, text);
        if (result)
            node_error(error, result, "%s", text);
    }
    buf_release(&state);
    /* One store of a process at a time: the new one is opened next. */
    store_close(r->store);
    r->store = NULL;
    return result;
}

/* ---- Filling DATA/recovery --------------------------------------------------------- */

static int sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 || fsync(fd) ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return result;
}

/* What an earlier try left counts for nothing. */
static int make_stage(struct recover *r)
{
    int result = place_remove(r->stage);
    if (result && result != -ENOENT)
        return node_error(r->error, result, "cannot empty %s: %s", r->stage,
                          strerror(-result));
    result = mkdir(r->stage, 0700) ? -errno : sync_directory(r->old.path);
    return result ? node_error(r->error, result, "cannot make %s: %s", r->stage,
                               strerror(-result))
                  : 0;
}

/* Name, addresses and settings stay; who it is does not. */
static int begin_directory(struct recover *r)
{
    struct directory *d = calloc(1, sizeof(*d));
    if (!d)
        return node_error(r->error, -ENOMEM, "out of memory");
    const struct directory *old = &r->old;
    r->made = d;
    d->path = r->stage;
    d->lock_fd = old->lock_fd;
    strcpy(d->name, old->name);
    strcpy(d->listen, old->listen);
    strcpy(d->advertise, old->advertise);
    d->segment_bytes = old->segment_bytes;
    d->scrub_period_us = old->scrub_period_us;
    d->merge_bytes_per_s = old->merge_bytes_per_s;
    d->certificate_life_s = old->certificate_life_s;
    return 0;
}

static void end_directory(struct recover *r)
{
    if (!r->made)
        return;
    r->made->path = NULL;
    r->made->lock_fd = -1;
    directory_release(r->made);
    free(r->made);
    r->made = NULL;
}

static int check_room(struct recover *r)
{
    struct store_stats stats;
    struct place place = {.path = r->old.path};
    store_stats(r->store, &stats);
    return place_check_room(&place, r->old.segment_bytes, stats.live_bytes, r->error);
}

static int fill(struct recover *r, struct node_recovery *ret, char **ret_token)
{
    struct setup_source source = {.make = make_store, .context = r};
    int result = open_old(r);
    if (!result) {
        struct store_point end = store_applied_point(r->store);
        ret->last_index = end.index;
        ret->last_term = end.term;
        result = find_left_out(r);
    }
    if (!result)
        result = make_stage(r);
    if (!result)
        result = check_room(r);
    if (!result)
        result = begin_directory(r);
    if (!result)
        result = setup_found(r->made, &source, ret_token, r->error);
    end_directory(r);
    return result;
}

/* ---- Taking its place -------------------------------------------------------------- */

/* DATA/recovery/FROM becomes DATA/TO, if it has not yet. */
static int move(struct recover *r, const char *name)
{
    char *from = directory_file(r->stage, name), *to = path_in(r, name);
    int result = !from || !to ? -ENOMEM : rename(from, to) ? -errno : 0;
    free(from);
    free(to);
    return result == -ENOENT ? 0 : result;
}

static int move_away(struct recover *r, const char *name)
{
    char *from = path_in(r, name), *to = directory_file(r->stage, "log.old");
    int result = !from || !to ? -ENOMEM : rename(from, to) ? -errno : 0;
    free(from);
    free(to);
    return result == -ENOENT ? 0 : result;
}

static int drop(struct recover *r, const char *name)
{
    char *path = path_in(r, name);
    int result = !path ? -ENOMEM : unlink(path) ? -errno : 0;
    if (result == -EISDIR || result == -EPERM)
        result = place_remove(path);
    free(path);
    return result == -ENOENT ? 0 : result;
}

/* Only where the new one is still to come: else the new one would go. */
static int replace_log(struct recover *r)
{
    char *log = directory_file(r->stage, "log");
    bool is_there = log && !access(log, F_OK);
    free(log);
    int result = is_there ? move_away(r, "log") : 0;
    return result ? result : move(r, "log");
}

static int move_all(struct recover *r)
{
    static const char *const moved[] = {"raft.state", "commit.hint", DIRECTORY_CA,
                                        DIRECTORY_CERT, DIRECTORY_KEY};
    static const char *const dropped[] = {"scrub.state", "incoming", DIRECTORY_REMOVED};
    int result = replace_log(r);
    for (size_t i = 0; !result && i < array_length(moved); i++)
        result = move(r, moved[i]);
    for (size_t i = 0; !result && i < array_length(dropped); i++)
        result = drop(r, dropped[i]);
    if (!result)
        result = sync_directory(r->stage);
    if (!result)
        result = sync_directory(r->old.path);
    if (!result)
        result = move(r, DIRECTORY_CONF); /* N18: last */
    return result ? result : sync_directory(r->old.path);
}

static int take_its_place(struct recover *r)
{
    int result = move_all(r);
    if (result)
        return node_error(r->error, result,
                          "cannot put what was recovered in its place in %s: %s; mend "
                          "that, and run the same command again",
                          r->old.path, strerror(-result));
    place_remove(r->stage); /* else the next start does */
    return 0;
}

/* ---- The whole --------------------------------------------------------------------- */

static int run(struct recover *r, struct node_recovery *ret, char **ret_token)
{
    char *token = NULL;
    ret->finished = is_made(r);
    int result = ret->finished ? 0 : fill(r, ret, &token);
    if (result)
        place_remove(r->stage);
    if (!result)
        result = take_its_place(r);
    if (!result && token) {
        *ret_token = token;
        token = NULL;
    }
    free(token);
    return result;
}

static void release(struct recover *r)
{
    store_import_free(r->import);
    if (r->store)
        store_close(r->store);
    left_out_release(&r->left_out);
    directory_release(&r->old);
    free(r->stage);
    free(r);
}

int node_recover(const char *data, bool force, struct node_recovery *ret,
                 char **ret_token, char error[NODE_ERROR_BYTES])
{
    *ret = (struct node_recovery){0};
    if (!force)
        return look(data, ret, error);
    struct recover *r = calloc(1, sizeof(*r));
    if (!r)
        return node_error(error, -ENOMEM, "out of memory");
    r->old.lock_fd = -1;
    r->error = error;
    int result = take_directory(&r->old, data, error);
    if (!result) {
        note_directory(&r->old, ret);
        r->stage = path_in(r, DIRECTORY_RECOVERY);
        result = r->stage ? run(r, ret, ret_token)
                          : node_error(error, -ENOMEM, "out of memory");
    }
    release(r);
    return result;
}

void recover_clean(const char *data)
{
    char *stage = directory_file(data, DIRECTORY_RECOVERY);
    if (stage)
        place_remove(stage);
    free(stage);
}
