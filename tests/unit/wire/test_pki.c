/* test_pki.c - certificates, and what wire_identity_check says of each that is wrong. */
#include "harness.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct node {
    struct cluster *cl;
    char *cert, *key;
    struct wire_identity identity;
    char error[WIRE_ERROR_BYTES];
};

static void certify(struct node *n, unsigned days)
{
    char *request;
    n->cl = cluster_new();
    assert_int_equal(wire_pki_make_key(&n->key), 0);
    assert_int_equal(wire_pki_make_request(n->key, &request), 0);
    assert_int_equal(wire_pki_sign(n->cl->ca_key, n->cl->ca_cert, request, n->cl->id, 7,
                                   "alpha", days * 86400, &n->cert),
                     0);
    free(request);
    n->identity = (struct wire_identity){
        .ca_pem = n->cl->ca_cert, .cert_pem = n->cert, .key_pem = n->key, .node_id = 7};
    memcpy(n->identity.cluster_id, n->cl->id, sizeof(n->cl->id));
}

static int setup(void **state)
{
    struct node *n = calloc(1, sizeof(*n));
    certify(n, 30);
    *state = n;
    return 0;
}

static int teardown(void **state)
{
    struct node *n = *state;
    cluster_free(n->cl);
    free(n->cert);
    free(n->key);
    free(n);
    return 0;
}

static void expect_rejected(struct node *n, const char *why)
{
    assert_int_equal(wire_identity_check(&n->identity, n->error), -EKEYREJECTED);
    if (!strstr(n->error, why))
        fail_msg("'%s' does not say '%s'", n->error, why);
}

static void test_good(void **state)
{
    struct node *n = *state;
    assert_int_equal(wire_identity_check(&n->identity, n->error), 0);
}

static void test_certificate_contents(void **state)
{
    struct node *n = *state;
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    uint64_t id = 0;
    X509 *certificate = pki_read_certificate(n->cert),
         *ca = pki_read_certificate(n->cl->ca_cert);
    assert_int_equal(pki_certificate_ids(certificate, cluster_id, &id), 0);
    assert_int_equal(id, 7);
    assert_memory_equal(cluster_id, n->cl->id, sizeof(cluster_id));
    assert_int_equal(pki_certificate_ids(ca, cluster_id, &id), -EINVAL);
    assert_true(X509_get_extension_flags(ca) & EXFLAG_CA);
    assert_false(X509_get_extension_flags(certificate) & EXFLAG_CA);
    assert_int_equal(X509_get_extended_key_usage(certificate),
                     XKU_SSL_SERVER | XKU_SSL_CLIENT);
    int days = 0, seconds = 0;
    assert_true(
        ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(ca), X509_get0_notAfter(ca)));
    assert_in_range(days, 20 * 365, 20 * 366);
    assert_true(X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0);
    X509_free(certificate);
    X509_free(ca);
}

static void test_unreadable(void **state)
{
    struct node *n = *state;
    n->identity.ca_pem = "";
    expect_rejected(n, "the CA's certificate is not readable");
    n->identity.ca_pem = n->cl->ca_cert;
    n->identity.cert_pem = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    expect_rejected(n, "the node's certificate is not readable");
    n->identity.cert_pem = n->cert;
    n->identity.key_pem = n->cert;
    expect_rejected(n, "the node's key is not readable");
}

static void test_other_key(void **state)
{
    struct node *n = *state;
    char *key;
    assert_int_equal(wire_pki_make_key(&key), 0);
    n->identity.key_pem = key;
    expect_rejected(n, "do not belong together");
    free(key);
}

static void test_other_ca(void **state)
{
    struct node *n = *state;
    struct cluster *other = cluster_new();
    n->identity.ca_pem = other->ca_cert;
    expect_rejected(n, "not one of this cluster's CA");
    cluster_free(other);
}

static void test_other_ids(void **state)
{
    struct node *n = *state;
    n->identity.node_id = 8;
    expect_rejected(n, "of node 0000000000000007, its data of node 0000000000000008");
    n->identity.node_id = 7;
    n->identity.cluster_id[3] ^= 1;
    expect_rejected(n, "another cluster");
}

static void test_not_a_node(void **state)
{
    struct node *n = *state;
    n->identity.cert_pem = n->cl->ca_cert;
    n->identity.key_pem = n->cl->ca_key;
    expect_rejected(n, "");
}

