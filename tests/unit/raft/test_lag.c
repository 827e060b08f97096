/* test_lag.c - a leader whose log has begun: compaction before what its peers lack, a
 * peer that waits for a snapshot, and the floor that keeps that rare. */
#include "solo.h"

/* ---- Members that are late ---------------------------------------------------------- */

/* One entry: on disk everywhere, applied by 2 after `us2`, by 3 after `us3`. How long it
 * took until it was visible. */
static uint64_t late_write(struct solo *s, uint64_t us2, uint64_t us3)
{
    uint64_t begun = s->now_us, index = raft_last_index(s->raft) + 1, seen = 0;
    assert_int_equal(solo_propose(s, 1), 0);
    solo_sent_all(s);
    solo_durable(s, index);
    uint64_t end = us2 > us3 ? us2 : us3;
    for (uint64_t us = 0; us <= end + 5000; us += 5000) {
        solo_tick(s, 5000);
        solo_sent_all(s);
        solo_ack(s, 2, us >= us2 ? index : index - 1, us >= us2 ? index : index - 1, 1);
        if (s->u.commit == index)
            solo_apply(s, index);
        solo_ack(s, 3, us >= us3 ? index : index - 1, us >= us3 ? index : index - 1, 1);
        if (!seen && s->u.visible >= index)
            seen = s->now_us;
    }
    assert_true(seen > 0);
    return seen - begun;
}

enum { QUICK_US = 5000, LATE_US = 300000 };

/* It makes progress with each entry, so it never counts as stuck. */
static void test_a_member_that_is_always_late_is_not_waited_for(void **state)
{
    struct solo s = solo_settled(3);
    assert_true(late_write(&s, QUICK_US, LATE_US) >= LATE_US);
    for (int i = 0; i < 5; i++)
        late_write(&s, QUICK_US, LATE_US);
    for (int i = 0; i < 20; i++)
        assert_true(late_write(&s, QUICK_US, LATE_US) < 4 * QUICK_US);
    solo_free(&s);
}

static void test_it_is_waited_for_again_when_it_is_well(void **state)
{
    struct solo s = solo_settled(3);
    for (int i = 0; i < 10; i++)
        late_write(&s, QUICK_US, LATE_US);
    assert_true(late_write(&s, QUICK_US, LATE_US) < 4 * QUICK_US);
    for (int i = 0; i < 200; i++)
        late_write(&s, QUICK_US, QUICK_US); /* well: for three seconds */
    assert_true(late_write(&s, QUICK_US, LATE_US) >= LATE_US);
    solo_free(&s);
}

/* Now and then is no reason: who writes then waits, and all see what is written. */
static void test_a_member_that_is_late_now_and_then_is_waited_for(void **state)
{
    struct solo s = solo_settled(3);
    for (int i = 0; i < 20; i++) {
        assert_true(late_write(&s, QUICK_US, LATE_US) >= LATE_US);
        for (int k = 0; k < 150; k++)
            late_write(&s, QUICK_US, QUICK_US);
    }
    solo_free(&s);
}

/* Where all are slow nobody is slower than the rest. */
static void test_members_that_are_late_together_are_waited_for(void **state)
{
    struct solo s = solo_settled(3);
    for (int i = 0; i < 20; i++)
        assert_true(late_write(&s, LATE_US, LATE_US) >= LATE_US);
    solo_free(&s);
}

/* ---- Compaction -------------------------------------------------------------------- */

/* A leader of 2 and 3, of log 1 1 2 2 | 3 3 3 3: committed, applied and answered by 2 up
 * to 8; by 3 up to `match`, and what follows is in flight to it. */
static struct solo leader_of_eight(uint64_t match)
{
    struct solo s = solo_leader_of(3, TERMS(1, 1, 2, 2));
    solo_sent_all(&s);
    solo_ack(&s, 2, 5, 0, 1);
    if (match)
        solo_ack(&s, 3, min_u64(match, 5), 0, 1);
    solo_propose(&s, 3);
    solo_sent_all(&s);
    solo_durable(&s, 8);
    solo_ack(&s, 2, 8, 0, 1);
    solo_apply(&s, 8);
    solo_ack(&s, 2, 8, 8, 1);
    if (match > 5)
        solo_ack(&s, 3, match, 0, 1);
    assert_int_equal(s.u.commit, 8);
    return s;
}

