/*
 * pki.c - the certificates that make a cluster.
 *
 *   CA:    O = cluster id (32 hex digits), CN = "tierce CA"; signs, nothing else
 *   node:  O = cluster id, CN = node id (16 hex digits), description = its name;
 *          client and server
 *
 * Host names are not in them: a peer is who its node id says, wherever it answers (W5).
 */
#include "wire_internal.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

enum {
    DAY_S = 24 * 60 * 60,
    CA_DAYS = 20 * 365 + 5,
    SERIAL_BITS = 128,
    NODE_ID_DIGITS = 2 * sizeof(uint64_t),
    CLUSTER_ID_DIGITS = 2 * WIRE_CLUSTER_ID_BYTES,
};

/* ---- PEM ------------------------------------------------------------------------- */

static BIO *pem_open(const char *pem)
{
    return BIO_new_mem_buf(pem, -1);
}

STACK_OF(X509) * pki_read_certificates(const char *pem)
{
    BIO *bio = pem_open(pem);
    STACK_OF(X509) *all = sk_X509_new_null();
    X509 *certificate = NULL;
    while (bio && all && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) &&
           sk_X509_push(all, certificate))
        certificate = NULL;
    X509_free(certificate);
    BIO_free(bio);
    /* The reading ends with an error: right is the one that says "there are no more". */
    bool whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    if (whole && all && sk_X509_num(all) > 0)
        return all;
    pki_free_certificates(all);
    return NULL;
}

void pki_free_certificates(STACK_OF(X509) * all)
{
    sk_X509_pop_free(all, X509_free);
}

X509 *pki_read_certificate(const char *pem)
{
    BIO *bio = pem_open(pem);
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return certificate;
}

/* A key with a passphrase is no key of ours: never ask a terminal for it. */
static int no_passphrase(char *to, int size, int writing, void *context)
{
    return -1;
}

EVP_PKEY *pki_read_key(const char *pem)
{
    BIO *bio = pem_open(pem);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

static X509_REQ *read_request(const char *pem)
{
    BIO *bio = pem_open(pem);
    X509_REQ *request = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return request;
}

/* The text written to `bio`, as the caller's own string; NULL without memory. */
static char *pem_text(BIO *bio)
{
    char *data = NULL;
    long length = BIO_get_mem_data(bio, &data);
    return length > 0 ? strndup(data, (size_t)length) : NULL;
}

static char *key_text(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL))
        text = pem_text(bio);
    BIO_free(bio);
    return text;
}

static char *certificate_text(X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (bio && PEM_write_bio_X509(bio, certificate))
        text = pem_text(bio);
    BIO_free(bio);
    return text;
}

static char *request_text(X509_REQ *request)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (bio && PEM_write_bio_X509_REQ(bio, request))
        text = pem_text(bio);
    BIO_free(bio);
    return text;
}

/* ---- Parts of a certificate ------------------------------------------------------ */

static bool name_add(X509_NAME *name, int nid, const char *text)
{
    return X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8,
                                      (const unsigned char *)text, -1, -1, 0);
}

static bool add_organization(X509_NAME *name, const uint8_t id[WIRE_CLUSTER_ID_BYTES])
{
    char text[CLUSTER_ID_DIGITS + 1];
    hex_format(text, id, WIRE_CLUSTER_ID_BYTES);
    return name_add(name, NID_organizationName, text);
}

static bool set_random_serial(X509 *certificate)
{
    BIGNUM *serial = BN_new();
    bool ok = serial &&
              BN_rand(serial, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
              BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(certificate));
    BN_free(serial);
    return ok;
}

static bool set_validity(X509 *certificate, uint64_t life_s)
{
    return X509_time_adj_ex(X509_getm_notBefore(certificate), -PKI_BACKDATED_DAYS, 0,
                            NULL) &&
           X509_time_adj_ex(X509_getm_notAfter(certificate), (int)(life_s / DAY_S),
                            (long)(life_s % DAY_S), NULL);
}

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool ok = extension && X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    return ok;
}

