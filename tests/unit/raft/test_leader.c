/* test_leader.c - one node that leads: commit, rounds, peers, visible, changes, transfer.
 */
#include "solo.h"

static int config_change(struct solo *s, const struct raft_config *c)
{
    return solo_step(s,
                     (struct raft_event){.type = RAFT_PROPOSE, .count = 1, .config = c});
}

/* ---- Commit
 * ------------------------------------------------------------------------------- */

static void test_alone_commits_only_what_is_durable(void **state)
{
    struct solo s = solo_new(1, NULL);
    solo_tick(&s, 1);
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    assert_true(s.u.want_noop && s.u.hard_state_changed && s.u.role_changed);
    assert_int_equal(solo_propose(&s, 3), 0);
    assert_int_equal(s.u.commit, 0);
    solo_durable(&s, 2);
    assert_int_equal(s.u.commit, 2);
    assert_int_equal(solo_step(&s, (struct raft_event){.type = RAFT_READ}), 0);
    assert_true(s.u.confirmed_round >= s.u.read_round && s.u.read_round);
    solo_step(&s, (struct raft_event){.type = RAFT_ELIGIBLE, .eligible = false});
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_tick(&s, 4 * T_US);
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_free(&s);
}

/* The leader's own vote for an entry is its disk, as everyone's. */
static void test_own_disk_has_one_vote(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 2);
    solo_sent_all(&s);
    solo_ack(&s, 2, 3, 1, 1);
    assert_int_equal(s.u.commit, 1);
    solo_durable(&s, 2);
    assert_int_equal(s.u.commit, 2);
    assert_non_null(solo_empty_to(&s, 3)); /* followers are told at once */
    assert_int_equal(solo_empty_to(&s, 3)->commit, 2);
    solo_ack(&s, 3, 3, 1, 1); /* the others are a majority without it */
    assert_int_equal(s.u.commit, 3);
    solo_free(&s);
}

/* Figure 8: an entry of an earlier term is not committed by counting. */
static void test_commit_only_of_the_own_term(void **state)
{
    struct solo s = solo_leader_of(5, TERMS(1, 2));
    uint64_t term = raft_term(s.raft);
    assert_int_equal(term, 3);
    solo_ack(&s, 2, 2, 0, 1);
    solo_ack(&s, 3, 2, 0, 1);
    solo_ack(&s, 4, 2, 0, 1);
    assert_int_equal(s.u.commit, 0);
    assert_false(raft_established(s.raft));
    solo_ack(&s, 2, 3, 0, 1);
    solo_ack(&s, 3, 3, 0, 1);
    assert_int_equal(s.u.commit, 3);
    assert_true(raft_established(s.raft));
    solo_free(&s);
}

/* ---- Rounds
 * ------------------------------------------------------------------------------------ */

static void test_reads_wait_for_their_own_round(void **state)
{
    struct solo s = solo_leader_of(3, NULL);
    struct raft_event read = {.type = RAFT_READ};
    assert_int_equal(solo_step(&s, read), -EAGAIN); /* S1 */
    solo_ack(&s, 2, 1, 0, 1);
    assert_int_equal(solo_step(&s, read), 0);
    uint64_t first = s.u.read_round;
    assert_true(first > s.u.confirmed_round);
    assert_int_equal(solo_empty_to(&s, 2)->round, first);
    assert_int_equal(solo_empty_to(&s, 3)->round, first);
    solo_ack(&s, 3, 0, 0, first - 1); /* of what was sent before */
    assert_true(s.u.confirmed_round < first);
    assert_int_equal(solo_step(&s, read), 0); /* a retry has a number of its own */
    uint64_t second = s.u.read_round;
    assert_true(second > first);
    solo_receive(&s, (struct raft_message){.type = RAFT_APPEND_REPLY,
                                           .from = 3,
                                           .term = raft_term(s.raft),
                                           .round = first});
    assert_int_equal(s.u.confirmed_round, first); /* by a refusal too */
    solo_ack(&s, 2, 1, 0, second);
    assert_int_equal(s.u.confirmed_round, second);
    solo_free(&s);
    s = solo_new(3, NULL);
    assert_int_equal(solo_step(&s, read), -ENOTCONN);
    solo_free(&s);
}

