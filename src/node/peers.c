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

static void ask_again(struct node *n, uint64_t peer_id)
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
        ask_again(n, ids[i]);
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

static int64_t own_clock_gap(void)
{
    return (int64_t)(clock_real_us() - clock_boot_us());
}

static int compare_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* G2: a clock far ahead of the others' would put its time into the log for ever. A node
 * without a vote has none here either: one that joins could else stop a cluster of one. */
static bool is_clock_sane(struct node *n)
{
    int64_t gaps[LIMIT_MEMBERS];
    size_t count = 0;
    for (size_t i = 0; i < n->peer_count; i++) {
        const struct member *m = members_find(&n->members, n->peers[i].id);
        if (n->peers[i].has_clock && m && m->voter)
            gaps[count++] = n->peers[i].clock_gap_us;
    }
    if (count == 0)
        return true;
    qsort(gaps, count, sizeof(gaps[0]), compare_i64);
    return n->clock_gap_us - gaps[count / 2] < NODE_CLOCK_AHEAD_US;
}

/* This host's clock was set. A leader's messages do not say its clock, and a follower that
 * takes its own for wild by a former one could not be led to: it would stay so for as long
 * as connections live. A pre-vote of the term that is does say it, and is refused. */
static void tell_clock(struct node *n)
{
    for (size_t i = 0; i < n->peer_count; i++) {
        struct peer *p = &n->peers[i];
        if (!p->open || p->full ||
            llabs(n->clock_gap_us - p->told_gap_us) <= NODE_CLOCK_SET_US)
            continue;
        p->told_gap_us = n->clock_gap_us;
        peers_send(n, &(struct raft_message){.type = RAFT_VOTE,
                                             .to = p->id,
                                             .term = raft_term(n->driver.raft),
                                             .pre = true});
    }
}

void peers_judge_eligibility(struct node *n)
{
    n->clock_gap_us = own_clock_gap();
    tell_clock(n);
    bool sane = is_clock_sane(n);
    n->clock_wild = !sane;
    bool room = store_has_room(n->store, LIMIT_ENTRY_BYTES) == 0;
    bool eligible = sane && room && !n->log.hung;
    if (eligible == n->eligible)
        return;
    n->eligible = eligible;
    if (!sane)
        log_error(
            "this host's clock is more than an hour ahead of the other nodes': it will "
            "not lead until the clock is set right");
    else if (!room)
        log_error("the disk of %s is full: this node will not lead until there is room",
                  n->directory.path);
    driver_step(n, &(struct raft_event){.type = RAFT_ELIGIBLE, .eligible = eligible});
}

/* By the clock that is never set: when ours is, that shows at once, whoever is silent.
 * What is news is judged before anything else comes of the message; that may step the core,
 * and so end in other peers: `p` is to be found anew. */
static void note_clock(struct node *n, struct peer *p, uint64_t clock_us)
{
    int64_t gap_us = (int64_t)(clock_us - clock_boot_us());
    bool news = !p->has_clock || llabs(gap_us - p->clock_gap_us) > NODE_CLOCK_SET_US;
    p->clock_gap_us = gap_us;
    p->has_clock = true;
    if (news)
        peers_judge_eligibility(n);
}

/* The peer where it is now; NULL: it is none any more. */
static struct peer *note_hello(struct node *n, struct peer *p,
                               const struct wire_hello *hello)
{
    uint64_t id = p->id;
    p->version = hello->version;
    p->refused = false;
    note_clock(n, p, hello->clock_us);
    return peers_find(n, id);
}

void peers_watch_clock(struct node *n)
{
    if (llabs(own_clock_gap() - n->clock_gap_us) > NODE_CLOCK_SET_US)
        peers_judge_eligibility(n);
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
    ask_again(n, p->id);
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
    ask_again(n, peer_id);
}

/* ---- Entries for a peer: from memory, or read in for it ---------------------------- */

