/*
 * scenario.c - plays a script and tells what happens: a golden trace (traces/README.md
 * has the commands). Nothing is drawn but what nodes draw for themselves, and no time is
 * shown, so that a trace changes only where behaviour does.
 */
#include "sim.h"

#include "store_internal.h"

#include <errno.h>
#include <sys/stat.h>

enum { PATIENCE_MS = 30 * 1000, LINE = 256 };

static struct {
    bool appends;
    bool quiet; /* messages are not told */
    char lost[32];
    unsigned lose_from, lose_to, lose_left;
} show;

/* ---- Messages, as they arrive
 * ---------------------------------------------------------- */

static const char *name_of(uint64_t id)
{
    struct sim_node *n = sim_of_id(id);
    return n ? n->name : "nobody";
}

static const char *kind_of(uint8_t type)
{
    static const char *const names[] = {"vote",         "vote-reply",  "append",
                                        "append-reply", "timeout-now", "snapshot"};
    if (type == WIRE_ANSWER)
        return "answer"; /* to be lost with its connection: `break` follows */
    return type >= WIRE_RAFT_VOTE && type <= WIRE_RAFT_SNAPSHOT
               ? names[type - WIRE_RAFT_VOTE]
               : "";
}

static void tell_append(const struct raft_message *m, const char *from, const char *to)
{
    if (!show.appends || m->last == m->prev_index)
        return;
    story("%s -> %s: entries to %llu after %llu(%llu)", from, to,
          (unsigned long long)m->last, (unsigned long long)m->prev_index,
          (unsigned long long)m->prev_term);
}

static void tell_reply(const struct raft_message *m, const char *from, const char *to)
{
    if (!m->ok)
        story("%s -> %s: refused, mine may agree up to %llu(%llu)", from, to,
              (unsigned long long)m->hint_index, (unsigned long long)m->hint_term);
    else if (show.appends)
        story("%s -> %s: durable up to %llu", from, to, (unsigned long long)m->match);
}

static void tell(const struct raft_message *m, const char *from, const char *to)
{
    const char *pre = m->pre ? "pre-" : "";
    switch (m->type) {
    case RAFT_VOTE:
        story("%s -> %s: %svote of term %llu? my last is %llu(%llu)%s", from, to, pre,
              (unsigned long long)m->term, (unsigned long long)m->last_index,
              (unsigned long long)m->last_term, m->transfer ? ", I was asked to" : "");
        return;
    case RAFT_VOTE_REPLY:
        story("%s -> %s: %svote %s, term %llu", from, to, pre,
              m->granted ? "granted" : "refused", (unsigned long long)m->term);
        return;
    case RAFT_APPEND:
        tell_append(m, from, to);
        return;
    case RAFT_APPEND_REPLY:
        tell_reply(m, from, to);
        return;
    case RAFT_TIMEOUT_NOW:
        story("%s -> %s: campaign now", from, to);
        return;
    case RAFT_SNAPSHOT:
        story("%s -> %s: my log begins after %llu, fetch a snapshot", from, to,
              (unsigned long long)m->prev_index);
        return;
    }
}

void scenario_frame(struct sim_node *from, struct sim_node *to, uint8_t type,
                    const uint8_t *data, size_t length)
{
    struct raft_message m;
    const uint8_t *rest;
    size_t rest_length;
    uint64_t clock_us;
    if (show.quiet || type < WIRE_RAFT_VOTE || type > WIRE_RAFT_SNAPSHOT ||
        message_decode(type, data, length, &m, &rest, &rest_length, &clock_us) < 0)
        return;
    struct sim_node *at = sim_at_node;
    sim_at_node = NULL;
    tell(&m, from->name, to->name);
    sim_at_node = at;
}

bool scenario_loses(struct sim_node *from, struct sim_node *to, uint8_t type)
{
    if (!show.lose_left || strcmp(kind_of(type), show.lost) != 0 ||
        from->number != show.lose_from || to->number != show.lose_to)
        return false;
    show.lose_left--;
    struct sim_node *at = sim_at_node;
    sim_at_node = NULL;
    story("%s -> %s: %s %s is lost", from->name, to->name,
          show.lost[0] == 'a' ? "an" : "a", show.lost);
    sim_at_node = at;
    return true;
}

