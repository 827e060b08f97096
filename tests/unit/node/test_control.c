/* test_control.c - what the command line asks, against a node without consensus. */
#include "common.h"
#include "twin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <sys/socket.h>

static struct node *twin;
static char *data;
static char address[ADDRESS_BYTES]; /* of the twin's TLS port */

static int start(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    if (scratch_make(state))
        return -1;
    choose_address(address);
    data = directory_file(*state, "data");
    struct node_setup setup = {.data = data, .name = "n1", .listen = address};
    if (node_init(&setup, &token, error))
        return -1;
    free(token);
    twin = twin_start(data);
    return 0;
}

static int stop(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    int result = node_call_stop(data, error);
    twin_join(twin);
    free(data);
    return result ? result : scratch_remove(state);
}

/* ---- Values ----------------------------------------------------------------------- */

/* `size` bytes that depend on `seed`. */
struct source {
    uint64_t seed, left;
    size_t chunk; /* at most, per read; 0: all */
};

static ssize_t read_source(void *context, void *to, size_t size)
{
    struct source *s = context;
    size_t n = min_u64(size, s->left);
    if (s->chunk)
        n = min_u64(n, s->chunk);
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)to)[i] =
            (uint8_t)(s->seed + (s->left - i) * 7 + ((s->left - i) >> 8));
    s->left -= n;
    return (ssize_t)n;
}

static int append_value(void *context, const void *bytes, size_t length)
{
    struct buf *to = context;
    buf_bytes(to, bytes, length);
    return to->failed ? -ENOMEM : 0;
}

static int put(const char *path, uint64_t seed, size_t size, char *error)
{
    struct source source = {.seed = seed, .left = size, .chunk = 300000};
    return node_call_put(data, path, read_source, &source, error);
}

static void assert_value(const char *path, uint64_t seed, size_t size)
{
    char error[NODE_ERROR_BYTES] = "";
    struct buf value = {0};
    uint8_t *expected = malloc(size ? size : 1);
    struct source source = {.seed = seed, .left = size};
    assert_non_null(expected);
    read_source(&source, expected, size);
    assert_int_equal(node_call_get(data, path, append_value, &value, error), 0);
    assert_int_equal(value.length, size);
    if (size)
        assert_memory_equal(value.data, expected, size);
    free(expected);
    buf_release(&value);
}

static void test_values_of_all_sizes(void **state)
{
    static const size_t sizes[] = {0,
                                   1,
                                   LIMIT_INLINE_BYTES,
                                   LIMIT_INLINE_BYTES + 1,
                                   LIMIT_EXTENT_BYTES + 1,
                                   CONTROL_PIECE_BYTES - 1,
                                   CONTROL_PIECE_BYTES,
                                   CONTROL_PIECE_BYTES + 1,
                                   2 * CONTROL_PIECE_BYTES,
                                   2 * CONTROL_PIECE_BYTES + 12345};
    char error[NODE_ERROR_BYTES] = "", path[32];
    for (size_t i = 0; i < array_length(sizes); i++) {
        snprintf(path, sizeof(path), "size%zu", i);
        assert_int_equal(put(path, i, sizes[i], error), 0);
        assert_value(path, i, sizes[i]);
        assert_int_equal(put("same", i, sizes[i], error), 0);
        assert_value("/same", i, sizes[i]);
    }
    assert_int_equal(put("same", 9, 3, error), 0);
    assert_value("//same", 9, 3);
}

static void test_put_makes_parents(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    assert_int_equal(put("/a//b/c/d", 1, 10, error), 0);
    assert_value("a/b/c/d", 1, 10);
    assert_int_equal(put("a/b/e", 2, 20, error), 0);
    assert_value("a/b/e", 2, 20);
    assert_value("a/b/c/d", 1, 10);
}

/* ---- Listing ---------------------------------------------------------------------- */

struct names {
    unsigned count;
    bool sorted;
    char last[LIMIT_NAME_BYTES + 1];
    uint8_t type;
};

static int take_name(void *context, const char *name, size_t name_size, uint8_t type)
{
    struct names *n = context;
    assert_int_equal(strlen(name), name_size);
    n->sorted = (n->count == 0 || n->sorted) && strcmp(n->last, name) < 0;
    n->count++;
    n->type = type;
    strcpy(n->last, name);
    return 0;
}