static void test_a_majority_confirms(void **state)
{
    struct solo s = solo_settled(5);
    solo_step(&s, (struct raft_event){.type = RAFT_READ});
    uint64_t round = s.u.read_round;
    solo_ack(&s, 2, 1, 1, round);
    solo_ack(&s, 2, 1, 1, round);
    assert_true(s.u.confirmed_round < round);
    solo_ack(&s, 3, 1, 1, round);
    assert_int_equal(s.u.confirmed_round, round);
    solo_free(&s);
}

/* ---- Peers ------------------------------------------------------------------------- */

static void test_entries_wait_for_sent(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 5); /* 2..6 */
    const struct raft_message *m = solo_entries_to(&s, 2);
    assert_int_equal(m->prev_index, 1);
    assert_int_equal(m->last, 6);
    solo_propose(&s, 1);
    assert_null(solo_entries_to(&s, 2));
    solo_sent(&s, 2, 4);
    assert_int_equal(solo_entries_to(&s, 2)->prev_index, 4);
    assert_int_equal(solo_entries_to(&s, 2)->last, 7);
    solo_sent(&s, 2, 4); /* no room */
    assert_null(solo_entries_to(&s, 2));
    assert_non_null(solo_empty_to(&s, 2));
    solo_propose(&s, 1);
    assert_null(solo_entries_to(&s, 2));
    solo_tick(&s, BEAT_US);
    assert_null(solo_entries_to(&s, 2));
    assert_int_equal(solo_empty_to(&s, 2)->prev_index, 1); /* heartbeats go on */
    solo_sent(&s, 2, 0);                                   /* drained */
    assert_int_equal(solo_entries_to(&s, 2)->prev_index, 4);
    assert_int_equal(solo_entries_to(&s, 2)->last, 8);
    solo_sent(&s, 2, 99);
    assert_null(solo_entries_to(&s, 2)); /* not of this message */
    solo_sent(&s, 2, 8);
    assert_null(solo_entries_to(&s, 2));
    solo_free(&s);
}

static void test_probing_sends_one(void **state)
{
    struct solo s = solo_leader_of(3, TERMS(1, 1, 1));
    assert_int_equal(solo_entries_to(&s, 2)->prev_index, 3); /* its own first, in hope */
    solo_sent(&s, 2, 4);
    solo_propose(&s, 1);
    assert_null(solo_entries_to(&s, 2)); /* one, until an answer */
    solo_refuse(&s, 2, 1, 1);
    assert_null(solo_entries_to(&s, 2)); /* hope was wrong: ask first */
    assert_int_equal(solo_empty_to(&s, 2)->prev_index, 1);
    solo_refuse(&s, 2, 1, 1); /* the same again: wait for the heartbeat */
    assert_null(solo_empty_to(&s, 2));
    solo_ack(&s, 2, 0, 0, 1); /* older than the probe: proves nothing */
    assert_null(solo_entries_to(&s, 2));
    solo_ack(&s, 2, 1, 0, 1);
    assert_int_equal(solo_entries_to(&s, 2)->prev_index, 1);
    assert_int_equal(solo_entries_to(&s, 2)->last, 5);
    solo_free(&s);
}

