/*
 * test_lessons.c - bugs that hurt the users of other replicated logs, as far as the core can
 * show that they cannot happen here. docs/lessons.md lists all twenty, and where each is
 * tested.
 */
#include "cluster.h"
#include "solo.h"

/* ---- 2: acknowledged while the own write was still running ----------------------------- */

static void lesson_02_own_ack_waits_for_the_own_disk(void **state)
{
    for (uint32_t voters = 1; voters <= 2; voters++) {
        struct solo s = solo_leader_of(voters, NULL);
        if (voters == 2)
            solo_ack(&s, 2, 1, 0, 1);
        assert_int_equal(s.u.commit, 1);
        solo_propose(&s, 3);
        if (voters == 2)
            solo_ack(&s, 2, 4, 1, 1); /* the other one's disk was faster */
        for (uint64_t index = 2; index <= 4; index++) {
            assert_int_equal(raft_commit(s.raft), index - 1);
            solo_durable(&s, index);
            assert_int_equal(raft_commit(s.raft), index);
        }
        solo_free(&s);
    }
}

/* ---- 3: a read confirmed by the answer to an earlier one ------------------------------- */

static uint64_t read_round(struct solo *s)
{
    assert_int_equal(solo_step(s, (struct raft_event){.type = RAFT_READ}), 0);
    return s->u.read_round;
}

/* A leader of three, its own entry committed. */
static void settle(struct solo *s)
{
    solo_lead(s);
    uint64_t last = raft_last_index(s->raft);
    solo_sent_all(s);
    solo_ack(s, 2, last, 0, 1);
    assert_true(raft_established(s->raft));
}

static void lesson_03_a_retried_read_has_a_new_number(void **state)
{
    struct solo s = solo_new(3, NULL);
    settle(&s);
    uint64_t term = raft_term(s.raft), first = read_round(&s), again = read_round(&s);
    assert_true(again > first);
    solo_ack(&s, 2, 1, 0, first);
    assert_true(s.u.confirmed_round >= first && s.u.confirmed_round < again);

    /* Paused, deposed, elected again: numbers begin anew, and answers of the former term,
     * which were on their way all the time, are nobody's. */
    solo_receive(&s, (struct raft_message){
                         .type = RAFT_APPEND_REPLY, .from = 3, .term = term + 1});
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    settle(&s);
    assert_true(raft_term(s.raft) > term);
    uint64_t round = read_round(&s);
    for (uint64_t from = 2; from <= 3; from++)
        solo_receive(&s, (struct raft_message){.type = RAFT_APPEND_REPLY,
                                               .from = from,
                                               .term = term,
                                               .ok = true,
                                               .match = 1,
                                               .round = round});
    assert_true(s.u.confirmed_round < round);
    solo_ack(&s, 3, 1, 0, round);
    assert_true(s.u.confirmed_round >= round);
    solo_free(&s);
}

/* ---- 4: a read before anything of the own term was committed --------------------------- */

static void lesson_04_no_read_before_a_commit_of_the_own_term(void **state)
{
    for (int transferred = 0; transferred < 2; transferred++) {
        struct solo s = solo_new(3, TERMS(1, 1, 1));
        if (transferred) {
            solo_append(&s, 2, 2, 3, 1, NULL, 2);
            solo_receive(&s, (struct raft_message){
                                 .type = RAFT_TIMEOUT_NOW, .from = 2, .term = 2});
            assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
        }
        solo_lead(&s);
        /* All of the former terms is on both other disks: still not known to be committed. */
        solo_sent_all(&s);
        for (uint64_t from = 2; from <= 3; from++) {
            solo_ack(&s, from, 3, 0, 1);
            assert_int_equal(solo_step(&s, (struct raft_event){.type = RAFT_READ}),
                             -EAGAIN);
        }
        solo_ack(&s, 2, 4, 0, 1);
        assert_int_equal(solo_step(&s, (struct raft_event){.type = RAFT_READ}), 0);
        assert_int_equal(raft_commit(s.raft), 4); /* what the read waits for has it */
        solo_free(&s);
    }
}

/* ---- 6: committed, and lost with the power --------------------------------------------- */

static void crash_all(struct cluster *c)
{
    for (uint32_t id = 1; id <= c->node_count; id++)
        cluster_crash(c, id);
    for (uint32_t id = 1; id <= c->node_count; id++)
        cluster_start(c, id);
}

