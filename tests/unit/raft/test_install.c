/* test_install.c - the log's two ends: claims, compaction, snapshots offered and
 * installed, and the floor that keeps them rare. */
#include "solo.h"

/* ---- Claims ------------------------------------------------------------------------ */

static const struct raft_run two_runs[] = {{2, 1}, {3, 2}};

/* Log 1 1 2 in term 5, of `voters`. */
static struct raft_options options_of(uint32_t voters)
{
    struct raft_options o = {.id = 1,
                             .seed = 3,
                             .election_us = T_US,
                             .heartbeat_us = BEAT_US,
                             .term = 5,
                             .runs = two_runs,
                             .run_count = 2};
    o.config.count = voters;
    for (uint32_t i = 0; i < voters; i++)
        o.config.members[i] = (struct raft_member){i + 1, true};
    return o;
}

static struct solo solo_of(const struct raft_options *o)
{
    struct solo s = {.now_us = 1000000};
    assert_int_equal(raft_new(&s.raft, o, s.now_us), 0);
    return s;
}

static struct solo claiming(uint32_t voters, uint64_t index, uint64_t term)
{
    struct raft_options o = options_of(voters);
    o.claim_index = index;
    o.claim_term = term;
    return solo_of(&o);
}

static bool granted(struct solo *s, bool pre, uint64_t index, uint64_t term)
{
    struct raft_message m = {.type = RAFT_VOTE,
                             .from = 2,
                             .term = raft_term(s->raft) + 1,
                             .pre = pre,
                             .last_index = index,
                             .last_term = term};
    assert_int_equal(solo_receive(s, m), 0);
    return solo_message(s, RAFT_VOTE_REPLY, 2, 0)->granted;
}

static void test_a_claim_gives_no_vote_away(void **state)
{
    static const struct {
        uint64_t index, term;
        bool granted;
    } cases[] = {{3, 2, false}, {9, 2, false}, {6, 3, false}, {7, 3, true},
                 {8, 3, true},  {7, 4, true},  {1, 4, true}};
    for (size_t i = 0; i < array_length(cases); i++) {
        struct solo s = claiming(3, 7, 3);
        assert_int_equal(raft_claim(s.raft), 7);
        assert_int_equal(raft_claim_term(s.raft), 3);
        for (int pre = 1; pre >= 0; pre--)
            assert_int_equal(granted(&s, pre, cases[i].index, cases[i].term),
                             cases[i].granted);
        solo_free(&s);
    }
    struct solo s = claiming(3, 4, 1); /* behind, but the own log still counts too */
    assert_false(granted(&s, false, 9, 1));
    solo_free(&s);
}

static void assert_no_candidate(struct solo *s)
{
    for (int i = 0; i < 4; i++) {
        solo_tick(s, 2 * T_US);
        assert_int_equal(s->u.message_count, 0);
        assert_int_equal(raft_role(s->raft), RAFT_FOLLOWER);
        assert_true(s->u.deadline_us > s->now_us);
    }
}

static void test_who_has_a_claim_is_no_candidate(void **state)
{
    struct solo s = claiming(3, 7, 3);
    assert_no_candidate(&s);
    solo_append(&s, 2, 5, 3, 2, NULL, 0);
    struct raft_message m = {.type = RAFT_TIMEOUT_NOW, .from = 2, .term = 5};
    assert_int_equal(solo_receive(&s, m), 0);
    assert_int_equal(s.u.message_count, 0);
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_free(&s);
    s = claiming(1, 7, 3); /* it would win at once */
    assert_no_candidate(&s);
    solo_free(&s);
}

static void test_a_claim_ends_where_the_log_reaches_it(void **state)
{
    struct solo s = claiming(3, 7, 3);
    solo_append(&s, 2, 5, 3, 2, TERMS(3, 3, 3), 0);
    assert_int_equal(raft_claim(s.raft), 7);
    assert_false(granted(&s, true, 6, 3));
    solo_append(&s, 2, 5, 6, 3, TERMS(3, 5), 0);
    assert_int_equal(raft_claim(s.raft), 0);
    solo_tick(&s, 2 * T_US);
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    solo_free(&s);
    s = claiming(3, 3, 2); /* nothing is missing */
    assert_int_equal(raft_claim(s.raft), 0);
    solo_free(&s);
}

