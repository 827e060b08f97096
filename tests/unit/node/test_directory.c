/* test_directory.c - tierce.conf, the identity files, and the lock. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define HEAD                                                                             \
    "format = 1\ncluster = 000102030405060708090a0b0c0d0e0f\nid = 00000000000000ff\n"
#define BODY  "name = n1\nlisten = :7370\nadvertise = 10.0.0.1:7370\n"
#define WHOLE HEAD BODY

static void example(struct directory *d, char *path)
{
    *d = (struct directory){.path = path,
                            .lock_fd = -1,
                            .node_id = 0xff,
                            .name = "n1",
                            .listen = ":7370",
                            .advertise = "10.0.0.1:7370",
                            .segment_bytes = 32 * MiB,
                            .ca_pem = "ca\n",
                            .cert_pem = "cert\n",
                            .key_pem = "key\n"};
    memset(d->cluster_id, 0xab, sizeof(d->cluster_id));
    d->members.count = 2;
    d->members.list[0] = (struct member){
        .id = 0xff, .voter = true, .name = "n1", .address = "10.0.0.1:7370"};
    d->members.list[1] =
        (struct member){.id = 0x1234, .name = "n2", .address = "[fe::1]:7371"};
}

static void assert_same(const struct directory *a, const struct directory *b)
{
    assert_memory_equal(a->cluster_id, b->cluster_id, sizeof(a->cluster_id));
    assert_int_equal(a->node_id, b->node_id);
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->listen, b->listen);
    assert_string_equal(a->advertise, b->advertise);
    assert_int_equal(a->segment_bytes, b->segment_bytes);
    assert_int_equal(a->members.count, b->members.count);
    for (uint32_t i = 0; i < a->members.count; i++) {
        assert_int_equal(a->members.list[i].id, b->members.list[i].id);
        assert_int_equal(a->members.list[i].voter, b->members.list[i].voter);
        assert_string_equal(a->members.list[i].name, b->members.list[i].name);
        assert_string_equal(a->members.list[i].address, b->members.list[i].address);
    }
}

static void test_conf_comes_back(void **state)
{
    static struct directory d, back;
    char error[NODE_ERROR_BYTES];
    struct buf text = {0};
    example(&d, NULL);
    for (int told = 0; told < 3; told++) { /* neither, both, and never */
        d.scrub_period_us =
            told == 2 ? STORE_NEVER : (uint64_t)told * 30 * 24 * 3600 * 1000000;
        d.merge_bytes_per_s = (uint64_t)told * 5 * MiB;
        d.certificate_life_s = (uint64_t)told * 86401;
        buf_clear(&text);
        directory_conf_format(&d, &text);
        buf_u8(&text, 0);
        assert_int_equal(directory_conf_parse((char *)text.data, "f", &back, error), 0);
        assert_same(&d, &back);
        assert_true(back.scrub_period_us == d.scrub_period_us);
        assert_true(back.merge_bytes_per_s == d.merge_bytes_per_s);
        assert_true(back.certificate_life_s == d.certificate_life_s);
    }
    buf_release(&text);
}

static void test_conf_is_lenient_in_layout(void **state)
{
    static struct directory d;
    char error[NODE_ERROR_BYTES];
    assert_int_equal(directory_conf_parse(
                         "# mine\n\n  format=1 \r\n\tcluster =  "
                         "000102030405060708090a0b0c0d0e0f\nid=00000000000000ff\n" BODY
                         "segment_mib = 16\nscrub_days = 3\nmerge_mib_per_s = 100\n"
                         "certificate_life = 36h",
                         "f", &d, error),
                     0);
    assert_int_equal(d.segment_bytes, 16 * MiB);
    struct store_options options = directory_store_options(&d);
    assert_int_equal(options.scrub_period_us, (uint64_t)3 * 24 * 3600 * 1000000);
    assert_int_equal(options.merge_bytes_per_s, 100 * MiB);
    assert_int_equal(d.certificate_life_s, 36 * 3600);
    assert_int_equal(directory_conf_parse(WHOLE "scrub_days = 0\n", "f", &d, error), 0);
    options = directory_store_options(&d);
    assert_true(options.scrub_period_us == STORE_NEVER);
    assert_int_equal(options.merge_bytes_per_s, 0);
    assert_int_equal(directory_conf_parse(WHOLE, "f", &d, error), 0);
    assert_int_equal(d.segment_bytes, NODE_SEGMENT_MIB * MiB);
    assert_int_equal(directory_certificate_life_s(&d), NODE_CERTIFICATE_S);
}

