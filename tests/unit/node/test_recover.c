/*
 * test_recover.c - a cluster of one node out of a stopped node's files: what goes along,
 * what does not, and a crash at each rename.
 */
#include "backup.h"
#include "ca.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

/* ---- Crashes ----------------------------------------------------------------------- */

enum { CRASHED = 77 };

static unsigned renames_left = UINT32_MAX; /* until this process ends at one */

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);

int __wrap_rename(const char *from, const char *to)
{
    if (renames_left-- == 0)
        _exit(CRASHED);
    return __real_rename(from, to);
}

/* ---- A node with something in it ----------------------------------------------------- */

struct setting {
    char *scratch, *data;
    struct directory *old;
    char error[NODE_ERROR_BYTES];
};

enum { KEPT = 11, BUILT = 12 }; /* content ids */

static void put_content(struct store_builder *b, uint64_t content, uint64_t session)
{
    struct fs_key key = {.size = 9, .bytes = {FS_CLASS_CONTENT}};
    uint8_t value[16] = {0};
    put_be64(key.bytes + 1, content);
    put_u64(value, session);
    store_builder_put(b, key.bytes, key.size, value, sizeof(value));
    key = (struct fs_key){.size = 17, .bytes = {FS_CLASS_EXTENT}};
    put_be64(key.bytes + 1, content);
    store_builder_put(b, key.bytes, key.size, "extent", 6);
}

/* In no way committed. */
static void append_entry(struct store *s, uint64_t index, const char *value)
{
    struct store_builder b = {0};
    struct store_bytes *bytes;
    struct store_entry head = {.index = index, .term = 1};
    struct fs_key key = {.size = 9, .bytes = {FS_CLASS_SESSION}};
    uint64_t newest;
    store_chain(s, &head.prev_term, &head.prev_crc, &newest);
    store_builder_begin(&b, newest + 1);
    store_builder_put(&b, "Ikey", 4, value, strlen(value));
    if (index == 2) {
        put_content(&b, KEPT, 0);
        put_content(&b, BUILT, 5);
        put_be64(key.bytes + 1, 5);
        store_builder_put(&b, key.bytes, key.size, "session", 7);
    }
    assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
    store_builder_release(&b);
    assert_int_equal(store_append(s, bytes, false), 0);
    store_bytes_unref(bytes);
}

static void run_jobs(struct store *s)
{
    char error[STORE_ERROR_BYTES];
    for (struct store_job *job; (job = store_take_job(s));) {
        assert_int_equal(store_run_job(job, error), 0);
        store_finish_job(s, job);
    }
}

static void fill(struct setting *t)
{
    struct store_recovery recovery;
    struct store *s = open_store_of(t->old, &recovery);
    append_entry(s, 2, "older");
    append_entry(s, 3, "newest");
    run_jobs(s);
    store_close(s);
}

static int setup(void **state)
{
    struct setting *t = calloc(1, sizeof(*t));
    void *scratch;
    char address[ADDRESS_BYTES], *token;
    assert_int_equal(scratch_make(&scratch), 0);
    t->scratch = scratch;
    t->data = directory_file(t->scratch, "data");
    t->old = calloc(1, sizeof(*t->old));
    choose_address(address);
    struct node_setup setup = {.data = t->data, .name = "n1", .listen = address};
    assert_int_equal(node_init(&setup, &token, t->error), 0);
    free(token);
    assert_int_equal(directory_open(t->old, t->data, t->error), 0);
    t->old->segment_bytes = 16 * MiB; /* the test copies it again and again */
    t->old->certificate_life_s = 86400;
    assert_int_equal(directory_write(t->old, t->error), 0);
    fill(t);
    close(t->old->lock_fd);
    t->old->lock_fd = -1;
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct setting *t = *state;
    void *scratch = t->scratch;
    directory_release(t->old);
    free(t->old);
    free(t->data);
    free(t);
    return scratch_remove(&scratch);
}

/* ---- What is there ------------------------------------------------------------------- */

static bool has(struct store *s, const void *key, size_t size, const char *value)
{
    struct buf there = {0};
    int rc = store_get(s, key, size, 0, &there, NULL);
    assert_true(rc == 0 || rc == -ENOENT);
    bool is = rc == 0 && (!value || (there.length == strlen(value) &&
                                     !memcmp(there.data, value, there.length)));
    buf_release(&there);
    return is;
}