/* Else a node that has everything there is would wait for entries that never come. */
static void test_a_claim_ends_where_a_later_term_begins(void **state)
{
    struct solo s = claiming(3, 7, 3);
    solo_append(&s, 2, 5, 3, 2, TERMS(3), 0);
    assert_int_equal(raft_claim(s.raft), 7);
    solo_append(&s, 2, 5, 4, 3, TERMS(5), 0);
    assert_int_equal(raft_claim(s.raft), 0);
    assert_false(granted(&s, true, 7, 3));
    solo_tick(&s, 2 * T_US);
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    solo_free(&s);
}

static void test_claims_contradict(void **state)
{
    struct raft *r = NULL;
    struct raft_options o = options_of(3);
    o.claim_index = 7;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    o.claim_term = 6; /* above the hard state's */
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    o.claim_index = 0;
    o.claim_term = 2;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    assert_null(r);
}

/* ---- Compaction -------------------------------------------------------------------- */

/* Log 1 1 2 2 2 3 of leader 2 in term 3; 1..5 committed, 1..4 durable, 1..3 applied. */
static struct solo follower_of_six(void)
{
    struct solo s = solo_new(3, NULL);
    solo_append(&s, 2, 3, 0, 0, TERMS(1, 1, 2, 2, 2, 3), 5);
    solo_durable(&s, 4);
    solo_apply(&s, 3);
    return s;
}

static void test_a_follower_compacts(void **state)
{
    struct solo s = follower_of_six();
    assert_int_equal(solo_compact(&s, 3), 0);
    assert_int_equal(raft_base(s.raft), 3);
    assert_int_equal(raft_term_of(s.raft, 2), 0);
    assert_int_equal(raft_term_of(s.raft, 3), 2);
    assert_int_equal(raft_term_of(s.raft, 6), 3);
    assert_int_equal(solo_compact(&s, 3), 0);
    assert_int_equal(solo_compact(&s, 1), 0); /* came late */
    assert_int_equal(raft_base(s.raft), 3);
    assert_int_equal(solo_compact(&s, 5), -EINVAL); /* not durable */
    solo_durable(&s, 6);
    assert_int_equal(solo_compact(&s, 6), -EINVAL); /* not committed */
    assert_int_equal(raft_base(s.raft), 3);
    /* From before the base, and across it, as far as that cannot be wrong. */
    assert_int_equal(solo_append(&s, 2, 3, 1, 1, TERMS(1), 5), 0);
    assert_int_equal(solo_append(&s, 2, 3, 1, 1, TERMS(1, 2, 2, 2, 3, 3), 5), 0);
    assert_int_equal(s.u.append_first, 7);
    assert_int_equal(solo_append(&s, 2, 3, 1, 1, TERMS(1, 1, 2), 5), -EPROTO);
    /* A restart that found it applied needs not say so first. */
    assert_int_equal(solo_compact(&s, 5), 0);
    assert_int_equal(raft_base(s.raft), 5);
    solo_free(&s);
}

/* ---- A follower that is offered one ------------------------------------------------ */

static int offer(struct solo *s, uint64_t from, uint64_t term, uint64_t index,
                 uint64_t at_term, uint64_t commit)
{
    return solo_receive(s, (struct raft_message){.type = RAFT_SNAPSHOT,
                                                 .from = from,
                                                 .term = term,
                                                 .prev_index = index,
                                                 .prev_term = at_term,
                                                 .last = index,
                                                 .commit = commit,
                                                 .round = 4,
                                                 .floor = 2});
}

static const struct raft_message *reply_of(const struct solo *s)
{
    return solo_message(s, RAFT_APPEND_REPLY, 0, 0);
}

static void test_an_offer_is_a_heartbeat(void **state)
{
    struct solo s = solo_new(3, TERMS(1, 1));
    s.now_us += T_US;
    assert_int_equal(offer(&s, 3, 4, 20, 3, 25), 0);
    assert_true(s.u.snapshot_offered);
    assert_int_equal(s.u.snapshot_index, 20);
    assert_int_equal(s.u.snapshot_term, 3);
    assert_int_equal(s.u.snapshot_from, 3);
    assert_int_equal(raft_leader(s.raft), 3);
    assert_int_equal(raft_term(s.raft), 4);
    assert_int_equal(s.u.commit, 0);
    assert_int_equal(raft_floor(s.raft), 2);
    assert_true(s.u.deadline_us >= s.now_us + T_US);
    assert_false(reply_of(&s)->ok);
    assert_int_equal(reply_of(&s)->round, 4);
    assert_int_equal(reply_of(&s)->hint_index, 2);
    assert_int_equal(reply_of(&s)->hint_term, 1);
    s.now_us += T_US - 1;
    assert_int_equal(offer(&s, 3, 4, 20, 3, 25), 0); /* again, while it is fetched */
    assert_true(s.u.snapshot_offered);
    s.now_us += T_US - 1;
    solo_tick(&s, 0);
    assert_false(s.u.snapshot_offered);
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_free(&s);
}

