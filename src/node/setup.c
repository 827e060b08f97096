/*
 * setup.c - `init`, `restore` and `join`: a data directory from nothing.
 *
 * All write tierce.conf last, so that a directory is a node's only when all of it is
 * there. A join keeps its key from before it asks: the cluster remembers which key used a
 * token, and gives the same key the same answer, so that a join that was cut off is
 * simply run again.
 */
#include "backup.h"
#include "ca.h"
#include "setup.h"

#include <errno.h>
#include <unistd.h>

enum { JOIN_TIMEOUT_MS = 10000 };

static int directory_begin(const struct node_setup *setup, struct directory **ret,
                           char error[NODE_ERROR_BYTES])
{
    struct directory *d = calloc(1, sizeof(*d));
    if (!d)
        return node_error(error, -ENOMEM, "out of memory");
    d->lock_fd = -1;
    d->segment_bytes = NODE_SEGMENT_MIB * MiB;
    int result = naming_choose(setup, d, error);
    if (result)
        free(d);
    else
        *ret = d;
    return result;
}

static void directory_end(struct directory *d)
{
    if (d)
        directory_release(d);
    free(d);
}

/* All that can be refused without making anything is refused first. `data_bytes`: what
 * will be put in at once. */
static int take_place(struct place *ret, const struct node_setup *setup,
                      const struct directory *d, bool join, uint64_t data_bytes,
                      char error[NODE_ERROR_BYTES])
{
    struct place p;
    int result = place_look(&p, setup->data, join, error);
    if (result)
        return result;
    if (!p.unfinished)
        result = place_check_room(&p, d->segment_bytes, data_bytes, error);
    if (!result)
        result = naming_check_port(d, error);
    if (!result)
        result = place_take(&p, join, error);
    if (result)
        place_release(&p);
    else
        *ret = p;
    return result;
}

/* The directory is the place's from here on: path and lock are moved. */
static void directory_move_into(struct directory *d, struct place *p)
{
    d->path = p->path;
    d->lock_fd = p->lock_fd;
}

static void directory_move_out(struct directory *d)
{
    d->path = NULL;
    d->lock_fd = -1;
}

static void add_member(struct members *members, const struct directory *d)
{
    struct member *m = &members->list[members->count++];
    members->version = WIRE_PROTOCOL_VERSION;
    m->id = d->node_id;
    m->voter = true;
    m->version = WIRE_PROTOCOL_VERSION;
    strcpy(m->name, d->name);
    strcpy(m->address, d->advertise);
}

/* ---- init: identity -------------------------------------------------------------- */

static int make_identity(struct directory *d, char **ret_ca_key,
                         char error[NODE_ERROR_BYTES])
{
    char *request = NULL, *ca_key = NULL;
    random_bytes(d->cluster_id, sizeof(d->cluster_id));
    while (!d->node_id)
        d->node_id = random_u64();
    int result = wire_pki_make_ca(d->cluster_id, &ca_key, &d->ca_pem);
    if (!result)
        result = wire_pki_make_key(&d->key_pem);
    if (!result)
        result = wire_pki_make_request(d->key_pem, &request);
    if (!result)
        result = wire_pki_sign(ca_key, d->ca_pem, request, d->cluster_id, d->node_id,
                               d->name, directory_certificate_life_s(d), &d->cert_pem);
    free(request);
    if (result) {
        free(ca_key);
        return node_error(error, result, "cannot make the cluster's certificates: %s",
                          strerror(-result));
    }
    *ret_ca_key = ca_key;
    return 0;
}

/* ---- init: the first entry ------------------------------------------------------- */

static int put_buf(struct store_builder *b, const struct fs_key *key, struct buf *value)
{
    int result = value->failed ? -ENOMEM : 0;
    if (!result)
        store_builder_put(b, key->bytes, key->size, value->data, value->length);
    buf_release(value);
    return result;
}

static int put_ca(struct store_builder *b, const struct directory *d, const char *ca_key)
{
    struct fs_key key;
    struct buf value = {0};
    struct ca_record *ca = calloc(1, sizeof(*ca));
    if (!ca)
        return -ENOMEM;
    ca->count = 1;
    snprintf(ca->list[0].key_pem, sizeof(ca->list[0].key_pem), "%s", ca_key);
    snprintf(ca->list[0].cert_pem, sizeof(ca->list[0].cert_pem), "%s", d->ca_pem);
    cluster_key_ca(&key);
    ca_record_encode(ca, &value);
    free(ca);
    return put_buf(b, &key, &value);
}

