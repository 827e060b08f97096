/*
 * identity.c - what certificates say: whose they are, from when to when, under which CA;
 * and what is wrong with an identity.
 */
#include "wire_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <time.h>

enum {
    DAY_S = 24 * 60 * 60,
    NODE_ID_DIGITS = 2 * sizeof(uint64_t),
    CLUSTER_ID_DIGITS = 2 * WIRE_CLUSTER_ID_BYTES,
};

/* The subject's one entry of that kind, when it is exactly `digits` hex digits. */
static int subject_hex(const X509 *certificate, int nid, size_t digits, void *ret)
{
    char text[CLUSTER_ID_DIGITS + 1];
    ensure(digits < sizeof(text));
    const X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, nid, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(subject, nid, at) >= 0)
        return -EINVAL;
    const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    if (ASN1_STRING_length(value) != (int)digits)
        return -EINVAL;
    memcpy(text, ASN1_STRING_get0_data(value), digits);
    text[digits] = 0;
    return hex_parse(text, ret, digits / 2);
}

int pki_certificate_ids(const X509 *certificate,
                        uint8_t ret_cluster_id[WIRE_CLUSTER_ID_BYTES],
                        uint64_t *ret_node_id)
{
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES], node_id[NODE_ID_DIGITS / 2];
    if (subject_hex(certificate, NID_organizationName, CLUSTER_ID_DIGITS, cluster_id) <
            0 ||
        subject_hex(certificate, NID_commonName, NODE_ID_DIGITS, node_id) < 0 ||
        get_be64(node_id) == 0)
        return -EINVAL;
    memcpy(ret_cluster_id, cluster_id, sizeof(cluster_id));
    *ret_node_id = get_be64(node_id);
    return 0;
}

/* Verifies `certificate` as a server's and client's. */
static int verify(X509 *certificate, const STACK_OF(X509) * cas, bool with_times)
{
    int result = X509_V_ERR_OUT_OF_MEM;
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    bool ok = store && context;
    for (int i = 0; ok && i < sk_X509_num(cas); i++)
        ok = X509_STORE_add_cert(store, sk_X509_value(cas, i));
    if (ok && X509_STORE_CTX_init(context, store, certificate, NULL) &&
        X509_STORE_CTX_set_purpose(context, X509_PURPOSE_SSL_SERVER)) {
        if (!with_times)
            X509_STORE_CTX_set_flags(context, X509_V_FLAG_NO_CHECK_TIME);
        X509_verify_cert(context);
        result = X509_STORE_CTX_get_error(context);
    }
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    ERR_clear_error();
    return result;
}

int pki_verify(X509 *certificate, const STACK_OF(X509) * cas)
{
    return verify(certificate, cas, true);
}

bool pki_is_of(X509 *certificate, const STACK_OF(X509) * cas)
{
    return verify(certificate, cas, false) == X509_V_OK;
}

static void time_text(const ASN1_TIME *time, char *to, size_t size)
{
    struct tm tm;
    if (!ASN1_TIME_to_tm(time, &tm) || !strftime(to, size, "%Y-%m-%d %H:%M:%S UTC", &tm))
        snprintf(to, size, "an unreadable time");
}

static int explain_chain(X509 *certificate, int result, char error[WIRE_ERROR_BYTES])
{
    char when[64];
    switch (result) {
    case X509_V_OK:
        return 0;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        time_text(X509_get0_notAfter(certificate), when, sizeof(when));
        snprintf(error, WIRE_ERROR_BYTES,
                 "the node's certificate ended on %s and was not renewed: node.log says "
                 "why; one that has never run joins anew",
                 when);
        return -EKEYREJECTED;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        time_text(X509_get0_notBefore(certificate), when, sizeof(when));
        snprintf(error, WIRE_ERROR_BYTES,
                 "the node's certificate begins on %s; set this host's clock", when);
        return -EKEYREJECTED;
    default:
        snprintf(
            error, WIRE_ERROR_BYTES,
            "the node's certificate is not one of this cluster's CA (%s); put back the"
            " one it was given when it joined",
            X509_verify_cert_error_string(result));
        return -EKEYREJECTED;
    }
}