static struct names list(const char *path)
{
    char error[NODE_ERROR_BYTES] = "";
    struct names n = {0};
    assert_int_equal(node_call_ls(data, path, take_name, &n, error), 0);
    return n;
}

static void test_lists_of_many_answers(void **state)
{
    enum { NAMES = 2 * CONTROL_LIST_NAMES + 1 };
    char error[NODE_ERROR_BYTES] = "", path[32];
    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(path, sizeof(path), "d/%05u", i);
        assert_int_equal(put(path, 1, 1, error), 0);
        if (i + 1 == CONTROL_LIST_NAMES)
            assert_int_equal(list("d").count, CONTROL_LIST_NAMES);
    }
    struct names n = list("d/");
    assert_int_equal(n.count, NAMES);
    assert_true(n.sorted);
    assert_int_equal(n.type, DT_REG);
    n = list("/d/00007");
    assert_int_equal(n.count, 1);
    assert_string_equal(n.last, "00007");
    n = list("/");
    assert_int_equal(n.count, 1);
    assert_int_equal(n.type, DT_DIR);
}

/* ---- Deleting, errors ---------------------------------------------------------------
 */

static void test_deletes(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    struct buf value = {0};
    assert_int_equal(put("a/b", 1, 1, error), 0);
    assert_int_equal(node_call_del(data, "a", error), -ENOTEMPTY);
    assert_says(error, "cannot delete \"a\": the directory is not empty");
    assert_int_equal(node_call_del(data, "a/b", error), 0);
    assert_int_equal(node_call_get(data, "a/b", append_value, &value, error), -ENOENT);
    assert_int_equal(node_call_del(data, "a/b", error), -ENOENT);
    assert_says(error, "cannot delete \"a/b\": there is no such key");
    assert_int_equal(node_call_del(data, "/a/", error), 0);
    assert_int_equal(list("/").count, 0);
    assert_int_equal(node_call_del(data, "/", error), -EBUSY);
    assert_says(error, "the root");
}

static void test_errors_are_explained(void **state)
{
    char error[NODE_ERROR_BYTES] = "", name[LIMIT_NAME_BYTES + 2];
    struct buf value = {0};
    struct names n = {0};
    memset(name, 'x', sizeof(name));
    name[LIMIT_NAME_BYTES] = 0;
    assert_int_equal(put(name, 1, 1, error), 0);
    assert_value(name, 1, 1);
    name[LIMIT_NAME_BYTES] = 'x';
    name[LIMIT_NAME_BYTES + 1] = 0;
    assert_int_equal(put(name, 1, 1, error), -ENAMETOOLONG);
    assert_says(error, "has 256 bytes, more than 255");
    assert_int_equal(put("a/b", 1, 1, error), 0);
    assert_int_equal(put("a", 1, 1, error), -EISDIR);
    assert_says(error, "cannot put \"a\": it is a directory");
    assert_int_equal(put("c/", 1, 1, error), -EISDIR);
    assert_int_equal(put("/", 1, 1, error), -EISDIR);
    assert_int_equal(put("", 1, 1, error), -ENOENT);
    assert_int_equal(put("a/b/c", 1, 1, error), -ENOTDIR);
    assert_says(error, "a part of the path is not a directory");
    assert_int_equal(put("a/b/c/d", 1, 1, error), -ENOTDIR);
    assert_int_equal(put("a/../b", 1, 1, error), -EINVAL);
    assert_int_equal(put("./b", 1, 1, error), -EINVAL);
    assert_int_equal(node_call_get(data, "a", append_value, &value, error), -EISDIR);
    assert_int_equal(node_call_get(data, "a/b/c", append_value, &value, error), -ENOTDIR);
    assert_int_equal(node_call_get(data, "no", append_value, &value, error), -ENOENT);
    assert_int_equal(node_call_get(data, "no/no", append_value, &value, error), -ENOENT);
    assert_int_equal(node_call_ls(data, "no", take_name, &n, error), -ENOENT);
    assert_int_equal(value.length, 0);
    twin->error = -EROFS;
    assert_int_equal(put("d", 1, 1, error), -EROFS);
    assert_says(error, "no majority of the cluster is reachable");
    assert_says(error, "tierce status");
    twin->error = -ENOSPC;
    assert_int_equal(put("d", 1, 1, error), -ENOSPC);
    assert_says(error, "full");
    twin->error = 0;
    assert_int_equal(put("d", 1, 1, error), 0);
}