static int put_cluster(struct store_builder *b, const struct directory *d,
                       const char *ca_key, const struct token *token)
{
    struct fs_key key;
    struct buf value = {0};
    cluster_key_config(&key);
    members_encode(&d->members, &value);
    int result = put_buf(b, &key, &value);
    if (!result)
        result = put_ca(b, d, ca_key);
    struct token_record record = {.expires_us = clock_real_us() +
                                                (uint64_t)TOKEN_LIFETIME_S * 1000000};
    wire_hash(token->secret, sizeof(token->secret), record.secret_hash);
    cluster_key_token(&key, token->id);
    token_record_encode(&record, &value);
    if (!result)
        result = put_buf(b, &key, &value);
    buf_release(&value);
    return result;
}

/* The cluster as its first node made it: the first entry of its first term. Where nothing
 * was restored it is entry 1 of term 1, and begins with an empty name space. */
static int build_first_entry(struct store *s, const struct directory *d,
                             const char *ca_key, const struct token *token,
                             struct store_bytes **ret)
{
    struct store_entry head = {.index = store_last_index(s) + 1};
    uint64_t newest;
    store_chain(s, &head.prev_term, &head.prev_crc, &newest);
    head.term = head.prev_term + 1;
    struct store_builder b = {0};
    uint64_t now = max_u64(clock_real_us(), newest + 1);
    store_builder_begin(&b, now);
    struct fs_change change = records_change(&b, now);
    if (head.index == 1)
        fs_format(&change);
    int result = put_cluster(&b, d, ca_key, token);
    if (!result)
        result = store_builder_finish(&b, &head, ret);
    store_builder_release(&b);
    return result;
}

/* There is no log thread yet: what was asked of the store is done here. */
static int run_jobs(struct store *s, char error[NODE_ERROR_BYTES])
{
    for (struct store_job *job; (job = store_take_job(s));) {
        char text[STORE_ERROR_BYTES] = "";
        int result = store_run_job(job, text);
        if (result)
            return node_error(error, result, "cannot write the log: %s", text);
        store_finish_job(s, job);
    }
    return 0;
}

static int write_first_entry(struct store *s, const struct directory *d,
                             const char *ca_key, const struct token *token,
                             char error[NODE_ERROR_BYTES])
{
    struct store_bytes *entry = NULL;
    uint64_t term, timestamp_us;
    uint32_t crc;
    store_chain(s, &term, &crc, &timestamp_us);
    int result = build_first_entry(s, d, ca_key, token, &entry);
    if (!result)
        result = store_set_hard_state(s, term + 1, d->node_id);
    if (!result)
        result = store_append(s, entry, false);
    store_bytes_unref(entry);
    if (result)
        return node_error(error, result, "cannot make the first entry: %s",
                          strerror(-result));
    result = run_jobs(s, error);
    if (result)
        return result;
    /* Only now: the hint proves that the entry is there (G6). */
    result = store_set_commit_hint(s, store_last_index(s));
    if (result)
        return node_error(error, result, "cannot write the log: %s", strerror(-result));
    return run_jobs(s, error);
}

static int make_store(const struct directory *d, const char *ca_key,
                      const struct token *token, const struct setup_source *source,
                      char error[NODE_ERROR_BYTES])
{
    struct store_options options = directory_store_options(d);
    struct store_recovery recovery;
    struct store *s = NULL;
    char text[STORE_ERROR_BYTES] = "";
    int result = source ? source->make(source->context, &options, &d->members, error)
                        : store_create(&options, text);
    if (source && result)
        return result;
    if (!result)
        result = store_open(&s, &options, &recovery, text);
    if (result)
        return node_error(error, result, "cannot make the store: %s", text);
    result = write_first_entry(s, d, ca_key, token, error);
    store_close(s);
    return result;
}

int setup_found(struct directory *d, const struct setup_source *source, char **ret_token,
                char error[NODE_ERROR_BYTES])
{
    char *ca_key = NULL, *text = NULL;
    struct token token;
    int result = make_identity(d, &ca_key, error);
    if (result)
        return result;
    add_member(&d->members, d);
    result = token_make(d->ca_pem, &token);
    if (!result) {
        token_add_address(&token, d->advertise);
        text = token_format(&token);
        result = text ? 0 : -ENOMEM;
    }
    if (result)
        node_error(error, result, "cannot make a token: %s", strerror(-result));
    else
        result = make_store(d, ca_key, &token, source, error);
    if (!result)
        result = directory_write(d, error);
    if (!result) {
        *ret_token = text;
        text = NULL;
    }
    free(text);
    free(ca_key);
    return result;
}