/* The power of all goes at once, at each moment of some writes: what one of them called
 * committed is in the log of who leads next (cluster.c: leader completeness). */
static void lesson_06_what_is_committed_survives_a_power_cut_of_all(void **state)
{
    uint64_t lost = 0;
    for (unsigned moment = 1; moment <= 120; moment++) {
        cluster_seed_running = moment;
        struct cluster *c = cluster_new(3, 3, moment);
        c->disk_us = 3000;
        uint64_t leader = cluster_elect(c);
        for (unsigned i = 0; i < moment; i++) {
            if (i % 6 == 0)
                cluster_propose(c, leader, 1);
            cluster_advance(c);
        }
        crash_all(c);
        uint64_t committed = c->committed_last;
        assert_int_equal(cluster_propose(c, cluster_elect(c), 1), 0);
        cluster_run(c, 4 * ELECTION_US);
        assert_true(c->committed_last > committed && cluster_agrees(c, 0));
        lost += c->counts.lost_entries;
        cluster_free(c);
    }
    assert_true(lost > 0);
}

/* ---- 11: many small messages in flight, which made all slower -------------------------- */

static void lesson_11_what_waits_goes_in_one_batch(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 1);
    const struct raft_message *m = solo_entries_to(&s, 2);
    assert_true(m && m->prev_index == 1 && m->last == 2);
    for (int i = 0; i < 50; i++) { /* the driver is busy with that one */
        solo_propose(&s, 1);
        assert_null(solo_entries_to(&s, 2));
    }
    solo_sent(&s, 2, 2);
    m = solo_entries_to(&s, 2);
    assert_true(m && m->prev_index == 2 && m->last == 52);
    /* It may send less, by bytes; or none, and is not asked again before it says so. */
    solo_sent(&s, 2, 30);
    m = solo_entries_to(&s, 2);
    assert_true(m && m->prev_index == 30 && m->last == 52);
    solo_sent(&s, 2, 30);
    for (int i = 0; i < 50; i++) {
        solo_propose(&s, 1);
        assert_null(solo_entries_to(&s, 2));
    }
    solo_sent(&s, 2, 0);
    m = solo_entries_to(&s, 2);
    assert_true(m && m->prev_index == 30 && m->last == 102);
    solo_free(&s);
}

/* ---- 12: a flag of a leadership that outlived it --------------------------------------- */

static void lesson_12_a_transfer_does_not_outlive_its_leadership(void **state)
{
    struct solo s = solo_new(3, NULL);
    settle(&s);
    solo_propose(&s, 1); /* which the target lacks, so that the transfer waits */
    assert_int_equal(solo_step(&s, (struct raft_event){.type = RAFT_TRANSFER, .peer = 2}),
                     0);
    assert_true(raft_transferring(s.raft));
    assert_int_equal(solo_propose(&s, 1), -EBUSY);
    solo_receive(&s, (struct raft_message){.type = RAFT_APPEND_REPLY,
                                           .from = 3,
                                           .term = raft_term(s.raft) + 1});
    assert_false(raft_transferring(s.raft));
    settle(&s);
    assert_false(raft_transferring(s.raft));
    assert_int_equal(solo_propose(&s, 1), 0);
    solo_free(&s);
}

/* ---- 13: pre-votes and an old term, which kept a healthy majority without a leader ----- */

/* One node is of a much later term than all others, and each size and state of its log is
 * tried, its own the longest or the shortest; one other node may be down. */
static void elect_beside_an_old_term(uint32_t voters, uint32_t odd, uint64_t term,
                                     bool longer, bool one_down)
{
    struct cluster *c = cluster_make(voters, voters, voters * 16 + odd + term);
    for (uint32_t id = 1; id <= voters; id++) {
        bool is_odd = id == odd;
        cluster_log(c, id, TERMS(1, 1, 2, 2), is_odd == longer ? 4 : 2);
        c->nodes[id].term = is_odd ? term : 2;
    }
    uint32_t down = one_down && voters > 2 ? odd % voters + 1 : 0;
    for (uint32_t id = 1; id <= voters; id++) {
        if (id != down)
            cluster_start(c, id);
    }
    uint64_t begin = c->now_us, leader = cluster_elect(c);
    assert_true(c->now_us - begin < 20 * ELECTION_US);
    assert_int_equal(cluster_propose(c, leader, 1), 0);
    cluster_run(c, 10 * ELECTION_US);
    assert_true(cluster_agrees(c, 0));
    cluster_free(c);
}