static void test_conf_errors_name_file_and_line(void **state)
{
    static const struct {
        const char *text;
        int result;
        const char *says;
    } rows[] = {
        {"", -EBADMSG, "F: \"format\" is missing"},
        {"cluster = 0\n", -EBADMSG, "F, line 1: the first key must be format"},
        {"format = x\n", -EBADMSG, "F, line 1: format \"x\""},
        {"format = 0\n", -EBADMSG, "F, line 1: format \"0\""},
        {"format = -1\n", -EBADMSG, "F, line 1: format \"-1\""},
        {"\nformat = 2\nnew = 1\n", -EPROTONOSUPPORT, "newer tierce (format 2)"},
        {HEAD, -EBADMSG, "F: \"name\" is missing"},
        {WHOLE "nonsense\n", -EBADMSG, "F, line 7: \"nonsense\" is not KEY = VALUE"},
        {WHOLE "lissten = :1\n", -EBADMSG, "F, line 7: unknown key \"lissten\""},
        {WHOLE "id = 00000000000000fe\n", -EBADMSG, "F, line 7: id stands twice"},
        {WHOLE "segment_mib = 15\n", -EBADMSG, "F, line 7: segment_mib \"15\""},
        {WHOLE "segment_mib = 1025\n", -EBADMSG, "from 16 to 1024"},
        {WHOLE "segment_mib = 64k\n", -EBADMSG, "segment_mib \"64k\""},
        {WHOLE "scrub_days = 3651\n", -EBADMSG, "from 0 (never) to 3650"},
        {WHOLE "scrub_days = x\n", -EBADMSG, "F, line 7: scrub_days \"x\""},
        {WHOLE "merge_mib_per_s = 0\n", -EBADMSG, "F, line 7: merge_mib_per_s \"0\""},
        {WHOLE "merge_mib_per_s = 1025\n", -EBADMSG, "from 1 to 1024"},
        {WHOLE "certificate_life = 9s\n", -EBADMSG, "from 10s to 3650d"},
        {WHOLE "certificate_life = 3651d\n", -EBADMSG, "from 10s to 3650d"},
        {WHOLE "certificate_life = 1y\n", -EBADMSG, "F, line 7: certificate_life \"1y\""},
        {WHOLE "member = 1 voter a:1 n\n", -EBADMSG, "F, line 7: a member is: ID"},
        {WHOLE "member = 0000000000000001 boss a:1 n\n", -EBADMSG, "a member is: ID"},
        {WHOLE "member = 0000000000000001 voter a n\n", -EBADMSG, "a member is: ID"},
        {WHOLE "member = 0000000000000001 voter a:1\n", -EBADMSG, "a member is: ID"},
        {WHOLE "member = 0000000000000001 voter a:1 n x\n", -EBADMSG, "a member is: ID"},
        {WHOLE "member = 0000000000000001 voter a:1 n\n"
               "member = 0000000000000001 voter a:2 m\n",
         -EBADMSG, "F, line 8: member 0000000000000001 stands twice"},
        {"format = 1\ncluster = 00\n", -EBADMSG, "F, line 2: cluster \"00\""},
        {"format = 1\nid = 0000000000000000\n", -EBADMSG, "F, line 2: id"},
        {"format = 1\nname = a b\n", -EBADMSG, "F, line 2: name \"a b\""},
        {"format = 1\nlisten =\n", -EBADMSG, "F, line 2: listen"},
        {"format = 1\nlisten = a:0\n", -EBADMSG, "F, line 2: listen"},
        {"format = 1\nadvertise = :7370\n", -EBADMSG, "F, line 2: advertise"},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        static struct directory d;
        char error[NODE_ERROR_BYTES] = "";
        assert_int_equal(directory_conf_parse(rows[i].text, "F", &d, error),
                         rows[i].result);
        assert_says(error, rows[i].says);
        assert_int_equal(d.node_id, 0); /* untouched on failure */
    }
}

