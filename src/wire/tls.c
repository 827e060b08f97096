/*
 * tls.c - OpenSSL's side: contexts, a socket that raises no signal, and what went wrong.
 *
 * W3: TLS 1.3 and nothing else; no resumption, so that every connection proves itself
 * anew.
 */
#include "wire_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <sys/socket.h>

/* ---- Contexts -------------------------------------------------------------------- */

static SSL_CTX *context_begin(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    if (!context)
        return NULL;
    if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_num_tickets(context, 0)) {
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    /* Frames say where they end, so that a cut needs no close_notify to be seen. */
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* A part of many records leaves the queue record by record. */
    SSL_CTX_set_mode(context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_max_cert_list(context, TLS_CERTIFICATE_BYTES);
    return context;
}

/* The CAs go with the chain: a joiner knows one by its hash only. */
static bool load_cas(SSL_CTX *context, const STACK_OF(X509) * cas)
{
    for (int i = 0; i < sk_X509_num(cas); i++) {
        X509 *ca = sk_X509_value(cas, i);
        if (!X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca) ||
            !SSL_CTX_add1_chain_cert(context, ca) || !SSL_CTX_add_client_CA(context, ca))
            return false;
    }
    return true;
}

static bool context_load(SSL_CTX *context, const STACK_OF(X509) * cas, X509 *certificate,
                         EVP_PKEY *key)
{
    return SSL_CTX_use_certificate(context, certificate) &&
           SSL_CTX_use_PrivateKey(context, key) &&
           SSL_CTX_check_private_key(context) == 1 && load_cas(context, cas);
}

int tls_context_new(SSL_CTX **ret, STACK_OF(X509) * *ret_cas,
                    const struct wire_identity *identity, char error[WIRE_ERROR_BYTES])
{
    int rc = wire_identity_check(identity, error);
    if (rc < 0)
        return rc;
    STACK_OF(X509) *cas = pki_read_certificates(identity->ca_pem);
    X509 *certificate = pki_read_certificate(identity->cert_pem);
    EVP_PKEY *key = pki_read_key(identity->key_pem);
    SSL_CTX *context = context_begin();
    if (cas && certificate && key && context &&
        context_load(context, cas, certificate, key)) {
        /* As a server: a certificate that is shown must be a CA's, none makes a joiner. */
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        *ret = context;
        *ret_cas = cas;
        context = NULL;
        cas = NULL;
    } else {
        snprintf(error, WIRE_ERROR_BYTES, "cannot set up TLS: %s",
                 ERR_peek_error() ? ERR_reason_error_string(ERR_peek_error())
                                  : "out of memory");
        rc = -ENOMEM;
    }
    SSL_CTX_free(context);
    EVP_PKEY_free(key);
    X509_free(certificate);
    pki_free_certificates(cas);
    ERR_clear_error();
    return rc;
}

SSL_CTX *tls_joiner_context_new(void)
{
    SSL_CTX *context = context_begin();
    if (context)
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    ERR_clear_error();
    return context;
}

/* ---- A socket that raises no signal ---------------------------------------------- */

static int quiet_write(BIO *bio, const char *data, int length)
{
    BIO_clear_retry_flags(bio);
    int fd = (int)BIO_get_fd(bio, NULL);
    int n = (int)send(fd, data, (size_t)length, MSG_NOSIGNAL);
    if (n < 0 && BIO_sock_should_retry(n))
        BIO_set_retry_write(bio);
    return n;
}

/* Made once, and kept as long as the process. */
static BIO_METHOD *quiet_socket;

static void quiet_socket_make(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOCKET, "socket without SIGPIPE");
    const BIO_METHOD *socket = BIO_s_socket();
    if (method && BIO_meth_set_write(method, quiet_write) &&
        BIO_meth_set_read(method, BIO_meth_get_read(socket)) &&
        BIO_meth_set_puts(method, BIO_meth_get_puts(socket)) &&
        BIO_meth_set_ctrl(method, BIO_meth_get_ctrl(socket)) &&
        BIO_meth_set_create(method, BIO_meth_get_create(socket)) &&
        BIO_meth_set_destroy(method, BIO_meth_get_destroy(socket)))
        quiet_socket = method;
    else
        BIO_meth_free(method);
}

int tls_attach(SSL *ssl, int fd)
{
    static CRYPTO_ONCE once = CRYPTO_ONCE_STATIC_INIT;
    if (!CRYPTO_THREAD_run_once(&once, quiet_socket_make) || !quiet_socket)
        return -ENOMEM;
    BIO *bio = BIO_new(quiet_socket);
    if (!bio)
        return -ENOMEM;
    BIO_set_fd(bio, fd, BIO_NOCLOSE);
    SSL_set_bio(ssl, bio, bio);
    return 0;
}

/* ---- What went wrong ------------------------------------------------------------- */

void tls_error_text(unsigned long code, char *to, size_t size)
{
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    snprintf(to, size, "%s", reason ? reason : "no further reason");
}