static bool has_content(struct store *s, uint64_t content)
{
    uint8_t p[9] = {FS_CLASS_CONTENT}, extent[17] = {FS_CLASS_EXTENT};
    put_be64(p + 1, content);
    put_be64(extent + 1, content);
    bool is = has(s, p, sizeof(p), NULL);
    assert_int_equal(has(s, extent, sizeof(extent), "extent"), is);
    return is;
}

static void check_members(struct store *s, const struct directory *d)
{
    struct fs_key key;
    struct buf value = {0};
    static struct members members;
    cluster_key_config(&key);
    assert_int_equal(store_get(s, key.bytes, key.size, 0, &value, NULL), 0);
    assert_int_equal(members_decode(value.data, value.length, &members), 0);
    assert_int_equal(members.count, 1);
    assert_int_equal(members.list[0].id, d->node_id);
    assert_true(members.list[0].voter);
    buf_release(&value);
}

/* A node that starts, of another cluster, with what the old one had. */
static void check_recovered(struct setting *t, const char *data)
{
    struct directory *d = calloc(1, sizeof(*d));
    struct store_recovery recovery;
    uint8_t session[9] = {FS_CLASS_SESSION};
    put_be64(session + 1, 5);
    recover_clean(data);
    if (directory_open(d, data, t->error))
        fail_msg("%s", t->error);
    assert_memory_not_equal(d->cluster_id, t->old->cluster_id, sizeof(d->cluster_id));
    assert_int_not_equal(d->node_id, t->old->node_id);
    assert_string_not_equal(d->ca_pem, t->old->ca_pem);
    assert_string_equal(d->name, "n1");
    assert_string_equal(d->advertise, t->old->advertise);
    assert_int_equal(d->segment_bytes, 16 * MiB);
    assert_int_equal(d->certificate_life_s, 86400);
    struct wire_identity identity = directory_identity(d);
    assert_int_equal(wire_identity_check(&identity, t->error), 0);
    struct store *s = open_store_of(d, &recovery);
    assert_int_equal(store_last_index(s), 4);
    assert_true(store_is_ready(s));
    assert_true(has(s, "Ikey", 4, "newest"));
    assert_true(has_content(s, KEPT));
    assert_false(has_content(s, BUILT));
    assert_false(has(s, session, sizeof(session), NULL));
    check_members(s, d);
    store_check(s);
    store_close(s);
    char *stage = directory_file(data, DIRECTORY_RECOVERY);
    assert_int_equal(access(stage, F_OK), -1);
    free(stage);
    directory_release(d);
    free(d);
}

static void test_recovers(void **state)
{
    struct setting *t = *state;
    struct node_recovery r;
    char *token = NULL;
    static struct token parsed;
    if (node_recover(t->data, true, &r, &token, t->error))
        fail_msg("%s", t->error);
    assert_string_equal(r.name, "n1");
    assert_int_equal(r.last_index, 3);
    assert_false(r.finished);
    assert_int_equal(token_parse(token, &parsed, t->error), 0);
    assert_string_equal(parsed.addresses, t->old->advertise);
    free(token);
    check_recovered(t, t->data);
}

static void test_without_force(void **state)
{
    struct setting *t = *state;
    struct node_recovery r;
    char *token = NULL;
    assert_int_equal(node_recover(t->data, false, &r, &token, t->error), 0);
    assert_null(token);
    assert_int_equal(r.last_index, 3);
    assert_int_equal(r.last_term, 1);
    assert_memory_equal(r.cluster, t->old->cluster_id, sizeof(r.cluster));
    struct store_recovery recovery;
    struct store *s = open_store_of(t->old, &recovery);
    assert_int_equal(store_applied(s), 1); /* nothing was committed by looking */
    store_close(s);
}

static void test_a_running_node_is_left_alone(void **state)
{
    struct setting *t = *state;
    struct node_recovery r;
    char *token = NULL;
    int fd;
    assert_int_equal(directory_lock(t->data, &fd, t->error), 0);
    assert_int_equal(node_recover(t->data, true, &r, &token, t->error), -EBUSY);
    assert_int_equal(node_recover(t->data, false, &r, &token, t->error), -EBUSY);
    close(fd);
    assert_int_equal(node_recover(t->scratch, true, &r, &token, t->error), -EBADMSG);
    assert_says(t->error, "is not a data directory");
}

/* The node is as it was. */
static void check_untouched(struct setting *t)
{
    directory_release(t->old);
    assert_int_equal(directory_open(t->old, t->data, t->error), 0);
}

