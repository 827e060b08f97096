/*
 * evaluate_members.c - who belongs to the cluster: operations that change the membership,
 * and those that need to know it.
 *
 * A change of voters must leave a majority of the new ones reachable and caught up: what is
 * in force from its entry on must be able to commit that entry, and what follows. The
 * leader that is itself to go hands over first, and the next leader sees to it.
 */
#include "evaluate.h"

#include <errno.h>

static int get_token(struct node *n, uint64_t id, struct token_record *ret)
{
    struct fs_key key;
    struct buf value = {0};
    cluster_key_token(&key, id);
    int error = evaluate_get(n, &key, &value);
    if (error == 0)
        error = token_record_decode(value.data, value.length, ret);
    buf_release(&value);
    return error;
}

static void put_token(struct evaluation *e, uint64_t id,
                      const struct token_record *record)
{
    struct fs_key key;
    struct buf value = {0};
    cluster_key_token(&key, id);
    token_record_encode(record, &value);
    evaluate_put(e, &key, &value);
    buf_release(&value);
}

void evaluate_put_members(struct evaluation *e)
{
    struct fs_key key;
    struct buf value = {0};
    cluster_key_config(&key);
    members_encode(&e->members, &value);
    evaluate_put(e, &key, &value);
    buf_release(&value);
    e->config_changed = true;
}

int evaluate_invite(struct node *n, const struct node_op *op, struct evaluation *e)
{
    struct token_record there;
    int ret = get_token(n, op->token_id, &there);
    if (ret != -ENOENT)
        return ret < 0 ? ret : -EEXIST;
    store_builder_begin(e->builder, e->timestamp_us);
    put_token(e, op->token_id, &op->record);
    e->result.value = op->token_id;
    return 0;
}

/* A token lets one node in; asked again by the same key it gives the same answer. */
static int judge_token(const struct node_op *op, const struct token_record *t,
                       uint64_t now_us)
{
    uint8_t hash[WIRE_HASH_BYTES];
    wire_hash(op->secret, sizeof(op->secret), hash);
    if (memcmp(hash, t->secret_hash, sizeof(hash)) != 0)
        return -JOIN_UNKNOWN_TOKEN;
    if (t->node_id != 0)
        return memcmp(op->key_hash, t->key_hash, sizeof(t->key_hash)) == 0
                   ? 1
                   : -JOIN_USED_TOKEN;
    return t->expires_us < now_us ? -JOIN_EXPIRED_TOKEN : 0;
}

/* ---- What a change must leave ------------------------------------------------------- */

static bool is_reachable(struct node *n, uint64_t id)
{
    struct raft_peer_status s;
    return raft_peer_status(n->driver.raft, id, node_now(), &s) && s.reachable;
}

static bool is_caught_up(struct node *n, uint64_t id)
{
    struct raft_peer_status s;
    return id == n->directory.node_id ||
           (raft_peer_status(n->driver.raft, id, node_now(), &s) && s.reachable &&
            !s.snapshot && s.match + NODE_CAUGHT_UP_LAG >= store_last_index(n->store));
}

/* *ret_lacking: one of those that keep it from being a majority. */
static int judge_majority(struct node *n, const struct members *members,
                          uint64_t *ret_lacking)
{
    uint32_t voters = 0, good = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member *m = &members->list[i];
        if (!m->voter)
            continue;
        voters++;
        if (is_caught_up(n, m->id))
            good++;
        else
            *ret_lacking = m->id;
    }
    if (voters == 0)
        return -MEMBERS_LAST_VOTER;
    return good > voters / 2 ? 0 : -MEMBERS_NO_MAJORITY;
}

static void drop_member(struct members *members, uint64_t id)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < members->count; i++)
        if (members->list[i].id != id)
            members->list[kept++] = members->list[i];
    members->count = kept;
}

/* The members without `gone`, where those can go on. */
static int judge_removal(struct node *n, const struct member *gone, struct evaluation *e)
{
    e->members = n->members;
    drop_member(&e->members, gone->id);
    return gone->voter ? judge_majority(n, &e->members, &e->result.value) : 0;
}

/* Into the entry, whose first record is the membership. */
static int put_removal(struct node *n, const struct member *gone, struct evaluation *e)
{
    struct fs_key key;
    struct buf value = {0};
    struct removed_record record = {.timestamp_us = e->timestamp_us};
    memcpy(record.name, gone->name, sizeof(record.name));
    cluster_key_removed(&key, gone->id);
    removed_record_encode(&record, &value);
    evaluate_put(e, &key, &value);
    buf_release(&value);
    return evaluate_end_sessions(n, gone->id, e);
}

/* ---- The operations ----------------------------------------------------------------- */

static int add_learner(const struct node_op *op, struct evaluation *e)
{
    struct members *members = &e->members;
    for (uint32_t i = 0; i < members->count; i++)
        if (strcmp(members->list[i].name, op->name) == 0)
            return -JOIN_NAME_TAKEN;
    for (uint32_t i = 0; i < members->count; i++)
        if (strcmp(members->list[i].address, op->address) == 0)
            return -JOIN_ADDRESS_TAKEN;
    if (members->count == LIMIT_MEMBERS)
        return -JOIN_TOO_MANY;
    struct member *m = &members->list[members->count++];
    *m = (struct member){
        .id = e->timestamp_us, .observer = op->observer, .version = op->version};
    memcpy(m->name, op->name, sizeof(m->name));
    memcpy(m->address, op->address, sizeof(m->address));
    return 0;
}