static int found_cluster(const struct node_setup *setup,
                         const struct setup_source *source, char **ret_token,
                         char error[NODE_ERROR_BYTES])
{
    struct directory *d = NULL;
    struct place place;
    int result = directory_begin(setup, &d, error);
    if (!result)
        result = take_place(&place, setup, d, false, source ? source->bytes : 0, error);
    if (!result) {
        directory_move_into(d, &place);
        result = setup_found(d, source, ret_token, error);
        directory_move_out(d);
        if (result)
            place_undo(&place);
        place_release(&place);
    }
    directory_end(d);
    return result;
}

int node_init(const struct node_setup *setup, char **ret_token,
              char error[NODE_ERROR_BYTES])
{
    return found_cluster(setup, NULL, ret_token, error);
}

static int make_restored(void *restore, const struct store_options *options,
                         const struct members *members, char error[NODE_ERROR_BYTES])
{
    return restore_store(restore, options, members, error);
}

int node_restore(const struct node_setup *setup, const char *file, char **ret_token,
                 char error[NODE_ERROR_BYTES])
{
    struct restore *restore = NULL;
    int result = restore_open(file, &restore, error);
    if (!result) {
        struct setup_source source = {make_restored, restore, restore_bytes(restore)};
        result = found_cluster(setup, &source, ret_token, error);
    }
    restore_close(restore);
    return result;
}

/* ---- join ------------------------------------------------------------------------ */

struct joining {
    struct place place;
    struct directory *d;
    struct token token;
    struct join_request request;
    struct join_answer answer;
    bool key_is_new;
    /* No node can have taken the token for us: what was made may go again. */
    bool untouched;
};

static int take_key(struct joining *j, char error[NODE_ERROR_BYTES])
{
    struct directory *d = j->d;
    int result = directory_get_file(d->path, DIRECTORY_KEY, &d->key_pem, error);
    if (result != -ENOENT)
        return result;
    j->key_is_new = true;
    result = wire_pki_make_key(&d->key_pem);
    if (result)
        return node_error(error, result, "cannot make a key: %s", strerror(-result));
    return directory_put_file(d->path, DIRECTORY_KEY, d->key_pem, strlen(d->key_pem),
                              error);
}

static int make_join_request(struct joining *j, const struct node_setup *setup,
                             char error[NODE_ERROR_BYTES])
{
    struct join_request *r = &j->request;
    char *pem = NULL;
    int result = wire_pki_make_request(j->d->key_pem, &pem);
    if (!result && strlen(pem) >= sizeof(r->request_pem))
        result = -E2BIG;
    if (result) {
        free(pem);
        return node_error(error, result,
                          "cannot make a certificate request from %s/%s: %s", j->d->path,
                          DIRECTORY_KEY, strerror(-result));
    }
    strcpy(r->request_pem, pem);
    free(pem);
    r->token_id = j->token.id;
    memcpy(r->secret, j->token.secret, sizeof(r->secret));
    strcpy(r->name, j->d->name);
    strcpy(r->address, j->d->advertise);
    r->version = WIRE_PROTOCOL_VERSION;
    r->observer = setup->observer;
    if (setup->replace)
        strcpy(r->replace, setup->replace);
    return 0;
}

