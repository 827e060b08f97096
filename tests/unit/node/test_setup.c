/* test_setup.c - init and join: what they make, refuse, and leave behind. */
#include "ca.h"
#include "common.h"
#include "setup.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

static unsigned count_names(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}

static char address[ADDRESS_BYTES]; /* where the node to be made listens */

static struct node_setup setup_in(const char *data)
{
    choose_address(address);
    return (struct node_setup){.data = data, .name = "n1", .listen = address};
}

static char *inside(void **state, const char *name)
{
    char *path = directory_file(*state, name);
    assert_non_null(path);
    return path;
}

static int get_value(struct store *s, const struct fs_key *key, struct buf *to)
{
    buf_clear(to);
    return store_get(s, key->bytes, key->size, 0, to, NULL);
}

static void check_records(struct store *s, const struct directory *d, const char *text)
{
    struct fs_key key;
    struct buf value = {0};
    static struct members members;
    struct token token;
    struct token_record record;
    struct fs_inode root;
    uint8_t hash[WIRE_HASH_BYTES];
    char error[NODE_ERROR_BYTES] = "";
    static struct ca_record ca;

    cluster_key_config(&key);
    assert_int_equal(get_value(s, &key, &value), 0);
    assert_int_equal(members_decode(value.data, value.length, &members), 0);
    assert_int_equal(members.count, 1);
    assert_int_equal(members.list[0].id, d->node_id);
    assert_true(members.list[0].voter);
    assert_string_equal(members.list[0].address, address);

    cluster_key_ca(&key);
    assert_int_equal(get_value(s, &key, &value), 0);
    assert_int_equal(ca_record_decode(value.data, value.length, &ca), 0);
    assert_int_equal(ca.step, 0);
    assert_int_equal(ca.count, 1);
    assert_string_equal(ca.list[0].cert_pem, d->ca_pem);
    assert_int_equal(token_parse(text, &token, error), 0);
    assert_int_equal(wire_pki_fingerprint(ca.list[0].cert_pem, hash), 0);
    assert_memory_equal(token.ca_hash, hash, sizeof(hash));
    assert_string_equal(token.addresses, address);

    cluster_key_token(&key, token.id);
    assert_int_equal(get_value(s, &key, &value), 0);
    assert_int_equal(token_record_decode(value.data, value.length, &record), 0);
    wire_hash(token.secret, sizeof(token.secret), hash);
    assert_memory_equal(record.secret_hash, hash, sizeof(hash));
    assert_int_equal(record.node_id, 0);
    uint64_t left_s = (record.expires_us - clock_real_us()) / 1000000;
    assert_in_range(left_s, TOKEN_LIFETIME_S - 3600, TOKEN_LIFETIME_S);

    fs_key_inode(&key, FS_ROOT_INODE);
    assert_int_equal(get_value(s, &key, &value), 0);
    assert_int_equal(fs_inode_decode(FS_ROOT_INODE, 1, value.data, value.length, &root),
                     0);
    assert_true(S_ISDIR(root.mode));
    buf_release(&value);
}