/* The logs of figure 7: the leader's is 1 1 1 4 4 5 5 6 6 6, of term 8. */
static void test_figure_7(void **state)
{
    const struct {
        const uint64_t *terms;
        uint64_t common;
    } followers[] = {
        {TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6), 9},
        {TERMS(1, 1, 1, 4), 4},
        {TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6), 10},
        {TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7), 10},
        {TERMS(1, 1, 1, 4, 4, 4, 4), 5},
        {TERMS(1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3), 3},
        {NULL, 0},
        {TERMS(2, 2, 2), 0},
    };
    for (size_t i = 0; i < array_length(followers); i++) {
        struct solo a = solo_new(3, TERMS(1, 1, 1, 4, 4, 5, 5, 6, 6, 6));
        solo_append(&a, 3, 7, 0, 0, NULL, 0);
        solo_lead(&a);
        assert_int_equal(raft_term(a.raft), 8);
        struct solo b = solo_new(3, followers[i].terms);
        /* b plays node 2, though it calls itself 1. */
        uint64_t last = raft_last_index(b.raft), probes = 0;
        while (true) {
            const struct raft_message *m = solo_empty_to(&a, 2);
            m = m ? m : solo_entries_to(&a, 2);
            assert_non_null(m);
            solo_append(&b, 3, m->term, m->prev_index, m->prev_term, NULL, 0);
            struct raft_message reply = *solo_message(&b, RAFT_APPEND_REPLY, 3, 0);
            reply.from = 2;
            probes++;
            assert_int_equal(solo_receive(&a, reply), 0);
            if (reply.ok)
                break;
        }
        assert_int_equal(solo_entries_to(&a, 2) ? solo_entries_to(&a, 2)->prev_index
                                                : followers[i].common,
                         followers[i].common);
        assert_true(probes <= 4); /* by terms, not by entries */
        uint64_t rest[] = {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, raft_term(a.raft), 0};
        uint64_t common = followers[i].common;
        uint64_t term_there = common ? rest[common - 1] : 0;
        assert_int_equal(
            solo_append(&b, 3, raft_term(a.raft), common, term_there, rest + common, 0),
            0);
        assert_int_equal(b.u.truncate, last > common);
        if (last > common)
            assert_int_equal(b.u.truncate_to, common);
        assert_int_equal(b.u.append_first, common + 1);
        assert_int_equal(raft_last_index(b.raft), 11);
        for (uint64_t n = 1; n <= 11; n++)
            assert_int_equal(raft_term_of(b.raft, n), raft_term_of(a.raft, n));
        solo_free(&a);
        solo_free(&b);
    }
}

static void test_a_new_connection_is_probed(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 4);
    solo_sent_all(&s);
    struct raft_event e = {.type = RAFT_DISCONNECTED, .peer = 2};
    solo_step(&s, e);
    solo_propose(&s, 1);
    assert_null(solo_entries_to(&s, 2)); /* not while it is down */
    solo_tick(&s, BEAT_US);
    assert_non_null(solo_empty_to(&s, 2));
    e.type = RAFT_CONNECTED;
    solo_step(&s, e);
    assert_int_equal(solo_entries_to(&s, 2)->prev_index, 1); /* all that may be lost */
    assert_int_equal(solo_entries_to(&s, 2)->last, 6);
    solo_free(&s);
}

/* Lost without a disconnect, and nothing follows that would show it. */
static void test_silence_is_not_for_ever(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 2);
    solo_sent_all(&s);
    uint64_t end = s.now_us + T_US;
    while (s.now_us + BEAT_US < end) {
        solo_tick(&s, BEAT_US - 1);
        solo_ack(&s, 2, 1, 1, 1);
        solo_ack(&s, 3, 3, 1, 1);
        assert_null(solo_entries_to(&s, 2));
    }
    solo_tick(&s, end - s.now_us);
    assert_int_equal(solo_entries_to(&s, 2)->prev_index, 1);
    assert_null(solo_entries_to(&s, 3));
    solo_free(&s);
}

