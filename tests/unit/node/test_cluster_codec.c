/* test_cluster_codec.c - records of class C, node operations, a status, JOIN and its
 * answer: round trips, and nothing but exactly these bytes. */
#include "ca.h"
#include "common.h"

#include <errno.h>

typedef int (*decoder)(const void *data, size_t length);

/* Every prefix is refused, and so is a byte too many; the copies let a sanitizer see
 * reads beyond the end. */
static void assert_exact(const struct buf *whole, decoder decode, int refusal)
{
    assert_false(whole->failed);
    for (size_t length = 0; length < whole->length; length++) {
        uint8_t *copy = malloc(length ? length : 1);
        assert_non_null(copy);
        memcpy(copy, whole->data, length);
        assert_int_equal(decode(copy, length), refusal);
        free(copy);
    }
    assert_int_equal(decode(whole->data, whole->length), 0);
    uint8_t *longer = malloc(whole->length + 1);
    assert_non_null(longer);
    memcpy(longer, whole->data, whole->length);
    longer[whole->length] = 0;
    assert_int_equal(decode(longer, whole->length + 1), refusal);
    free(longer);
}

/* Bytes changed at random end in a value or a refusal, never elsewhere. */
static void shake(const struct buf *whole, decoder decode)
{
    uint64_t seed = 7370;
    uint8_t *copy = malloc(whole->length);
    assert_non_null(copy);
    for (int i = 0; i < 20000; i++) {
        memcpy(copy, whole->data, whole->length);
        for (int k = 0; k < 1 + i % 3; k++)
            copy[random_next(&seed) % whole->length] = (uint8_t)random_next(&seed);
        decode(copy, whole->length);
    }
    free(copy);
}

/* ---- Keys ------------------------------------------------------------------------ */

static void test_keys_are_apart(void **state)
{
    struct fs_key config, ca, one, two, gone;
    cluster_key_config(&config);
    cluster_key_ca(&ca);
    cluster_key_token(&one, 1);
    cluster_key_token(&two, 256);
    assert_int_equal(config.size, 7);
    assert_memory_equal(config.bytes, "Cconfig", 7);
    assert_int_equal(ca.size, 3);
    assert_memory_equal(ca.bytes, "Cca", 3);
    assert_int_equal(one.size, 14);
    assert_memory_equal(one.bytes, "Ctoken\0\0\0\0\0\0\0\1", 14);
    assert_true(memcmp(one.bytes, two.bytes, 14) < 0);
    cluster_key_removed(&gone, 258);
    assert_int_equal(gone.size, 16);
    assert_memory_equal(gone.bytes, "Cremoved\0\0\0\0\0\0\1\2", 16);
}

/* ---- Records --------------------------------------------------------------------- */

static struct members members_example(void)
{
    struct members m = {.version = 3, .count = 3};
    m.list[0] = (struct member){
        .id = 1, .voter = true, .version = 3, .name = "a", .address = "h:1"};
    m.list[1] = (struct member){
        .id = 2, .version = 4, .ca = 7, .name = "b", .address = "[::1]:2"};
    m.list[2] = (struct member){
        .id = 3, .observer = true, .version = 3, .name = "c", .address = "h:3"};
    return m;
}

static void assert_same_members(const struct members *a, const struct members *b)
{
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->count, b->count);
    for (uint32_t i = 0; i < a->count; i++) {
        assert_int_equal(a->list[i].id, b->list[i].id);
        assert_int_equal(a->list[i].voter, b->list[i].voter);
        assert_int_equal(a->list[i].observer, b->list[i].observer);
        assert_int_equal(a->list[i].version, b->list[i].version);
        assert_int_equal(a->list[i].ca, b->list[i].ca);
        assert_string_equal(a->list[i].name, b->list[i].name);
        assert_string_equal(a->list[i].address, b->list[i].address);
        assert_string_equal(a->list[i].program, b->list[i].program);
    }
}

static struct members last_members;

static int decode_members(const void *data, size_t length)
{
    return members_decode(data, length, &last_members);
}

