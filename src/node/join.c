/*
 * join.c - letting a host in: the JOIN frame, its answer, and what lies between.
 *
 *   JOIN --> checked --> NODE_OP_JOIN, committed --> the CA's key is read and signs
 * (pager)
 *        --> JOIN_ANSWER, and the connection ends
 *
 * The operation takes the token for this key. When the answer is lost, the same request
 * gets the same node id and a new certificate; but the next token of the first time stays
 * unknown.
 */
#include "ca.h"
#include "control.h"

#include <errno.h>

struct join {
    struct join_request asked;
    struct token next;
    struct join_answer answer;
    int error;        /* of the pager's work */
    const char *what; /* failed */
};

static void release_join(void *state)
{
    free(state);
}

static int read_record(struct node *n, const struct fs_key *key, struct buf *to)
{
    const struct fs_view *view = node_view(n);
    return view->get(view->context, key->bytes, key->size, to, NULL);
}

static int get_record(void *n, const struct fs_key *key, struct buf *to)
{
    return read_record(n, key, to);
}

static int sign(struct node *n, struct join *j)
{
    char *cert = NULL, *believed = NULL;
    struct ca_record *ca = NULL;
    int result = ca_record_read(get_record, n, &ca);
    if (!result)
        result = ca_sign(ca, j->asked.request_pem, node_directory(n), j->answer.node_id,
                         j->asked.name, &cert);
    if (!result && !(believed = ca_believed_pem(ca)))
        result = -ENOMEM;
    if (!result && (strlen(cert) >= sizeof(j->answer.cert_pem) ||
                    strlen(believed) >= sizeof(j->answer.ca_pem)))
        result = -E2BIG;
    if (!result) {
        strcpy(j->answer.cert_pem, cert);
        strcpy(j->answer.ca_pem, believed);
    }
    free(ca);
    free(believed);
    free(cert);
    return result;
}

/* The next token is good only if this operation, not an earlier one, took the token. */
static int tell_next_token(struct node *n, struct join *j)
{
    struct fs_key key;
    struct buf value = {0};
    cluster_key_token(&key, j->next.id);
    int result = read_record(n, &key, &value);
    buf_release(&value);
    if (result)
        return result == -ENOENT ? 0 : result;
    char *text = token_format(&j->next);
    if (!text)
        return -ENOMEM;
    ensure(strlen(text) < sizeof(j->answer.next_token));
    strcpy(j->answer.next_token, text);
    free(text);
    return 0;
}

static void sign_work(struct pager_task *task)
{
    struct control_request *r = container_of(task, struct control_request, task);
    struct join *j = r->state;
    j->what = "the node there cannot sign certificates";
    j->error = sign(r->node, j);
    if (!j->error)
        j->error = tell_next_token(r->node, j);
}

static void sign_done(struct pager_task *task)
{
    struct control_request *r = container_of(task, struct control_request, task);
    struct join *j = r->state;
    if (j->error) {
        log_error("join of %s: %s: %s", j->asked.name, j->what, strerror(-j->error));
        control_answer_error(r, j->error, j->what);
        return;
    }
    /* As it is now: others may have joined since. */
    j->answer.members = *node_members(r->node);
    struct buf to = {0};
    join_answer_encode(&j->answer, &to);
    if (to.failed) {
        control_answer_error(r, -ENOMEM, "the node there has no memory left");
    } else {
        log_info("%s joins as node %016llx at %s", j->asked.name,
                 (unsigned long long)j->answer.node_id, j->asked.address);
        control_answer(r, to.data, to.length);
    }
    buf_release(&to);
}

/* A retry may ask for another; it is called what it was called when it was let in. */
static void keep_name(struct node *n, struct join *j)
{
    const struct member *m = members_find(node_members(n), j->answer.node_id);
    if (m)
        memcpy(j->asked.name, m->name, sizeof(m->name));
}

