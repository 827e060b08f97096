/*
 * peers.c - connections to the other members, and consensus on them.
 *
 * Each node dials every other: messages of consensus and operations leave on the
 * connection dialed from here, answers on the one the request came by. A connection is
 * opened again with back-off; a cut costs nothing but time, since the core sends anew
 * what is not acknowledged. A node of the cluster that this log does not know (yet) is
 * answered too: a guest.
 */
#include "node_core.h"

#include <errno.h>

struct peer *peers_find(struct node *n, uint64_t id)
{
    for (size_t i = 0; i < n->peer_count; i++)
        if (n->peers[i].id == id)
            return &n->peers[i];
    return NULL;
}

static struct peer *peer_of(struct node *n, const struct wire_connection *c)
{
    for (size_t i = 0; i < n->peer_count; i++)
        if (n->peers[i].connection == c)
            return &n->peers[i];
    return NULL;
}

static void peer_clear(struct peer *p)
{
    store_bytes_unref(p->block);
    p->block = NULL;
    p->open = p->full = false;
    flight_clear(&p->flight);
}

static void peer_remove(struct node *n, struct peer *p)
{
    if (p->connection) {
        node_forget(n, p->connection); /* closed() does not follow */
        wire_close(p->connection);
    }
    peer_clear(p);
    *p = n->peers[--n->peer_count];
}

/* Members come before guests. NULL: all places are theirs. */
static struct peer *peer_add(struct node *n, uint64_t id)
{
    for (size_t i = n->peer_count; n->peer_count == LIMIT_MEMBERS && i-- > 0;)
        if (n->peers[i].guest[0])
            peer_remove(n, &n->peers[i]);
    if (n->peer_count == LIMIT_MEMBERS)
        return NULL;
    struct peer *p = &n->peers[n->peer_count++];
    *p = (struct peer){.id = id, .backoff_us = NODE_DIAL_FIRST_US};
    return p;
}

static void add_member(struct node *n, const struct member *m)
{
    struct peer *p = peer_add(n, m->id);
    ensure(p);
    memcpy(p->address, m->address, sizeof(p->address));
}

void peers_forget(struct node *n, const struct wire_connection *c)
{
    struct peer *p = peer_of(n, c);
    if (!p)
        return;
    peer_clear(p);
    *p = n->peers[--n->peer_count];
}

/* Where it is, as far as is known. */
static const char *address_of(struct node *n, const struct peer *p)
{
    const struct member *m = members_find(&n->members, p->id);
    return p->moved[0] ? p->moved : m ? m->address : p->guest;
}

/* In a log that is replayed from its begin those who lead now, known from the answer to
 * JOIN, are no members for a while. They hear from this node as long as there is a
 * connection, whoever dialed it: else neither would dial again. */
static bool stays_as_guest(struct node *n, const struct peer *p)
{
    return wire_find(n->endpoint, p->id) && !removed_find(n, p->id);
}

static void become_guest(struct peer *p)
{
    memcpy(p->guest, p->moved[0] ? p->moved : p->address, sizeof(p->guest));
}

/* In turn where tierce.conf says it is, and where members are recorded that are not
 * connected, this node's own former address among them. NULL: nowhere. */
static const char *next_address(struct node *n, struct peer *p, const struct member *conf)
{
    const char *self = n->directory.advertise, *found[LIMIT_MEMBERS + 1];
    unsigned count = 0;
    if (conf && strcmp(conf->address, self) != 0)
        found[count++] = conf->address;
    for (uint32_t i = 0; i < n->members.count; i++) {
        const struct member *m = &n->members.list[i];
        const struct peer *other = peers_find(n, m->id);
        if ((!other || !other->open) && strcmp(m->address, self) != 0)
            found[count++] = m->address;
    }
    return count ? found[p->dials++ % count] : NULL;
}

/* Every other time where tierce.conf says it is: all may have moved at once. One that is
 * recorded where this node is now has moved as well, and no HELLO has said where to: they
 * may have exchanged their addresses. By its certificate it is known when it is found. */
static const char *address_to_dial(struct node *n, struct peer *p)
{
    const struct member *m = members_find(&n->directory.members, p->id);
    const char *address = address_of(n, p);
    if (strcmp(address, n->directory.advertise) == 0) {
        const char *elsewhere = next_address(n, p, m);
        return elsewhere ? elsewhere : address;
    }
    bool other = m && strcmp(m->address, address) != 0;
    return other && p->dials++ % 2 ? m->address : address;
}

void peers_refresh(struct node *n)
{
    for (size_t i = n->peer_count; i-- > 0;) {
        struct peer *p = &n->peers[i];
        const struct member *m = members_find(&n->members, p->id);
        if (m && strcmp(m->address, p->moved) == 0)
            p->moved[0] = '\0'; /* the log says so now */
        if (m) {
            p->guest[0] = '\0';
            memcpy(p->address, m->address, sizeof(p->address));
        } else if (!stays_as_guest(n, p)) {
            peer_remove(n, p);
        } else if (!p->guest[0]) {
            become_guest(p);
        }
    }
    for (uint32_t i = 0; i < n->members.count; i++) {
        uint64_t id = n->members.list[i].id;
        if (id != n->directory.node_id && !peers_find(n, id))
            add_member(n, &n->members.list[i]);
    }
    peers_dial_due(n, node_now());
}