static void test_members(void **state)
{
    struct members m = members_example();
    struct buf b = {0};
    members_encode(&m, &b);
    assert_exact(&b, decode_members, -EBADMSG);
    assert_same_members(&m, &last_members);
    assert_string_equal(members_find(&m, 2)->name, "b");
    assert_null(members_find(&m, 4));
    assert_int_equal(members_find_name(&m, "c")->id, 3);
    assert_null(members_find_name(&m, "d"));
    shake(&b, decode_members);
    buf_release(&b);
}

/* Each version adds at the end; who does not know what is there still reads the rest. */
static void test_members_of_newer_versions(void **state)
{
    struct members m = members_example();
    struct buf b = {0};
    strcpy(m.list[1].program, "1.2");
    members_encode(&m, &b); /* in a cluster that is too old for it */
    assert_int_equal(decode_members(b.data, b.length), 0);
    assert_string_equal(last_members.list[1].program, "");
    buf_u8(&b, 0);
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    buf_clear(&b);
    m.version = NODE_VERSION_PROGRAMS;
    members_encode(&m, &b);
    assert_exact(&b, decode_members, -EBADMSG);
    assert_same_members(&m, &last_members);
    buf_clear(&b);
    m.version = NODE_VERSION_PROGRAMS + 1;
    members_encode(&m, &b);
    buf_u64(&b, 77);
    assert_int_equal(decode_members(b.data, b.length), 0);
    assert_same_members(&m, &last_members);
    buf_release(&b);
}

static void test_members_are_checked(void **state)
{
    struct members m = members_example();
    struct buf b = {0};
    m.list[1].id = 1; /* twice */
    members_encode(&m, &b);
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    buf_clear(&b);
    m.list[1].id = 0;
    members_encode(&m, &b);
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    buf_clear(&b);
    m = members_example();
    members_encode(&m, &b);
    b.data[14] = 3; /* an observer does not vote */
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    b.data[14] = 4; /* a kind of member that is not known */
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    put_u32(b.data + 2, LIMIT_MEMBERS + 1);
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    put_u32(b.data + 2, UINT32_MAX);
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    buf_clear(&b);
    m.version = 0;
    members_encode(&m, &b);
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    buf_clear(&b);
    m = members_example();
    m.list[2].version = 0;
    members_encode(&m, &b);
    assert_int_equal(decode_members(b.data, b.length), -EBADMSG);
    buf_release(&b);
}

static struct removed_record last_removed;

static int decode_removed(const void *data, size_t length)
{
    return removed_record_decode(data, length, &last_removed);
}

static void test_removed_record(void **state)
{
    struct removed_record r = {.timestamp_us = 77, .name = "n2"};
    struct buf b = {0};
    removed_record_encode(&r, &b);
    assert_exact(&b, decode_removed, -EBADMSG);
    assert_int_equal(last_removed.timestamp_us, 77);
    assert_string_equal(last_removed.name, "n2");
    b.data[10] = ' ';
    assert_int_equal(decode_removed(b.data, b.length), -EBADMSG);
    buf_release(&b);
}

static struct ca_record last_ca;

static int decode_ca(const void *data, size_t length)
{
    return ca_record_decode(data, length, &last_ca);
}

static struct ca_record ca_example(uint8_t signing, uint8_t count)
{
    struct ca_record ca = {.step = 5, .signing = signing, .count = count};
    for (uint8_t i = 0; i < count; i++) {
        snprintf(ca.list[i].key_pem, sizeof(ca.list[i].key_pem), "key %d;", i);
        snprintf(ca.list[i].cert_pem, sizeof(ca.list[i].cert_pem), "certificate %d;", i);
    }
    return ca;
}