static void test_an_offer_to_a_log_that_has_arrived(void **state)
{
    struct solo s = solo_new(3, TERMS(1, 1, 2));
    assert_int_equal(offer(&s, 2, 4, 3, 2, 3), 0);
    assert_false(s.u.snapshot_offered);
    assert_true(reply_of(&s)->ok);
    assert_int_equal(reply_of(&s)->match, 3);
    assert_int_equal(s.u.commit, 3); /* it is an append without entries */
    solo_apply(&s, 3);
    solo_compact(&s, 3);
    assert_int_equal(offer(&s, 2, 4, 2, 1, 3), 0); /* from before its own begin */
    assert_false(s.u.snapshot_offered);
    assert_true(reply_of(&s)->ok);
    solo_free(&s);
    /* Long enough, but other entries; and of no use to the leader as a hint. */
    s = solo_new(3, TERMS(1, 2, 2));
    assert_int_equal(offer(&s, 2, 4, 2, 3, 2), 0);
    assert_true(s.u.snapshot_offered);
    assert_false(reply_of(&s)->ok);
    assert_int_equal(reply_of(&s)->hint_index, 1);
    solo_free(&s);
}

static void test_impossible_offers(void **state)
{
    struct solo s = follower_of_six();
    assert_int_equal(offer(&s, 2, 3, 0, 0, 0), -EPROTO);
    assert_int_equal(offer(&s, 2, 3, 9, 0, 0), -EPROTO);
    assert_int_equal(offer(&s, 2, 3, 9, 4, 0), -EPROTO);
    assert_int_equal(offer(&s, 3, 3, 9, 3, 0), -EPROTO); /* a second leader */
    assert_int_equal(offer(&s, 3, 4, 5, 3, 0), -EPROTO); /* against what is committed */
    struct raft_run run = {9, 3};
    struct raft_message m = {.type = RAFT_SNAPSHOT,
                             .from = 2,
                             .to = 1,
                             .term = 3,
                             .prev_index = 8,
                             .prev_term = 3,
                             .last = 9};
    struct raft_event e = {
        .type = RAFT_RECEIVE, .message = &m, .runs = &run, .run_count = 1};
    assert_int_equal(solo_step(&s, e), -EPROTO);
    assert_int_equal(raft_leader(s.raft), 2);
    assert_int_equal(raft_term(s.raft), 3);
    assert_int_equal(raft_last_index(s.raft), 6);
    assert_int_equal(offer(&s, 3, 2, 9, 2, 0), 0); /* of an old term: it is told */
    assert_false(s.u.snapshot_offered);
    assert_int_equal(reply_of(&s)->term, 3);
    assert_int_equal(raft_leader(s.raft), 2);
    solo_free(&s);
    s = solo_settled(3);
    assert_int_equal(offer(&s, 2, raft_term(s.raft), 9, 1, 0), -EPROTO);
    solo_free(&s);
}

/* ---- Installing -------------------------------------------------------------------- */

static const struct raft_config four = {
    .count = 4, .members = {{1, true}, {2, true}, {3, true}, {4, false}}};

static struct raft_event install_of(uint64_t index, uint64_t term)
{
    return (struct raft_event){.type = RAFT_INSTALLED,
                               .index = index,
                               .term = term,
                               .config = &four,
                               .config_index = index - 1};
}