static void test_impossible_replies(void **state)
{
    struct solo s = solo_settled(3);
    struct raft_message good = {.type = RAFT_APPEND_REPLY,
                                .from = 2,
                                .ok = true,
                                .term = raft_term(s.raft),
                                .match = 1,
                                .applied = 1,
                                .round = 1};
    struct raft_message m = good;
    m.match = 2;
    assert_int_equal(solo_receive(&s, m), -EPROTO);
    m = good;
    m.applied = 2;
    assert_int_equal(solo_receive(&s, m), -EPROTO);
    m = good;
    m.round = 99;
    assert_int_equal(solo_receive(&s, m), -EPROTO);
    m = good;
    m.ok = false;
    m.hint_index = 1;
    assert_int_equal(solo_receive(&s, m), -EPROTO);
    m.hint_term = 1;
    m.hint_index = 2;
    assert_int_equal(solo_receive(&s, m), -EPROTO);
    assert_int_equal(solo_append(&s, 2, raft_term(s.raft), 0, 0, NULL, 0), -EPROTO);
    assert_int_equal(solo_receive(&s, good), 0);
    good.from = 9; /* not a member: no harm */
    assert_int_equal(solo_receive(&s, good), 0);
    good.from = 2;
    good.term++;
    good.ok = false;
    assert_int_equal(solo_receive(&s, good), 0);
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    assert_int_equal(raft_leader(s.raft), 0);
    solo_free(&s);
}

/* ---- Check-quorum
 * ------------------------------------------------------------------------------------ */

static void test_check_quorum(void **state)
{
    struct solo s = solo_settled(5);
    uint64_t term = raft_term(s.raft);
    uint64_t begin = s.now_us;
    s.now_us += T_US - 1;
    assert_true(raft_has_quorum(s.raft, s.now_us));
    solo_ack(&s, 2, 1, 1, 1);
    assert_false(raft_has_quorum(s.raft, s.now_us + 1));
    solo_tick(&s, begin + 2 * T_US - 1 - s.now_us);
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    solo_ack(&s, 2, 1, 1, 1); /* with itself only two of five */
    assert_true(s.u.deadline_us <= begin + 2 * T_US);
    solo_tick(&s, 1);
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    assert_int_equal(raft_term(s.raft), term);
    assert_int_equal(raft_leader(s.raft), 0);
    assert_int_equal(s.u.visible, 0);
    assert_int_equal(solo_propose(&s, 1), -ENOTCONN);
    solo_free(&s);
}

static void test_a_leader_with_quorum_stays(void **state)
{
    struct solo s = solo_settled(3);
    struct raft_message m = {
        .type = RAFT_VOTE, .from = 3, .term = 9, .last_index = 5, .last_term = 8};
    for (int pre = 0; pre < 2; pre++) {
        m.pre = pre;
        solo_receive(&s, m);
        assert_false(solo_message(&s, RAFT_VOTE_REPLY, 3, 0)->granted);
        assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    }
    s.now_us += T_US;
    solo_receive(&s, m); /* nobody was heard for so long: the pre-vote is fair */
    assert_true(solo_message(&s, RAFT_VOTE_REPLY, 3, 0)->granted);
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    solo_free(&s);
}

/* ---- Visible ----------------------------------------------------------------------- */

static void test_visible_waits_for_the_connected(void **state)
{
    struct solo s = solo_settled(3);
    assert_int_equal(s.u.visible, 1);
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 2);
    solo_ack(&s, 2, 2, 1, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 2});
    assert_int_equal(s.u.commit, 2);
    assert_int_equal(s.u.visible, 1);
    solo_ack(&s, 2, 2, 2, 1);
    assert_int_equal(s.u.visible, 1);
    solo_ack(&s, 3, 2, 2, 1);
    assert_int_equal(s.u.visible, 2);
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 3);
    solo_ack(&s, 2, 3, 2, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 3});
    solo_ack(&s, 2, 3, 3, 1);
    assert_int_equal(s.u.visible, 2);
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 3});
    assert_int_equal(s.u.visible, 3);
    solo_step(&s, (struct raft_event){.type = RAFT_CONNECTED, .peer = 3});
    assert_int_equal(s.u.visible, 3); /* never back */
    solo_free(&s);
}

enum { VISIBLE_US = 4 * T_US }; /* how long a reachable member may hold answers back */