/* A version 3 certificate with serial, validity and key, yet without names. */
static X509 *certificate_begin(EVP_PKEY *key, uint64_t life_s)
{
    X509 *certificate = X509_new();
    if (certificate && X509_set_version(certificate, X509_VERSION_3) &&
        set_random_serial(certificate) && set_validity(certificate, life_s) &&
        X509_set_pubkey(certificate, key))
        return certificate;
    X509_free(certificate);
    return NULL;
}

/* ---- Making them ----------------------------------------------------------------- */

static X509 *make_ca_certificate(EVP_PKEY *key, const uint8_t id[WIRE_CLUSTER_ID_BYTES])
{
    X509 *ca = certificate_begin(key, CA_DAYS * (uint64_t)DAY_S);
    if (!ca)
        return NULL;
    X509_NAME *name = X509_get_subject_name(ca);
    if (add_organization(name, id) && name_add(name, NID_commonName, "tierce CA") &&
        X509_set_issuer_name(ca, name) &&
        add_extension(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
        add_extension(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign") &&
        add_extension(ca, ca, NID_subject_key_identifier, "hash") &&
        X509_sign(ca, key, EVP_sha256()))
        return ca;
    X509_free(ca);
    return NULL;
}

int wire_pki_make_ca(const uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES], char **ret_key_pem,
                     char **ret_cert_pem)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *ca = key ? make_ca_certificate(key, cluster_id) : NULL;
    char *key_pem = ca ? key_text(key) : NULL;
    char *cert_pem = ca ? certificate_text(ca) : NULL;
    X509_free(ca);
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (!key_pem || !cert_pem) {
        free(key_pem);
        free(cert_pem);
        return -ENOMEM;
    }
    *ret_key_pem = key_pem;
    *ret_cert_pem = cert_pem;
    return 0;
}

int wire_pki_make_key(char **ret_key_pem)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    char *text = key ? key_text(key) : NULL;
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (!text)
        return -ENOMEM;
    *ret_key_pem = text;
    return 0;
}

int wire_pki_make_request(const char *key_pem, char **ret_request_pem)
{
    EVP_PKEY *key = pki_read_key(key_pem);
    if (!key)
        return -EBADMSG;
    X509_REQ *request = X509_REQ_new();
    char *text = NULL;
    if (request && X509_REQ_set_pubkey(request, key) &&
        name_add(X509_REQ_get_subject_name(request), NID_commonName, "tierce node") &&
        X509_REQ_sign(request, key, EVP_sha256()))
        text = request_text(request);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (!text)
        return -ENOMEM;
    *ret_request_pem = text;
    return 0;
}

static bool key_is_p256(EVP_PKEY *key)
{
    char group[64];
    return EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) &&
           strcmp(group, SN_X9_62_prime256v1) == 0;
}

/* The request's key, when it is one of ours and the requester has its private half. */
static EVP_PKEY *request_key(X509_REQ *request)
{
    EVP_PKEY *key = X509_REQ_get0_pubkey(request);
    if (key && key_is_p256(key) && X509_REQ_verify(request, key) == 1)
        return key;
    return NULL;
}

static bool set_node_subject(X509 *certificate, const uint8_t id[WIRE_CLUSTER_ID_BYTES],
                             uint64_t node_id, const char *name)
{
    char digits[NODE_ID_DIGITS + 1];
    snprintf(digits, sizeof(digits), "%016llx", (unsigned long long)node_id);
    X509_NAME *subject = X509_get_subject_name(certificate);
    return add_organization(subject, id) && name_add(subject, NID_commonName, digits) &&
           (*name == 0 || name_add(subject, NID_description, name));
}