static void lesson_13_an_old_term_does_not_keep_the_rest_from_electing(void **state)
{
    for (uint32_t voters = 1; voters < NODES_MAX; voters++) {
        for (uint32_t odd = 1; odd <= voters; odd++) {
            for (uint64_t term = 2; term <= 40; term += 19) {
                for (int bits = 0; bits < 4; bits++)
                    elect_beside_an_old_term(voters, odd, term, bits & 1, bits & 2);
            }
        }
    }
}

/* ---- 16: acknowledged upon what a truncation had taken --------------------------------- */

static uint64_t told_match(const struct solo *s)
{
    const struct raft_message *m = solo_message(s, RAFT_APPEND_REPLY, 0, 0);
    return m && m->ok ? m->match : 0;
}

static void lesson_16_durable_goes_back_with_a_truncation(void **state)
{
    struct solo s = solo_new(3, TERMS(1));
    solo_append(&s, 2, 1, 1, 1, TERMS(1, 1, 1, 1), 0);
    solo_durable(&s, 4);
    assert_int_equal(told_match(&s), 4);
    uint64_t former = s.u.generation; /* of which the write of 5 is still under way */

    solo_append(&s, 3, 2, 2, 1, TERMS(2, 2, 2), 0);
    assert_true(s.u.truncate && s.u.truncate_to == 2);
    assert_int_equal(raft_durable(s.raft), 2);
    assert_int_equal(told_match(&s), 0);
    solo_step(
        &s, (struct raft_event){.type = RAFT_DURABLE, .index = 5, .generation = former});
    assert_int_equal(raft_durable(s.raft), 2);
    assert_int_equal(told_match(&s), 0);
    solo_append(&s, 3, 2, 5, 2, NULL, 0); /* asked again meanwhile */
    assert_int_equal(told_match(&s), 2);
    solo_durable(&s, 5);
    assert_int_equal(told_match(&s), 5);
    solo_free(&s);
}

/* ---- 19: repaired under a term that was not on disk yet -------------------------------- */

/* What changes the log under a new term says in the same update that the term is to be
 * written, which the driver does first (raft.h, duty 1). */
static void lesson_19_the_term_is_written_before_what_comes_of_it(void **state)
{
    struct solo s = solo_new(3, TERMS(1, 1, 1));
    assert_int_equal(solo_append(&s, 2, 4, 1, 1, TERMS(3, 4), 1), 0);
    assert_true(s.u.truncate && s.u.append_last == 3 && s.u.hard_state_changed);
    assert_int_equal(raft_term(s.raft), 4);
    solo_append(&s, 2, 4, 3, 4, TERMS(4), 1);
    assert_true(s.u.append_last == 4 && !s.u.hard_state_changed); /* it is there */
    /* Nor does a vote, or a candidate's question, leave in an update that does not say it. */
    solo_receive(&s, (struct raft_message){.type = RAFT_VOTE,
                                           .from = 3,
                                           .term = 6,
                                           .transfer = true,
                                           .last_index = 4,
                                           .last_term = 4});
    const struct raft_message *m = solo_message(&s, RAFT_VOTE_REPLY, 3, 0);
    assert_true(m && m->granted && s.u.hard_state_changed && raft_vote(s.raft) == 3);
    solo_receive(&s,
                 (struct raft_message){.type = RAFT_TIMEOUT_NOW, .from = 3, .term = 6});
    assert_true(solo_message(&s, RAFT_VOTE, 2, 0) && s.u.hard_state_changed);
    solo_free(&s);
}

int main(int argc, char **argv)
{
    if (argc > 1) /* one of them, by its name */
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lesson_02_own_ack_waits_for_the_own_disk),
        cmocka_unit_test(lesson_03_a_retried_read_has_a_new_number),
        cmocka_unit_test(lesson_04_no_read_before_a_commit_of_the_own_term),
        cmocka_unit_test(lesson_06_what_is_committed_survives_a_power_cut_of_all),
        cmocka_unit_test(lesson_11_what_waits_goes_in_one_batch),
        cmocka_unit_test(lesson_12_a_transfer_does_not_outlive_its_leadership),
        cmocka_unit_test(lesson_13_an_old_term_does_not_keep_the_rest_from_electing),
        cmocka_unit_test(lesson_16_durable_goes_back_with_a_truncation),
        cmocka_unit_test(lesson_19_the_term_is_written_before_what_comes_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
