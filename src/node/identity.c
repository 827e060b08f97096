/*
 * identity.c - this node's certificate, and the CAs that it believes: renewed in time, and
 * changed when the cluster's CA is.
 *
 * Every node has the CA's key, in its store, and signs for itself: nobody has to be asked
 * or reached, and a node whose certificate ended while it was off starts again. The key
 * stays, so that node.crt alone is replaced, in one rename; ca.crt likewise. Whichever of
 * the two a crash leaves behind, the next start makes good (identity_start comes before
 * the port is opened).
 */
#include "ca.h"
#include "node_core.h"

#include <errno.h>

/* ---- What is to be ----------------------------------------------------------------- */

/* At two thirds of its life, or of the life that is asked for now where that is less. */
static int64_t renewal_of(int64_t begin_s, int64_t end_s, uint64_t life_s)
{
    int64_t life = end_s - begin_s;
    return begin_s + (int64_t)min_u64(life > 0 ? (uint64_t)life : 0, life_s) * 2 / 3;
}

/* Also what is not valid yet: the clock was ahead when it was made. */
static bool is_due(const struct directory *d, const char *signer_pem, int64_t now_s)
{
    int64_t begin, end;
    return !wire_pki_is_signed_by(d->cert_pem, signer_pem) ||
           wire_pki_times(d->cert_pem, &begin, &end) ||
           now_s >= renewal_of(begin, end, directory_certificate_life_s(d)) ||
           now_s < begin - NODE_CERTIFICATE_EARLY_S;
}

static int renew(const struct directory *d, const struct ca_record *ca, int signer,
                 char **ret)
{
    char *request = NULL;
    int result = wire_pki_make_request(d->key_pem, &request);
    if (!result)
        result = ca_sign_by(ca, signer, request, d, d->node_id, d->name, ret);
    free(request);
    return result;
}

static int check(const struct directory *d, const struct identity_files *files,
                 char error[NODE_ERROR_BYTES])
{
    struct wire_identity identity = directory_identity(d);
    if (files->ca_pem)
        identity.ca_pem = files->ca_pem;
    if (files->cert_pem)
        identity.cert_pem = files->cert_pem;
    char why[WIRE_ERROR_BYTES] = "";
    int result = wire_identity_check(&identity, why);
    return result ? node_error(error, result, "%s", why) : 0;
}

/* After a restart the record may be of an earlier step than the files, as entries that are
 * not known to be committed are not applied yet. Then these stay: to go back would be to show
 * a certificate that the others believe no more. */
static int demand_cas(const struct directory *d, const struct ca_record *ca,
                      struct identity_files *files)
{
    files->step = ca_step_of(d->ca_pem);
    if (ca->step < files->step)
        return ca_choose(ca, d->ca_pem);
    files->step = ca->step;
    files->ca_pem = ca_believed_pem(ca);
    if (files->ca_pem && !strcmp(files->ca_pem, d->ca_pem)) {
        free(files->ca_pem);
        files->ca_pem = NULL;
    } else if (!files->ca_pem) {
        return -ENOMEM;
    }
    return ca->signing;
}

int identity_demand(const struct directory *d, const struct ca_record *ca, int64_t now_s,
                    struct identity_files *ret, char error[NODE_ERROR_BYTES])
{
    struct identity_files files = {0};
    int signer = demand_cas(d, ca, &files);
    int result = signer < 0 ? signer : 0;
    if (result == -ENOKEY) /* it is too far behind to know who signs now */
        result = 0;
    else if (!result && is_due(d, ca->list[signer].cert_pem, now_s))
        result = renew(d, ca, signer, &files.cert_pem);
    if (result)
        node_error(error, result, "cannot sign a certificate: %s", strerror(-result));
    if (!result && (files.ca_pem || files.cert_pem))
        result = check(d, &files, error);
    const char *cert = files.cert_pem ? files.cert_pem : d->cert_pem;
    if (!result) {
        result = wire_pki_times(cert, &files.begin_s, &files.end_s);
        if (result)
            node_error(error, result, "the node's certificate is not readable");
    }
    if (!result) {
        files.renew_s =
            renewal_of(files.begin_s, files.end_s, directory_certificate_life_s(d));
        *ret = files;
    } else {
        identity_files_release(&files);
    }
    return result;
}

int identity_write(const struct directory *d, const struct identity_files *files,
                   char error[NODE_ERROR_BYTES])
{
    int result = 0;
    if (files->ca_pem)
        result = directory_put_file(d->path, DIRECTORY_CA, files->ca_pem,
                                    strlen(files->ca_pem), error);
    if (!result && files->cert_pem)
        result = directory_put_file(d->path, DIRECTORY_CERT, files->cert_pem,
                                    strlen(files->cert_pem), error);
    return result;
}

static void replace(char **text, char **by)
{
    if (!*by)
        return;
    free(*text);
    *text = *by;
    *by = NULL;
}

void identity_adopt(struct directory *d, struct identity_files *files)
{
    replace(&d->ca_pem, &files->ca_pem);
    replace(&d->cert_pem, &files->cert_pem);
}

void identity_files_release(struct identity_files *files)
{
    free(files->ca_pem);
    free(files->cert_pem);
    files->ca_pem = files->cert_pem = NULL;
}

/* ---- Looking ----------------------------------------------------------------------- */