/* ---- Running ------------------------------------------------------------------------
 */

static void run_for(uint64_t us)
{
    uint64_t until = sim_now + us;
    while (world_step(until))
        verify_step();
}

static bool is_member(const struct sim_node *n)
{
    return n->made && !n->gone && n->id <= UINT64_MAX / 2;
}

static bool all_applied(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (is_member(n) && n->up && !n->paused &&
            (!n->serves || store_applied(n->node->store) != verify_committed() ||
             store_last_index(n->node->store) != verify_committed()))
            return false;
    }
    return true;
}

static struct sim_node *follower(unsigned which)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (is_member(n) && n->up && n != sim_leader() && which-- == 0)
            return n;
    }
    return NULL;
}

/* n1, n2, ..., or by what it is just now. */
static struct sim_node *node_named(const char *name)
{
    struct sim_node *n = NULL;
    if (strcmp(name, "leader") == 0)
        n = sim_leader();
    else if (strcmp(name, "follower") == 0)
        n = follower(0);
    else if (strcmp(name, "other") == 0)
        n = follower(1);
    else if (name[0] == 'n' && atoi(name + 1) > 0 && atoi(name + 1) <= SIM_NODES)
        n = &sim_nodes[atoi(name + 1) - 1];
    if (!n || !n->made)
        sim_fail("no node is called %s", name);
    return n;
}

static bool condition(const char *what, const char *who)
{
    struct sim_node *leader = sim_leader();
    if (strcmp(what, "leader") == 0)
        return leader && raft_established(leader->node->driver.raft);
    if (strcmp(what, "applied") == 0)
        return leader && all_applied();
    if (strcmp(what, "serves") == 0)
        return node_named(who)->serves;
    if (strcmp(what, "down") == 0)
        return !node_named(who)->up;
    if (strcmp(what, "installing") == 0)
        return node_named(who)->node && snapshot_is_installing(node_named(who)->node);
    if (strcmp(what, "voters") == 0) {
        uint64_t voters = 0;
        for (uint32_t i = 0; leader && i < leader->node->members_applied.count; i++)
            voters += leader->node->members_applied.list[i].voter;
        return voters == (uint64_t)atoi(who);
    }
    if (strcmp(what, "stepped-down") == 0)
        return !node_is_leader(node_named(who)->node);
    sim_fail("until what? %s", what);
}

static void run_until(const char *what, const char *who)
{
    uint64_t until = sim_now + PATIENCE_MS * SIM_MS;
    while (!condition(what, who) && sim_now < until)
        run_for(SIM_MS);
    if (!condition(what, who))
        story("%s%s%s: not within %d s", what, who[0] ? " " : "", who,
              PATIENCE_MS / 1000);
}

/* ---- Calls --------------------------------------------------------------------------
 */

struct play_call {
    struct sim_node *node;
    char verb[LINE], a[LINE], b[LINE];
    struct fs_request request;
    bool done;
};

static void call_done(struct fs_request *request)
{
    struct play_call *c = container_of(request, struct play_call, request);
    c->done = true;
    sim_wake(c, true, 1);
}

static int submit(struct play_call *c, const struct fs_op *op)
{
    if (!c->node->backend)
        return -EIO;
    c->done = false;
    buf_clear(&c->request.op);
    fs_op_encode(op, &c->request.op);
    c->request.done = call_done;
    c->node->backend->submit(c->node->backend->context, &c->request);
    while (!c->done)
        sim_wait(c, UINT64_MAX);
    return c->request.error;
}

static struct fs_op named(const char *name)
{
    return (struct fs_op){.parent = FS_ROOT_INODE,
                          .name = (const uint8_t *)name,
                          .name_size = (uint16_t)strlen(name)};
}

static int find(struct play_call *c, uint64_t *ret)
{
    if (!c->node->backend)
        return -EIO;
    return fs_lookup(&c->node->backend->view, FS_ROOT_INODE, c->a, strlen(c->a), ret);
}

