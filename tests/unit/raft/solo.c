/* solo.c - see solo.h. */
#include "solo.h"

enum { RUNS_MAX = 64 };

static size_t runs_of(const uint64_t *terms, uint64_t after, struct raft_run *runs)
{
    size_t count = 0;
    for (size_t i = 0; terms && terms[i]; i++) {
        if (!count || runs[count - 1].term != terms[i])
            count++;
        runs[count - 1] = (struct raft_run){after + i + 1, terms[i]};
    }
    return count;
}

struct solo solo_new(uint32_t voters, const uint64_t *terms)
{
    struct raft_run runs[RUNS_MAX];
    struct raft_options o = {
        .id = 1, .seed = 7, .election_us = T_US, .heartbeat_us = BEAT_US, .runs = runs};
    o.run_count = runs_of(terms, 0, runs);
    o.term = o.run_count ? runs[o.run_count - 1].term : 0;
    o.config.count = voters;
    for (uint32_t i = 0; i < voters; i++)
        o.config.members[i] = (struct raft_member){i + 1, true};
    struct solo s = {.now_us = 1000000};
    assert_int_equal(raft_new(&s.raft, &o, s.now_us), 0);
    return s;
}

void solo_free(struct solo *s)
{
    raft_free(s->raft);
    *s = (struct solo){0};
}

int solo_step(struct solo *s, struct raft_event e)
{
    int error = raft_step(s->raft, &e, s->now_us, &s->u);
    raft_check(s->raft);
    return error;
}

int solo_tick(struct solo *s, uint64_t us)
{
    s->now_us += us;
    return solo_step(s, (struct raft_event){.type = RAFT_TICK});
}

int solo_receive(struct solo *s, struct raft_message m)
{
    m.to = 1;
    return solo_step(s, (struct raft_event){.type = RAFT_RECEIVE, .message = &m});
}

int solo_append(struct solo *s, uint64_t from, uint64_t term, uint64_t prev,
                uint64_t prev_term, const uint64_t *terms, uint64_t commit)
{
    struct raft_run runs[RUNS_MAX];
    size_t count = runs_of(terms, prev, runs);
    struct raft_message m = {.type = RAFT_APPEND,
                             .from = from,
                             .to = 1,
                             .term = term,
                             .prev_index = prev,
                             .prev_term = prev_term,
                             .commit = commit,
                             .last = count ? runs[count - 1].last : prev,
                             .round = 1};
    return solo_step(
        s, (struct raft_event){
               .type = RAFT_RECEIVE, .message = &m, .runs = runs, .run_count = count});
}

int solo_durable(struct solo *s, uint64_t index)
{
    return solo_step(s, (struct raft_event){.type = RAFT_DURABLE,
                                            .index = index,
                                            .generation = s->u.generation});
}

int solo_propose(struct solo *s, uint64_t count)
{
    return solo_step(s, (struct raft_event){.type = RAFT_PROPOSE, .count = count});
}

int solo_compact(struct solo *s, uint64_t index)
{
    return solo_step(s, (struct raft_event){.type = RAFT_COMPACTED, .index = index});
}

int solo_apply(struct solo *s, uint64_t index)
{
    return solo_step(s, (struct raft_event){.type = RAFT_APPLIED, .index = index});
}

void solo_lead(struct solo *s)
{
    const struct raft_config *c = raft_config(s->raft, NULL);
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->members[i].id != 1)
            solo_step(
                s, (struct raft_event){.type = RAFT_CONNECTED, .peer = c->members[i].id});
    }
    solo_tick(s, 2 * T_US);
    for (int pre = 1; pre >= 0 && raft_role(s->raft) != RAFT_LEADER; pre--) {
        uint64_t term = raft_term(s->raft) + pre;
        for (uint64_t id = 2; id <= c->count / 2 + 1; id++)
            solo_receive(s, (struct raft_message){.type = RAFT_VOTE_REPLY,
                                                  .from = id,
                                                  .term = term,
                                                  .pre = pre,
                                                  .granted = true});
    }
    assert_int_equal(raft_role(s->raft), RAFT_LEADER);
    assert_true(s->u.want_noop);
    assert_int_equal(solo_propose(s, 1), 0);
    struct raft_update kept = s->u;
    solo_durable(s, raft_last_index(s->raft));
    kept.commit = s->u.commit;
    s->u = kept;
}

int solo_ack(struct solo *s, uint64_t from, uint64_t match, uint64_t applied,
             uint64_t round)
{
    return solo_receive(s, (struct raft_message){.type = RAFT_APPEND_REPLY,
                                                 .from = from,
                                                 .term = raft_term(s->raft),
                                                 .ok = true,
                                                 .match = match,
                                                 .applied = applied,
                                                 .round = round});
}

void solo_sent_all(struct solo *s)
{
    struct raft_update asked = s->u;
    for (size_t i = 0; i < asked.message_count; i++) {
        const struct raft_message *m = &asked.messages[i];
        if (m->type == RAFT_APPEND && m->last > m->prev_index)
            solo_step(s, (struct raft_event){
                             .type = RAFT_SENT, .peer = m->to, .index = m->last});
    }
}

const struct raft_message *solo_message(const struct solo *s, enum raft_message_type type,
                                        uint64_t to, size_t nth)
{
    for (size_t i = 0; i < s->u.message_count; i++) {
        const struct raft_message *m = &s->u.messages[i];
        if (m->type == type && (!to || m->to == to) && !nth--)
            return m;
    }
    return NULL;
}

struct solo solo_leader_of(uint32_t voters, const uint64_t *terms)
{
    struct solo s = solo_new(voters, terms);
    solo_lead(&s);
    return s;
}

/* A leader of `voters`, its own entry committed and everything answered: log 1..1. */
struct solo solo_settled(uint32_t voters)
{
    struct solo s = solo_leader_of(voters, NULL);
    solo_sent_all(&s);
    for (uint64_t id = 2; id <= voters; id++)
        solo_ack(&s, id, 1, 0, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 1});
    for (uint64_t id = 2; id <= voters; id++)
        solo_ack(&s, id, 1, 1, 1);
    assert_true(raft_established(s.raft));
    return s;
}

const struct raft_message *solo_entries_to(const struct solo *s, uint64_t to)
{
    const struct raft_message *m;
    for (size_t i = 0; (m = solo_message(s, RAFT_APPEND, to, i)); i++) {
        if (m->last > m->prev_index)
            return m;
    }
    return NULL;
}

const struct raft_message *solo_empty_to(const struct solo *s, uint64_t to)
{
    const struct raft_message *m;
    for (size_t i = 0; (m = solo_message(s, RAFT_APPEND, to, i)); i++) {
        if (m->last == m->prev_index)
            return m;
    }
    return NULL;
}

int solo_sent(struct solo *s, uint64_t peer, uint64_t index)
{
    return solo_step(
        s, (struct raft_event){.type = RAFT_SENT, .peer = peer, .index = index});
}

int solo_refuse(struct solo *s, uint64_t from, uint64_t index, uint64_t term)
{
    return solo_receive(s, (struct raft_message){.type = RAFT_APPEND_REPLY,
                                                 .from = from,
                                                 .term = raft_term(s->raft),
                                                 .hint_index = index,
                                                 .hint_term = term});
}
