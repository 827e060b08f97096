/*
 * node.c - nodes: made, booted, killed, stopped, joined. What runs in them is node_run(),
 * as in the daemon.
 */
#include "sim.h"

#include <errno.h>
#include <signal.h>

struct sim_node sim_nodes[SIM_NODES];
extern const uint8_t sim_cluster[STORE_CLUSTER_ID_BYTES];

struct sim_node *sim_of_id(uint64_t id)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made && sim_nodes[i].id == id)
            return &sim_nodes[i];
    return NULL;
}

struct sim_node *sim_of_address(const char *address)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (strcmp(sim_nodes[i].address, address) == 0)
            return &sim_nodes[i];
    return NULL;
}

const struct members *sim_members(void)
{
    struct sim_node *best = NULL;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (n->up && n->node && n->node->driver.raft && n->node->store &&
            (!best || store_applied(n->node->store) > store_applied(best->node->store)))
            best = n;
    }
    return best ? &best->node->members_applied : NULL;
}

struct sim_node *sim_leader(void)
{
    struct sim_node *best = NULL;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->up || n->paused || !n->node || !n->node->driver.raft ||
            loop_has_ended(n) || !node_is_leader(n->node))
            continue;
        if (!best || raft_term(n->node->driver.raft) > raft_term(best->node->driver.raft))
            best = n;
    }
    return best;
}

/* ---- Life ------------------------------------------------------------------------- */

struct sim_node *sim_node_new(bool bad_disk)
{
    unsigned i = 0;
    while (i < SIM_NODES && sim_nodes[i].made)
        i++;
    ensure(i < SIM_NODES);
    struct sim_node *n = &sim_nodes[i];
    *n = (struct sim_node){.number = i, .made = true, .bad_disk = bad_disk, .rate = 1.0};
    n->id = i + 1;
    n->version = plan.version;
    n->boot_base = 1000 * 1000 + chance_below(CHANCE_NODE, 1000 * SIM_S);
    snprintf(n->name, sizeof(n->name), "n%u", i + 1);
    snprintf(n->address, sizeof(n->address), "n%u:7370", i + 1);
    n->disk = memory_disk_new();
    return n;
}

static void is_ready(void *context, const char *warning)
{
    struct sim_node *n = context;
    n->serves = true;
    story("serves%s", warning ? ", without a majority" : "");
    clients_node_up(n);
}

/* Its memory is no more, its disk is what a crash leaves. */
static void gone(struct sim_node *n)
{
    verify_killed(n);
    n->up = false;
    n->down_us = sim_now;
    n->paused = n->serves = n->stopping = false;
    n->life++;
    clients_node_down(n);
    sim_threads_drop(n);
    net_drop_node(n);
    n->held = NULL;
    n->node = NULL;
    n->loop = NULL;
    n->endpoint = NULL;
    n->backend = NULL;
    n->readers = 0;
    n->deferred = NULL;
    n->deferring = false;
    n->sections = 0;
    n->hang_until = 0;
    sim_disk_crash(n);
}

static void *node_main(void *arg)
{
    struct sim_node *n = arg;
    char data[24], error[NODE_ERROR_BYTES] = "";
    snprintf(data, sizeof(data), "/%s", n->name);
    struct node_run_options options = {.data = data,
                                       .mountpoint = "/mnt",
                                       .version = n->version,
                                       .ready = is_ready,
                                       .context = n};
    int ret = node_run(&options, error);
    story(ret < 0 ? "could not run: %s" : "ended%s", ret < 0 ? error : "");
    if (ret == -EBADMSG)
        n->refused = true;
    /* Its program became too old while it was down. In the end its operator does what the
     * message says. */
    if (ret == -EPROTONOSUPPORT && !plan.faults)
        n->version = WIRE_PROTOCOL_VERSION;
    if (n->removed) {
        story("is a member no more");
        n->gone = true;
    }
    n->node = NULL;
    gone(n);
    sim_thread_exit();
}

void sim_boot(struct sim_node *n)
{
    ensure(!n->up);
    n->up = true;
    struct sim_node *at = sim_at_node;
    sim_at_node = n;
    story("boots");
    sim_at_node = at;
    sim_thread_new(n, node_main, n, chance_below(CHANCE_CPU, 1000));
}

void sim_kill(struct sim_node *n, const char *why)
{
    ensure(n->up);
    struct sim_node *at = sim_at_node;
    sim_at_node = n;
    story("is killed%s%s", why ? ": " : "", why ? why : "");
    gone(n);
    sim_at_node = at;
}

void sim_died(struct sim_node *n, const char *why)
{
    /* A disk that fails is fatal, and said; anything else is a bug. */
    if (!strstr(why, "could not be written") && !strstr(why, "merging failed"))
        sim_fail("%s ends itself: %s", n->name, why);
    story("ends itself: %s", why);
    gone(n);
    sim_thread_exit();
}