struct block_task {
    struct pager_task task;
    struct node *node;
    uint64_t peer_id, first, last;
    uint64_t term; /* of the leader that asked: later ones may have other entries */
    struct store_read *read;
    struct store_bytes *bytes;
    int error;
};

/* It is tried again at each tick. */
static void log_unread(struct peer *p, uint64_t first, int error)
{
    uint64_t now_us = node_now();
    if (p->unread_logged_us && now_us - p->unread_logged_us < NODE_LOG_AGAIN_US)
        return;
    p->unread_logged_us = now_us;
    log_error("entries from %llu on cannot be read for node %016llx: %s",
              (unsigned long long)first, (unsigned long long)p->id, strerror(-error));
}

static void block_read(struct pager_task *task)
{
    struct block_task *t = container_of(task, struct block_task, task);
    t->error = store_read_run(t->read, &t->bytes, &t->last);
}

static void block_done(struct pager_task *task)
{
    struct block_task *t = container_of(task, struct block_task, task);
    struct node *n = t->node;
    struct peer *p = peers_find(n, t->peer_id);
    if (p) {
        if (t->error < 0)
            log_unread(p, t->first, t->error);
        p->reading = false;
        p->read_failed = t->error < 0; /* tried again at the next tick */
        if (t->error == 0 && t->term == raft_term(n->driver.raft) && p->open) {
            store_bytes_unref(p->block);
            p->block = store_bytes_ref(t->bytes);
            p->block_first = t->first;
            p->block_last = t->last;
        }
        if (t->error == 0 && p->open)
            ask_again(n, p->id);
    }
    store_bytes_unref(t->bytes);
    store_read_free(t->read);
    free(t);
}

static void block_ask(struct node *n, struct peer *p, uint64_t first)
{
    if (p->reading)
        return;
    struct block_task *t = calloc(1, sizeof(*t));
    node_must(t ? 0 : -ENOMEM, "reading entries");
    t->task.work = block_read;
    t->task.done = block_done;
    t->node = n;
    t->peer_id = p->id;
    t->term = raft_term(n->driver.raft);
    t->first = first;
    int ret = store_read_plan(n->store, first, LIMIT_APPEND_BYTES, &t->read);
    if (ret < 0) {
        log_unread(p, first, ret);
        free(t);
        p->read_failed = true;
        return;
    }
    p->reading = true;
    pager_submit(n, &t->task);
}

static void release_bytes(void *owner)
{
    store_bytes_unref(owner);
}

struct append_parts {
    struct wire_part parts[1 + NODE_APPEND_ENTRIES];
    size_t count;
    size_t bytes;
    uint64_t last;
};

static void add_part(struct append_parts *a, struct store_bytes *b)
{
    a->parts[a->count++] = (struct wire_part){b->data, b->length, release_bytes, b};
    a->bytes += b->length;
}

/* As many entries from prev + 1 on as are in memory and fit. */
static void collect_entries(struct node *n, struct peer *p, uint64_t prev, uint64_t last,
                            struct append_parts *a)
{
    a->last = prev;
    if (p->block && p->block_first == prev + 1 && p->block_last <= last) {
        add_part(a, store_bytes_ref(p->block));
        a->last = p->block_last;
        return;
    }
    while (a->last < last && a->count < array_length(a->parts)) {
        struct store_bytes *b = store_entry_cached(n->store, a->last + 1);
        if (!b)
            return;
        if (a->bytes > 0 && a->bytes + b->length > LIMIT_APPEND_BYTES) {
            store_bytes_unref(b);
            return;
        }
        add_part(a, b);
        a->last++;
    }
}

static void note_send_queue(struct node *n, const struct peer *p)
{
    queue_note(n, QUEUE_SEND, wire_queued_bytes(p->connection));
    if (p->full)
        queue_wait(n, QUEUE_SEND);
}

