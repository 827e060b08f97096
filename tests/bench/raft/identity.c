/* identity.c - see client.h. White-box: the CA's key is in the store, and nowhere else. */
#include "client.h"

#include "ca.h"
#include "store.h"

#include <stdlib.h>
#include <string.h>

struct authority {
    struct directory directory;
    struct ca_record *ca;
    char *believed_pem;
};

static int get(void *context, const struct fs_key *key, struct buf *to)
{
    return store_get(context, key->bytes, key->size, 0, to, NULL);
}

static void read_authority(struct authority *a)
{
    struct store_options options = directory_store_options(&a->directory);
    struct store_recovery recovery;
    struct store *store;
    char error[STORE_ERROR_BYTES] = "";
    if (store_open(&store, &options, &recovery, error) != 0)
        die("open the store", error);
    for (uint64_t i = store_applied(store) + 1; i <= store_last_index(store); i++)
        if (store_apply(store, i, NULL, NULL) != 0)
            die("apply", a->directory.path);
    int rc = ca_record_read(get, store, &a->ca);
    if (rc != 0)
        die("read the CA", strerror(-rc));
    store_close(store);
}

struct authority *authority_open(const char *data)
{
    struct authority *a = calloc(1, sizeof(*a));
    char error[NODE_ERROR_BYTES] = "";
    if (!a)
        die("open", strerror(ENOMEM));
    if (directory_open(&a->directory, data, error) != 0)
        die("open", error);
    read_authority(a);
    a->believed_pem = ca_believed_pem(a->ca);
    if (!a->believed_pem)
        die("open", strerror(ENOMEM));
    return a;
}

void authority_free(struct authority *a)
{
    directory_release(&a->directory);
    free(a->ca);
    free(a->believed_pem);
    free(a);
}

struct wire_identity authority_certify(const struct authority *a, uint64_t node_id)
{
    char *key = NULL, *request = NULL, *cert = NULL;
    int rc = wire_pki_make_key(&key);
    if (rc == 0)
        rc = wire_pki_make_request(key, &request);
    if (rc == 0)
        rc = ca_sign(a->ca, request, &a->directory, node_id, "bench", &cert);
    if (rc != 0)
        die("sign a certificate", strerror(-rc));
    free(request);
    struct wire_identity identity = {
        .ca_pem = a->believed_pem, .cert_pem = cert, .key_pem = key, .node_id = node_id};
    memcpy(identity.cluster_id, a->directory.cluster_id, sizeof(identity.cluster_id));
    return identity;
}