static bool set_node_extensions(X509 *certificate, X509 *ca)
{
    return add_extension(certificate, ca, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(certificate, ca, NID_key_usage, "critical,digitalSignature") &&
           add_extension(certificate, ca, NID_ext_key_usage, "serverAuth,clientAuth") &&
           add_extension(certificate, ca, NID_subject_key_identifier, "hash") &&
           add_extension(certificate, ca, NID_authority_key_identifier, "keyid");
}

int wire_pki_sign(const char *ca_key_pem, const char *ca_cert_pem,
                  const char *request_pem,
                  const uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES], uint64_t node_id,
                  const char *name, uint64_t life_s, char **ret_cert_pem)
{
    ensure(node_id != 0 && life_s <= INT32_MAX);
    int rc = -EINVAL;
    X509 *certificate = NULL;
    EVP_PKEY *ca_key = pki_read_key(ca_key_pem);
    X509 *ca = pki_read_certificate(ca_cert_pem);
    X509_REQ *request = read_request(request_pem);
    if (!ca_key || !ca || X509_check_private_key(ca, ca_key) != 1)
        goto out;
    rc = -EBADMSG;
    EVP_PKEY *key = request ? request_key(request) : NULL;
    if (!key)
        goto out;
    rc = -ENOMEM;
    certificate = certificate_begin(key, life_s);
    if (!certificate)
        goto out;
    rc = -EINVAL; /* of all that follows, the name may be unfit: too long, or not UTF-8 */
    if (!set_node_subject(certificate, cluster_id, node_id, name))
        goto out;
    rc = -ENOMEM;
    if (!X509_set_issuer_name(certificate, X509_get_subject_name(ca)) ||
        !set_node_extensions(certificate, ca) ||
        !X509_sign(certificate, ca_key, EVP_sha256()))
        goto out;
    char *text = certificate_text(certificate);
    if (!text)
        goto out;
    *ret_cert_pem = text;
    rc = 0;
out:
    X509_free(certificate);
    X509_REQ_free(request);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
    ERR_clear_error();
    return rc;
}

/* ---- Hashes ---------------------------------------------------------------------- */

void wire_hash(const void *data, size_t length, uint8_t ret[WIRE_HASH_BYTES])
{
    ensure(EVP_Digest(data, length, ret, NULL, EVP_sha256(), NULL) == 1);
}

struct wire_hasher {
    EVP_MD_CTX *context, *copy; /* so that the hash so far can be got, and more added */
};

struct wire_hasher *wire_hasher_new(void)
{
    struct wire_hasher *h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->context = EVP_MD_CTX_new();
    h->copy = EVP_MD_CTX_new();
    if (h->context && h->copy && EVP_DigestInit_ex(h->context, EVP_sha256(), NULL) == 1)
        return h;
    wire_hasher_free(h);
    return NULL;
}

void wire_hasher_add(struct wire_hasher *h, const void *data, size_t length)
{
    ensure(EVP_DigestUpdate(h->context, data, length) == 1);
}

void wire_hasher_get(const struct wire_hasher *h, uint8_t ret[WIRE_HASH_BYTES])
{
    ensure(EVP_MD_CTX_copy_ex(h->copy, h->context) == 1 &&
           EVP_DigestFinal_ex(h->copy, ret, NULL) == 1);
}

void wire_hasher_free(struct wire_hasher *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->context);
    EVP_MD_CTX_free(h->copy);
    free(h);
}

int pki_certificate_hash(const X509 *certificate, uint8_t ret[WIRE_HASH_BYTES])
{
    unsigned char *der = NULL;
    int length = i2d_X509(certificate, &der);
    if (length < 0)
        return -ENOMEM;
    wire_hash(der, (size_t)length, ret);
    OPENSSL_free(der);
    return 0;
}

int wire_pki_fingerprint(const char *cert_pem, uint8_t ret[WIRE_HASH_BYTES])
{
    X509 *certificate = pki_read_certificate(cert_pem);
    if (!certificate)
        return -EBADMSG;
    int rc = pki_certificate_hash(certificate, ret);
    X509_free(certificate);
    return rc;
}

int wire_pki_request_key_hash(const char *request_pem, uint8_t ret[WIRE_HASH_BYTES])
{
    X509_REQ *request = read_request(request_pem);
    if (!request)
        return -EBADMSG;
    unsigned char *der = NULL;
    int length = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(request), &der);
    X509_REQ_free(request);
    if (length < 0)
        return -ENOMEM;
    wire_hash(der, (size_t)length, ret);
    OPENSSL_free(der);
    return 0;
}
