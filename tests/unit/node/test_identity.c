/* test_identity.c - what the cluster's CA and the clock demand of a node's certificate. */
#include "ca.h"
#include "common.h"

#include <errno.h>

enum { OLD, NEW, LIFE_S = 3000 };

struct setting {
    struct directory d;
    struct ca_record ca;
    int64_t now_s;
    struct identity_files files;
    char error[NODE_ERROR_BYTES];
};

static void make_ca(struct setting *t, size_t i)
{
    char *key, *cert;
    assert_int_equal(wire_pki_make_ca(t->d.cluster_id, &key, &cert), 0);
    strcpy(t->ca.list[i].key_pem, key);
    strcpy(t->ca.list[i].cert_pem, cert);
    free(key);
    free(cert);
}

/* The certificate and the CA of a node that is as `ca` demands. */
static void certify(struct setting *t)
{
    char *request;
    assert_int_equal(wire_pki_make_request(t->d.key_pem, &request), 0);
    free(t->d.cert_pem);
    assert_int_equal(ca_sign(&t->ca, request, &t->d, t->d.node_id, "n", &t->d.cert_pem),
                     0);
    free(t->d.ca_pem);
    t->d.ca_pem = ca_believed_pem(&t->ca);
    free(request);
}

static int setup(void **state)
{
    struct setting *t = calloc(1, sizeof(*t));
    void *path;
    assert_int_equal(scratch_make(&path), 0);
    t->d = (struct directory){
        .path = path, .lock_fd = -1, .node_id = 7, .certificate_life_s = LIFE_S};
    random_bytes(t->d.cluster_id, sizeof(t->d.cluster_id));
    make_ca(t, OLD);
    make_ca(t, NEW);
    t->ca.count = 1;
    assert_int_equal(wire_pki_make_key(&t->d.key_pem), 0);
    certify(t);
    t->now_s = (int64_t)(clock_real_us() / 1000000);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct setting *t = *state;
    void *path = strdup(t->d.path);
    identity_files_release(&t->files);
    directory_release(&t->d);
    free(t);
    return scratch_remove(&path);
}

static int demand(struct setting *t, int64_t in_s)
{
    identity_files_release(&t->files);
    return identity_demand(&t->d, &t->ca, t->now_s + in_s, &t->files, t->error);
}

static void expect(struct setting *t, int64_t in_s, bool other_cas, bool other_cert)
{
    assert_int_equal(demand(t, in_s), 0);
    assert_int_equal(!!t->files.ca_pem, other_cas);
    assert_int_equal(!!t->files.cert_pem, other_cert);
}

static void test_renewal(void **state)
{
    struct setting *t = *state;
    expect(t, 0, false, false);
    assert_in_range(t->files.end_s - t->now_s, LIFE_S - 60, LIFE_S);
    assert_int_equal(t->files.end_s - t->files.renew_s, LIFE_S / 3);
    int64_t renew_in = t->files.renew_s - t->now_s;
    expect(t, renew_in - 1, false, false);
    expect(t, renew_in, false, true);
    assert_true(wire_pki_is_signed_by(t->files.cert_pem, t->ca.list[OLD].cert_pem));
    expect(t, 100 * LIFE_S, false, true); /* long after its end, too */
    /* Made by a clock that was days ahead. */
    expect(t, -NODE_CERTIFICATE_EARLY_S - 3600, false, true);
    expect(t, -NODE_CERTIFICATE_EARLY_S / 2, false, false);
}

static void test_another_life(void **state)
{
    struct setting *t = *state;
    t->d.certificate_life_s = LIFE_S / 10;
    expect(t, 0, false, false);
    assert_true(t->files.renew_s - t->now_s <= LIFE_S / 10 * 2 / 3);
    expect(t, LIFE_S / 10 * 2 / 3, false, true);
    assert_true(t->files.end_s - t->now_s <= LIFE_S / 10 + 60);
    t->d.certificate_life_s = LIFE_S * 10; /* what is there ends when it ends */
    expect(t, LIFE_S / 2, false, false);
    expect(t, LIFE_S * 2 / 3, false, true);
}