static void send_append(struct node *n, struct peer *p, const struct raft_message *m)
{
    struct append_parts a = {.count = 1};
    struct raft_event sent = {.type = RAFT_SENT, .peer = p->id, .index = m->prev_index};
    flight_settle(&p->flight, 0, m->prev_index + 1);
    p->flight.waits = !flight_has_room(&p->flight);
    if (p->flight.waits)
        queue_wait(n, QUEUE_FLIGHT);
    bool may_send = p->open && !p->full && !p->flight.waits;
    if (may_send)
        collect_entries(n, p, m->prev_index, m->last, &a);
    if (a.count == 1) {
        if (may_send)
            block_ask(n, p, m->prev_index + 1);
        driver_step(n, &sent);
        return;
    }
    struct raft_message prefix = *m;
    prefix.last = a.last;
    struct buf head = {0};
    uint8_t type = message_encode(&prefix, &head);
    node_must(head.failed ? -ENOMEM : 0, "sending entries");
    a.parts[0] = (struct wire_part){head.data, head.length, NULL, NULL};
    int ret = wire_send(p->connection, type, 0, a.parts, a.count);
    buf_release(&head);
    p->full = ret == -ENOBUFS;
    flight_add(&p->flight, a.last, a.bytes);
    queue_note(n, QUEUE_FLIGHT, p->flight.bytes);
    note_send_queue(n, p);
    sent.index = a.last;
    driver_step(n, &sent);
}

void peers_send(struct node *n, const struct raft_message *m)
{
    struct peer *p = peers_find(n, m->to);
    if (m->type == RAFT_APPEND && m->last > m->prev_index) {
        if (p)
            send_append(n, p, m);
        return;
    }
    if (!p || !p->open)
        return;
    struct buf bytes = {0};
    uint8_t type = message_encode(m, &bytes);
    node_must(bytes.failed ? -ENOMEM : 0, "sending a message");
    if (wire_send_bytes(p->connection, type, 0, bytes.data, bytes.length) == -ENOBUFS)
        p->full = true;
    note_send_queue(n, p);
    buf_release(&bytes);
}

/* ---- What comes -------------------------------------------------------------------- */

enum { RECEIVED_ENTRIES = 65536 };

/* By the chain, and in time (G2): each record has a timestamp of its own. */
static bool follows(const struct store_entry *before, const struct store_entry *entry)
{
    return entry->prev_crc == before->crc &&
           entry->timestamp_us > before->timestamp_us + before->record_count;
}

/* Entries of a frame: each whole and right, one chain. -EPROTO. */
static int parse_entries(const struct raft_message *m, const uint8_t *data, size_t length,
                         struct received_entry **ret, size_t *ret_count)
{
    uint64_t count = m->last - m->prev_index;
    if (count == 0 || count > RECEIVED_ENTRIES)
        return count ? -EPROTO : 0;
    struct received_entry *list = calloc(count, sizeof(*list));
    if (!list)
        return -ENOMEM;
    uint64_t term = m->prev_term;
    int ret_error = 0;
    for (uint64_t i = 0; i < count && ret_error == 0; i++) {
        struct received_entry *e = &list[i];
        e->data = data;
        ret_error = store_entry_verify(data, length, &e->entry);
        if (ret_error < 0 || e->entry.index != m->prev_index + 1 + i ||
            e->entry.prev_term != term || e->entry.term < term ||
            e->entry.term > m->term ||
            (i > 0 && !follows(&list[i - 1].entry, &e->entry))) {
            ret_error = -EPROTO;
            break;
        }
        term = e->entry.term;
        data += e->entry.length;
        length -= e->entry.length;
    }
    if (ret_error == 0 && length > 0)
        ret_error = -EPROTO;
    if (ret_error < 0) {
        free(list);
        return ret_error;
    }
    *ret = list;
    *ret_count = count;
    return 0;
}

struct received_configs {
    struct members last_members, previous_members;
    struct raft_config last, previous;
};