struct identity_work {
    struct pager_task task;
    struct node *node;
    struct identity_files files;
    bool is_missing; /* nothing is applied here yet: the record comes with the log */
    bool is_rotating;
    int64_t ca_end_s;
    int result;
    char error[NODE_ERROR_BYTES];
};

static int get(void *context, const struct fs_key *key, struct buf *to)
{
    struct node *n = context;
    return store_get(n->store, key->bytes, key->size, 0, to, NULL);
}

/* May wait for the disk. The directory's strings are nobody else's to change meanwhile. */
static void look(struct pager_task *task)
{
    struct identity_work *w = container_of(task, struct identity_work, task);
    const struct directory *d = &w->node->directory;
    struct ca_record *ca = NULL;
    w->result = ca_record_read(get, w->node, &ca);
    if (w->result == -ENOENT) {
        w->is_missing = true;
        w->result = 0;
        return;
    }
    if (w->result) {
        node_error(w->error, w->result, "cannot read the cluster's CA: %s",
                   strerror(-w->result));
        return;
    }
    int64_t begin;
    uint32_t record_step = ca->step;
    w->is_rotating = ca->count > 1;
    if (wire_pki_times(ca_signing_pem(ca), &begin, &w->ca_end_s))
        w->ca_end_s = 0; /* what it signs is checked below */
    w->result =
        identity_demand(d, ca, (int64_t)(clock_real_us() / 1000000), &w->files, w->error);
    if (!w->result)
        w->result = identity_write(d, &w->files, w->error);
    w->is_rotating &= record_step == w->files.step;
    free(ca);
}

static void say(const struct node *n, const struct identity_work *w)
{
    char end[32];
    time_t end_s = (time_t)w->files.end_s;
    struct tm tm;
    if (w->files.ca_pem)
        log_info("other CAs are believed now: step %u of the cluster's CA",
                 w->files.step);
    if (w->files.cert_pem && gmtime_r(&end_s, &tm) &&
        strftime(end, sizeof(end), "%Y-%m-%d %H:%M:%S UTC", &tm))
        log_info("the node's certificate is renewed: it lasts until %s", end);
    if (w->ca_end_s - (int64_t)(clock_real_us() / 1000000) < NODE_CA_WARN_S)
        log_warn("the cluster's CA ends in less than a year: run `tierce rotate-ca`");
}

static void put_in_force(struct node *n, struct identity_work *w)
{
    struct identity *i = &n->identity;
    say(n, w);
    i->stale |= w->files.ca_pem || w->files.cert_pem;
    if (w->files.ca_pem)
        i->redial_until_us = node_now() + NODE_SECOND_US;
    identity_adopt(&n->directory, &w->files);
    struct wire_identity identity = directory_identity(&n->directory);
    if (i->stale && n->endpoint)
        w->result = wire_endpoint_set_identity(n->endpoint, &identity, w->error);
    if (w->result)
        return;
    i->stale = false;
    i->is_known = true;
    i->step = w->files.step;
    i->is_rotating = w->is_rotating;
    i->begin_s = w->files.begin_s;
    i->end_s = w->files.end_s;
    i->renew_s = w->files.renew_s;
}

static void looked(struct node *n, struct identity_work *w)
{
    struct identity *i = &n->identity;
    if (!w->result && !w->is_missing)
        put_in_force(n, w);
    /* A disk that lies about its syncs is not tried again (G4). */
    if (w->result == -EIO)
        log_fatal("the node's certificate cannot be kept: %s; the node stops", w->error);
    if (w->result) {
        log_error("the node's certificate cannot be renewed: %s; tried again in %d s",
                  w->error, NODE_LOG_AGAIN_US / 1000000);
        i->is_due = true;
        i->again_us = node_now() + NODE_LOG_AGAIN_US;
    }
}

static void looked_on_loop(struct pager_task *task)
{
    struct identity_work *w = container_of(task, struct identity_work, task);
    struct node *n = w->node;
    n->identity.work = NULL;
    looked(n, w);
    identity_files_release(&w->files);
    free(w);
}

/* ---- When ---------------------------------------------------------------------------- */

void identity_start(struct node *n)
{
    struct identity_work w = {.node = n};
    look(&w.task);
    looked(n, &w);
    identity_files_release(&w.files);
}

void identity_note(struct node *n)
{
    n->identity.is_due = true;
}

void identity_tick(struct node *n, uint64_t now_us)
{
    struct identity *i = &n->identity;
    int64_t now_s = (int64_t)(clock_real_us() / 1000000);
    bool renewal = i->is_known &&
                   (now_s >= i->renew_s || now_s < i->begin_s - NODE_CERTIFICATE_EARLY_S);
    if ((!i->is_due && !renewal) || i->work || now_us < i->again_us ||
        !store_is_ready(n->store))
        return;
    struct identity_work *w = calloc(1, sizeof(*w));
    if (!w)
        return; /* at the next tick */
    *w = (struct identity_work){.node = n, .task = {look, looked_on_loop, NULL}};
    i->work = w;
    i->is_due = false;
    pager_submit(n, &w->task);
}

void identity_release(struct node *n)
{
    if (n->identity.work)
        identity_files_release(&n->identity.work->files);
    free(n->identity.work);
    n->identity.work = NULL;
}

uint32_t identity_step(const struct node *n, const struct member *self)
{
    return n->identity.is_known ? n->identity.step : self->ca;
}