static ssize_t read_nothing(void *context, void *to, size_t size)
{
    return -EIO;
}

static int write_nothing(void *context, const void *bytes, size_t length)
{
    return -ENOSPC;
}

static void test_callers_errors_end_the_call(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    assert_int_equal(put("k", 1, 5, error), 0);
    assert_int_equal(node_call_put(data, "k", read_nothing, NULL, error), -EIO);
    assert_value("k", 1, 5);
    assert_int_equal(node_call_get(data, "k", write_nothing, NULL, error), -ENOSPC);
}

static int overwrite(void *context, const void *bytes, size_t length)
{
    char error[NODE_ERROR_BYTES];
    unsigned *calls = context;
    ++*calls;
    return put("big", 2, CONTROL_PIECE_BYTES + 7, error);
}

/* Never a piece of the one value and a piece of the next. */
static void test_get_is_of_one_version(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    unsigned calls = 0;
    assert_int_equal(put("big", 1, 2 * CONTROL_PIECE_BYTES, error), 0);
    assert_int_equal(node_call_get(data, "big", overwrite, &calls, error), -ESTALE);
    assert_int_equal(calls, 1);
    assert_says(error, "it was changed while it was read");
    assert_value("big", 2, CONTROL_PIECE_BYTES + 7);
}

/* ---- Raw frames -----------------------------------------------------------------------
 */

static int ask(const struct buf *request, unsigned timeout_ms, struct buf *answer)
{
    char *path = directory_file(data, DIRECTORY_SOCKET);
    int fd = -1;
    assert_int_equal(wire_call_local_open(path, &fd), 0);
    int result = wire_call_local(fd, request->data, request->length, timeout_ms, answer);
    close(fd);
    free(path);
    return result;
}

static void test_malformed_requests_are_refused(void **state)
{
    for (int command = 0; command <= CONTROL_LOCKS + 1; command++) {
        if (command == CONTROL_ROTATE_CA || command == CONTROL_METRICS)
            continue;
        struct buf request = {0}, answer = {0};
        buf_u8(&request, (uint8_t)command);
        buf_bytes(&request, "\xff\xff\xff", 3);
        int result = ask(&request, 0, &answer);
        if (command == 0 || command > CONTROL_LOCKS) {
            assert_int_equal(result, 0);
            assert_int_equal(answer.data[0], WIRE_REFUSED);
        } else {
            assert_int_equal(result, -EPIPE);
        }
        buf_release(&request);
        buf_release(&answer);
    }
    char error[NODE_ERROR_BYTES] = "";
    struct node_status status;
    assert_int_equal(node_call_status(data, &status, error), 0);
}

static struct buf put_request(const char *path, uint64_t offset, size_t length)
{
    struct buf b = {0};
    buf_u8(&b, CONTROL_PUT);
    buf_cstring(&b, path);
    buf_u8(&b, CONTROL_PUT_LAST);
    buf_u64(&b, 0);
    buf_u64(&b, offset);
    memset(buf_extend(&b, length), 0, length);
    return b;
}

static void test_server_checks_limits_itself(void **state)
{
    struct buf answer = {0}, request = put_request("k", LIMIT_FILE_BYTES, 1);
    assert_int_equal(ask(&request, 0, &answer), 0);
    assert_int_equal(answer.data[0], WIRE_FAILED);
    assert_int_equal(get_u32(answer.data + 1), EFBIG);
    buf_release(&request);
    buf_clear(&answer);
    request = put_request("k", UINT64_MAX, 1);
    assert_int_equal(ask(&request, 0, &answer), 0);
    assert_int_equal(get_u32(answer.data + 1), EFBIG);
    buf_release(&request);
    buf_clear(&answer);
    request = put_request("../k", 0, 1);
    assert_int_equal(ask(&request, 0, &answer), 0);
    assert_int_equal(get_u32(answer.data + 1), EINVAL);
    buf_release(&request);
    buf_clear(&answer);
    request = put_request("k", 0, CONTROL_PIECE_BYTES + 1);
    assert_int_equal(ask(&request, 0, &answer), -EPIPE);
    buf_release(&request);
    buf_release(&answer);
}