static int do_append(struct play_call *c)
{
    uint64_t inode;
    struct buf ranges = {0};
    int ret = find(c, &inode);
    fs_range_add(&ranges, 0, c->b, strlen(c->b));
    struct fs_op op = {.type = FS_WRITE,
                       .flags = FS_APPEND,
                       .inode = inode,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    if (ret == 0)
        ret = submit(c, &op);
    buf_release(&ranges);
    return ret;
}

/* Written anew again and again, until segments are full. */
static int do_fill(struct play_call *c)
{
    static uint8_t data[4000];
    uint64_t inode;
    int ret = find(c, &inode);
    for (int i = atoi(c->b); ret == 0 && i > 0; i--) {
        struct buf ranges = {0};
        fs_range_add(&ranges, 0, data, sizeof(data));
        struct fs_op op = {.type = FS_WRITE,
                           .inode = inode,
                           .ranges = ranges.data,
                           .ranges_size = (uint32_t)ranges.length};
        ret = submit(c, &op);
        buf_release(&ranges);
    }
    return ret;
}

static int do_read(struct play_call *c)
{
    struct fs_op op = named("nothing");
    uint8_t data[LINE] = "";
    uint64_t inode;
    size_t length = 0;
    op.type = FS_UNLINK;
    int ret = submit(c, &op); /* the leader is asked first */
    ret = ret == -ENOENT ? find(c, &inode) : ret;
    if (ret == 0)
        ret = fs_read(&c->node->backend->view, inode, 0, sizeof(data) - 1, data, &length);
    snprintf(c->b, sizeof(c->b), "\"%.*s\"", (int)length, data);
    return ret;
}

static int do_verb(struct play_call *c)
{
    struct fs_op op = named(c->a);
    if (strcmp(c->verb, "append") == 0)
        return do_append(c);
    if (strcmp(c->verb, "fill") == 0)
        return do_fill(c);
    if (strcmp(c->verb, "read") == 0)
        return do_read(c);
    if (strcmp(c->verb, "make") == 0)
        op = (op.type = FS_MAKE, op.mode = S_IFREG | 0644, op);
    else if (strcmp(c->verb, "mkdir") == 0)
        op = (op.type = FS_MAKE, op.mode = S_IFDIR | 0755, op);
    else if (strcmp(c->verb, "unlink") == 0)
        op.type = FS_UNLINK;
    else if (strcmp(c->verb, "rename") == 0) {
        op.type = FS_RENAME;
        op.parent2 = FS_ROOT_INODE;
        op.name2 = (const uint8_t *)c->b;
        op.name2_size = (uint16_t)strlen(c->b);
    } else {
        sim_fail("what is %s?", c->verb);
    }
    return submit(c, &op);
}

static void *call_main(void *arg)
{
    struct play_call *c = arg;
    int ret = do_verb(c);
    story("%s %s%s%s: %s", c->verb, c->a, c->b[0] ? " " : "", c->b,
          ret < 0 ? strerror(-ret) : "done");
    c->verb[0] = '\0';
    return NULL;
}

static struct play_call *call(const char *verb, char word[][LINE], int words)
{
    struct play_call *c = calloc(1, sizeof(*c));
    ensure(c && words >= 2);
    c->node = node_named(word[words - 1]);
    snprintf(c->verb, sizeof(c->verb), "%s", verb);
    snprintf(c->a, sizeof(c->a), "%s", word[1]);
    if (words > 3)
        snprintf(c->b, sizeof(c->b), "%s", word[2]);
    if (!c->node->up || !c->node->serves)
        sim_fail("%s does not serve", c->node->name);
    sim_thread_new(c->node, call_main, c, 1);
    return c;
}

static void call_and_wait(const char *verb, char word[][LINE], int words)
{
    struct play_call *c = call(verb, word, words);
    unsigned life = c->node->life;
    uint64_t until = sim_now + PATIENCE_MS * SIM_MS;
    while (c->verb[0] && c->node->life == life && sim_now < until)
        run_for(SIM_MS);
    if (c->verb[0])
        story("%s %s: no answer", verb, c->a);
}

/* ---- Commands -----------------------------------------------------------------------
 */

static void do_nodes(char word[][LINE], int words)
{
    plan.voters = (unsigned)atoi(word[1]);
    sim_format(plan.voters);
    for (unsigned i = 0; i < plan.voters; i++)
        sim_boot(&sim_nodes[i]);
}

static void cut(const char *a, const char *b, bool both, bool cut)
{
    struct sim_node *from = node_named(a), *to = node_named(b);
    net_cut(from->number, to->number, cut);
    if (both)
        net_cut(to->number, from->number, cut);
}

static void do_isolate(char word[][LINE], int words)
{
    struct sim_node *n = node_named(word[1]);
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (i != n->number && sim_nodes[i].made)
            cut(n->name, sim_nodes[i].name, true, true);
}

static void do_lose(char word[][LINE], int words)
{
    snprintf(show.lost, sizeof(show.lost), "%.30s", word[1]);
    show.lose_from = node_named(word[2])->number;
    show.lose_to = node_named(word[3])->number;
    show.lose_left = (unsigned)atoi(word[4]);
}

static uint64_t transfer_to; /* 0: to the best */

static void ask_transfer(void *arg)
{
    struct sim_node *n = arg;
    driver_step(n->node,
                &(struct raft_event){.type = RAFT_TRANSFER, .peer = transfer_to});
}

static void do_transfer(const char *to)
{
    struct sim_node *n = node_named("leader");
    transfer_to = to[0] ? node_named(to)->id : 0;
    sim_at_node = n;
    loop_post(n, ask_transfer, n);
    sim_at_node = NULL;
}

/* In the body of an entry of the segment that is being written. */
static void do_rot(char word[][LINE])
{
    struct sim_node *n = node_named(word[1]);
    const struct segment *active = store_active(n->node->store);
    uint64_t i = (uint64_t)atoi(word[2]) - active->first_index;
    char path[96];
    ensure(i < active->count);
    snprintf(path, sizeof(path), "/%s/log/%016llx.seg", n->name,
             (unsigned long long)active->file_id);
    memory_disk_flip(n->disk, path, active->offsets[i] + STORE_ENTRY_HEADER + 3, 1);
}

static void do_state(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!is_member(n))
            continue;
        if (!n->up || !n->node || !n->node->driver.raft) {
            story("%s is down", n->name);
            continue;
        }
        struct raft *r = n->node->driver.raft;
        story("%s is %s of term %llu, leader %s, last %llu, committed %llu", n->name,
              raft_role(r) == RAFT_LEADER      ? "leader"
              : raft_role(r) == RAFT_CANDIDATE ? "candidate"
                                               : "follower",
              (unsigned long long)raft_term(r), name_of(raft_leader(r)),
              (unsigned long long)raft_last_index(r), (unsigned long long)raft_commit(r));
    }
}