void members_to_raft(const struct members *members, struct raft_config *ret)
{
    ret->count = members->count;
    for (uint32_t i = 0; i < members->count; i++)
        ret->members[i] =
            (struct raft_member){members->list[i].id, members->list[i].voter};
}

struct config_search {
    struct fs_key key;
    struct members *members;
    bool found;
};

static int look_for_config(void *arg, const struct store_record *record, uint32_t offset)
{
    struct config_search *search = arg;
    if (record->value && record->key_size == search->key.size &&
        memcmp(record->key, search->key.bytes, search->key.size) == 0)
        search->found =
            members_decode(record->value, record->value_size, search->members) == 0;
    return 1; /* a membership change has it first */
}

bool entry_config(const uint8_t *data, size_t length, struct members *ret)
{
    struct config_search search = {.members = ret};
    cluster_key_config(&search.key);
    store_entry_each(data, length, look_for_config, &search);
    return search.found;
}

static void find_configs(const struct received_entry *list, size_t count,
                         struct raft_event *ev, struct received_configs *c)
{
    for (size_t i = 0; i < count; i++) {
        struct members members;
        if (!entry_config(list[i].data, list[i].entry.length, &members))
            continue;
        if (ev->config) {
            c->previous = c->last;
            ev->previous_config = &c->previous;
            ev->previous_config_index = ev->config_index;
        }
        members_to_raft(&members, &c->last);
        ev->config = &c->last;
        ev->config_index = list[i].entry.index;
    }
}

/* At most one run an entry; freed by the caller. */
static struct raft_run *make_runs(const struct received_entry *list, size_t count,
                                  size_t *ret_count)
{
    struct raft_run *runs = calloc(count + 1, sizeof(*runs));
    node_must(runs ? 0 : -ENOMEM, "receiving entries");
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const struct store_entry *e = &list[i].entry;
        if (n == 0 || runs[n - 1].term != e->term)
            runs[n++].term = e->term;
        runs[n - 1].last = e->index;
    }
    *ret_count = n;
    return runs;
}

/* A leader sends less ahead than this (LIMIT_FLIGHT_BYTES), but several may, one after
 * another, while this disk hangs. */
static bool may_wait_for_disk(struct node *n, size_t length)
{
    bool may = store_unwritten_bytes(n->store) + length <= LIMIT_UNWRITTEN_BYTES;
    if (!may)
        queue_wait(n, QUEUE_LOG);
    return may;
}

static void receive_append(struct node *n, struct wire_connection *c,
                           const struct raft_message *m, const uint8_t *data,
                           size_t length)
{
    struct received_entry *list = NULL;
    size_t count = 0;
    int ret = parse_entries(m, data, length, &list, &count);
    node_must(ret == -ENOMEM ? ret : 0, "receiving entries");
    if (ret < 0) {
        wire_refuse(c, "entries that are damaged, or not one chain");
        return;
    }
    struct received_configs configs;
    struct raft_event ev = {.type = RAFT_RECEIVE, .message = m};
    struct raft_run *runs = make_runs(list, count, &ev.run_count);
    ev.runs = runs;
    find_configs(list, count, &ev, &configs);
    /* A full disk here must not stop the others, nor a slow one take all memory: what does
     * not fit has not been received. */
    if (count == 0 || (store_has_room(n->store, length + LIMIT_ENTRY_BYTES) == 0 &&
                       may_wait_for_disk(n, length))) {
        n->driver.received = list;
        n->driver.received_count = count;
        driver_step(n, &ev);
        n->driver.received = NULL;
        n->driver.received_count = 0;
    }
    free(runs);
    free(list);
}

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
        note_clock(n, p, clock_us);
    if (!peers_find(n, m.from))
        return; /* as if lost: what it sends next closes the connection */
    if (snapshot_is_installing(n) && !is_harmless(n, &m))
        return; /* as if lost */
    if (m.type == RAFT_APPEND)
        receive_append(n, c, &m, rest, rest_length);
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