static void test_a_leader_compacts_beyond_its_election(void **state)
{
    for (uint64_t to = 1; to <= 8; to++) {
        struct solo s = leader_of_eight(8);
        assert_int_equal(solo_compact(&s, to), 0);
        assert_int_equal(s.u.message_count, 0); /* 3 lacks nothing */
        assert_true(raft_established(s.raft));
        assert_int_equal(raft_last_term(s.raft), 3);
        assert_int_equal(solo_propose(&s, 1), 0);
        assert_int_equal(solo_entries_to(&s, 3)->prev_index, 8);
        assert_int_equal(solo_entries_to(&s, 3)->prev_term, 3);
        solo_free(&s);
    }
}

static const struct raft_message *offer_to(const struct solo *s, uint64_t to)
{
    return solo_message(s, RAFT_SNAPSHOT, to, 0);
}

static bool waits_for_snapshot(const struct solo *s, uint64_t id)
{
    struct raft_peer_status p;
    assert_true(raft_peer_status(s->raft, id, s->now_us, &p));
    return p.snapshot;
}

/* What is in flight may still arrive: an empty append must not follow what is gone, nor
 * be taken for the end of hope. */
static void test_entries_in_flight_across_a_compaction(void **state)
{
    struct solo s = leader_of_eight(5);
    solo_compact(&s, 7);
    assert_false(waits_for_snapshot(&s, 3));
    solo_tick(&s, BEAT_US);
    assert_int_equal(solo_empty_to(&s, 3)->prev_index, 7);
    assert_int_equal(solo_empty_to(&s, 3)->prev_term, 3);
    solo_ack(&s, 3, 6, 6, 1);
    assert_false(waits_for_snapshot(&s, 3));
    solo_ack(&s, 3, 8, 8, 1);
    solo_propose(&s, 1);
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 8);
    solo_free(&s);

    s = leader_of_eight(5); /* and where it does not, it is gone */
    solo_compact(&s, 7);
    for (int i = 0; i < 4 && !offer_to(&s, 3); i++) {
        solo_tick(&s, BEAT_US);
        solo_ack(&s, 2, 8, 8, 1);
        solo_ack(&s, 3, 5, 5, 1);
    }
    assert_true(waits_for_snapshot(&s, 3));
    assert_null(solo_message(&s, RAFT_APPEND, 3, 0));
    solo_free(&s);
}

/* The first append is under way, after a probe that the compaction overtakes. */
static void test_a_probe_across_a_compaction(void **state)
{
    struct solo s = leader_of_eight(0); /* 3 was sent 5 after 4, and has not answered */
    solo_compact(&s, 5);
    assert_false(waits_for_snapshot(&s, 3));
    assert_null(solo_entries_to(&s, 3)); /* one is under way */
    solo_tick(&s, BEAT_US);
    assert_int_equal(solo_empty_to(&s, 3)->prev_index, 5);
    solo_ack(&s, 3, 5, 0, 1);
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 5);
    solo_free(&s);
    s = leader_of_eight(0);
    solo_compact(&s, 6); /* not sent: nothing can be asked of it any more */
    assert_true(waits_for_snapshot(&s, 3));
    assert_int_equal(offer_to(&s, 3)->prev_index, 6);
    solo_free(&s);
}