static void test_conf_bounds_members(void **state)
{
    static struct directory d;
    char error[NODE_ERROR_BYTES] = "";
    struct buf text = {0};
    buf_printf(&text, "%s", WHOLE);
    for (unsigned i = 1; i <= LIMIT_MEMBERS + 1; i++)
        buf_printf(&text, "member = %016x learner a:1 n%u\n", i, i);
    buf_u8(&text, 0);
    assert_int_equal(directory_conf_parse((char *)text.data, "F", &d, error), -EBADMSG);
    assert_says(error, "line 39: there are too many members");
    buf_release(&text);
}

static void test_names_and_addresses(void **state)
{
    char longest[LIMIT_NAME_BYTES + 2];
    memset(longest, 'x', sizeof(longest));
    longest[LIMIT_NAME_BYTES + 1] = 0;
    assert_false(node_name_valid(longest));
    longest[LIMIT_NAME_BYTES] = 0;
    assert_true(node_name_valid(longest));
    assert_true(node_name_valid("host-1.example"));
    assert_false(node_name_valid(""));
    assert_false(node_name_valid("a b"));
    assert_false(node_name_valid("a,b"));
    assert_false(node_name_valid("a\nb"));
    assert_false(node_name_valid("\xc3\xa4"));
    assert_true(node_address_valid("h:1"));
    assert_true(node_address_valid("[::1]:7370"));
    assert_false(node_address_valid("h"));
    assert_false(node_address_valid(":1"));
    assert_false(node_address_valid("h:0"));
    assert_false(node_address_valid("h:70000"));
    assert_false(node_address_valid("a,b:1"));
}

static void write_example(char *path)
{
    static struct directory d;
    char error[NODE_ERROR_BYTES] = "";
    example(&d, path);
    assert_int_equal(directory_lock(path, &d.lock_fd, error), 0);
    assert_int_equal(directory_write(&d, error), 0);
    close(d.lock_fd);
}