static void test_ca(void **state)
{
    static const struct {
        uint8_t signing, count;
        const char *believed;
    } cases[] = {{0, 1, "step 5\ncertificate 0;"},
                 {0, 2, "step 5\ncertificate 0;certificate 1;"},
                 {1, 2, "step 5\ncertificate 1;certificate 0;"}};
    for (size_t i = 0; i < array_length(cases); i++) {
        struct ca_record ca = ca_example(cases[i].signing, cases[i].count);
        struct buf b = {0};
        ca_record_encode(&ca, &b);
        assert_exact(&b, decode_ca, -EBADMSG);
        memset(&last_ca, 0, sizeof(last_ca));
        assert_int_equal(decode_ca(b.data, b.length), 0);
        assert_memory_equal(&last_ca, &ca, sizeof(ca));
        char *believed = ca_believed_pem(&ca);
        assert_string_equal(believed, cases[i].believed);
        free(believed);
        shake(&b, decode_ca);
        b.data[4] = b.data[5]; /* one that is not there signs */
        assert_int_equal(decode_ca(b.data, b.length), -EBADMSG);
        buf_release(&b);
    }
}

static struct token_record last_record;

static int decode_record(const void *data, size_t length)
{
    return token_record_decode(data, length, &last_record);
}

static void test_token_record(void **state)
{
    struct token_record r = {.expires_us = 5, .node_id = 6};
    struct buf b = {0};
    memset(r.secret_hash, 1, sizeof(r.secret_hash));
    memset(r.key_hash, 2, sizeof(r.key_hash));
    token_record_encode(&r, &b);
    assert_exact(&b, decode_record, -EBADMSG);
    assert_memory_equal(&r, &last_record, sizeof(r));
    buf_release(&b);
}

/* ---- Operations ------------------------------------------------------------------ */

static struct node_op last_op;

static int decode_op(const void *data, size_t length)
{
    return node_op_decode(data, length, &last_op);
}

static struct node_op join_example(void)
{
    struct node_op op = {.type = NODE_OP_JOIN,
                         .token_id = 3,
                         .next_token_id = 4,
                         .name = "n3",
                         .address = "h:3",
                         .observer = true,
                         .version = 3,
                         .replace = "n2",
                         .record = {.expires_us = 99}};
    memset(op.secret, 3, sizeof(op.secret));
    memset(op.key_hash, 4, sizeof(op.key_hash));
    memset(op.record.secret_hash, 5, sizeof(op.record.secret_hash));
    return op;
}

static void check_op(const struct node_op *op)
{
    struct buf b = {0};
    node_op_encode(op, &b);
    assert_int_equal(b.data[0], op->type);
    assert_true(b.data[0] >= NODE_OP_FIRST); /* told from those of fs.h by it */
    assert_exact(&b, decode_op, -EPROTO);
    assert_int_equal(last_op.type, op->type);
    assert_int_equal(last_op.node_id, op->node_id);
    assert_int_equal(last_op.nonce, op->nonce);
    assert_int_equal(last_op.token_id, op->token_id);
    assert_int_equal(last_op.next_token_id, op->next_token_id);
    assert_memory_equal(&last_op.record, &op->record, sizeof(op->record));
    assert_memory_equal(last_op.secret, op->secret, sizeof(op->secret));
    assert_memory_equal(last_op.key_hash, op->key_hash, sizeof(op->key_hash));
    assert_string_equal(last_op.name, op->name);
    assert_string_equal(last_op.address, op->address);
    assert_int_equal(last_op.observer, op->observer);
    assert_int_equal(last_op.version, op->version);
    assert_string_equal(last_op.replace, op->replace);
    assert_int_equal(last_op.ca, op->ca);
    assert_int_equal(last_op.ask, op->ask);
    assert_int_equal(last_op.session, op->session);
    assert_string_equal(last_op.ca_key_pem, op->ca_key_pem);
    assert_string_equal(last_op.ca_cert_pem, op->ca_cert_pem);
    shake(&b, decode_op);
    buf_release(&b);
}

