/* ca.h - the record of the cluster's CA, and this node's certificate under it. */
#ifndef TIERCE_NODE_CA_H
#define TIERCE_NODE_CA_H

#include "node_internal.h"

enum { CA_RECORD_CAS = 2 };

/* C "ca": step u32, signing u8, count u8, { key, certificate }*. */
struct ca_record {
    uint32_t step;          /* one more with each step of a rotation */
    uint8_t signing, count; /* which of them signs; 2 while one is replaced: old, new */
    struct {
        char key_pem[CLUSTER_PEM_BYTES], cert_pem[CLUSTER_PEM_BYTES];
    } list[CA_RECORD_CAS];
};

void ca_record_encode(const struct ca_record *ca, struct buf *to);
int ca_record_decode(const void *data, size_t length,
                     struct ca_record *ret); /* -EBADMSG */
/* Of a store, by way of `get`, whose errors are passed on. malloc'ed. */
int ca_record_read(int (*get)(void *context, const struct fs_key *key, struct buf *to),
                   void *context, struct ca_record **ret);
/* The step that ends the rotation; where none is under way, the one that is. */
uint32_t ca_last_step(const struct ca_record *ca);
/* Its first step, and each that follows. */
void ca_begin_rotation(struct ca_record *ca, const char *key_pem, const char *cert_pem);
void ca_advance_rotation(struct ca_record *ca);
const char *ca_signing_pem(const struct ca_record *ca);
/* The text of ca.crt: the step, unless it is 0; then all that are believed, the one that signs
 * first. malloc'ed; NULL: no memory. */
char *ca_believed_pem(const struct ca_record *ca);
uint32_t ca_step_of(const char *believed_pem);
/* Which of the record's CAs signs, by such a text. -ENOKEY: none of them. */
int ca_choose(const struct ca_record *ca, const char *believed_pem);
/* A certificate of this cluster, which lasts as long as `by` says: by the CA that signs now, or
 * by another. As wire_pki_sign. */
int ca_sign(const struct ca_record *ca, const char *request_pem,
            const struct directory *by, uint64_t node_id, const char *name,
            char **ret_cert_pem);
int ca_sign_by(const struct ca_record *ca, int signer, const char *request_pem,
               const struct directory *by, uint64_t node_id, const char *name,
               char **ret_cert_pem);

/* ---- identity.c: this node's certificate ------------------------------------------- */

/* What of a directory's identity files is to be others. */
struct identity_files {
    char *ca_pem, *cert_pem;         /* NULL: as they are */
    uint32_t step;                   /* that is then in force */
    int64_t begin_s, end_s, renew_s; /* of the certificate then in force */
};

/* What `ca` and the clock demand of `d`; nothing is written. */
int identity_demand(const struct directory *d, const struct ca_record *ca, int64_t now_s,
                    struct identity_files *ret, char error[NODE_ERROR_BYTES]);
/* Each whole and durable. */
int identity_write(const struct directory *d, const struct identity_files *files,
                   char error[NODE_ERROR_BYTES]);
/* Moves what is new into `d`. */
void identity_adopt(struct directory *d, struct identity_files *files);
void identity_files_release(struct identity_files *files);

#endif