/* Its operation is not called back, and its answer goes nowhere. */
static void test_a_caller_that_leaves_is_forgotten(void **state)
{
    struct buf answer = {0}, request = put_request("k", 0, 3);
    twin->hold_next = true;
    assert_int_equal(ask(&request, 1, &answer), -ETIMEDOUT);
    /* The loop reads what was sent before it sees the end; a later call comes after both.
     */
    char error[NODE_ERROR_BYTES] = "";
    struct node_status status;
    assert_int_equal(node_call_status(data, &status, error), 0);
    while (!twin->dropped)
        assert_int_equal(node_call_status(data, &status, error), 0);
    struct buf value = {0};
    assert_int_equal(node_call_get(data, "k", append_value, &value, error), 0);
    assert_int_equal(value.length, 3);
    buf_release(&value);
    buf_release(&request);
    buf_release(&answer);
}

/* ---- The node itself
 * -------------------------------------------------------------------- */

static void test_metrics(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *text;
    assert_int_equal(node_call_metrics(data, &text, error), 0);
    assert_string_equal(text, "tierce_of_a_twin 1\n");
    free(text);
    assert_int_equal(node_call_metrics("/nonexistent", &text, error), -ENOENT);
}

static void test_status_and_invite(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *text = NULL;
    struct node_status status;
    struct token token;
    struct token_record record;
    struct fs_key key;
    struct buf value = {0};
    uint8_t hash[WIRE_HASH_BYTES];
    assert_int_equal(node_call_status(data, &status, error), 0);
    assert_string_equal(status.name, "n1");
    assert_int_equal(status.id, twin->directory.node_id);
    assert_int_equal(node_call_invite(data, 90, &text, error), 0);
    assert_int_equal(token_parse(text, &token, error), 0);
    assert_string_equal(token.addresses, address);
    cluster_key_token(&key, token.id);
    assert_int_equal(store_get(twin->store, key.bytes, key.size, 0, &value, NULL), 0);
    assert_int_equal(token_record_decode(value.data, value.length, &record), 0);
    wire_hash(token.secret, sizeof(token.secret), hash);
    assert_memory_equal(record.secret_hash, hash, sizeof(hash));
    uint64_t left_us = record.expires_us - clock_real_us();
    assert_true(left_us <= 90 * 1000000);
    buf_release(&value);
    free(text);
    text = NULL;
    assert_int_equal(node_call_invite(data, 0, &text, error), -EINVAL);
    assert_int_equal(node_call_invite(data, TOKEN_LIFETIME_MAX_S + 1, &text, error),
                     -EINVAL);
    twin->error = -EROFS;
    assert_int_equal(node_call_invite(data, 90, &text, error), -EROFS);
    twin->error = 0;
    assert_null(text);
}

static void test_stop_says_who_is_in_the_way(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    struct node_status status;
    twin->busy = true;
    assert_int_equal(node_call_stop(data, error), -EBUSY);
    assert_says(error, "files under /mnt/t are open");
    assert_says(error, "fuser -vm /mnt/t");
    assert_int_equal(node_call_status(data, &status, error), 0);
    twin->busy = false;
}

/* When stop returns the lock is free, and nobody answers. */
static void test_stop_waits_for_the_end(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    struct node_status status;
    int fd = -1;
    assert_int_equal(node_call_stop(data, error), 0);
    assert_int_equal(directory_lock(data, &fd, error), 0);
    close(fd);
    assert_int_equal(node_call_status(data, &status, error), -ECONNREFUSED);
    assert_says(error, "no node is running on");
    assert_says(error, "tierce mount --data");
    assert_int_equal(node_call_stop(data, error), -ECONNREFUSED);
    assert_int_equal(node_call_status("/nonexistent", &status, error), -ENOENT);
    assert_int_equal(node_call_status(*state, &status, error), -EBADMSG);
    assert_says(error, "is not a data directory of tierce");
    twin_join(twin);
    twin = twin_start(data); /* for the end of the test */
}

/* ---- Members --------------------------------------------------------------------- */