/* Entries were asked for, and are being read, when the log is cut before them. */
static void test_a_sending_across_a_compaction(void **state)
{
    struct solo s = solo_settled(3);
    solo_propose(&s, 4);
    const struct raft_message *m = solo_entries_to(&s, 3);
    assert_int_equal(m->prev_index, 1);
    solo_sent(&s, 2, 5);
    solo_durable(&s, 5);
    solo_ack(&s, 2, 5, 1, 1);
    solo_apply(&s, 5);
    solo_compact(&s, 4);
    assert_true(waits_for_snapshot(&s, 3));
    assert_int_equal(offer_to(&s, 3)->prev_index, 4);
    solo_sent(&s, 3, 5); /* they were read in time */
    assert_true(waits_for_snapshot(&s, 3));
    assert_null(solo_entries_to(&s, 3));
    solo_ack(&s, 3, 5, 1, 1);
    assert_false(waits_for_snapshot(&s, 3));
    solo_propose(&s, 1);
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 5);
    solo_free(&s);

    s = leader_of_eight(8); /* it comes back empty, while what follows the base is sent */
    solo_compact(&s, 8);
    solo_step(&s, (struct raft_event){.type = RAFT_CONNECTED, .peer = 3});
    solo_propose(&s, 1);
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 8);
    solo_refuse(&s, 3, 0, 0);
    assert_non_null(offer_to(&s, 3));
    solo_sent(&s, 3, 9);
    solo_ack(&s, 3, 8, 8, 1); /* installed: what was sent came before it */
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 8);
    solo_free(&s);
}

/* ---- A leader's peer that waits for a snapshot ------------------------------------- */

/* leader_of_eight(), whose log begins after 6, and 3's log ends in (2, 1). */
static struct solo leader_with_a_laggard(void)
{
    struct solo s = leader_of_eight(0);
    solo_compact(&s, 6);
    solo_refuse(&s, 3, 2, 1);
    assert_true(waits_for_snapshot(&s, 3));
    return s;
}

static void test_a_refusal_before_the_base(void **state)
{
    struct solo s = leader_of_eight(8);
    solo_compact(&s, 6);
    solo_step(&s, (struct raft_event){.type = RAFT_CONNECTED, .peer = 3});
    assert_false(waits_for_snapshot(&s, 3)); /* a new life; is there a hole? */
    solo_refuse(&s, 3, 2, 1);
    const struct raft_message *m = offer_to(&s, 3); /* at once */
    assert_non_null(m);
    assert_int_equal(m->prev_index, 6);
    assert_int_equal(m->prev_term, 3);
    assert_int_equal(m->last, 6);
    assert_int_equal(m->commit, 8);
    assert_int_equal(m->round, 1);
    assert_int_equal(m->floor, 8);
    assert_null(solo_message(&s, RAFT_APPEND, 3, 0));
    solo_refuse(&s, 3, 2, 1); /* its answer: not the begin of a chatter */
    assert_int_equal(s.u.message_count, 0);
    solo_free(&s);
}

static void test_a_laggard_gets_heartbeats_and_nothing_else(void **state)
{
    struct solo s = leader_with_a_laggard();
    solo_propose(&s, 1);
    assert_null(solo_message(&s, 0, 3, 0));
    solo_sent_all(&s);
    solo_durable(&s, 9);
    solo_ack(&s, 2, 9, 8, 1);
    assert_int_equal(s.u.commit, 9);
    assert_null(offer_to(&s, 3)); /* commits do not concern it */
    for (int i = 0; i < 8; i++) {
        solo_tick(&s, BEAT_US);
        assert_non_null(offer_to(&s, 3));
        assert_null(solo_message(&s, RAFT_APPEND, 3, 0));
        uint64_t round = offer_to(&s, 3)->round;
        solo_refuse(&s, 3, 2, 1);
        assert_true(round > 1);
        assert_int_equal(s.u.message_count, 0);
        solo_ack(&s, 2, 9, 9, 1);
    }
    solo_step(&s, (struct raft_event){.type = RAFT_READ});
    assert_non_null(offer_to(&s, 3));
    struct raft_event e = {.type = RAFT_DISCONNECTED, .peer = 3};
    solo_step(&s, e);
    e.type = RAFT_CONNECTED;
    solo_step(&s, e);
    assert_non_null(offer_to(&s, 3));
    assert_true(waits_for_snapshot(&s, 3));
    solo_free(&s);
}