/* Its certificate says that it is of this cluster. Where this log ends before it joined,
 * it may lead all the same, and waits for answers. */
static struct peer *note_guest(struct node *n, const struct wire_hello *hello)
{
    if (hello->node_id == n->directory.node_id || !node_address_valid(hello->address))
        return NULL;
    struct peer *p = peer_add(n, hello->node_id);
    if (p)
        memcpy(p->guest, hello->address, sizeof(p->guest));
    return p;
}

static void dial_later(struct peer *p, uint64_t now_us)
{
    p->connection = NULL;
    p->dial_at_us = now_us + p->backoff_us / 2 + random_u64() % p->backoff_us;
    p->backoff_us = min_u64(2 * p->backoff_us, NODE_DIAL_MOST_US);
}

void peers_ask_again(struct node *n, uint64_t peer_id)
{
    driver_step(n, &(struct raft_event){.type = RAFT_SENT, .peer = peer_id, .index = 0});
}

/* A step may change who is there, so all are noted before the first. */
static void read_again(struct node *n)
{
    uint64_t ids[LIMIT_MEMBERS];
    size_t count = 0;
    for (size_t i = 0; i < n->peer_count; i++)
        if (n->peers[i].read_failed) {
            n->peers[i].read_failed = false;
            ids[count++] = n->peers[i].id;
        }
    for (size_t i = 0; i < count; i++)
        peers_ask_again(n, ids[i]);
}

void peers_dial_due(struct node *n, uint64_t now_us)
{
    read_again(n);
    for (size_t i = 0; i < n->peer_count; i++) {
        struct peer *p = &n->peers[i];
        if (p->connection || !address_of(n, p)[0] || now_us < p->dial_at_us)
            continue;
        p->dialed_us = now_us;
        p->told_gap_us = n->clock_gap_us; /* by the HELLO */
        if (wire_dial(n->endpoint, address_to_dial(n, p), p->id, &p->connection) < 0)
            dial_later(p, now_us);
    }
}

/* Its certificate says who it is, its HELLO where: it has moved, and the log will say so
 * when it has reached a leader, which may need us to dial it first. */
static void note_address(struct node *n, struct peer *p, const struct wire_hello *hello)
{
    const struct member *m = members_find(&n->members, p->id);
    if (!m || !node_address_valid(hello->address) ||
        strcmp(hello->address, address_of(n, p)) == 0)
        return;
    log_info("node %016llx (%s) has moved from %s to %s", (unsigned long long)p->id,
             m->name, m->address, hello->address);
    memcpy(p->moved, hello->address, sizeof(p->moved));
    if (strcmp(p->moved, m->address) == 0)
        p->moved[0] = '\0';
    if (p->connection && !p->open) { /* to where it was */
        wire_close(p->connection);
        p->connection = NULL;
    }
}

/* It came to us: it is up, so there is no reason to wait before dialing it. Nor for a dial
 * that its host has not answered for a while: the kernel tries again when it likes (N41). */
static void dial_at_once(struct node *n, struct peer *p)
{
    uint64_t now_us = node_now();
    if (p->connection && wire_is_connecting(p->connection) &&
        now_us - p->dialed_us >= NODE_DIAL_STALE_US) {
        wire_close(p->connection);
        p->connection = NULL;
    }
    if (p->connection)
        return;
    p->backoff_us = NODE_DIAL_FIRST_US;
    p->dial_at_us = 0;
    peers_dial_due(n, now_us);
}

/* The peer where it is now; NULL: it is none any more. */
static struct peer *note_hello(struct node *n, struct peer *p,
                               const struct wire_hello *hello)
{
    uint64_t id = p->id;
    p->version = hello->version;
    p->refused = false;
    eligible_note_clock(n, p, hello->clock_us);
    return peers_find(n, id);
}

static void peer_came(struct node *n, const struct wire_hello *hello)
{
    struct peer *p = peers_find(n, hello->node_id);
    if (!p)
        p = note_guest(n, hello);
    if (p)
        p = note_hello(n, p, hello);
    if (!p)
        return;
    p->came = true;
    note_address(n, p, hello);
    dial_at_once(n, p);
}

void peers_opened(struct node *n, struct wire_connection *c,
                  const struct wire_hello *hello)
{
    struct peer *p = peer_of(n, c);
    if (!p) {
        peer_came(n, hello);
        return;
    }
    p = note_hello(n, p, hello);
    if (!p || p->connection != c)
        return; /* it was closed meanwhile */
    p->open = true;
    p->full = false;
    p->backoff_us = NODE_DIAL_FIRST_US;
    log_info("connected to node %016llx (%s)", (unsigned long long)p->id, hello->name);
    driver_step(n, &(struct raft_event){.type = RAFT_CONNECTED, .peer = p->id});
    client_pump(n);
}