/* A certificate like the node's, with other dates. */
static char *with_dates(struct node *n, int from_days, int to_days)
{
    X509 *certificate = pki_read_certificate(n->cert);
    EVP_PKEY *ca_key = pki_read_key(n->cl->ca_key);
    X509_time_adj_ex(X509_getm_notBefore(certificate), from_days, 0, NULL);
    X509_time_adj_ex(X509_getm_notAfter(certificate), to_days, 0, NULL);
    assert_true(X509_sign(certificate, ca_key, EVP_sha256()));
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    PEM_write_bio_X509(bio, certificate);
    long length = BIO_get_mem_data(bio, &data);
    char *text = strndup(data, (size_t)length);
    BIO_free(bio);
    EVP_PKEY_free(ca_key);
    X509_free(certificate);
    return text;
}

static void test_out_of_time(void **state)
{
    struct node *n = *state;
    char *past = with_dates(n, -9, -2), *future = with_dates(n, 2, 9);
    n->identity.cert_pem = past;
    expect_rejected(n, "ended on");
    n->identity.cert_pem = future;
    expect_rejected(n, "begins on");
    free(past);
    free(future);
}

static void test_times(void **state)
{
    struct node *n = *state;
    char *request, *cert;
    int64_t begin = 0, end = 0, now = (int64_t)(clock_real_us() / 1000000);
    assert_int_equal(wire_pki_make_request(n->key, &request), 0);
    assert_int_equal(wire_pki_sign(n->cl->ca_key, n->cl->ca_cert, request, n->cl->id, 7,
                                   "", 3 * 86400 + 5000, &cert),
                     0);
    assert_int_equal(wire_pki_times(cert, &begin, &end), 0);
    assert_int_equal(end - begin, 3 * 86400 + 5000);
    int64_t later = (int64_t)(clock_real_us() / 1000000);
    assert_in_range(begin, now, later + 1);
    assert_int_equal(wire_pki_times("nonsense", &begin, &end), -EBADMSG);
    free(request);
    free(cert);
}

static char *both(const char *a, const char *b)
{
    char *text;
    assert_true(asprintf(&text, "%s%s", a, b) > 0);
    return text;
}

/* While a CA is replaced there are two of one name. */
static void test_two_cas(void **state)
{
    struct node *n = *state;
    char *key, *ca, *third_key, *third;
    uint8_t hash[WIRE_HASH_BYTES];
    assert_int_equal(wire_pki_make_ca(n->cl->id, &key, &ca), 0);
    assert_int_equal(wire_pki_make_ca(n->cl->id, &third_key, &third), 0);
    assert_true(wire_pki_is_signed_by(n->cert, n->cl->ca_cert));
    assert_false(wire_pki_is_signed_by(n->cert, ca));
    assert_false(wire_pki_is_signed_by("nonsense", ca));
    char *texts[] = {both(n->cl->ca_cert, ca), both(ca, n->cl->ca_cert), both(ca, third),
                     both(n->cl->ca_cert, "-----BEGIN CERTIFICATE-----\nAAAA\n")};
    n->identity.ca_pem = texts[0];
    assert_int_equal(wire_identity_check(&n->identity, n->error), 0);
    n->identity.ca_pem = texts[1];
    assert_int_equal(wire_identity_check(&n->identity, n->error), 0);
    n->identity.ca_pem = texts[2];
    expect_rejected(n, "not one of this cluster's CA");
    n->identity.ca_pem = texts[3];
    expect_rejected(n, "the CA's certificate is not readable");
    assert_int_equal(wire_pki_fingerprint(ca, hash), 0);
    assert_true(wire_pki_holds(texts[0], hash) && wire_pki_holds(texts[1], hash));
    assert_false(wire_pki_holds(n->cl->ca_cert, hash));
    assert_false(wire_pki_holds("nonsense", hash));
    for (size_t i = 0; i < array_length(texts); i++)
        free(texts[i]);
    free(key);
    free(ca);
    free(third_key);
    free(third);
}