static void test_nothing_was_received(void **state)
{
    struct setting *t = *state;
    struct node_recovery r;
    char *token = NULL, command[256];
    snprintf(command, sizeof(command), "rm -rf %s/log %s/raft.state %s/commit.hint",
             t->data, t->data, t->data);
    assert_int_equal(system(command), 0);
    struct store_options options = directory_store_options(t->old);
    assert_int_equal(store_create(&options, t->error), 0);
    assert_int_equal(node_recover(t->data, true, &r, &token, t->error), -EBADMSG);
    assert_says(t->error, "received nothing");
    check_untouched(t);
}

/* Where it first stands in the first segment. */
static void flip(const struct setting *t, const char *text)
{
    char *file = directory_file(t->data, "log/0000000000000001.seg");
    struct buf bytes = {0};
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0);
    assert_non_null(buf_extend(&bytes, 1 << 20));
    assert_int_equal(pread(fd, bytes.data, bytes.length, 0), (ssize_t)bytes.length);
    uint8_t *at = memmem(bytes.data, bytes.length, text, strlen(text));
    assert_non_null(at);
    uint8_t other = *at ^ 1;
    assert_int_equal(pwrite(fd, &other, 1, at - bytes.data), 1);
    close(fd);
    free(file);
    buf_release(&bytes);
}

/* The log ends earlier than something proves: half of it would look like a whole. */
static void test_a_damaged_log(void **state)
{
    struct setting *t = *state;
    struct store_recovery recovery;
    struct node_recovery r;
    char *token = NULL;
    struct store *s = open_store_of(t->old, &recovery);
    assert_int_equal(store_set_commit_hint(s, 3), 0);
    run_jobs(s);
    store_close(s);
    flip(t, "newest");
    assert_int_equal(node_recover(t->data, true, &r, &token, t->error), -EBADMSG);
    assert_says(t->error, "cannot be recovered from");
    assert_says(t->error, "recover another node");
    assert_null(token);
    char *stage = directory_file(t->data, DIRECTORY_RECOVERY);
    assert_int_equal(access(stage, F_OK), -1);
    free(stage);
    check_untouched(t);
}

/* What is torn was acknowledged by nobody: without it the rest is whole. */
static void test_a_torn_log(void **state)
{
    struct setting *t = *state;
    struct node_recovery r;
    char *token = NULL;
    flip(t, "newest");
    assert_int_equal(node_recover(t->data, true, &r, &token, t->error), 0);
    assert_int_equal(r.last_index, 2);
    free(token);
}

/* ---- A crash at each rename ------------------------------------------------------------ */

static bool crash_at(const char *data, unsigned n)
{
    pid_t child = fork();
    if (child == 0) {
        struct node_recovery r;
        char *token = NULL, error[NODE_ERROR_BYTES];
        renames_left = n;
        _exit(node_recover(data, true, &r, &token, error) ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CRASHED);
    return WEXITSTATUS(status) == CRASHED;
}

static void copy(const char *from, const char *to)
{
    char command[256];
    snprintf(command, sizeof(command), "rm -rf %s && cp -a %s %s", to, from, to);
    assert_int_equal(system(command), 0);
}

/* Before it counts the node is as it was; then it does not start before recover was run
 * again, which takes the very cluster that was made. */
static bool check_crashed(struct setting *t, const char *data)
{
    struct directory *d = calloc(1, sizeof(*d));
    int rc = directory_open(d, data, t->error);
    if (rc == 0) {
        assert_memory_equal(d->cluster_id, t->old->cluster_id, sizeof(d->cluster_id));
        directory_release(d);
    } else {
        assert_int_equal(rc, -EBADMSG);
        assert_says(t->error, "a recovery that was not finished");
    }
    free(d);
    return rc != 0;
}

static void test_crashes(void **state)
{
    struct setting *t = *state;
    char *data = directory_file(t->scratch, "copy");
    unsigned n = 0, unfinished = 0;
    for (;; n++) {
        copy(t->data, data);
        if (!crash_at(data, n))
            break;
        bool counted = check_crashed(t, data);
        unfinished += counted;
        struct node_recovery r;
        char *token = NULL;
        if (node_recover(data, true, &r, &token, t->error))
            fail_msg("after a crash at rename %u: %s", n, t->error);
        assert_int_equal(r.finished, counted);
        assert_int_equal(!token, counted);
        free(token);
        check_recovered(t, data);
    }
    check_recovered(t, data);
    assert_true(n >= 12);
    assert_true(unfinished >= 6); /* log twice, two of the store's, three, tierce.conf */
    free(data);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_recovers),
        with(test_without_force),
        with(test_a_running_node_is_left_alone),
        with(test_nothing_was_received),
        with(test_a_damaged_log),
        with(test_a_torn_log),
        with(test_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