void peers_closed(struct node *n, struct wire_connection *c, const char *reason)
{
    struct peer *p = peer_of(n, c);
    if (!p)
        return;
    uint64_t id = p->id;
    bool was_open = p->open, refused = wire_refusal(c) == WIRE_REFUSAL_VERSION;
    peer_clear(p);
    dial_later(p, node_now());
    if (refused)
        upgrade_refused(n, p, reason);
    if (!was_open)
        return;
    log_info("lost node %016llx: %s", (unsigned long long)id, reason);
    driver_step(n, &(struct raft_event){.type = RAFT_DISCONNECTED, .peer = id});
    client_pump(n);
    p = peers_find(n, id); /* the step may have changed who is there */
    if (p && node_now() < n->identity.redial_until_us) {
        p->dial_at_us = 0;
        peers_dial_due(n, node_now());
    }
}

void peers_drained(struct node *n, struct wire_connection *c)
{
    struct peer *p = peer_of(n, c);
    if (!p || !p->full)
        return;
    p->full = false;
    peers_ask_again(n, p->id);
    client_pump(n);
}

/* What a former leadership had on its way is nobody's; and what it has read may have been
 * truncated since. */
void peers_lead(struct node *n)
{
    for (size_t i = 0; i < n->peer_count; i++) {
        struct peer *p = &n->peers[i];
        flight_clear(&p->flight);
        store_bytes_unref(p->block);
        p->block = NULL;
    }
}

/* The peer has answered: there may be room for what waits. */
static void note_answer(struct node *n, uint64_t peer_id)
{
    struct raft_peer_status status;
    struct peer *p = peers_find(n, peer_id);
    if (!p || !node_is_leader(n) ||
        !raft_peer_status(n->driver.raft, peer_id, node_now(), &status))
        return;
    flight_settle(&p->flight, status.match, status.next);
    if (!p->flight.waits || !flight_has_room(&p->flight))
        return;
    p->flight.waits = false;
    peers_ask_again(n, peer_id);
}

void peers_note_sent(struct node *n, const struct peer *p)
{
    queue_note(n, QUEUE_SEND, wire_queued_bytes(p->connection));
    if (p->full)
        queue_wait(n, QUEUE_SEND);
}

void peers_send(struct node *n, const struct raft_message *m)
{
    struct peer *p = peers_find(n, m->to);
    if (m->type == RAFT_APPEND && m->last > m->prev_index) {
        if (p)
            entries_send(n, p, m);
        return;
    }
    if (!p || !p->open)
        return;
    struct buf bytes = {0};
    uint8_t type = message_encode(m, &bytes);
    node_must(bytes.failed ? -ENOMEM : 0, "sending a message");
    if (wire_send_bytes(p->connection, type, 0, bytes.data, bytes.length) == -ENOBUFS)
        p->full = true;
    peers_note_sent(n, p);
    buf_release(&bytes);
}

/* ---- What comes -------------------------------------------------------------------- */

/* While a snapshot is installed nothing may change what it is installed upon (snapshot.c).
 * A heartbeat of the leader that is known does not: it brings no entry and no term, and
 * what it shows to be committed lies before the snapshot, where the logs agree. It is
 * answered, or this node would be out of the majority for as long as that takes. */
static bool is_harmless(const struct node *n, const struct raft_message *m)
{
    const struct raft *raft = n->driver.raft;
    return (m->type == RAFT_APPEND || m->type == RAFT_SNAPSHOT) &&
           m->last == m->prev_index && m->term == raft_term(raft) &&
           m->from == raft_leader(raft);
}

/* It was a member when it connected, and is none as of the snapshot that was installed
 * since, or of what a truncation has left: where to answer it went with that. It connects
 * anew, and is a guest then. */
static void ask_for_hello(struct node *n, struct wire_connection *c)
{
    node_forget(n, c); /* closed() does not follow */
    wire_close(c);
}

void peers_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f)
{
    struct raft_message m;
    const uint8_t *rest;
    size_t rest_length;
    uint64_t clock_us;
    if (message_decode(f->type, f->value, f->length, &m, &rest, &rest_length, &clock_us) <
        0) {
        wire_refuse(c, "a malformed consensus message");
        return;
    }
    m.from = wire_peer_id(c);
    m.to = n->directory.node_id;
    struct peer *p = peers_find(n, m.from);
    if (!p) {
        ask_for_hello(n, c);
        return;
    }
    if (clock_us)
        eligible_note_clock(n, p, clock_us);
    if (!peers_find(n, m.from))
        return; /* as if lost: what it sends next closes the connection */
    if (snapshot_is_installing(n) && !is_harmless(n, &m))
        return; /* as if lost */
    if (m.type == RAFT_APPEND)
        entries_receive(n, c, &m, rest, rest_length);
    else
        driver_step(n, &(struct raft_event){.type = RAFT_RECEIVE, .message = &m});
    if (m.type == RAFT_APPEND_REPLY)
        note_answer(n, m.from);
}

void peers_release(struct node *n)
{
    for (size_t i = 0; i < n->peer_count; i++)
        peer_clear(&n->peers[i]);
    n->peer_count = 0;
}