static void add_member(uint64_t id, const char *name)
{
    struct members *members = &twin->directory.members;
    struct member *m = &members->list[members->count++];
    *m = (struct member){.id = id, .voter = true, .version = 3};
    strcpy(m->name, name);
    strcpy(m->address, "127.0.0.1:1");
}

static void test_a_member_is_removed_by_its_name(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    add_member(77, "n2");
    assert_int_equal(node_call_remove(data, "n3", error), -ENOENT);
    assert_says(error, "no member is called \"n3\"");
    assert_int_equal(node_call_remove(data, "n 3", error), -EINVAL);
    assert_int_equal(node_call_remove(data, "", error), -EINVAL);
    assert_int_equal(node_call_remove(data, "n1", error), -EINVAL);
    assert_says(error, "tierce leave");
    assert_int_equal(twin->last_op.type, 0);
    assert_int_equal(node_call_remove(data, "n2", error), 0);
    assert_int_equal(twin->last_op.type, NODE_OP_REMOVE);
    assert_int_equal(twin->last_op.node_id, 77);
    assert_false(twin->last_op.ask);
}

static void test_a_removal_is_refused_with_the_reason(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    add_member(77, "n2");
    add_member(78, "n3");
    twin->lacking = 78;
    twin->error = -MEMBERS_NO_MAJORITY;
    assert_int_equal(node_call_remove(data, "n2", error), -MEMBERS_NO_MAJORITY);
    assert_says(error, "without n2 a majority of the voters would be lost, as n3 cannot");
    assert_int_equal(node_call_leave(data, error), -MEMBERS_NO_MAJORITY);
    assert_says(error, "without n1 a majority");
    twin->error = -MEMBERS_LAST_VOTER;
    assert_int_equal(node_call_leave(data, error), -MEMBERS_LAST_VOTER);
    assert_says(error, "n1 is the last voter");
    twin->error = -EROFS;
    assert_int_equal(node_call_remove(data, "n2", error), -EROFS);
    assert_says(error, "no majority of the cluster is reachable");
    twin->error = 0;
}

static void test_leave_asks_and_ends(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    twin->busy = true;
    assert_int_equal(node_call_leave(data, error), -EBUSY);
    assert_says(error, "files under /mnt/t are open");
    assert_int_equal(twin->last_op.type, NODE_OP_REMOVE);
    assert_int_equal(twin->last_op.node_id, twin->directory.node_id);
    assert_true(twin->last_op.ask);
    twin->busy = false;
    assert_int_equal(node_call_leave(data, error), 0);
    twin_join(twin);
    twin = twin_start(data); /* for the end of the test */
}

static void test_transfer_says_who_leads(void **state)
{
    char error[NODE_ERROR_BYTES] = "", leader[LIMIT_NAME_BYTES + 1];
    add_member(77, "n2");
    twin->leader = twin->directory.node_id;
    assert_int_equal(node_call_transfer(data, "n2", leader, error), 0);
    assert_string_equal(leader, "n2");
    assert_int_equal(twin->last_op.node_id, 77);
    assert_int_equal(node_call_transfer(data, "n4", leader, error), -ENOENT);
    twin->error = -MEMBERS_NO_VOTER;
    assert_int_equal(node_call_transfer(data, "n2", leader, error), -MEMBERS_NO_VOTER);
    assert_says(error, "n2 does not vote, so it cannot lead");
    twin->error = -MEMBERS_NO_HEIR;
    assert_int_equal(node_call_transfer(data, "n2", leader, error), -MEMBERS_NO_HEIR);
    assert_says(error, "n2 cannot be reached by the leader");
    assert_int_equal(node_call_transfer(data, "", leader, error), -MEMBERS_NO_HEIR);
    assert_says(error, "no other voter can be reached");
    twin->error = 0;
}

/* ---- Joining --------------------------------------------------------------------- */

static int join_as(void **state, const char *where, const char *name, const char *token,
                   char **ret_next, char *error)
{
    char *path = directory_file(*state, where), listen[ADDRESS_BYTES];
    choose_address(listen);
    struct node_setup setup = {.data = path, .name = name, .listen = listen};
    int result = node_join(&setup, token, ret_next, error);
    free(path);
    return result;
}

static char *invite(void)
{
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    assert_int_equal(node_call_invite(data, 60, &token, error), 0);
    return token;
}

