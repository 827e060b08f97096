/*
 * ca.c - the cluster's CA, as the record `C` `ca` has it: one, or two while one is
 * replaced. And the steps of that replacement:
 *
 *   one CA --ROTATE_CA--> both are believed, the old one signs
 *          --ADVANCE_CA, when every member says that it believes both-->
 *                         both are believed, the new one signs: every node renews
 *          --ADVANCE_CA, when every member says that it has renewed-->
 *                         one CA, the new one
 *
 * Each is an entry and raises the step by one. A member says which one it has taken with
 * REPORT, so that at no time one shows a certificate that another does not believe.
 */
#include "ca.h"

#include <errno.h>

/* ---- The record ------------------------------------------------------------------ */

void ca_record_encode(const struct ca_record *ca, struct buf *to)
{
    ensure(ca->count >= 1 && ca->count <= CA_RECORD_CAS && ca->signing < ca->count);
    buf_u32(to, ca->step);
    buf_u8(to, ca->signing);
    buf_u8(to, ca->count);
    for (uint8_t i = 0; i < ca->count; i++) {
        buf_cstring(to, ca->list[i].key_pem);
        buf_cstring(to, ca->list[i].cert_pem);
    }
}

int ca_record_decode(const void *data, size_t length, struct ca_record *ret)
{
    struct reader r = reader_of(data, length);
    ret->step = reader_u32(&r);
    ret->signing = reader_u8(&r);
    ret->count = reader_u8(&r);
    if (ret->count < 1 || ret->count > CA_RECORD_CAS || ret->signing >= ret->count)
        return -EBADMSG;
    for (uint8_t i = 0; i < ret->count; i++) {
        reader_cstring(&r, ret->list[i].key_pem, sizeof(ret->list[i].key_pem));
        reader_cstring(&r, ret->list[i].cert_pem, sizeof(ret->list[i].cert_pem));
    }
    return reader_done(&r) ? 0 : -EBADMSG;
}

uint32_t ca_last_step(const struct ca_record *ca)
{
    return ca->step + (ca->count == 1 ? 0 : ca->signing == 0 ? 2 : 1);
}

void ca_begin_rotation(struct ca_record *ca, const char *key_pem, const char *cert_pem)
{
    ensure(ca->count == 1);
    snprintf(ca->list[1].key_pem, sizeof(ca->list[1].key_pem), "%s", key_pem);
    snprintf(ca->list[1].cert_pem, sizeof(ca->list[1].cert_pem), "%s", cert_pem);
    ca->count = 2;
    ca->step++;
}

void ca_advance_rotation(struct ca_record *ca)
{
    ensure(ca->count == 2);
    ca->step++;
    if (ca->signing == 0) {
        ca->signing = 1;
        return;
    }
    ca->list[0] = ca->list[1];
    ca->signing = 0;
    ca->count = 1;
}

int ca_record_read(int (*get)(void *context, const struct fs_key *key, struct buf *to),
                   void *context, struct ca_record **ret)
{
    struct fs_key key;
    struct buf value = {0};
    struct ca_record *ca = malloc(sizeof(*ca));
    cluster_key_ca(&key);
    int result = ca ? get(context, &key, &value) : -ENOMEM;
    if (!result)
        result = value.failed ? -ENOMEM : ca_record_decode(value.data, value.length, ca);
    buf_release(&value);
    if (result)
        free(ca);
    else
        *ret = ca;
    return result;
}

const char *ca_signing_pem(const struct ca_record *ca)
{
    return ca->list[ca->signing].cert_pem;
}

char *ca_believed_pem(const struct ca_record *ca)
{
    char *text = NULL, step[32] = "";
    const char *other = ca->count > 1 ? ca->list[!ca->signing].cert_pem : "";
    if (ca->step)
        snprintf(step, sizeof(step), "step %u\n", ca->step);
    if (asprintf(&text, "%s%s%s", step, ca_signing_pem(ca), other) < 0)
        return NULL;
    return text;
}

uint32_t ca_step_of(const char *believed_pem)
{
    unsigned step;
    return sscanf(believed_pem, "step %u\n", &step) == 1 ? step : 0;
}

int ca_choose(const struct ca_record *ca, const char *believed_pem)
{
    const char *first = strstr(believed_pem, "-----BEGIN");
    for (int i = 0; first && i < ca->count; i++)
        if (!strncmp(first, ca->list[i].cert_pem, strlen(ca->list[i].cert_pem)))
            return i;
    return -ENOKEY;
}

int ca_sign_by(const struct ca_record *ca, int signer, const char *request_pem,
               const struct directory *by, uint64_t node_id, const char *name,
               char **ret_cert_pem)
{
    ensure(signer >= 0 && signer < ca->count);
    return wire_pki_sign(ca->list[signer].key_pem, ca->list[signer].cert_pem, request_pem,
                         by->cluster_id, node_id, name, directory_certificate_life_s(by),
                         ret_cert_pem);
}

int ca_sign(const struct ca_record *ca, const char *request_pem,
            const struct directory *by, uint64_t node_id, const char *name,
            char **ret_cert_pem)
{
    return ca_sign_by(ca, ca->signing, request_pem, by, node_id, name, ret_cert_pem);
}
