/*
 * entries.c - entries on their way from the leader to the others: APPEND out, as many as
 * are in memory and fit, the rest read in first; and APPEND in.
 */
#include "node_core.h"

#include <errno.h>

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
            peers_ask_again(n, p->id);
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

void entries_send(struct node *n, struct peer *p, const struct raft_message *m)
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
    peers_note_sent(n, p);
    sent.index = a.last;
    driver_step(n, &sent);
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

void entries_receive(struct node *n, struct wire_connection *c,
                     const struct raft_message *m, const uint8_t *data, size_t length)
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