/* *ret_gone NULL: it replaces nobody. */
static int judge_replaced(struct node *n, const struct node_op *op, struct evaluation *e,
                          const struct member **ret_gone)
{
    e->members = n->members;
    *ret_gone = NULL;
    if (!op->replace[0])
        return 0;
    const struct member *gone = members_find_name(&n->members, op->replace);
    if (!gone)
        return -JOIN_NOBODY_TO_REPLACE;
    if (is_reachable(n, gone->id)) /* as this node itself is */
        return -JOIN_REPLACES_THE_LIVING;
    *ret_gone = gone;
    return judge_removal(n, gone, e);
}

int evaluate_join(struct node *n, const struct node_op *op, struct evaluation *e)
{
    struct token_record token;
    const struct member *gone;
    int ret = get_token(n, op->token_id, &token);
    if (ret < 0)
        return ret; /* -ENOENT is JOIN_UNKNOWN_TOKEN */
    ret = judge_token(op, &token, e->timestamp_us);
    if (ret < 0)
        return ret;
    if (ret == 1 && removed_find(n, token.node_id))
        return -JOIN_REMOVED;
    if (ret == 1) {
        e->result.value = token.node_id;
        return 0;
    }
    if (raft_config_is_pending(n->driver.raft))
        return -EBUSY;
    ret = upgrade_judge_joiner(n, op->version);
    if (ret < 0)
        return ret;
    ret = judge_replaced(n, op, e, &gone);
    if (ret == 0)
        ret = add_learner(op, e);
    if (ret < 0)
        return ret;
    store_builder_begin(e->builder, e->timestamp_us);
    evaluate_put_members(e); /* first: that is how a membership change is known */
    token.node_id = e->timestamp_us;
    memcpy(token.key_hash, op->key_hash, sizeof(token.key_hash));
    put_token(e, op->token_id, &token);
    put_token(e, op->next_token_id, &op->record);
    e->result.value = token.node_id;
    return gone ? put_removal(n, gone, e) : 0;
}

int evaluate_promote(struct node *n, const struct node_op *op, struct evaluation *e)
{
    if (raft_config_is_pending(n->driver.raft))
        return -EBUSY;
    const struct member *m = members_find(&n->members, op->node_id);
    if (!m || m->voter || m->observer)
        return 0;
    e->members = n->members;
    e->members.list[m - n->members.list].voter = true;
    store_builder_begin(e->builder, e->timestamp_us);
    evaluate_put_members(e);
    return 0;
}

int evaluate_remove(struct node *n, const struct node_op *op, struct evaluation *e)
{
    if (raft_config_is_pending(n->driver.raft))
        return -EBUSY; /* of this very node, perhaps */
    const struct member *gone = members_find(&n->members, op->node_id);
    if (!gone)
        return removed_find(n, op->node_id) ? 0 : -ENOENT;
    int ret = judge_removal(n, gone, e);
    if (ret < 0 || op->ask)
        return ret;
    if (gone->id == n->directory.node_id)
        return -EVALUATE_HAND_OVER;
    store_builder_begin(e->builder, e->timestamp_us);
    evaluate_put_members(e);
    return put_removal(n, gone, e);
}

/* A node speaks for itself only. Where another is recorded at its address that record is
 * the older one: the other says where it is now in its turn, and two that have exchanged
 * theirs must not wait for each other. */
int evaluate_report(struct node *n, uint64_t session, const struct node_op *op,
                    struct evaluation *e)
{
    const struct session *s = session_find(n, session);
    const struct member *m = members_find(&n->members, op->node_id);
    if (!m || !s || s->node_id != op->node_id)
        return -EPERM;
    if (op->program[0] && n->version < NODE_VERSION_PROGRAMS)
        return -EPROTO;
    if (m->version == op->version && m->ca == op->ca &&
        strcmp(m->address, op->address) == 0 && strcmp(m->program, op->program) == 0)
        return 0;
    if (raft_config_is_pending(n->driver.raft))
        return -EBUSY;
    e->members = n->members;
    struct member *to = &e->members.list[m - n->members.list];
    to->version = op->version;
    to->ca = op->ca;
    memcpy(to->address, op->address, sizeof(to->address));
    memcpy(to->program, op->program, sizeof(to->program));
    store_builder_begin(e->builder, e->timestamp_us);
    evaluate_put_members(e);
    return 0;
}

int evaluate_version(struct node *n, const struct node_op *op, struct evaluation *e)
{
    if (raft_config_is_pending(n->driver.raft))
        return -EBUSY;
    if (op->version <= n->members.version || op->version > upgrade_common(n))
        return 0;
    e->members = n->members;
    e->members.version = op->version;
    store_builder_begin(e->builder, e->timestamp_us);
    evaluate_put_members(e);
    return 0;
}

static bool has_heir(struct node *n)
{
    for (uint32_t i = 0; i < n->members.count; i++) {
        const struct member *m = &n->members.list[i];
        if (m->voter && m->id != n->directory.node_id && is_reachable(n, m->id))
            return true;
    }
    return false;
}

/* It makes no entry: that another leads shows. Who leads already is told so. */
int evaluate_transfer(struct node *n, const struct node_op *op, struct evaluation *e)
{
    const struct member *m = members_find(&n->members, op->node_id);
    if (op->node_id == n->directory.node_id)
        return 0;
    if (op->node_id && (!m || !m->voter))
        return m ? -MEMBERS_NO_VOTER : -ENOENT;
    if (!(op->node_id ? is_reachable(n, op->node_id) : has_heir(n)))
        return -MEMBERS_NO_HEIR;
    e->heir = op->node_id;
    return -EVALUATE_HAND_OVER;
}