void sim_stop(struct sim_node *n)
{
    if (!n->up || !n->serves || n->stopping)
        return;
    n->stopping = true;
    loop_signal(n, SIGTERM);
}

/* ---- The first entry --------------------------------------------------------------- */

static struct {
    uint64_t id;
    uint8_t secret[NODE_SECRET_BYTES];
} token;

static struct token_record record_of(const uint8_t *secret)
{
    struct token_record r = {.expires_us = UINT64_MAX / 2};
    wire_hash(secret, NODE_SECRET_BYTES, r.secret_hash);
    return r;
}

static void put(struct store_builder *b, const struct fs_key *key, struct buf *value)
{
    store_builder_put(b, key->bytes, key->size, value->data, value->length);
    buf_clear(value);
}

static struct store_bytes *first_entry(struct store *s, const struct members *members)
{
    struct store_entry head = {.index = 1, .term = 1};
    struct store_builder b = {0};
    struct store_bytes *ret;
    struct fs_key key;
    struct buf value = {0};
    uint64_t newest;
    store_chain(s, &head.prev_term, &head.prev_crc, &newest);
    store_builder_begin(&b, clock_real_us());
    struct fs_change change = records_change(&b, clock_real_us());
    fs_format(&change);
    cluster_key_config(&key);
    members_encode(members, &value);
    put(&b, &key, &value);
    token.id = 1;
    struct token_record record = record_of(token.secret);
    cluster_key_token(&key, token.id);
    token_record_encode(&record, &value);
    put(&b, &key, &value);
    ensure(store_builder_finish(&b, &head, &ret) == 0);
    store_builder_release(&b);
    buf_release(&value);
    return ret;
}

static void run_jobs(struct store *s)
{
    char error[STORE_ERROR_BYTES];
    for (struct store_job *job; (job = store_take_job(s));) {
        ensure(store_run_job(job, error) == 0);
        store_finish_job(s, job);
    }
}

static struct store_bytes *entry; /* the first */

static void make_store(struct sim_node *n, const struct members *members, bool first)
{
    char path[24], error[STORE_ERROR_BYTES] = "";
    struct store_recovery recovery;
    snprintf(path, sizeof(path), "/%s", n->name);
    n->disk_io = memory_disk_io(n->disk);
    n->disk_io.mkdir(n->disk_io.context, path, 0700);
    ensure(n->disk_io.sync_dir(n->disk_io.context, "/") == 0);
    struct store_options o = {
        .io = &n->disk_io,
        .path = path,
        .segment_bytes = plan.segment_bytes,
        .format = version_format(n->members.version)};
    memcpy(o.cluster_id, sim_cluster, sizeof(o.cluster_id));
    if (store_create(&o, error) < 0)
        sim_fail("cannot create the store: %s", error);
    if (!first)
        return;
    struct store *s;
    ensure(store_open(&s, &o, &recovery, error) == 0);
    if (!entry)
        entry = first_entry(s, members);
    ensure(store_set_hard_state(s, 1, 0) == 0);
    ensure(store_append(s, entry, false) == 0);
    run_jobs(s);
    ensure(store_set_commit_hint(s, 1) == 0);
    run_jobs(s);
    store_close(s);
}

void sim_format(unsigned voters)
{
    struct members members = {.version = plan.version, .count = voters};
    unsigned bad = (unsigned)chance_below(CHANCE_PLAN, voters);
    for (unsigned i = 0; i < voters; i++) {
        struct sim_node *n = sim_node_new(i == bad && voters > 2);
        struct member *m = &members.list[i];
        m->id = n->id;
        m->voter = true;
        m->version = plan.version;
        strcpy(m->name, n->name);
        strcpy(m->address, n->address);
    }
    for (unsigned i = 0; i < voters; i++) {
        sim_nodes[i].members = members;
        make_store(&sim_nodes[i], &members, true);
    }
    verify_first(entry->data, entry->length);
}

/* ---- Joining ----------------------------------------------------------------------- */

static struct joining {
    struct client_op op;
    struct node_op join;
    struct sim_node *node, *by;
    unsigned life;
    bool asked;
} * joining;

static void ask_to_join(void *arg);

static void joined(struct client_op *op)
{
    struct joining *j = container_of(op, struct joining, op);
    if (joining != j)
        return;
    j->asked = false;
    if (op->error < 0) {
        trace("%s is not let in: %d", j->node->name, op->error);
        j->join.replace[0] = '\0'; /* it lives, or too few others do */
        if (op->error == -JOIN_TOO_OLD)
            j->join.version = j->node->version = WIRE_PROTOCOL_VERSION;
        return;
    }
    struct fs_result result;
    fs_result_decode(op->result, &result);
    struct sim_node *n = j->node;
    n->id = result.value;
    n->members = *node_members(sim_at_node->node);
    token.id = j->join.next_token_id;
    memset(token.secret, (int)token.id, sizeof(token.secret));
    make_store(n, NULL, false);
    if (j->join.replace[0])
        fault(member_replaced);
    if (j->join.observer)
        fault(observer_joined);
    else
        fault(member_joined);
    joining = NULL;
    sim_boot(n);
}