static void test_a_snapshot_is_installed(void **state)
{
    struct solo s = follower_of_six();
    offer(&s, 2, 3, 20, 3, 25);
    uint64_t old = s.u.generation;
    struct raft_event e = install_of(20, 3);
    e.claim_index = 24;
    e.claim_term = 3;
    assert_true(raft_may_install(s.raft, &e));
    assert_int_equal(solo_step(&s, e), 0);
    assert_int_equal(raft_base(s.raft), 20);
    assert_int_equal(raft_last_index(s.raft), 20);
    assert_int_equal(raft_last_term(s.raft), 3);
    assert_int_equal(raft_commit(s.raft), 20);
    assert_int_equal(raft_durable(s.raft), 20);
    assert_int_equal(s.u.commit, 20);
    assert_false(s.u.truncate);
    uint64_t index;
    assert_int_equal(raft_config(s.raft, &index)->count, 4);
    assert_int_equal(index, 19);
    assert_true(reply_of(&s)->ok);
    assert_int_equal(reply_of(&s)->match, 20);
    assert_int_equal(reply_of(&s)->applied, 20);
    assert_int_not_equal(s.u.generation, old); /* G3 */
    assert_int_equal(raft_claim(s.raft), 24);  /* G7 */
    solo_append(&s, 2, 3, 20, 3, TERMS(3, 3), 20);
    solo_step(&s,
              (struct raft_event){.type = RAFT_DURABLE, .index = 6, .generation = old});
    solo_step(&s,
              (struct raft_event){.type = RAFT_DURABLE, .index = 22, .generation = old});
    assert_int_equal(raft_durable(s.raft), 20);
    assert_false(granted(&s, true, 23, 3));
    solo_append(&s, 2, 3, 22, 3, TERMS(3, 3), 24);
    assert_int_equal(raft_claim(s.raft), 0);
    solo_durable(&s, 24);
    assert_int_equal(reply_of(&s)->match, 24);
    solo_free(&s);
}

static void test_an_install_drops_what_was_not_committed(void **state)
{
    struct solo s = solo_new(3, NULL);
    struct raft_run run = {40, 2};
    struct raft_message m = {
        .type = RAFT_APPEND, .from = 2, .to = 1, .term = 2, .last = 40};
    struct raft_event append = {.type = RAFT_RECEIVE,
                                .message = &m,
                                .runs = &run,
                                .run_count = 1,
                                .config = &four,
                                .config_index = 30};
    assert_int_equal(solo_step(&s, append), 0);
    assert_true(raft_config_is_pending(s.raft));
    offer(&s, 3, 4, 20, 3, 25); /* entries 20..40 of term 2 never were */
    struct raft_event e = install_of(20, 3);
    struct raft_config three = {.count = 3, .members = {{1, true}, {2, true}, {3, true}}};
    e.config = &three;
    e.config_index = 0;
    assert_int_equal(solo_step(&s, e), 0);
    assert_false(raft_config_is_pending(s.raft));
    assert_int_equal(raft_config(s.raft, NULL)->count, 3);
    assert_int_equal(raft_last_index(s.raft), 20);
    assert_int_equal(solo_append(&s, 3, 4, 20, 3, TERMS(4), 20), 0);
    assert_int_equal(s.u.append_first, 21);
    solo_free(&s);
}

static void test_an_install_without_a_leader(void **state)
{
    struct solo s = claiming(3, 30, 5);
    struct raft_event e = install_of(20, 3);
    e.claim_index = 24;
    e.claim_term = 3;
    assert_int_equal(solo_step(&s, e), 0);
    assert_int_equal(s.u.message_count, 0);
    assert_int_equal(raft_claim(s.raft), 30); /* the farther one still counts */
    assert_int_equal(raft_claim_term(s.raft), 5);
    e = install_of(30, 5); /* and the next reaches it */
    assert_int_equal(solo_step(&s, e), 0);
    assert_int_equal(raft_claim(s.raft), 0);
    solo_free(&s);
}

static void assert_not_installed(struct solo *s, struct raft_event e)
{
    uint64_t base = raft_base(s->raft), last = raft_last_index(s->raft);
    uint64_t generation = s->u.generation;
    assert_false(raft_may_install(s->raft, &e));
    assert_int_equal(solo_step(s, e), -EINVAL);
    assert_int_equal(raft_base(s->raft), base);
    assert_int_equal(raft_last_index(s->raft), last);
    assert_int_equal(s->u.generation, generation);
}