static int refused(const struct joining *j, int code, const char *text,
                   char error[NODE_ERROR_BYTES])
{
    const char *invite = "run `tierce invite` on a node of the cluster for a fresh one";
    switch (code) {
    case JOIN_UNKNOWN_TOKEN:
        return node_error(error, -code, "the cluster does not know this token: %s",
                          invite);
    case JOIN_EXPIRED_TOKEN:
        return node_error(error, -code, "the token has expired: %s", invite);
    case JOIN_USED_TOKEN:
        return node_error(error, -code, "the token was used by another node: %s", invite);
    case JOIN_NAME_TAKEN:
        return node_error(error, -code,
                          "a node named \"%s\" is in the cluster already: give another "
                          "--name (the token is still good)",
                          j->d->name);
    case JOIN_ADDRESS_TAKEN:
        return node_error(
            error, -code,
            "a node of the cluster has the address %s already: give another "
            "--listen or --advertise (the token is still good)",
            j->d->advertise);
    case JOIN_TOO_MANY:
        return node_error(error, -code, "the cluster has %d nodes, and takes no more",
                          LIMIT_MEMBERS);
    case JOIN_TOO_OLD:
        return node_error(error, -code,
                          "the cluster has gone over to a newer version than this program "
                          "(%s) speaks: install the one that its nodes run (the token is "
                          "still good)",
                          TIERCE_VERSION);
    case JOIN_TOO_NEW:
        return node_error(error, -code,
                          "this program (%s) is too new for the cluster: upgrade its nodes "
                          "first, or join with the program that they run (the token is "
                          "still good)",
                          TIERCE_VERSION);
    case JOIN_REMOVED:
        return node_error(error, -code,
                          "the node that this token let in has been removed since: remove "
                          "%s, and %s",
                          j->d->path, invite);
    case JOIN_NOBODY_TO_REPLACE:
        return node_error(error, -code,
                          "no member is called \"%s\": see `tierce members` on a node of "
                          "the cluster (the token is still good)",
                          j->request.replace);
    case JOIN_REPLACES_THE_LIVING:
        return node_error(error, -code,
                          "\"%s\" is there and well: only a node that cannot be reached is "
                          "replaced; else run `tierce leave` on it first (the token is "
                          "still good)",
                          j->request.replace);
    }
    return node_error(error, code ? -code : -EIO, "the cluster refused to let us in: %s",
                      text[0] ? text : strerror(code));
}

/* What a node answered. 0: it is in j->answer. *ret_final: asking another node is no use.
 */
static int read_answer(struct joining *j, const struct buf *answer, bool *ret_final,
                       char error[NODE_ERROR_BYTES])
{
    struct reader r = reader_of(answer->data, answer->length);
    uint8_t status = reader_u8(&r);
    char text[NODE_ERROR_BYTES / 2] = "";
    *ret_final = true;
    if (status == WIRE_OK) {
        int result = join_answer_decode(r.at, reader_left(&r), &j->answer);
        return result ? node_error(error, result, "its answer is malformed") : 0;
    }
    uint32_t code = status == WIRE_FAILED ? reader_u32(&r) : 0;
    reader_cstring(&r, text, sizeof(text));
    if (status == WIRE_FAILED && code && code < 4096)
        return refused(j, (int)code, text, error);
    if (status == WIRE_REFUSED)
        return node_error(error, -EINVAL, "the cluster refused to let us in: %s", text);
    *ret_final = false;
    return node_error(error, -EROFS, "%s", text[0] ? text : "its answer is malformed");
}

/* Whether an answer with this result says that the token was not taken for us. */
static bool is_refusal(int result)
{
    switch (-result) {
    case EINVAL: /* WIRE_REFUSED */
    case JOIN_UNKNOWN_TOKEN:
    case JOIN_EXPIRED_TOKEN:
    case JOIN_USED_TOKEN:
    case JOIN_NAME_TAKEN:
    case JOIN_ADDRESS_TAKEN:
    case JOIN_TOO_MANY:
    case JOIN_TOO_OLD:
    case JOIN_TOO_NEW:
    case JOIN_NOBODY_TO_REPLACE:
    case JOIN_REPLACES_THE_LIVING:
    case MEMBERS_NO_MAJORITY:
    case MEMBERS_LAST_VOTER:
        return true;
    }
    return false;
}

/* Whether a call that failed so cannot have brought the request to a node. */
static bool never_arrived(int result)
{
    return result == -ECONNREFUSED || result == -EKEYREJECTED ||
           result == -EHOSTUNREACH || result == -ENETUNREACH || result == -EINVAL ||
           result == -ENOENT || result == -EPROTONOSUPPORT;
}

static int ask_one(struct joining *j, const char *address, const struct buf *request,
                   bool *ret_final, char error[NODE_ERROR_BYTES])
{
    struct buf answer = {0};
    char text[NODE_ERROR_BYTES] = "";
    _Static_assert((int)NODE_ERROR_BYTES >= (int)WIRE_ERROR_BYTES, "wire's message fits");
    *ret_final = false;
    int result = wire_call_join(address, j->token.ca_hash, request->data, request->length,
                                JOIN_TIMEOUT_MS, &answer, text);
    if (result) {
        j->untouched &= never_arrived(result);
        node_error(error, result, "%s", text[0] ? text : strerror(-result));
    } else {
        result = read_answer(j, &answer, ret_final, text);
        node_error(error, result, "%s%s%s", *ret_final ? "" : address,
                   *ret_final ? "" : ": ", text);
        j->untouched &= *ret_final && is_refusal(result);
    }
    buf_release(&answer);
    return result;
}