static void submit_join(void *arg)
{
    struct joining *j = arg;
    if (joining == j)
        client_submit(sim_at_node->node, &j->op);
}

static void ask_to_join(void *arg)
{
    struct joining *j = joining;
    if (!j)
        return;
    sim_after(SIM_S, NULL, ask_to_join, NULL);
    if (j->asked && j->by->up && j->by->life == j->life)
        return;
    struct sim_node *by = sim_leader();
    if (!by || !by->serves)
        return;
    /* What an earlier asking left behind may still be on its way: a struct of its own. */
    struct joining *again = calloc(1, sizeof(*again));
    ensure(again);
    again->join = j->join;
    again->node = j->node;
    again->by = by;
    again->life = by->life;
    again->asked = true;
    again->op.done = joined;
    node_op_encode(&again->join, &again->op.op);
    joining = again;
    struct sim_node *at = sim_at_node;
    sim_at_node = by;
    loop_post(by, submit_join, again);
    sim_at_node = at;
}

void sim_join(bool observer, const struct sim_node *replaced)
{
    unsigned made = 0;
    for (unsigned i = 0; i < SIM_NODES; i++)
        made += sim_nodes[i].made;
    if (joining || made == SIM_NODES)
        return;
    struct sim_node *n = sim_node_new(false);
    struct joining *j = calloc(1, sizeof(*j));
    ensure(j);
    uint8_t next[NODE_SECRET_BYTES];
    j->join = (struct node_op){.type = NODE_OP_JOIN,
                               .token_id = token.id,
                               .next_token_id = token.id + 1,
                               .version = n->version};
    memset(next, (int)(token.id + 1), sizeof(next));
    j->join.record = record_of(next);
    memcpy(j->join.secret, token.secret, sizeof(token.secret));
    memset(j->join.key_hash, (int)n->number + 1, sizeof(j->join.key_hash));
    j->join.observer = observer;
    if (replaced)
        strcpy(j->join.replace, replaced->name);
    strcpy(j->join.name, n->name);
    strcpy(j->join.address, n->address);
    j->node = n;
    n->id = UINT64_MAX - n->number; /* not known yet */
    joining = j;
    story("%s wants to %s%s%s", n->name, observer ? "observe" : "join",
          replaced ? " in place of " : "", replaced ? replaced->name : "");
    ask_to_join(NULL);
}

/* ---- Members that go, and move ------------------------------------------------------ */

struct asking {
    struct client_op op;
    struct node_op what;
};

static const char *outcome(int error)
{
    switch (-error) {
    case 0:
        return "done";
    case MEMBERS_LAST_VOTER:
        return "refused, it is the last voter";
    case MEMBERS_NO_MAJORITY:
        return "refused, no majority would be left";
    default:
        return strerror(-error);
    }
}

static void was_asked(struct client_op *op)
{
    struct asking *a = container_of(op, struct asking, op);
    const struct sim_node *subject = sim_of_id(a->what.node_id);
    story("%s %s: %s", a->what.type == NODE_OP_REMOVE ? "removal of" : "transfer to",
          subject ? subject->name : "the best", outcome(op->error));
    if (op->error == 0 && a->what.type == NODE_OP_REMOVE)
        fault(member_removed);
}

static void submit_asking(void *arg)
{
    struct asking *a = arg;
    client_submit(sim_at_node->node, &a->op);
}

void sim_ask(struct sim_node *by, const struct node_op *op)
{
    struct asking *a = calloc(1, sizeof(*a));
    ensure(a && by->loop);
    a->what = *op;
    a->op.done = was_asked;
    node_op_encode(op, &a->op.op);
    struct sim_node *at = sim_at_node;
    sim_at_node = by;
    loop_post(by, submit_asking, a);
    sim_at_node = at;
}

static void has_left(void *context, int error)
{
    struct sim_node *n = context;
    story("leaves: %s", error < 0 ? strerror(-error) : "done");
    if (n->node->is_removed)
        fault(member_left);
}

static void leave(void *arg)
{
    struct sim_node *n = arg;
    if (n->serves)
        node_leave(n->node, has_left, n);
}

void sim_leave(struct sim_node *n)
{
    sim_at_node = n;
    loop_post(n, leave, n);
    sim_at_node = NULL;
}

void sim_move(struct sim_node *n)
{
    ensure(!n->up);
    snprintf(n->address, sizeof(n->address), "n%u.%u:7370", n->number + 1, ++n->moves);
    fault(address_moved);
    story("%s moves to %s", n->name, n->address);
}
