/*
 * repair.c - bytes that went bad on this disk are fetched from other nodes, which have
 * the same, and written back (G9).
 *
 *   found (any thread) --mail--> ASKING one member after another <--in vain--.
 *                                  |--right-------> WRITTEN, by the log thread's job
 *                                  '--none has it-> told, and counted
 */
#include "node_core.h"

#include <errno.h>

struct repair {
    struct repair *next;
    struct store_damage damage;
    struct fetch fetch;
    uint32_t next_member; /* in n->members: to be asked next */
    uint64_t begun_us;
    bool asked;   /* anybody, yet */
    bool waiting; /* for a connection to whom to ask */
    bool written; /* the store has it for the pending job */
    bool issued;  /* ... which runs */
};

static void describe(const struct store_damage *d, char *to, size_t size)
{
    char hex[2 * LIMIT_KEY_BYTES + 1];
    if (d->kind == STORE_DAMAGED_ENTRY) {
        snprintf(to, size, "entry %llu of term %llu", (unsigned long long)d->index,
                 (unsigned long long)d->term);
        return;
    }
    hex_format(hex, d->key, min_u64(d->key_size, 24));
    snprintf(to, size, "the record of key %.48s%s, version %llu", hex,
             d->key_size > 24 ? "..." : "", (unsigned long long)d->timestamp_us);
}

static void repair_end(struct node *n, struct repair *r)
{
    struct repair **at = &n->repairs;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    n->repair_count--;
    fetch_cancel(n, &r->fetch);
    free(r);
}

/* What waits for bytes, of readers and of evaluations, looks again. */
static void tell(struct node *n, bool repaired)
{
    gate_note_repairs(n, n->repair_count > 0, repaired);
    leader_repaired(n, repaired || n->repair_count > 0);
}

/* What nobody has is found anew by each who reads it: the log needs not to hear of all.
 */
static bool may_log(struct node *n)
{
    uint64_t now_us = node_now();
    if (now_us - n->repair_logged_us < NODE_SECOND_US)
        return false;
    n->repair_logged_us = now_us;
    return true;
}

static struct fetch_request question(const struct store_damage *d)
{
    struct fetch_request q = {
        .kind = FETCH_RECORD, .timestamp_us = d->timestamp_us, .key_size = d->key_size};
    if (d->kind == STORE_DAMAGED_ENTRY)
        return (struct fetch_request){
            .kind = FETCH_ENTRY, .index = d->index, .term = d->term};
    memcpy(q.key, d->key, d->key_size);
    return q;
}

/* True: a member was asked, and will answer or fail. */
static bool ask_next(struct node *n, struct repair *r)
{
    struct fetch_request q = question(&r->damage);
    while (r->next_member < n->members.count) {
        uint64_t id = n->members.list[r->next_member++].id;
        if (id != n->directory.node_id &&
            fetch_start(n, &r->fetch, id, &q, FETCH_SOON_US) == 0) {
            r->asked = true;
            return true;
        }
    }
    return false;
}

/* A node that has just begun, or was cut off, is connected to the others in a moment. */
static bool may_wait(const struct node *n, const struct repair *r)
{
    return !r->asked && n->members.count > 1 &&
           node_now() - r->begun_us < NODE_REPAIR_WAIT_US;
}

/* A member that lacks an entry which no other can give has to get a snapshot: from a
 * leader that has merged the entry, as is likely where it has it no more. */
static void hand_over(struct node *n, const struct store_damage *d)
{
    uint64_t now_us = node_now();
    struct raft_peer_status status;
    bool needed = false;
    for (uint32_t i = 0; i < n->members.count; i++)
        needed |=
            raft_peer_status(n->driver.raft, n->members.list[i].id, now_us, &status) &&
            status.reachable && !status.snapshot && status.match < d->index;
    if (d->kind != STORE_DAMAGED_ENTRY || !needed || !node_is_leader(n) ||
        (n->repair_handed_us && now_us - n->repair_handed_us < NODE_HAND_AGAIN_US))
        return;
    n->repair_handed_us = now_us;
    log_warn("entry %llu, which another node needs, cannot be read here: another one is "
             "to lead",
             (unsigned long long)d->index);
    driver_step(n, &(struct raft_event){.type = RAFT_TRANSFER});
}