static void check_certificate_names(const char *pem, const char *name)
{
    char found[LIMIT_NAME_BYTES + 1] = "";
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    assert_non_null(certificate);
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_description, found,
                              sizeof(found));
    assert_string_equal(found, name);
    X509_free(certificate);
    BIO_free(bio);
}

static void check_joined(void **state, const char *where, const char *name)
{
    static struct directory d;
    char error[NODE_ERROR_BYTES] = "", *path = directory_file(*state, where);
    assert_int_equal(directory_open(&d, path, error), 0);
    struct wire_identity identity = directory_identity(&d);
    identity.ca_pem = twin->directory.ca_pem;
    memcpy(identity.cluster_id, twin->directory.cluster_id, sizeof(identity.cluster_id));
    assert_int_equal(wire_identity_check(&identity, error), 0);
    assert_string_equal(members_find(&d.members, d.node_id)->name, name);
    assert_string_equal(d.name, name);
    check_certificate_names(d.cert_pem, name);
    assert_non_null(members_find(&d.members, twin->directory.node_id));
    struct store_recovery recovery;
    struct store *s = open_store_of(&d, &recovery);
    assert_int_equal(recovery.last_index, 0);
    store_close(s);
    directory_release(&d);
    free(path);
}

static void test_join_and_the_next(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = invite(), *next = NULL, *last = NULL;
    assert_int_equal(join_as(state, "b", "n2", token, &next, error), 0);
    check_joined(state, "b", "n2");
    assert_int_equal(join_as(state, "c", "n3", next, &last, error), 0);
    check_joined(state, "c", "n3");
    assert_string_not_equal(next, last);
    free(token);
    free(next);
    free(last);
}

static void assert_not_made(void **state, const char *where)
{
    char *path = directory_file(*state, where);
    assert_int_equal(access(path, F_OK), -1);
    free(path);
}

static void test_tokens_that_are_refused_leave_nothing(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = invite(), *next = NULL, *none = NULL;
    assert_int_equal(join_as(state, "b", "n2", token, &next, error), 0);
    assert_int_equal(join_as(state, "c", "n3", token, &none, error), -JOIN_USED_TOKEN);
    assert_says(error, "the token was used by another node: run `tierce invite`");
    struct token t;
    assert_int_equal(token_parse(token, &t, error), 0);
    t.id++;
    char *unknown = token_format(&t);
    assert_int_equal(join_as(state, "c", "n3", unknown, &none, error),
                     -JOIN_UNKNOWN_TOKEN);
    assert_says(error, "does not know this token");
    t.ca_hash[0]++;
    char *foreign = token_format(&t);
    assert_int_equal(join_as(state, "c", "n3", foreign, &none, error), -EKEYREJECTED);
    assert_says(error, "of another cluster");
    const int errors[] = {JOIN_EXPIRED_TOKEN, JOIN_NAME_TAKEN, JOIN_TOO_MANY};
    const char *const says[] = {"the token has expired", "give another --name",
                                "takes no more"};
    for (size_t i = 0; i < array_length(errors); i++) {
        twin->error = -errors[i];
        assert_int_equal(join_as(state, "c", "n3", next, &none, error), -errors[i]);
        assert_says(error, says[i]);
    }
    assert_null(none);
    assert_not_made(state, "c");
    free(token);
    free(unknown);
    free(foreign);
    free(next);
}

/* Whatever a joiner's own program let pass. */
static void test_server_checks_a_joiner_itself(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *text = invite(), *key = NULL, *pem = NULL;
    struct token t;
    struct join_request r = {.name = "a b", .address = "h:1", .version = 3};
    assert_int_equal(token_parse(text, &t, error), 0);
    assert_int_equal(wire_pki_make_key(&key), 0);
    assert_int_equal(wire_pki_make_request(key, &pem), 0);
    strcpy(r.request_pem, pem);
    r.token_id = t.id;
    memcpy(r.secret, t.secret, sizeof(r.secret));
    for (int i = 0; i < 3; i++) {
        struct buf request = {0}, answer = {0};
        join_request_encode(&r, &request);
        assert_int_equal(wire_call_join(address, t.ca_hash, request.data, request.length,
                                        10000, &answer, error),
                         0);
        assert_int_equal(answer.data[0], WIRE_REFUSED);
        buf_release(&request);
        buf_release(&answer);
        strcpy(r.name, "n9");
        strcpy(r.address, i == 0 ? "nowhere" : "h:1");
        r.request_pem[40] ^= i == 1;
    }
    assert_int_equal(twin->directory.members.count, 1);
    free(text);
    free(key);
    free(pem);
}