static void test_visible_does_not_wait_for_the_silent(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 2);
    solo_ack(&s, 2, 2, 1, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 2});
    solo_ack(&s, 2, 2, 2, 1);
    uint64_t end = s.now_us + VISIBLE_US - 1;
    while (s.now_us < end) {
        solo_tick(&s, min_u64(BEAT_US, end - s.now_us));
        solo_ack(&s, 2, 2, 2, 1);
        assert_int_equal(s.u.visible, 1);
    }
    assert_true(s.u.deadline_us <= s.now_us + 1);
    solo_tick(&s, 1);
    assert_int_equal(s.u.visible, 2);
    solo_free(&s);
}

static void test_visible_does_not_wait_for_the_stuck(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 2);
    solo_ack(&s, 2, 2, 1, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 2});
    uint64_t end = s.now_us + VISIBLE_US;
    while (s.now_us < end) {
        assert_int_equal(s.u.visible, 1);
        solo_tick(&s, min_u64(BEAT_US, end - s.now_us));
        solo_ack(&s, 2, 2, 2, 1);
        solo_ack(&s, 3, 2, 1, 1); /* alive, and applying nothing */
    }
    assert_int_equal(s.u.visible, 2);
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 3);
    solo_ack(&s, 2, 3, 2, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 3});
    solo_ack(&s, 3, 3, 1, 1); /* it does not hold up the next one too */
    solo_ack(&s, 2, 3, 3, 1);
    assert_int_equal(s.u.visible, 3);
    solo_free(&s);
}

static void test_visible_takes_in_who_has_caught_up(void **state)
{
    struct solo s = solo_settled(3);
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 3});
    solo_propose(&s, 100);
    solo_sent_all(&s);
    solo_durable(&s, 101);
    solo_ack(&s, 2, 101, 1, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 101});
    solo_ack(&s, 2, 101, 101, 1);
    assert_int_equal(s.u.visible, 101);
    solo_step(&s, (struct raft_event){.type = RAFT_CONNECTED, .peer = 3});
    solo_ack(&s, 3, 101, 36, 1); /* 65 behind: not yet */
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 102);
    solo_ack(&s, 2, 102, 101, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 102});
    solo_ack(&s, 2, 102, 102, 1);
    assert_int_equal(s.u.visible, 102);
    solo_ack(&s, 3, 102, 38, 1); /* 64 behind: from now on it is waited for */
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 103);
    solo_ack(&s, 2, 103, 102, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 103});
    solo_ack(&s, 2, 103, 103, 1);
    assert_int_equal(s.u.visible, 102);
    solo_ack(&s, 3, 103, 103, 1);
    assert_int_equal(s.u.visible, 103);
    solo_free(&s);
}

/* A new leader does not know what the others have applied, so they hold it back. */
static void test_visible_after_an_election(void **state)
{
    struct solo s = solo_leader_of(3, TERMS(1, 1));
    solo_ack(&s, 2, 3, 0, 1);
    assert_int_equal(s.u.commit, 3);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 3});
    solo_ack(&s, 2, 3, 3, 1);
    assert_int_equal(s.u.visible, 0);
    solo_ack(&s, 3, 2, 2, 1);
    assert_int_equal(s.u.visible, 2);
    solo_free(&s);
}

/* ---- Membership -------------------------------------------------------------------- */