/* It is alive: it keeps the leader in office, and confirms reads. */
static void test_a_laggard_counts_as_heard(void **state)
{
    struct solo s = leader_with_a_laggard();
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 2});
    for (int i = 0; i < 12; i++) {
        solo_tick(&s, BEAT_US);
        solo_receive(&s, (struct raft_message){.type = RAFT_APPEND_REPLY,
                                               .from = 3,
                                               .term = 3,
                                               .round = offer_to(&s, 3)->round,
                                               .hint_index = 2,
                                               .hint_term = 1});
    }
    assert_int_equal(raft_role(s.raft), RAFT_LEADER);
    assert_int_equal(s.u.confirmed_round, 13);
    solo_free(&s);
}

static void test_a_laggard_holds_nothing_back(void **state)
{
    struct solo s = leader_of_eight(0); /* 3 is in V since the election */
    assert_int_equal(s.u.visible, 0);
    solo_compact(&s, 6);
    assert_int_equal(s.u.visible, 8);
    /* Few entries behind, and yet not one of those that are waited for. */
    solo_refuse(&s, 3, 2, 1);
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 9);
    solo_ack(&s, 2, 9, 8, 1);
    solo_apply(&s, 9);
    solo_ack(&s, 2, 9, 9, 1);
    assert_int_equal(s.u.visible, 9);
    solo_ack(&s, 3, 6, 6, 1); /* installed */
    solo_propose(&s, 1);
    solo_sent_all(&s);
    solo_durable(&s, 10);
    solo_ack(&s, 2, 10, 9, 1);
    solo_apply(&s, 10);
    solo_ack(&s, 2, 10, 10, 1);
    assert_int_equal(s.u.visible, 9);
    solo_ack(&s, 3, 10, 10, 1);
    assert_int_equal(s.u.visible, 10);
    solo_free(&s);
}

static void test_a_laggard_is_no_heir(void **state)
{
    struct solo s = leader_with_a_laggard();
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 2});
    assert_int_equal(solo_step(&s, (struct raft_event){.type = RAFT_TRANSFER}), -ENOENT);
    solo_free(&s);
}

static void test_a_laggard_that_has_arrived(void **state)
{
    struct solo s = leader_with_a_laggard();
    solo_ack(&s, 3, 5, 5,
             1); /* late, from before the base: it was a false alarm, or not */
    assert_true(waits_for_snapshot(&s, 3));
    solo_ack(&s, 3, 6, 6, 1); /* installed */
    assert_false(waits_for_snapshot(&s, 3));
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 6);
    assert_int_equal(solo_entries_to(&s, 3)->last, 8);
    solo_free(&s);

    s = leader_with_a_laggard();
    solo_refuse(&s, 3, 7, 3); /* another leader's entries came meanwhile */
    assert_false(waits_for_snapshot(&s, 3));
    assert_null(solo_entries_to(&s, 3)); /* asked first */
    assert_int_equal(solo_empty_to(&s, 3)->prev_index, 7);
    solo_ack(&s, 3, 7, 6, 1);
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 7);
    solo_free(&s);

    s = leader_with_a_laggard();
    solo_compact(&s, 8); /* the next merge came before it had arrived */
    solo_ack(&s, 3, 6, 6, 1);
    assert_true(waits_for_snapshot(&s, 3));
    solo_tick(&s, BEAT_US);
    assert_int_equal(offer_to(&s, 3)->prev_index, 8);
    solo_ack(&s, 3, 8, 8, 1);
    assert_false(waits_for_snapshot(&s, 3));
    solo_free(&s);
}

/* A refusal that was overtaken, from a peer that is known to have what the base needs. */
static void test_a_stale_refusal_is_no_lag(void **state)
{
    struct solo s = leader_of_eight(8);
    solo_compact(&s, 6);
    solo_refuse(&s, 3, 2, 1);
    assert_false(waits_for_snapshot(&s, 3));
    assert_int_equal(solo_empty_to(&s, 3)->prev_index, 8);
    solo_free(&s);
}