static void go_on(struct node *n, struct repair *r)
{
    r->waiting = false;
    if (ask_next(n, r))
        return;
    if (may_wait(n, r)) {
        r->waiting = true;
        r->next_member = 0;
        return;
    }
    char what[256];
    describe(&r->damage, what, sizeof(what));
    if (may_log(n))
        log_error(
            "%s is damaged on the disk of %s, and no other node could give it: reads of "
            "it fail; it is looked for again when it is read again, and at the next "
            "scrub",
            what, n->directory.path);
    store_damage_stays(n->store, &r->damage);
    hand_over(n, &r->damage);
    repair_end(n, r);
    tell(n, false);
}

static void take_bytes(struct node *n, struct repair *r, const uint8_t *bytes,
                       size_t length)
{
    int ret = r->damage.kind == STORE_DAMAGED_ENTRY
                  ? store_repair_entry(n->store, bytes, length)
                  : store_repair_record(n->store, bytes, length);
    node_must(ret == -ENOMEM ? ret : 0, "repairing");
    if (ret == 0) {
        r->written = true;
        driver_flush_soon(n);
    } else if (ret == -ENOENT) { /* superseded meanwhile */
        repair_end(n, r);
        tell(n, true);
    } else {
        go_on(n, r);
    }
}

static void answered(struct node *n, struct fetch *f, int error, const uint8_t *bytes,
                     size_t length)
{
    struct repair *r = container_of(f, struct repair, fetch);
    if (error < 0)
        go_on(n, r);
    else
        take_bytes(n, r, bytes, length);
    repair_pump(n);
}

static void begin(struct node *n, const struct store_damage *d)
{
    struct repair *r = calloc(1, sizeof(*r));
    node_must(r ? 0 : -ENOMEM, "repairing");
    r->damage = *d;
    /* Where its head is bad the store cannot tell, but others find it by index and term. */
    if (d->kind == STORE_DAMAGED_ENTRY && d->term == 0)
        r->damage.term = raft_term_of(n->driver.raft, d->index);
    r->fetch.done = answered;
    r->begun_us = node_now();
    r->next = n->repairs;
    n->repairs = r;
    n->repair_count++;
    go_on(n, r);
}

void repair_pump(struct node *n)
{
    struct store_damage damage;
    while (n->repair_count < NODE_REPAIRS && store_next_damage(n->store, &damage))
        begin(n, &damage);
    gate_note_repairs(n, n->repair_count > 0, false);
}

static void damage_told(struct node *n, struct mail *mail)
{
    gate_take_damage(n);
    repair_pump(n);
}

void repair_damaged(void *context)
{
    struct node *n = context;
    if (gate_note_damage(n))
        mail_post(n, &n->damage_mail);
}

void repair_tick(struct node *n)
{
    struct repair *next;
    if (!n->repairs)
        return;
    for (struct repair *r = n->repairs; r; r = next) {
        next = r->next;
        if (r->waiting)
            go_on(n, r);
    }
    repair_pump(n);
}

void repair_init(struct node *n)
{
    n->damage_mail.deliver = damage_told;
}

void repair_issued(struct node *n)
{
    for (struct repair *r = n->repairs; r; r = r->next)
        r->issued = r->written;
}

/* The disk did not take it, or it did not fit what stands around it: another node's may. */
static void written_in_vain(struct node *n, struct repair *r)
{
    char what[256];
    describe(&r->damage, what, sizeof(what));
    if (may_log(n))
        log_error("%s is damaged on the disk of %s, and could not be written back there",
                  what, n->directory.path);
    r->written = r->issued = false;
    go_on(n, r);
}

void repair_job_done(struct node *n)
{
    bool any = false;
    struct repair *next;
    for (struct repair *r = n->repairs; r; r = next) {
        next = r->next;
        if (!r->issued)
            continue;
        if (store_is_damaged(n->store, &r->damage)) {
            written_in_vain(n, r);
            continue;
        }
        char what[256];
        describe(&r->damage, what, sizeof(what));
        log_info("%s was damaged on the disk of %s, and is repaired", what,
                 n->directory.path);
        repair_end(n, r);
        any = true;
    }
    if (any) {
        tell(n, true);
        repair_pump(n);
    }
}

void repair_release(struct node *n)
{
    while (n->repairs)
        repair_end(n, n->repairs);
}