static int ask_cluster(struct joining *j, char error[NODE_ERROR_BYTES])
{
    struct buf request = {0}, failed = {0};
    join_request_encode(&j->request, &request);
    bool final = false;
    int result = request.failed ? node_error(error, -ENOMEM, "out of memory") : -EINVAL;
    char *rest = j->token.addresses;
    for (char *address;
         !request.failed && result && !final && (address = strsep(&rest, ","));) {
        char text[NODE_ERROR_BYTES] = "";
        result = ask_one(j, address, &request, &final, text);
        if (final && result)
            node_error(error, result, "%s", text);
        else if (result)
            buf_printf(&failed, "%s%s", failed.length ? "; " : "", text);
    }
    if (result && !final && failed.length)
        node_error(
            error, result,
            "no node of the cluster let us in: %.*s; see that a majority of its nodes "
            "run and can be reached from here, then run the same command again",
            (int)min_u64(failed.length, NODE_ERROR_BYTES / 2), (char *)failed.data);
    buf_release(&request);
    buf_release(&failed);
    return result;
}

static int adopt_answer(struct joining *j, char error[NODE_ERROR_BYTES])
{
    struct directory *d = j->d;
    const struct join_answer *a = &j->answer;
    if (!wire_pki_holds(a->ca_pem, j->token.ca_hash))
        return node_error(error, -EKEYREJECTED,
                          "the node that answered is of another cluster than the token");
    d->ca_pem = strdup(a->ca_pem);
    d->cert_pem = strdup(a->cert_pem);
    if (!d->ca_pem || !d->cert_pem)
        return node_error(error, -ENOMEM, "out of memory");
    d->node_id = a->node_id;
    d->members = a->members;
    const struct member *self = members_find(&d->members, d->node_id);
    if (self) /* of an earlier try, perhaps, that asked for another name */
        memcpy(d->name, self->name, sizeof(d->name));
    memcpy(d->cluster_id, a->cluster_id, sizeof(d->cluster_id));
    struct wire_identity identity = directory_identity(d);
    char text[WIRE_ERROR_BYTES] = "";
    int result = wire_identity_check(&identity, text);
    if (result)
        node_error(error, result, "the certificate that the cluster gave is no good: %s",
                   text);
    return result;
}

static int join_directory(struct joining *j, const struct node_setup *setup,
                          char error[NODE_ERROR_BYTES])
{
    int result = place_clear_but_key(&j->place, error);
    /* What the earlier join left does not count. */
    if (!result && j->place.unfinished)
        result = place_check_room(&j->place, j->d->segment_bytes, 0, error);
    if (!result)
        result = take_key(j, error);
    if (!result)
        result = make_join_request(j, setup, error);
    if (!result)
        result = ask_cluster(j, error);
    if (!result)
        result = adopt_answer(j, error);
    if (result)
        return result;
    struct store_options options = directory_store_options(j->d);
    char text[STORE_ERROR_BYTES] = "";
    result = store_create(&options, text);
    if (result)
        return node_error(error, result, "cannot make the store: %s", text);
    return directory_write(j->d, error);
}

static int check_replace(const struct node_setup *setup, char error[NODE_ERROR_BYTES])
{
    if (!setup->replace || node_name_valid(setup->replace))
        return 0;
    return node_error(error, -EINVAL,
                      "\"%.300s\" is not the name of a node: give a member's name to "
                      "--replace; see `tierce members` on one of the others",
                      setup->replace);
}

int node_join(const struct node_setup *setup, const char *token, char **ret_next_token,
              char error[NODE_ERROR_BYTES])
{
    struct joining *j = calloc(1, sizeof(*j));
    if (!j)
        return node_error(error, -ENOMEM, "out of memory");
    j->untouched = true;
    int result = check_replace(setup, error);
    if (!result)
        result = token_parse(token, &j->token, error);
    if (!result)
        result = directory_begin(setup, &j->d, error);
    if (!result)
        result = take_place(&j->place, setup, j->d, true, 0, error);
    if (!result) {
        directory_move_into(j->d, &j->place);
        result = join_directory(j, setup, error);
        directory_move_out(j->d);
        char *next = result ? NULL : strdup(j->answer.next_token);
        if (next)
            *ret_next_token = next;
        else if (!result)
            result = node_error(error, -ENOMEM, "out of memory");
        if (result && j->untouched && j->key_is_new)
            place_undo(&j->place);
        place_release(&j->place);
    }
    directory_end(j->d);
    free(j);
    return result;
}