static void test_config_changes_one_at_a_time(void **state)
{
    struct raft_config four = {.count = 4,
                               .members = {{1, true}, {2, true}, {3, true}, {4, false}}};
    struct solo s = solo_leader_of(3, NULL);
    assert_int_equal(config_change(&s, &four), -EBUSY); /* S1 */
    solo_free(&s);
    s = solo_settled(3);
    struct raft_config c = four;
    c.members[0].voter = c.members[1].voter = false;
    assert_int_equal(config_change(&s, &c), -EINVAL);
    c = *raft_config(s.raft, NULL);
    c.members[2].id = 9; /* a voter for a voter: two */
    assert_int_equal(config_change(&s, &c), -EINVAL);
    c = four;
    c.members[3].voter = true;
    c.count++;
    c.members[4] = (struct raft_member){5, true};
    assert_int_equal(config_change(&s, &c), -EINVAL);
    c = four;
    c.members[3].id = 3;
    assert_int_equal(config_change(&s, &c), -EINVAL);
    assert_int_equal(raft_last_index(s.raft), 1);
    assert_int_equal(config_change(&s, &four), 0);
    uint64_t index;
    assert_int_equal(raft_config(s.raft, &index)->count, 4); /* when appended */
    assert_int_equal(index, 2);
    c = four;
    c.members[3].voter = true;
    assert_int_equal(config_change(&s, &c), -EBUSY);
    solo_durable(&s, 2);
    solo_ack(&s, 4, 0, 0, 1);
    assert_int_equal(s.u.commit, 1);
    solo_ack(&s, 2, 2, 1, 1); /* a learner counts for nothing: two of three do */
    assert_int_equal(s.u.commit, 2);
    assert_false(raft_config_is_pending(s.raft));
    assert_int_equal(config_change(&s, &c), 0);
    solo_durable(&s, 3);
    solo_ack(&s, 2, 3, 1, 1); /* two of four do not */
    assert_int_equal(s.u.commit, 2);
    solo_free(&s);
    s = solo_new(1, NULL);
    solo_lead(&s);
    c = *raft_config(s.raft, NULL);
    c.members[0].voter = false;
    assert_int_equal(config_change(&s, &c), -EINVAL); /* nobody would vote */
    solo_free(&s);
}

/* Learners decide nothing: any number of them comes and goes with one voter, or with none. */
static void test_config_changes_of_learners(void **state)
{
    struct solo s = solo_settled(3);
    struct raft_config c = *raft_config(s.raft, NULL);
    assert_int_equal(config_change(&s, &c), 0); /* the same, but for what the core sees */
    assert_int_equal(config_change(&s, &c), -EBUSY);
    solo_durable(&s, 2);
    solo_ack(&s, 2, 2, 1, 1);
    assert_false(raft_config_is_pending(s.raft));
    c = (struct raft_config){
        .count = 4, .members = {{1, true}, {2, true}, {4, false}, {5, false}}};
    assert_int_equal(config_change(&s, &c), 0); /* 3 goes, two learners come */
    solo_durable(&s, 3);
    solo_ack(&s, 2, 3, 1, 1);
    assert_int_equal(s.u.commit, 3);
    c = (struct raft_config){
        .count = 4, .members = {{1, true}, {2, true}, {4, true}, {6, false}}};
    assert_int_equal(config_change(&s, &c), 0); /* one is promoted, one replaced */
    raft_check(s.raft);
    solo_free(&s);
}

/* A change is in force when appended: who is out holds nothing up from then on. */
static void test_a_removal_counts_at_once(void **state)
{
    struct solo s = solo_settled(2);
    solo_propose(&s, 1);
    solo_durable(&s, 2);
    solo_step(&s, (struct raft_event){.type = RAFT_READ});
    uint64_t round = s.u.read_round;
    assert_int_equal(s.u.commit, 1);
    assert_true(s.u.confirmed_round < round);
    struct raft_config alone = {.count = 1, .members = {{1, true}}};
    assert_int_equal(config_change(&s, &alone), 0);
    assert_int_equal(s.u.commit, 2);
    assert_int_equal(s.u.confirmed_round, round);
    solo_durable(&s, 3);
    assert_int_equal(s.u.commit, 3);
    solo_free(&s);
}