static bool do_fault(char word[][LINE], int words)
{
    const char *verb = word[0];
    if (strcmp(verb, "cut") == 0)
        cut(word[1], word[2], true, true);
    else if (strcmp(verb, "cut-one-way") == 0)
        cut(word[1], word[2], false, true);
    else if (strcmp(verb, "heal") == 0)
        net_heal();
    else if (strcmp(verb, "isolate") == 0)
        do_isolate(word, words);
    else if (strcmp(verb, "break") == 0)
        net_break(node_named(word[1]), node_named(word[2]));
    else if (strcmp(verb, "lose") == 0)
        do_lose(word, words);
    else if (strcmp(verb, "hang") == 0)
        node_named(word[1])->hang_until = sim_now + (uint64_t)atoi(word[2]) * SIM_MS;
    else if (strcmp(verb, "full") == 0)
        memory_disk_set_capacity(node_named(word[1])->disk,
                                 memory_disk_used(node_named(word[1])->disk));
    else if (strcmp(verb, "room") == 0)
        memory_disk_set_capacity(node_named(word[1])->disk, UINT64_MAX);
    else if (strcmp(verb, "rot") == 0)
        do_rot(word);
    else if (strcmp(verb, "clock") == 0)
        node_named(word[1])->real_offset = (int64_t)atoi(word[2]) * 1000000,
        node_named(word[1])->clock_set_us = sim_now;
    else
        return false;
    return true;
}