static void join_committed(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    struct join *j = r->state;
    buf_release(&op->op);
    struct fs_result result;
    fs_result_decode(op->result, &result);
    if (op->error) {
        char text[NODE_ERROR_BYTES] = "";
        if (op->error != -JOIN_UNKNOWN_TOKEN)
            control_members_why(r->node, op->error, j->asked.replace, result.value, text);
        control_answer_error(r, op->error, text);
        return;
    }
    j->answer.node_id = result.value;
    keep_name(r->node, j);
    memcpy(j->answer.cluster_id, node_directory(r->node)->cluster_id,
           sizeof(j->answer.cluster_id));
    r->task = (struct pager_task){.work = sign_work, .done = sign_done};
    pager_submit(r->node, &r->task);
}

static void add_addresses(struct node *n, struct token *token)
{
    const struct members *members = node_members(n);
    token_add_address(token, node_directory(n)->advertise);
    for (uint32_t i = 0; i < members->count; i++)
        if (members->list[i].voter)
            token_add_address(token, members->list[i].address);
}

int token_make_here(struct node *n, uint64_t ttl_s, struct token *ret,
                    struct token_record *ret_record)
{
    struct token token;
    int result = token_make(node_directory(n)->ca_pem, &token);
    if (result)
        return result;
    add_addresses(n, &token);
    /* The log's clock may be ahead of this host's, and it is the log that judges. */
    uint64_t now = max_u64(clock_real_us(), node_last_timestamp(n));
    *ret_record = (struct token_record){.expires_us = now + ttl_s * 1000000};
    wire_hash(token.secret, sizeof(token.secret), ret_record->secret_hash);
    *ret = token;
    return 0;
}

static int submit_join(struct control_request *r, struct join *j)
{
    struct node_op op = {.type = NODE_OP_JOIN, .token_id = j->asked.token_id};
    int result = wire_pki_request_key_hash(j->asked.request_pem, op.key_hash);
    if (result)
        return result;
    result = token_make_here(r->node, TOKEN_LIFETIME_S, &j->next, &op.record);
    if (result)
        return result;
    op.next_token_id = j->next.id;
    memcpy(op.secret, j->asked.secret, sizeof(op.secret));
    strcpy(op.name, j->asked.name);
    strcpy(op.address, j->asked.address);
    strcpy(op.replace, j->asked.replace);
    op.observer = j->asked.observer;
    op.version = j->asked.version;
    node_op_encode(&op, &r->op.op);
    if (r->op.op.failed)
        return -ENOMEM;
    r->op.done = join_committed;
    client_submit(r->node, &r->op);
    return 0;
}

static const char *why_not(const struct join_request *asked)
{
    if (!node_name_valid(asked->name))
        return "its name is not 1 to 255 printable characters without spaces and commas: "
               "give another --name";
    if (!node_address_valid(asked->address))
        return "its address is not HOST:PORT: give --advertise HOST:PORT";
    if (asked->replace[0] && !node_name_valid(asked->replace))
        return "the node to replace has no valid name: give a member's name to --replace";
    return NULL;
}

void join_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f)
{
    struct control_request *r = control_begin(n, c, f, WIRE_JOIN_ANSWER);
    if (!r)
        return;
    struct join *j = calloc(1, sizeof(*j));
    if (!j) {
        control_answer_error(r, -ENOMEM, "the node there has no memory left");
        return;
    }
    r->state = j;
    r->release_state = release_join;
    if (join_request_decode(f->value, f->length, &j->asked) || !j->asked.token_id) {
        control_malformed(r);
        return;
    }
    const char *why = why_not(&j->asked);
    int result = why ? 0 : submit_join(r, j);
    if (result == -EBADMSG || result == -EINVAL)
        why = "its certificate request is malformed";
    if (why)
        control_refuse(r, why);
    else if (result)
        control_answer_error(r, result, "the node there cannot make a token");
}