static void test_written_directory_opens(void **state)
{
    static struct directory d, back;
    char error[NODE_ERROR_BYTES] = "";
    write_example(*state);
    example(&d, NULL);
    assert_int_equal(directory_open(&back, *state, error), 0);
    assert_same(&d, &back);
    assert_string_equal(back.ca_pem, "ca\n");
    assert_string_equal(back.cert_pem, "cert\n");
    assert_string_equal(back.key_pem, "key\n");
    assert_true(back.lock_fd >= 0);
    assert_true(fcntl(back.lock_fd, F_GETFD) & FD_CLOEXEC);
    static const char *const names[] = {DIRECTORY_CONF, DIRECTORY_CA, DIRECTORY_CERT,
                                        DIRECTORY_KEY, DIRECTORY_LOCK};
    for (size_t i = 0; i < array_length(names); i++) {
        struct stat st;
        char *file = directory_file(*state, names[i]);
        assert_int_equal(stat(file, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        free(file);
    }
    directory_release(&back);

    struct node_identity identity;
    assert_int_equal(node_identify(*state, &identity, error), 0);
    assert_int_equal(identity.id, 0xff);
    assert_string_equal(identity.name, "n1");
}

/* A file that cannot be written stays as it was, and nothing lies beside it. */
static void test_put_file_is_whole_or_not(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *text = NULL;
    assert_int_equal(directory_put_file(*state, "f", "one", 3, error), 0);
    assert_int_equal(directory_put_file(*state, "f", "two!", 4, error), 0);
    assert_int_equal(directory_get_file(*state, "f", &text, error), 0);
    assert_string_equal(text, "two!");
    free(text);
    char *beside = directory_file(*state, "f.new");
    assert_int_equal(access(beside, F_OK), -1);
    free(beside);
    assert_int_equal(directory_put_file("/nonexistent", "f", "x", 1, error), -ENOENT);
    assert_says(error, "cannot write /nonexistent/f");
}

static void test_bad_files_are_named(void **state)
{
    static struct directory d;
    char error[NODE_ERROR_BYTES] = "", *text = NULL;
    assert_int_equal(directory_put_file(*state, "nul", "a\0b", 3, error), 0);
    assert_int_equal(directory_get_file(*state, "nul", &text, error), -EBADMSG);
    assert_says(error, "/nul is not a text file");
    write_example(*state);
    char *file = directory_file(*state, DIRECTORY_CERT);
    assert_int_equal(unlink(file), 0);
    free(file);
    assert_int_equal(directory_open(&d, *state, error), -EBADMSG);
    assert_says(error, "/node.crt: No such file");
    assert_int_equal(
        directory_put_file(*state, DIRECTORY_CONF, "format = 7\n", 11, error), 0);
    assert_int_equal(directory_open(&d, *state, error), -EPROTONOSUPPORT);
    assert_says(error, "upgrade");
    /* The lock was let go each time. */
    int fd = -1;
    assert_int_equal(directory_lock(*state, &fd, error), 0);
    close(fd);
}

static void test_what_is_no_nodes_is_said(void **state)
{
    static struct directory d;
    char error[NODE_ERROR_BYTES] = "", missing[4096];
    snprintf(missing, sizeof(missing), "%s/no", (char *)*state);
    assert_int_equal(directory_open(&d, missing, error), -ENOENT);
    assert_says(error, "does not exist: make a cluster with `tierce init --data");
    assert_says(error, "tierce join TOKEN --data");
    assert_int_equal(directory_open(&d, *state, error), -EBADMSG);
    assert_says(error, "is not a data directory of tierce");
    char *lock = directory_file(*state, DIRECTORY_LOCK);
    assert_int_equal(access(lock, F_OK), -1); /* nothing was put into a stranger's */
    free(lock);
    assert_int_equal(directory_put_file(*state, DIRECTORY_KEY, "k", 1, error), 0);
    assert_int_equal(directory_open(&d, *state, error), -EBADMSG);
    assert_says(error, "a join that was not finished");
    snprintf(missing, sizeof(missing), "%s/" DIRECTORY_KEY, (char *)*state);
    assert_int_equal(directory_open(&d, missing, error), -EBADMSG);
    assert_says(error, "is not a directory");
}

static void test_lock_is_of_one(void **state)
{
    static struct directory d, other;
    char error[NODE_ERROR_BYTES] = "", pid[32];
    write_example(*state);
    assert_int_equal(directory_open(&d, *state, error), 0);
    assert_int_equal(directory_open(&other, *state, error), -EBUSY);
    snprintf(pid, sizeof(pid), "pid %ld", (long)getpid());
    assert_says(error, pid);
    assert_says(error, "tierce stop --data");
    directory_release(&d);
    assert_int_equal(directory_open(&other, *state, error), 0);
    directory_release(&other);
}

/* However a process ends, its lock ends with it. */
static void test_lock_ends_with_its_process(void **state)
{
    static struct directory d;
    char error[NODE_ERROR_BYTES] = "";
    write_example(*state);
    int ready[2], end[2]; /* the child waits for the end of `end`: it never outlives us */
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t child = fork();
    if (child == 0) {
        close(end[1]);
        char c = (char)directory_open(&d, *state, error);
        if (write(ready[1], &c, 1) == 1)
            _exit(read(end[0], &c, 1) != 0);
        _exit(1);
    }
    char c = 1;
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 0);
    assert_int_equal(directory_open(&d, *state, error), -EBUSY);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(directory_open(&d, *state, error), 0);
    directory_release(&d);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(end[i]);
    }
}

#define IN_SCRATCH(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conf_comes_back),
        cmocka_unit_test(test_conf_is_lenient_in_layout),
        cmocka_unit_test(test_conf_errors_name_file_and_line),
        cmocka_unit_test(test_conf_bounds_members),
        cmocka_unit_test(test_names_and_addresses),
        IN_SCRATCH(test_written_directory_opens),
        IN_SCRATCH(test_put_file_is_whole_or_not),
        IN_SCRATCH(test_bad_files_are_named),
        IN_SCRATCH(test_what_is_no_nodes_is_said),
        IN_SCRATCH(test_lock_is_of_one),
        IN_SCRATCH(test_lock_ends_with_its_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