static int explain_ids(const X509 *certificate, const struct wire_identity *identity,
                       char error[WIRE_ERROR_BYTES])
{
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    uint64_t node_id;
    if (pki_certificate_ids(certificate, cluster_id, &node_id) < 0) {
        snprintf(error, WIRE_ERROR_BYTES,
                 "the node's certificate names no node of a cluster; put back the one it"
                 " was given when it joined");
        return -EKEYREJECTED;
    }
    if (memcmp(cluster_id, identity->cluster_id, sizeof(cluster_id)) != 0) {
        snprintf(
            error, WIRE_ERROR_BYTES,
            "the node's certificate is of another cluster than its data; put back the"
            " one it was given when it joined");
        return -EKEYREJECTED;
    }
    if (node_id != identity->node_id) {
        snprintf(
            error, WIRE_ERROR_BYTES,
            "the node's certificate is of node %016llx, its data of node %016llx; put"
            " back the one it was given when it joined",
            (unsigned long long)node_id, (unsigned long long)identity->node_id);
        return -EKEYREJECTED;
    }
    return 0;
}

/* In seconds since 1970. */
static int time_of(const ASN1_TIME *time, int64_t *ret)
{
    struct tm tm;
    if (!ASN1_TIME_to_tm(time, &tm))
        return -EBADMSG;
    *ret = timegm(&tm);
    return 0;
}

int wire_pki_times(const char *cert_pem, int64_t *ret_begin_s, int64_t *ret_end_s)
{
    int64_t begin, end;
    X509 *certificate = pki_read_certificate(cert_pem);
    int rc = certificate ? time_of(X509_get0_notBefore(certificate), &begin) : -EBADMSG;
    if (rc == 0)
        rc = time_of(X509_get0_notAfter(certificate), &end);
    X509_free(certificate);
    if (rc < 0)
        return rc;
    *ret_begin_s = begin + PKI_BACKDATED_DAYS * (int64_t)DAY_S;
    *ret_end_s = end;
    return 0;
}

bool wire_pki_is_signed_by(const char *cert_pem, const char *ca_pem)
{
    X509 *certificate = pki_read_certificate(cert_pem);
    X509 *ca = pki_read_certificate(ca_pem);
    bool is = certificate && ca && X509_check_issued(ca, certificate) == X509_V_OK &&
              X509_verify(certificate, X509_get0_pubkey(ca)) == 1;
    X509_free(certificate);
    X509_free(ca);
    ERR_clear_error();
    return is;
}

bool wire_pki_holds(const char *ca_pem, const uint8_t hash[WIRE_HASH_BYTES])
{
    bool holds = false;
    STACK_OF(X509) *cas = pki_read_certificates(ca_pem);
    for (int i = 0; cas && i < sk_X509_num(cas); i++) {
        uint8_t of[WIRE_HASH_BYTES];
        holds |= pki_certificate_hash(sk_X509_value(cas, i), of) == 0 &&
                 memcmp(of, hash, sizeof(of)) == 0;
    }
    pki_free_certificates(cas);
    return holds;
}

int wire_identity_check(const struct wire_identity *identity,
                        char error[WIRE_ERROR_BYTES])
{
    int rc = -EKEYREJECTED;
    STACK_OF(X509) *cas = pki_read_certificates(identity->ca_pem);
    X509 *certificate = pki_read_certificate(identity->cert_pem);
    EVP_PKEY *key = pki_read_key(identity->key_pem);
    const char *unreadable = !cas           ? "the CA's certificate"
                             : !certificate ? "the node's certificate"
                             : !key         ? "the node's key"
                                            : NULL;
    if (unreadable) {
        snprintf(error, WIRE_ERROR_BYTES, "%s is not readable PEM; restore the file",
                 unreadable);
    } else if (X509_check_private_key(certificate, key) != 1) {
        snprintf(error, WIRE_ERROR_BYTES,
                 "the node's key and certificate do not belong together; restore both");
    } else {
        rc = explain_chain(certificate, pki_verify(certificate, cas), error);
        if (rc == 0)
            rc = explain_ids(certificate, identity, error);
    }
    EVP_PKEY_free(key);
    X509_free(certificate);
    pki_free_certificates(cas);
    ERR_clear_error();
    return rc;
}