static void test_a_removed_leader_steps_down(void **state)
{
    struct raft_config rest = {.count = 2, .members = {{2, true}, {3, true}}};
    struct solo s = solo_settled(3);
    assert_int_equal(config_change(&s, &rest), 0);
    solo_sent_all(&s);
    solo_durable(&s, 2);
    solo_ack(&s, 2, 2, 1, 1); /* its own disk does not count any more */
    assert_int_equal(s.u.commit, 1);
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    solo_ack(&s, 3, 2, 1, 1);
    assert_int_equal(s.u.commit, 2);
    assert_int_equal(solo_empty_to(&s, 2)->commit, 2); /* told before it goes */
    assert_non_null(solo_message(&s, RAFT_TIMEOUT_NOW, 2, 0));
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_tick(&s, 4 * T_US);
    assert_int_equal(s.u.message_count, 0);
    solo_free(&s);
}

/* ---- Transfer ---------------------------------------------------------------------- */

static struct raft_event transfer_to(uint64_t peer)
{
    return (struct raft_event){.type = RAFT_TRANSFER, .peer = peer};
}

static void test_transfer_waits_for_the_target(void **state)
{
    struct solo s = solo_settled(3);
    assert_int_equal(solo_step(&s, transfer_to(9)), -ENOENT);
    assert_int_equal(solo_step(&s, transfer_to(1)), -ENOENT);
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 2);
    solo_ack(&s, 3, 2, 2 - 1, 1);
    assert_int_equal(solo_step(&s, transfer_to(2)), 0);
    assert_null(solo_message(&s, RAFT_TIMEOUT_NOW, 0, 0));
    assert_true(raft_transferring(s.raft));
    assert_int_equal(solo_propose(&s, 1), -EBUSY);
    solo_ack(&s, 2, 2, 1, 1);
    assert_non_null(solo_message(&s, RAFT_TIMEOUT_NOW, 2, 0));
    solo_ack(&s, 2, 2, 2, 1);
    assert_null(solo_message(&s, RAFT_TIMEOUT_NOW, 0, 0)); /* once */
    uint64_t due = s.now_us + 2 * T_US;
    while (s.now_us < due) {
        assert_int_equal(solo_propose(&s, 1), -EBUSY);
        solo_tick(&s, BEAT_US);
        solo_ack(&s, 2, 2, 2, 1);
    }
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    assert_false(raft_transferring(s.raft));
    assert_int_equal(solo_propose(&s, 1), 0);
    solo_free(&s);
}

static void test_transfer_to_the_best(void **state)
{
    struct solo s = solo_settled(4);
    solo_propose(&s, 2);
    solo_sent_all(&s);
    solo_ack(&s, 2, 2, 1, 1);
    solo_ack(&s, 3, 3, 1, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 3});
    assert_int_equal(solo_step(&s, transfer_to(0)), 0);
    solo_durable(&s, 3);
    solo_ack(&s, 2, 3, 1, 1);
    assert_non_null(solo_message(&s, RAFT_TIMEOUT_NOW, 2, 0));
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 2});
    solo_tick(&s, 0); /* it is gone: no need to wait for it */
    assert_int_equal(solo_propose(&s, 1), 0);
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 4});
    assert_int_equal(solo_step(&s, transfer_to(0)), -ENOENT);
    solo_free(&s);
}

/* Once a transfer's flag survived its leadership, and refused all writes of the next. */
static void test_transfer_ends_with_the_leadership(void **state)
{
    struct solo s = solo_settled(3);
    solo_step(&s, transfer_to(2));
    solo_append(&s, 2, raft_term(s.raft) + 1, 1, raft_term(s.raft), NULL, 1);
    assert_false(raft_transferring(s.raft));
    solo_tick(&s, 2 * T_US);
    solo_lead(&s);
    assert_false(raft_transferring(s.raft));
    assert_int_equal(solo_propose(&s, 1), 0);
    solo_free(&s);
}