/* The record that the first try made has its name, whatever the next one asks for. */
static void test_a_join_that_was_done_keeps_its_name(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = invite(), *next = NULL;
    twin->lose_answer = true;
    assert_int_equal(join_as(state, "b", "n2", token, &next, error), -EROFS);
    twin->lose_answer = false;
    assert_int_equal(join_as(state, "b", "n7", token, &next, error), 0);
    check_joined(state, "b", "n2");
    free(token);
    free(next);
}

/* Without a majority the outcome is open: the key stays, and the same command goes on. */
static void test_join_is_run_again(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = invite(), *next = NULL, *kept = NULL;
    char *path = directory_file(*state, "b"), *after = NULL;
    twin->error = -EROFS;
    assert_int_equal(join_as(state, "b", "n2", token, &next, error), -EROFS);
    assert_says(error, "no majority of the cluster is reachable");
    assert_int_equal(directory_get_file(path, DIRECTORY_KEY, &kept, error), 0);
    twin->error = 0;
    assert_int_equal(join_as(state, "b", "n2", token, &next, error), 0);
    assert_int_equal(directory_get_file(path, DIRECTORY_KEY, &after, error), 0);
    assert_string_equal(kept, after);
    check_joined(state, "b", "n2");
    assert_true(next[0]);
    free(token);
    free(next);
    free(kept);
    free(after);
    free(path);
}

/* The answer was lost: the same key gets the same node, but no next token. */
static void test_join_with_a_token_of_its_own(void **state)
{
    static struct directory first, second;
    char error[NODE_ERROR_BYTES] = "", *token = invite(), *next = NULL, *again = NULL;
    char *path = directory_file(*state, "b"),
         *conf = directory_file(path, DIRECTORY_CONF);
    assert_int_equal(join_as(state, "b", "n2", token, &next, error), 0);
    assert_int_equal(directory_open(&first, path, error), 0);
    close(first.lock_fd);
    first.lock_fd = -1;
    assert_int_equal(unlink(conf), 0);
    assert_int_equal(join_as(state, "b", "n2", token, &again, error), 0);
    assert_string_equal(again, "");
    assert_int_equal(directory_open(&second, path, error), 0);
    assert_int_equal(first.node_id, second.node_id);
    assert_string_equal(first.key_pem, second.key_pem);
    directory_release(&first);
    directory_release(&second);
    check_joined(state, "b", "n2");
    free(token);
    free(next);
    free(again);
    free(path);
    free(conf);
}

#define WITH_TWIN(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_TWIN(test_values_of_all_sizes),
        WITH_TWIN(test_put_makes_parents),
        WITH_TWIN(test_lists_of_many_answers),
        WITH_TWIN(test_deletes),
        WITH_TWIN(test_errors_are_explained),
        WITH_TWIN(test_callers_errors_end_the_call),
        WITH_TWIN(test_get_is_of_one_version),
        WITH_TWIN(test_malformed_requests_are_refused),
        WITH_TWIN(test_server_checks_limits_itself),
        WITH_TWIN(test_a_caller_that_leaves_is_forgotten),
        WITH_TWIN(test_metrics),
        WITH_TWIN(test_status_and_invite),
        WITH_TWIN(test_stop_says_who_is_in_the_way),
        WITH_TWIN(test_stop_waits_for_the_end),
        WITH_TWIN(test_a_member_is_removed_by_its_name),
        WITH_TWIN(test_a_removal_is_refused_with_the_reason),
        WITH_TWIN(test_leave_asks_and_ends),
        WITH_TWIN(test_transfer_says_who_leads),
        WITH_TWIN(test_join_and_the_next),
        WITH_TWIN(test_tokens_that_are_refused_leave_nothing),
        WITH_TWIN(test_server_checks_a_joiner_itself),
        WITH_TWIN(test_join_is_run_again),
        WITH_TWIN(test_a_join_that_was_done_keeps_its_name),
        WITH_TWIN(test_join_with_a_token_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