static void test_what_must_not_be_installed(void **state)
{
    struct solo s = follower_of_six();
    assert_not_installed(&s, install_of(5, 2)); /* committed here */
    assert_not_installed(&s, install_of(4, 2));
    assert_not_installed(&s, install_of(6, 3)); /* in the log, as the leader's */
    assert_not_installed(&s, install_of(6, 2));
    assert_not_installed(&s, install_of(20, 4)); /* of a term that is still to come */
    assert_not_installed(&s, install_of(20, 0));
    struct raft_event e = install_of(20, 3);
    e.config = NULL;
    assert_not_installed(&s, e);
    e.config = &(struct raft_config){0};
    assert_not_installed(&s, e);
    e = install_of(20, 3);
    e.config_index = 21;
    assert_not_installed(&s, e);
    e = install_of(20, 3);
    e.claim_index = 25;
    assert_not_installed(&s, e);
    e.claim_term = 4;
    assert_not_installed(&s, e);
    solo_tick(&s, 2 * T_US);
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    assert_not_installed(&s, install_of(20, 3));
    solo_free(&s);
    s = solo_settled(3);
    assert_not_installed(&s, install_of(20, 1));
    solo_free(&s);
    /* Nor by a node that knows no leader. */
    struct raft_options o = options_of(3);
    o.commit = 3;
    s = solo_of(&o);
    assert_not_installed(&s, install_of(2, 2));
    solo_free(&s);
    struct raft_run runs[] = {{1, 1}, {6, 2}};
    o.runs = runs;
    o.commit = 1;
    o.config_index = 5; /* must be committed: there is a later one */
    o.pending_config = four;
    o.pending_config_index = 6;
    s = solo_of(&o);
    assert_not_installed(&s, install_of(3, 1));
    solo_free(&s);
    /* Entries after it may have been counted: they are acknowledged, though by nobody
     * here known as committed. */
    s = solo_new(3, NULL);
    solo_append(&s, 2, 2, 0, 0, TERMS(1, 1, 2, 2), 0);
    solo_durable(&s, 4);
    solo_append(&s, 3, 3, 0, 0, NULL, 0);
    assert_not_installed(&s, install_of(2, 1));
    solo_free(&s);
}

static void test_a_restart_after_an_install(void **state)
{
    struct raft_options o = options_of(3);
    o.base_index = 20;
    o.base_term = 3;
    o.runs = NULL;
    o.run_count = 0;
    o.commit = 20;
    o.config_index = 12;
    o.claim_index = 24;
    o.claim_term = 4;
    struct solo s = solo_of(&o);
    assert_int_equal(raft_base(s.raft), 20);
    assert_int_equal(raft_last_term(s.raft), 3);
    assert_int_equal(raft_durable(s.raft), 20);
    assert_no_candidate(&s);
    assert_int_equal(solo_append(&s, 2, 5, 20, 3, TERMS(4, 4, 4, 4), 24), 0);
    assert_int_equal(s.u.append_first, 21);
    assert_int_equal(s.u.commit, 24);
    assert_int_equal(raft_claim(s.raft), 0);
    solo_free(&s);
}

/* ---- The floor --------------------------------------------------------------------- */

static void test_a_followers_floor(void **state)
{
    struct solo s = solo_new(3, NULL);
    assert_int_equal(raft_floor(s.raft), 0);
    struct raft_message m = {
        .type = RAFT_APPEND, .from = 2, .term = 1, .round = 5, .floor = 33};
    solo_receive(&s, m);
    assert_int_equal(raft_floor(s.raft), 33);
    m.round = 4; /* overtaken */
    m.floor = 30;
    solo_receive(&s, m);
    assert_int_equal(raft_floor(s.raft), 33);
    m.round = 6; /* who was away is back */
    m.floor = 20;
    solo_receive(&s, m);
    assert_int_equal(raft_floor(s.raft), 20);
    solo_tick(&s, 2 * T_US); /* no leader, no floor */
    assert_int_equal(raft_floor(s.raft), 0);
    solo_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_claim_gives_no_vote_away),
        cmocka_unit_test(test_who_has_a_claim_is_no_candidate),
        cmocka_unit_test(test_a_claim_ends_where_the_log_reaches_it),
        cmocka_unit_test(test_a_claim_ends_where_a_later_term_begins),
        cmocka_unit_test(test_claims_contradict),
        cmocka_unit_test(test_a_follower_compacts),
        cmocka_unit_test(test_an_offer_is_a_heartbeat),
        cmocka_unit_test(test_an_offer_to_a_log_that_has_arrived),
        cmocka_unit_test(test_impossible_offers),
        cmocka_unit_test(test_a_snapshot_is_installed),
        cmocka_unit_test(test_an_install_drops_what_was_not_committed),
        cmocka_unit_test(test_an_install_without_a_leader),
        cmocka_unit_test(test_what_must_not_be_installed),
        cmocka_unit_test(test_a_restart_after_an_install),
        cmocka_unit_test(test_a_followers_floor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