static void test_an_ineligible_leader_hands_over(void **state)
{
    struct solo s = solo_settled(3);
    struct raft_event e = {.type = RAFT_ELIGIBLE, .eligible = false};
    solo_step(&s, e);
    assert_non_null(solo_message(&s, RAFT_TIMEOUT_NOW, 2, 0));
    uint64_t due = s.now_us + 2 * T_US;
    while (s.now_us < due) {
        assert_int_equal(raft_role(s.raft), RAFT_LEADER);
        solo_tick(&s, BEAT_US);
        solo_ack(&s, 2, 1, 1, 1);
    }
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_free(&s);
}

/* ---- Bounds ------------------------------------------------------------------------ */

static void test_the_largest_update_fits(void **state)
{
    struct solo s = solo_settled(LIMIT_MEMBERS);
    solo_propose(&s, 3);
    solo_sent_all(&s);
    solo_durable(&s, 4);
    for (uint64_t id = 2; id <= LIMIT_MEMBERS / 2; id++)
        solo_ack(&s, id, 4, 1, 1);
    solo_step(&s, transfer_to(LIMIT_MEMBERS / 2 + 1));
    solo_ack(&s, LIMIT_MEMBERS / 2 + 1, 4, 1, 1); /* commits, tells all, and asks one */
    assert_int_equal(s.u.message_count, LIMIT_MEMBERS);
    solo_free(&s);
    s = solo_new(LIMIT_MEMBERS, NULL);
    solo_lead(&s); /* empty and with entries, to all */
    assert_true(s.u.message_count >= LIMIT_MEMBERS - 1);
    solo_free(&s);
}

static void test_peer_status(void **state)
{
    struct solo s = solo_settled(3);
    struct raft_peer_status p;
    assert_true(raft_peer_status(s.raft, 1, s.now_us, &p));
    assert_true(p.reachable && p.match == 1 && p.applied == 1);
    assert_true(raft_peer_status(s.raft, 2, s.now_us, &p));
    assert_true(p.reachable && p.match == 1 && p.applied == 1);
    assert_true(raft_peer_status(s.raft, 2, s.now_us + 2 * T_US, &p));
    assert_false(p.reachable);
    assert_false(raft_peer_status(s.raft, 9, s.now_us, &p));
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 2});
    assert_true(raft_peer_status(s.raft, 2, s.now_us, &p));
    assert_false(p.reachable);
    solo_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone_commits_only_what_is_durable),
        cmocka_unit_test(test_own_disk_has_one_vote),
        cmocka_unit_test(test_commit_only_of_the_own_term),
        cmocka_unit_test(test_reads_wait_for_their_own_round),
        cmocka_unit_test(test_a_majority_confirms),
        cmocka_unit_test(test_entries_wait_for_sent),
        cmocka_unit_test(test_probing_sends_one),
        cmocka_unit_test(test_figure_7),
        cmocka_unit_test(test_a_new_connection_is_probed),
        cmocka_unit_test(test_silence_is_not_for_ever),
        cmocka_unit_test(test_impossible_replies),
        cmocka_unit_test(test_check_quorum),
        cmocka_unit_test(test_a_leader_with_quorum_stays),
        cmocka_unit_test(test_visible_waits_for_the_connected),
        cmocka_unit_test(test_visible_does_not_wait_for_the_silent),
        cmocka_unit_test(test_visible_does_not_wait_for_the_stuck),
        cmocka_unit_test(test_visible_takes_in_who_has_caught_up),
        cmocka_unit_test(test_visible_after_an_election),
        cmocka_unit_test(test_config_changes_one_at_a_time),
        cmocka_unit_test(test_config_changes_of_learners),
        cmocka_unit_test(test_a_removal_counts_at_once),
        cmocka_unit_test(test_a_removed_leader_steps_down),
        cmocka_unit_test(test_transfer_waits_for_the_target),
        cmocka_unit_test(test_transfer_to_the_best),
        cmocka_unit_test(test_transfer_ends_with_the_leadership),
        cmocka_unit_test(test_an_ineligible_leader_hands_over),
        cmocka_unit_test(test_the_largest_update_fits),
        cmocka_unit_test(test_peer_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