static void test_operations(void **state)
{
    struct node_op session = {.type = NODE_OP_SESSION, .node_id = 1, .nonce = 2};
    struct node_op invite = {
        .type = NODE_OP_INVITE, .token_id = 7, .record = {.expires_us = 8}};
    struct node_op join = join_example();
    const struct node_op rest[] = {
        {.type = NODE_OP_PROMOTE, .node_id = 9},
        {.type = NODE_OP_REMOVE, .node_id = 10},
        {.type = NODE_OP_REMOVE, .node_id = 10, .ask = true},
        {.type = NODE_OP_REPORT, .node_id = 11, .version = 4, .ca = 2, .address = "h:1"},
        {.type = NODE_OP_TRANSFER, .node_id = 12},
        {.type = NODE_OP_TRANSFER}, /* to the best */
        {.type = NODE_OP_VERSION, .version = 5},
        {.type = NODE_OP_ROTATE_CA, .ca = 6, .ca_key_pem = "K", .ca_cert_pem = "C"},
        {.type = NODE_OP_ADVANCE_CA, .ca = 7},
        {.type = NODE_OP_END_SESSION, .session = 8},
    };
    check_op(&session);
    check_op(&invite);
    check_op(&join);
    for (size_t i = 0; i < array_length(rest); i++)
        check_op(&rest[i]);
}

/* Of a cluster of a newer version; without the program it is the older one's. */
static void test_report_of_a_program(void **state)
{
    struct node_op op = {.type = NODE_OP_REPORT,
                         .node_id = 11,
                         .version = 4,
                         .address = "h:1",
                         .program = "1.2"};
    struct buf b = {0};
    node_op_encode(&op, &b);
    assert_int_equal(decode_op(b.data, b.length), 0);
    assert_string_equal(last_op.program, "1.2");
    for (size_t cut = 1; cut < b.length; cut++)
        assert_int_equal(decode_op(b.data, b.length - cut), cut == 5 ? 0 : -EPROTO);
    buf_u8(&b, 0);
    assert_int_equal(decode_op(b.data, b.length), -EPROTO);
    b.length -= 6;
    buf_u16(&b, 0); /* one that is not told */
    assert_int_equal(decode_op(b.data, b.length), -EPROTO);
    buf_release(&b);
}

static void refuse_op(const struct node_op *op)
{
    struct buf b = {0};
    node_op_encode(op, &b);
    assert_int_equal(decode_op(b.data, b.length), -EPROTO);
    buf_release(&b);
}

static void test_operations_are_checked(void **state)
{
    struct node_op op = join_example();
    strcpy(op.name, "a b");
    refuse_op(&op);
    op = join_example();
    op.name[0] = 0;
    refuse_op(&op);
    op = join_example();
    strcpy(op.address, "nowhere");
    refuse_op(&op);
    op = join_example();
    op.next_token_id = op.token_id;
    refuse_op(&op);
    op = join_example();
    op.record.node_id = 1; /* a token that is used already */
    refuse_op(&op);
    op = (struct node_op){.type = NODE_OP_INVITE};
    refuse_op(&op);
    op = (struct node_op){.type = NODE_OP_SESSION};
    refuse_op(&op);
    op = join_example();
    op.version = 0;
    refuse_op(&op);
    op = join_example();
    strcpy(op.replace, "a b");
    refuse_op(&op);
    const struct node_op nothing[] = {
        {.type = NODE_OP_PROMOTE},
        {.type = NODE_OP_REMOVE},
        {.type = NODE_OP_REPORT, .node_id = 1, .version = 1, .address = "h"},
        {.type = NODE_OP_REPORT, .node_id = 1, .address = "h:1"},
        {.type = NODE_OP_REPORT, .version = 1, .address = "h:1"},
        {.type = NODE_OP_VERSION},
        {.type = NODE_OP_ROTATE_CA, .ca = 1, .ca_key_pem = "K"},
        {.type = NODE_OP_END_SESSION},
    };
    for (size_t i = 0; i < array_length(nothing); i++)
        refuse_op(&nothing[i]);
    for (int type = 0; type < 256; type++) {
        uint8_t bytes[9] = {(uint8_t)type};
        if (type < NODE_OP_FIRST || type > NODE_OP_LAST)
            assert_int_equal(decode_op(bytes, sizeof(bytes)), -EPROTO);
    }
}

/* ---- Status ---------------------------------------------------------------------- */

static struct node_status last_status;

static int decode_status(const void *data, size_t length)
{
    return node_status_decode(data, length, &last_status);
}