/* G6: it may have come back with a hole, which ends below what it once had. */
static void test_a_new_life_may_have_less(void **state)
{
    struct solo s = leader_of_eight(8);
    solo_compact(&s, 2);
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 3});
    solo_step(&s, (struct raft_event){.type = RAFT_CONNECTED, .peer = 3});
    assert_int_equal(solo_empty_to(&s, 3)->prev_index, 8); /* as if nothing was lost */
    solo_refuse(&s, 3, 4, 2);
    assert_int_equal(solo_empty_to(&s, 3)->prev_index, 4);
    solo_ack(&s, 3, 4, 0, 1);
    assert_int_equal(solo_entries_to(&s, 3)->prev_index, 4);
    assert_int_equal(s.u.commit, 8);
    solo_free(&s);
}

/* ---- The floor --------------------------------------------------------------------- */

static uint64_t floor_told(struct solo *s)
{
    solo_tick(s, BEAT_US);
    const struct raft_message *m = solo_empty_to(s, 2);
    assert_int_equal(m->floor, raft_floor(s->raft));
    return m->floor;
}

static void test_a_leaders_floor(void **state)
{
    struct solo s = solo_leader_of(4, TERMS(1, 1, 2, 2));
    assert_int_equal(raft_floor(s.raft), 0); /* nobody has answered */
    solo_ack(&s, 2, 5, 0, 1);
    solo_ack(&s, 3, 5, 0, 1);
    solo_ack(&s, 4, 2, 0, 1);
    assert_int_equal(floor_told(&s), 2);
    solo_propose(&s, 2);
    solo_ack(&s, 2, 7, 0, 1);
    solo_ack(&s, 3, 6, 0, 1);
    solo_ack(&s, 4, 6, 0, 1);
    assert_int_equal(floor_told(&s), 5); /* its own disk's */
    solo_durable(&s, 7);
    assert_int_equal(floor_told(&s), 6);
    solo_ack(&s, 3, 7, 0, 1);
    solo_step(&s, (struct raft_event){.type = RAFT_DISCONNECTED, .peer = 4});
    assert_int_equal(floor_told(&s), 7); /* who is away may need a snapshot */
    struct raft_event e = {.type = RAFT_CONNECTED, .peer = 4};
    solo_step(&s, e);
    assert_int_equal(raft_floor(s.raft), 0); /* not known; and not 7 */
    solo_ack(&s, 4, 6, 0, 1);
    assert_int_equal(floor_told(&s), 6);
    for (int i = 0; i < 6; i++) { /* and so may the silent */
        solo_tick(&s, BEAT_US);
        solo_ack(&s, 2, 7, 0, 1);
        solo_ack(&s, 3, 7, 0, 1);
    }
    assert_int_equal(floor_told(&s), 7);
    solo_free(&s);
}

static void test_who_waits_for_a_snapshot_keeps_no_log(void **state)
{
    struct solo s = leader_with_a_laggard();
    assert_int_equal(floor_told(&s), 8);
    solo_ack(&s, 3, 6, 6, 1);
    assert_int_equal(floor_told(&s), 6);
    solo_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_member_that_is_always_late_is_not_waited_for),
        cmocka_unit_test(test_it_is_waited_for_again_when_it_is_well),
        cmocka_unit_test(test_a_member_that_is_late_now_and_then_is_waited_for),
        cmocka_unit_test(test_members_that_are_late_together_are_waited_for),
        cmocka_unit_test(test_a_leader_compacts_beyond_its_election),
        cmocka_unit_test(test_entries_in_flight_across_a_compaction),
        cmocka_unit_test(test_a_probe_across_a_compaction),
        cmocka_unit_test(test_a_sending_across_a_compaction),
        cmocka_unit_test(test_a_refusal_before_the_base),
        cmocka_unit_test(test_a_laggard_gets_heartbeats_and_nothing_else),
        cmocka_unit_test(test_a_laggard_counts_as_heard),
        cmocka_unit_test(test_a_laggard_holds_nothing_back),
        cmocka_unit_test(test_a_laggard_is_no_heir),
        cmocka_unit_test(test_a_laggard_that_has_arrived),
        cmocka_unit_test(test_a_stale_refusal_is_no_lag),
        cmocka_unit_test(test_a_new_life_may_have_less),
        cmocka_unit_test(test_a_leaders_floor),
        cmocka_unit_test(test_who_waits_for_a_snapshot_keeps_no_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