static bool do_life(char word[][LINE], int words)
{
    const char *verb = word[0];
    if (strcmp(verb, "nodes") == 0) {
        do_nodes(word, words);
    } else if (strcmp(verb, "kill") == 0) {
        plan.lose_unsynced = words > 2;
        sim_kill(node_named(word[1]), plan.lose_unsynced ? "the power is gone" : NULL);
    } else if (strcmp(verb, "boot") == 0) {
        sim_boot(node_named(word[1]));
    } else if (strcmp(verb, "stop") == 0) {
        sim_at_node = node_named(word[1]);
        sim_stop(sim_at_node);
        sim_at_node = NULL;
    } else if (strcmp(verb, "pause") == 0) {
        node_named(word[1])->paused = true;
    } else if (strcmp(verb, "resume") == 0) {
        sim_pause(node_named(word[1]), false);
    } else if (strcmp(verb, "join") == 0) {
        sim_join(strcmp(word[1], "observer") == 0,
                 strcmp(word[1], "replace") == 0 ? node_named(word[2]) : NULL);
    } else if (strcmp(verb, "remove") == 0) {
        sim_ask(node_named(word[2]),
                &(struct node_op){.type = NODE_OP_REMOVE,
                                  .node_id = node_named(word[1])->id});
    } else if (strcmp(verb, "leave") == 0) {
        sim_leave(node_named(word[1]));
    } else if (strcmp(verb, "upgrade") == 0) {
        node_named(word[1])->version = WIRE_PROTOCOL_VERSION;
    } else if (strcmp(verb, "downgrade") == 0) {
        node_named(word[1])->version = WIRE_PROTOCOL_VERSION - 1;
    } else if (strcmp(verb, "move") == 0) {
        sim_move(node_named(word[1]));
    } else if (strcmp(verb, "transfer") == 0) {
        do_transfer(word[1]);
    } else {
        return false;
    }
    return true;
}

static void command(char *line)
{
    char word[8][LINE] = {"", "", "", "", "", "", "", ""};
    int words = 0;
    for (char *w = strtok(line, " "); w && words < 8; w = strtok(NULL, " "))
        snprintf(word[words++], LINE, "%s", w);
    const char *verb = word[0];
    if (do_life(word, words) || do_fault(word, words))
        return;
    if (strcmp(verb, "run") == 0)
        run_for((uint64_t)atoi(word[1]) * SIM_MS);
    else if (strcmp(verb, "until") == 0)
        run_until(word[1], word[2]);
    else if (strcmp(verb, "show") == 0)
        show.appends = true, show.quiet = false;
    else if (strcmp(verb, "hide") == 0)
        show.appends = false, show.quiet = true;
    else if (strcmp(verb, "tell") == 0)
        show.appends = false, show.quiet = false;
    else if (strcmp(verb, "state") == 0)
        do_state();
    else if (strcmp(verb, "ask") == 0) /* and do not wait for the answer */
        call(word[1], word + 1, words - 1);
    else
        call_and_wait(verb, word, words);
}

static void scenario_plan(void)
{
    plan = (struct sim_plan){.exact = true,
                             .latency_us = 500,
                             .write_us = 20,
                             .sync_us = 500,
                             .read_us = 20,
                             .segment_bytes = 2 * LIMIT_ENTRY_BYTES,
                             .retain_bytes = 64 * KiB,
                             .version = WIRE_PROTOCOL_VERSION - 1,
                             .value_bytes = 100};
}

void scenario_play(const char *path, FILE *to)
{
    FILE *script = fopen(path, "r");
    char line[LINE];
    if (!script) {
        fprintf(stderr, "cannot open %s\n", path);
        exit(2);
    }
    trace_story = to;
    world_begin(1);
    scenario_plan();
    while (fgets(line, sizeof(line), script)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || (line[0] == '>' && line[1] == ' ') || !line[0])
            fprintf(to, "%s\n", line);
        if (line[0] == '>' && line[1] == ' ')
            command(line + 2);
    }
    fclose(script);
}