static void test_another_ca(void **state)
{
    struct setting *t = *state;
    t->ca.count = 2;
    expect(t, 0, true, false);
    identity_adopt(&t->d, &t->files);
    expect(t, 0, false, false);
    t->ca.signing = NEW;
    expect(t, 0, true, true); /* the order tells which token to make */
    assert_true(wire_pki_is_signed_by(t->files.cert_pem, t->ca.list[NEW].cert_pem));
    identity_adopt(&t->d, &t->files);
    expect(t, 0, false, false);
    t->ca.list[0] = t->ca.list[1];
    t->ca.count = 1;
    t->ca.signing = 0;
    expect(t, 0, true, false);
    identity_adopt(&t->d, &t->files);
    expect(t, 0, false, false);
}

/* After a restart entries that are in the log are not applied yet: the files stay. */
static void test_the_record_is_behind(void **state)
{
    struct setting *t = *state;
    struct ca_record steps[4];
    steps[0] = t->ca;
    for (uint32_t step = 1; step < 4; step++) {
        steps[step] = steps[step - 1];
        if (step == 1)
            ca_begin_rotation(&steps[step], t->ca.list[NEW].key_pem,
                              t->ca.list[NEW].cert_pem);
        else
            ca_advance_rotation(&steps[step]);
    }
    for (uint32_t step = 1; step < 4; step++) {
        t->ca = steps[step];
        assert_int_equal(demand(t, 0), 0);
        assert_int_equal(t->files.step, step);
        identity_adopt(&t->d, &t->files);
        assert_int_equal(ca_step_of(t->d.ca_pem), step);
        for (uint32_t before = 0; before < step; before++) {
            t->ca = steps[before];
            expect(t, 0, false, false);
            assert_int_equal(t->files.step, step);
            /* A renewal is by who signs now, if the record has that one's key. */
            expect(t, LIFE_S, false, before > 0 || step == 1);
            if (t->files.cert_pem)
                assert_true(wire_pki_is_signed_by(
                    t->files.cert_pem, steps[step].list[steps[step].signing].cert_pem));
        }
    }
}

/* As a crash between the two files leaves it, or who came back very late. */
static void test_whatever_is_there(void **state)
{
    struct setting *t = *state;
    t->ca.list[0] = t->ca.list[1];
    expect(t, 0, true, true);
    struct wire_identity identity = directory_identity(&t->d);
    identity_adopt(&t->d, &t->files);
    identity = directory_identity(&t->d);
    assert_int_equal(wire_identity_check(&identity, t->error), 0);
    strcpy(t->d.cert_pem, "nonsense");
    strcpy(t->d.ca_pem, "nonsense");
    expect(t, 0, true, true);
}

static void test_what_is_unfit_is_not_taken(void **state)
{
    struct setting *t = *state;
    strcpy(t->d.key_pem, "nonsense");
    expect(t, 0, false,
           false); /* nothing to do: that the key is bad is the port's to say */
    assert_int_equal(demand(t, LIFE_S), -EBADMSG);
    assert_non_null(strstr(t->error, "cannot sign"));
    free(t->d.key_pem);
    assert_int_equal(wire_pki_make_key(&t->d.key_pem), 0);
    strcpy(t->ca.list[0].key_pem, t->ca.list[1].key_pem); /* not this CA's */
    assert_int_equal(demand(t, LIFE_S), -EINVAL);
}

static void test_written(void **state)
{
    struct setting *t = *state;
    char *text;
    t->ca.count = 2;
    t->ca.signing = NEW;
    expect(t, 0, true, true);
    assert_int_equal(identity_write(&t->d, &t->files, t->error), 0);
    identity_adopt(&t->d, &t->files);
    assert_null(t->files.ca_pem);
    assert_null(t->files.cert_pem);
    assert_int_equal(directory_get_file(t->d.path, DIRECTORY_CA, &text, t->error), 0);
    assert_string_equal(text, t->d.ca_pem);
    free(text);
    assert_int_equal(directory_get_file(t->d.path, DIRECTORY_CERT, &text, t->error), 0);
    assert_string_equal(text, t->d.cert_pem);
    free(text);
    /* What is as it was is not written. */
    assert_int_equal(directory_get_file(t->d.path, DIRECTORY_KEY, &text, t->error),
                     -ENOENT);
    struct directory gone = t->d;
    gone.path = "/nonexistent/directory";
    expect(t, LIFE_S, false, true);
    assert_int_equal(identity_write(&gone, &t->files, t->error), -ENOENT);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_renewal),
        with(test_another_life),
        with(test_another_ca),
        with(test_the_record_is_behind),
        with(test_whatever_is_there),
        with(test_written),
        with(test_what_is_unfit_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