static void test_status(void **state)
{
    static struct node_status s;
    s = (struct node_status){.name = "n1",
                             .id = 1,
                             .cluster = {2},
                             .role = NODE_LEARNER,
                             .term = 3,
                             .leader = 4,
                             .commit = 5,
                             .applied = 6,
                             .last = 7,
                             .quorum = true,
                             .mountpoint = "/mnt",
                             .version = "1",
                             .pid = 8,
                             .keys = 9,
                             .log_bytes = 10,
                             .disk_free_bytes = 11,
                             .complete = true,
                             .disk_hung = true,
                             .base = 20,
                             .live_bytes = 21,
                             .merged_bytes = 22,
                             .merged_files = 23,
                             .hint_bytes = 24,
                             .merges = 25,
                             .merge_bytes_written = 26,
                             .scrubs = 27,
                             .scrubbed_bytes = 28,
                             .bad_reads = 29,
                             .damaged = 30,
                             .repaired = 31,
                             .unrepaired = 32,
                             .snapshot_bytes = 33,
                             .snapshot_total = 34,
                             .refused = 12,
                             .cluster_version = 35,
                             .certificate_end_s = 36,
                             .member_count = 2};
    s.members[0] =
        (struct node_member){.name = "n1", .id = 1, .address = "h:1", .voter = true};
    s.members[1] = (struct node_member){.name = "n2",
                                        .id = 2,
                                        .address = "h:2",
                                        .reachable = true,
                                        .applied = 3,
                                        .observer = true,
                                        .version = 4,
                                        .ca = 5,
                                        .program = "1.2"};
    struct buf b = {0};
    node_status_encode(&s, &b);
    memset(&last_status, 0, sizeof(last_status));
    assert_exact(&b, decode_status, -EPROTO);
    assert_memory_equal(&s, &last_status, sizeof(s));
    shake(&b, decode_status);
    b.data[28] = NODE_LEARNER + 1; /* after name, id and cluster */
    assert_int_equal(decode_status(b.data, b.length), -EPROTO);
    buf_release(&b);
}

/* ---- JOIN ------------------------------------------------------------------------ */

static struct join_request last_request;
static struct join_answer last_answer;

static int decode_request(const void *data, size_t length)
{
    return join_request_decode(data, length, &last_request);
}

static int decode_answer(const void *data, size_t length)
{
    return join_answer_decode(data, length, &last_answer);
}

static void test_join_request(void **state)
{
    static struct join_request r;
    r = (struct join_request){.token_id = 1,
                              .name = "n",
                              .address = "h:1",
                              .request_pem = "PEM",
                              .observer = true,
                              .version = 3,
                              .replace = "old"};
    memset(r.secret, 7, sizeof(r.secret));
    struct buf b = {0};
    join_request_encode(&r, &b);
    assert_exact(&b, decode_request, -EPROTO);
    assert_memory_equal(&r, &last_request, sizeof(r));
    shake(&b, decode_request);
    buf_release(&b);
}

static void test_join_answer(void **state)
{
    static struct join_answer a;
    a = (struct join_answer){.node_id = 2,
                             .cluster_id = {9},
                             .ca_pem = "CA",
                             .cert_pem = "CERT",
                             .next_token = "tierce1:"};
    a.members = members_example();
    struct buf b = {0};
    join_answer_encode(&a, &b);
    assert_exact(&b, decode_answer, -EPROTO);
    assert_int_equal(last_answer.node_id, 2);
    assert_int_equal(last_answer.cluster_id[0], 9);
    assert_string_equal(last_answer.ca_pem, "CA");
    assert_string_equal(last_answer.cert_pem, "CERT");
    assert_string_equal(last_answer.next_token, "tierce1:");
    assert_same_members(&last_answer.members, &a.members);
    shake(&b, decode_answer);
    buf_clear(&b);
    a.node_id = 5; /* who is no member was not let in */
    join_answer_encode(&a, &b);
    assert_int_equal(decode_answer(b.data, b.length), -EPROTO);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_are_apart),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_removed_record),
        cmocka_unit_test(test_members_of_newer_versions),
        cmocka_unit_test(test_members_are_checked),
        cmocka_unit_test(test_ca),
        cmocka_unit_test(test_token_record),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_report_of_a_program),
        cmocka_unit_test(test_operations_are_checked),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_join_request),
        cmocka_unit_test(test_join_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