static void test_bad_requests(void **state)
{
    struct node *n = *state;
    char *request, *cert = NULL;
    assert_int_equal(wire_pki_make_request(n->key, &request), 0);
    assert_int_equal(wire_pki_make_request("no key", &cert), -EBADMSG);
    assert_int_equal(wire_pki_sign(n->cl->ca_key, n->cl->ca_cert, "nonsense", n->cl->id,
                                   9, "", 1, &cert),
                     -EBADMSG);
    /* One bit of its signature's last bytes. */
    char *end = strstr(request, "\n-----END");
    assert_non_null(end);
    char *at = end - 8;
    *at = *at == 'A' ? 'B' : 'A';
    assert_int_equal(
        wire_pki_sign(n->cl->ca_key, n->cl->ca_cert, request, n->cl->id, 9, "", 1, &cert),
        -EBADMSG);
    assert_null(cert);
    free(request);
}

static void test_request_of_other_kind_of_key(void **state)
{
    struct node *n = *state;
    char *cert = NULL;
    EVP_PKEY *rsa = EVP_RSA_gen(1024);
    X509_REQ *request = X509_REQ_new();
    X509_REQ_set_pubkey(request, rsa);
    X509_REQ_sign(request, rsa, EVP_sha256());
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509_REQ(bio, request);
    BIO_write(bio, "", 1);
    char *pem;
    BIO_get_mem_data(bio, &pem);
    assert_int_equal(
        wire_pki_sign(n->cl->ca_key, n->cl->ca_cert, pem, n->cl->id, 9, "", 1, &cert),
        -EBADMSG);
    BIO_free(bio);
    X509_REQ_free(request);
    EVP_PKEY_free(rsa);
}

static void test_names(void **state)
{
    struct node *n = *state;
    char *request, *cert = NULL;
    char name[LIMIT_NAME_BYTES + 1];
    memset(name, 'n', sizeof(name));
    name[LIMIT_NAME_BYTES] = 0;
    assert_int_equal(wire_pki_make_request(n->key, &request), 0);
    assert_int_equal(wire_pki_sign(n->cl->ca_key, n->cl->ca_cert, request, n->cl->id, 9,
                                   name, 1, &cert),
                     0);
    free(cert);
    assert_int_equal(wire_pki_sign(n->cl->ca_key, n->cl->ca_cert, request, n->cl->id, 9,
                                   "\xff", 1, &cert),
                     -EINVAL);
    struct cluster *other = cluster_new();
    assert_int_equal(
        wire_pki_sign(other->ca_key, n->cl->ca_cert, request, n->cl->id, 9, "", 1, &cert),
        -EINVAL);
    cluster_free(other);
    free(request);
}

static void test_hashes(void **state)
{
    struct node *n = *state;
    uint8_t a[WIRE_HASH_BYTES], b[WIRE_HASH_BYTES];
    char hex[2 * WIRE_HASH_BYTES + 1], *request, *again, *key;
    wire_hash("abc", 3, a);
    hex_format(hex, a, sizeof(a));
    assert_string_equal(
        hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(wire_pki_fingerprint(n->cl->ca_cert, a), 0);
    assert_int_equal(wire_pki_fingerprint(n->cert, b), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(wire_pki_fingerprint("nonsense", a), -EBADMSG);
    /* The same key's requests differ in their signature, not in the hash of the key. */
    assert_int_equal(wire_pki_make_request(n->key, &request), 0);
    assert_int_equal(wire_pki_make_request(n->key, &again), 0);
    assert_string_not_equal(request, again);
    assert_int_equal(wire_pki_request_key_hash(request, a), 0);
    assert_int_equal(wire_pki_request_key_hash(again, b), 0);
    assert_memory_equal(a, b, sizeof(a));
    free(again);
    assert_int_equal(wire_pki_make_key(&key), 0);
    assert_int_equal(wire_pki_make_request(key, &again), 0);
    assert_int_equal(wire_pki_request_key_hash(again, b), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(wire_pki_request_key_hash(n->cert, b), -EBADMSG);
    free(request);
    free(again);
    free(key);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_good),       with(test_certificate_contents),
        with(test_unreadable), with(test_other_key),
        with(test_other_ca),   with(test_other_ids),
        with(test_not_a_node), with(test_out_of_time),
        with(test_hashes),     with(test_bad_requests),
        with(test_times),      with(test_two_cas),
        with(test_names),      with(test_request_of_other_kind_of_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