static void test_init_makes_a_node(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = NULL, *data = inside(state, "a/b");
    struct node_setup setup = setup_in(data);
    assert_int_equal(node_init(&setup, &token, error), 0);
    static struct directory d;
    assert_int_equal(directory_open(&d, data, error), 0);
    struct stat st;
    assert_int_equal(stat(data, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    struct wire_identity identity = directory_identity(&d);
    assert_int_equal(wire_identity_check(&identity, error), 0);

    struct store_recovery recovery;
    struct store *s = open_store_of(&d, &recovery);
    assert_int_equal(recovery.term, 1);
    assert_int_equal(recovery.vote, d.node_id);
    assert_int_equal(recovery.last_index, 1);
    assert_int_equal(recovery.commit, 1);
    check_records(s, &d, token);
    store_close(s);
    directory_release(&d);

    /* Not again, and nothing of it is touched. */
    char *second = NULL;
    assert_int_equal(node_init(&setup, &second, error), -EEXIST);
    assert_says(error, "holds a node already");
    assert_int_equal(node_join(&setup, token, &second, error), -EEXIST);
    assert_null(second);
    assert_int_equal(directory_open(&d, data, error), 0);
    assert_int_equal(node_init(&setup, &second, error), -EEXIST);
    directory_release(&d);
    free(token);
    free(data);
}

static void test_init_refuses_what_is_not_empty(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    char *lost = inside(state, "lost+found"), *mine = inside(state, "mine");
    struct node_setup setup = setup_in(*state);
    assert_int_equal(mkdir(lost, 0700), 0);
    assert_int_equal(directory_put_file(*state, "mine", "x", 1, error), 0);
    assert_int_equal(node_init(&setup, &token, error), -EEXIST);
    assert_says(error, "is not empty (it holds \"mine\")");
    assert_int_equal(count_names(*state), 2);
    assert_int_equal(unlink(mine), 0);
    assert_int_equal(node_init(&setup, &token, error),
                     0); /* a lost+found alone is fine */
    assert_int_equal(access(lost, F_OK), 0);
    free(token);
    free(lost);
    free(mine);
}

static void test_init_says_what_is_wrong(void **state)
{
    static const struct {
        const char *name, *listen, *advertise, *says;
    } rows[] = {
        {"a b", ":1", NULL, "give --name"},
        {"", ":1", NULL, "give --name"},
        {"n", "h:0", NULL, "give --listen HOST:PORT"},
        {"n", "h:x", NULL, "give --listen HOST:PORT"},
        {"n", "a,b:1", NULL, "give --listen HOST:PORT"},
        {"n", ":1", ":1", "give --advertise HOST:PORT"},
        {"n", ":1", "0.0.0.0:1", "give --advertise HOST:PORT"},
        {"n", ":1", "h:99999", "give --advertise HOST:PORT"},
    };
    char *data = inside(state, "d");
    for (size_t i = 0; i < array_length(rows); i++) {
        char error[NODE_ERROR_BYTES] = "", *token = NULL;
        struct node_setup setup = {.data = data,
                                   .name = rows[i].name,
                                   .listen = rows[i].listen,
                                   .advertise = rows[i].advertise};
        assert_int_equal(node_init(&setup, &token, error), -EINVAL);
        assert_says(error, rows[i].says);
        assert_int_equal(access(data, F_OK), -1);
    }
    free(data);
}

static void test_addresses_follow_from_listen(void **state)
{
    static const struct {
        const char *listen, *advertise, *expected;
    } rows[] = {
        {"h", NULL, "h:7370"}, {"h:99", NULL, "h:99"}, {"[::1]:99", NULL, "[::1]:99"},
        {":99", "x", "x:99"},  {":99", "x:1", "x:1"},  {NULL, "[fe::2]", "[fe::2]:7370"},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        static struct directory d;
        char error[NODE_ERROR_BYTES] = "";
        struct node_setup setup = {
            .listen = rows[i].listen, .advertise = rows[i].advertise, .name = "n"};
        assert_int_equal(naming_choose(&setup, &d, error), 0);
        assert_string_equal(d.listen, rows[i].listen ? rows[i].listen : ":7370");
        assert_string_equal(d.advertise, rows[i].expected);
    }
}

/* Nothing listens on a port of 1: refused at once. */
static char *token_of_nobody(void)
{
    struct token t = {.id = 1, .addresses = "127.0.0.1:1"};
    char *text = token_format(&t);
    assert_non_null(text);
    return text;
}

static void test_join_of_nobody_leaves_nothing(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *next = NULL, *data = inside(state, "x/y");
    char *token = token_of_nobody(), *parent = inside(state, "x");
    struct node_setup setup = setup_in(data);
    assert_int_equal(node_join(&setup, token, &next, error), -ECONNREFUSED);
    assert_says(error, "no node of the cluster let us in");
    assert_says(error, "127.0.0.1:1");
    assert_int_equal(access(parent, F_OK), -1);
    assert_int_equal(node_join(&setup, "tierce1:", &next, error), -EINVAL);
    assert_says(error, "the token is malformed");
    assert_int_equal(access(parent, F_OK), -1);
    free(token);
    free(parent);
    free(data);
}

/* The key of an earlier try may have used the token: it stays, all else begins anew. */
static void test_join_goes_on_with_its_key(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *next = NULL, *key = NULL, *kept = NULL;
    char *token = token_of_nobody(), *rest = inside(state, "raft.state");
    struct node_setup setup = setup_in(*state);
    assert_int_equal(wire_pki_make_key(&key), 0);
    assert_int_equal(directory_put_file(*state, DIRECTORY_KEY, key, strlen(key), error),
                     0);
    assert_int_equal(directory_put_file(*state, "raft.state", "x", 1, error), 0);
    assert_int_equal(node_init(&setup, &next, error), -EEXIST);
    assert_says(error, "a join that was not finished");
    assert_int_equal(node_join(&setup, token, &next, error), -ECONNREFUSED);
    assert_int_equal(directory_get_file(*state, DIRECTORY_KEY, &kept, error), 0);
    assert_string_equal(kept, key);
    assert_int_equal(access(rest, F_OK), -1);
    assert_int_equal(directory_put_file(*state, "mine", "x", 1, error), 0);
    assert_int_equal(node_join(&setup, token, &next, error), -EEXIST);
    assert_says(error, "is not empty (it holds \"mine\")");
    free(token);
    free(rest);
    free(key);
    free(kept);
}

/* Refused before anything is made; what holds a node already is said first. */
static void test_a_port_in_use(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *next = NULL, *token = token_of_nobody();
    char *data = inside(state, "x/y"), *parent = inside(state, "x"), *key = NULL;
    struct node_setup setup = setup_in(data);
    int fd = bind_port(address);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(node_init(&setup, &next, error), -EADDRINUSE);
    assert_says(error, address);
    assert_says(error, "already in use by another process; give another with --listen");
    assert_int_equal(node_join(&setup, token, &next, error), -EADDRINUSE);
    assert_int_equal(access(parent, F_OK), -1);
    setup.data = *state;
    assert_int_equal(directory_put_file(*state, DIRECTORY_KEY, "x", 1, error), 0);
    assert_int_equal(node_init(&setup, &next, error), -EEXIST);
    assert_int_equal(node_join(&setup, token, &next, error), -EADDRINUSE);
    assert_int_equal(directory_get_file(*state, DIRECTORY_KEY, &key, error), 0);
    assert_int_equal(count_names(*state), 1);
    setup.data = data;
    setup.listen = "nowhere.invalid";
    assert_int_equal(node_init(&setup, &next, error), -EADDRNOTAVAIL);
    assert_says(error, "no such address; give another with --listen");
    close(fd);
    free(token);
    free(parent);
    free(data);
    free(key);
}

#define IN_SCRATCH(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(test_init_makes_a_node),
        IN_SCRATCH(test_init_refuses_what_is_not_empty),
        IN_SCRATCH(test_init_says_what_is_wrong),
        IN_SCRATCH(test_addresses_follow_from_listen),
        IN_SCRATCH(test_a_port_in_use),
        IN_SCRATCH(test_join_of_nobody_leaves_nothing),
        IN_SCRATCH(test_join_goes_on_with_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
