/* test_follower.c - one node that is led: elections it takes part in, its log, its
 * answers. */
#include "solo.h"

static void assert_reply(const struct solo *s, bool ok, uint64_t match)
{
    const struct raft_message *m = solo_message(s, RAFT_APPEND_REPLY, 0, 0);
    assert_non_null(m);
    assert_int_equal(m->ok, ok);
    assert_int_equal(m->match, match);
    assert_null(solo_message(s, RAFT_APPEND_REPLY, 0, 1));
}

static void assert_silent(const struct solo *s)
{
    assert_int_equal(s->u.message_count, 0);
}

/* ---- Options
 * ------------------------------------------------------------------------------ */

static void test_options_contradict(void **state)
{
    struct raft_run runs[2] = {{3, 1}, {5, 2}};
    const struct raft_options good = {.id = 1,
                                      .seed = 1,
                                      .election_us = T_US,
                                      .heartbeat_us = BEAT_US,
                                      .term = 2,
                                      .runs = runs,
                                      .run_count = 2,
                                      .commit = 4,
                                      .config = {.count = 1, .members = {{1, true}}}};
    struct raft *r = NULL;
    assert_int_equal(raft_new(&r, &good, 0), 0);
    assert_int_equal(raft_last_index(r), 5);
    assert_int_equal(raft_durable(r), 5); /* G4 */
    assert_int_equal(raft_term_of(r, 3), 1);
    assert_int_equal(raft_term_of(r, 4), 2);
    assert_int_equal(raft_term_of(r, 6), 0);
    raft_free(r);
    r = NULL;

    struct raft_options o = good;
    o.commit = 6;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    o = good;
    o.config.count = 0;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    o = good;
    o.term = 1;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    o = good;
    o.config_index = 5;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    o = good;
    o.base_index = 4;
    o.base_term = 1;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    o = good;
    runs[1].last = 3;
    o.commit = 0;
    assert_int_equal(raft_new(&r, &o, 0), -EINVAL);
    assert_null(r);
}

/* ---- Votes
 * ---------------------------------------------------------------------------------- */

static struct raft_message vote(uint64_t from, uint64_t term, uint64_t index,
                                uint64_t last)
{
    return (struct raft_message){.type = RAFT_VOTE,
                                 .from = from,
                                 .term = term,
                                 .last_index = index,
                                 .last_term = last};
}

static bool granted(struct solo *s, struct raft_message m)
{
    assert_int_equal(solo_receive(s, m), 0);
    const struct raft_message *reply = solo_message(s, RAFT_VOTE_REPLY, m.from, 0);
    assert_non_null(reply);
    assert_int_equal(reply->pre, m.pre);
    if (reply->granted)
        assert_int_equal(reply->term, m.term);
    else
        assert_int_equal(reply->term, raft_term(s->raft));
    return reply->granted;
}

static void test_vote_needs_a_current_log(void **state)
{
    static const struct {
        uint64_t index, term;
        bool granted;
    } cases[] = {{3, 2, true}, {4, 2, true},  {2, 2, false}, {9, 1, false},
                 {1, 3, true}, {0, 0, false}, {3, 1, false}};
    for (size_t i = 0; i < array_length(cases); i++) {
        struct solo s = solo_new(3, TERMS(1, 1, 2));
        struct raft_message m = vote(2, 7, cases[i].index, cases[i].term);
        m.pre = true;
        assert_int_equal(granted(&s, m), cases[i].granted);
        assert_false(s.u.hard_state_changed);
        assert_int_equal(raft_term(s.raft), 2);
        m.pre = false;
        assert_int_equal(granted(&s, m), cases[i].granted);
        assert_true(s.u.hard_state_changed);
        assert_int_equal(raft_term(s.raft), 7);
        assert_int_equal(raft_vote(s.raft), cases[i].granted ? 2 : 0);
        solo_free(&s);
    }
}

static void test_one_vote_in_a_term(void **state)
{
    struct solo s = solo_new(3, NULL);
    assert_true(granted(&s, vote(2, 1, 0, 0)));
    assert_false(granted(&s, vote(3, 1, 0, 0)));
    assert_int_equal(raft_vote(s.raft), 2);
    assert_true(granted(&s, vote(2, 1, 0, 0))); /* asked again */
    assert_false(s.u.hard_state_changed);
    assert_true(granted(&s, vote(3, 2, 0, 0)));
    assert_false(granted(&s, vote(3, 1, 0, 0)));
    solo_free(&s);
}

static void test_a_live_leader_is_not_disturbed(void **state)
{
    struct solo s = solo_new(3, NULL);
    solo_append(&s, 2, 1, 0, 0, NULL, 0);
    s.now_us += T_US - 1;
    struct raft_message m = vote(3, 9, 0, 0);
    assert_false(granted(&s, m));
    assert_int_equal(raft_term(s.raft), 1);
    m.pre = true;
    assert_false(granted(&s, m));
    m.pre = false;
    m.transfer = true; /* the leader asked for it */
    assert_true(granted(&s, m));
    assert_int_equal(raft_term(s.raft), 9);
    solo_free(&s);

    s = solo_new(3, NULL);
    solo_append(&s, 2, 1, 0, 0, NULL, 0);
    s.now_us += T_US;
    assert_true(granted(&s, vote(3, 9, 0, 0)));
    solo_free(&s);
}

/* An outdated term in pre-votes once kept a healthy quorum without a leader. */
static void test_pre_vote_terms(void **state)
{
    struct solo s = solo_new(3, TERMS(4));
    solo_tick(&s, 2 * T_US);
    const struct raft_message *m = solo_message(&s, RAFT_VOTE, 2, 0);
    assert_true(m->pre);
    assert_int_equal(m->term, 5);
    assert_int_equal(raft_term(s.raft), 4);
    struct raft_message lag = vote(3, 3, 1, 2);
    lag.pre = true;
    assert_false(granted(&s, lag)); /* and says term 4 */
    solo_receive(&s, (struct raft_message){
                         .type = RAFT_VOTE_REPLY, .from = 2, .term = 8, .pre = true});
    assert_int_equal(raft_term(s.raft), 8);
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    solo_tick(&s, 2 * T_US);
    solo_receive(
        &s,
        (struct raft_message){
            .type = RAFT_VOTE_REPLY, .from = 2, .term = 9, .pre = true, .granted = true});
    assert_int_equal(raft_term(s.raft), 9); /* now it asks in earnest */
    assert_int_equal(raft_vote(s.raft), 1);
    assert_true(s.u.hard_state_changed);
    assert_false(solo_message(&s, RAFT_VOTE, 3, 0)->pre);
    solo_free(&s);
}

static void test_votes_count_once_and_only_voters(void **state)
{
    struct solo s = solo_new(5, NULL);
    solo_tick(&s, 2 * T_US);
    struct raft_message m = {
        .type = RAFT_VOTE_REPLY, .from = 2, .term = 1, .pre = true, .granted = true};
    solo_receive(&s, m);
    solo_receive(&s, m);
    m.from = 77;
    solo_receive(&s, m);
    assert_int_equal(raft_term(s.raft), 0);
    m.from = 3;
    solo_receive(&s, m);
    assert_int_equal(raft_term(s.raft), 1);
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    m.from = 4; /* a late pre-vote is no vote */
    solo_receive(&s, m);
    m.from = 5;
    solo_receive(&s, m);
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    solo_free(&s);
}

/* ---- The log
 * ------------------------------------------------------------------------------------ */

static void test_who_grants_stops_asking(void **state)
{
    struct solo s = solo_new(3, NULL);
    solo_append(&s, 2, 5, 0, 0, NULL, 0);
    solo_tick(&s, 2 * T_US);
    assert_int_equal(raft_role(s.raft), RAFT_CANDIDATE);
    s.now_us += T_US;
    assert_true(granted(&s, vote(3, 5, 0, 0))); /* it had no vote yet in this term */
    assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    assert_true(s.u.deadline_us >= s.now_us + T_US);
    solo_free(&s);
}

static void test_answers_wait_for_the_disk(void **state)
{
    struct solo s = solo_new(3, NULL);
    assert_int_equal(solo_append(&s, 2, 1, 0, 0, TERMS(1, 1, 1), 2), 0);
    assert_silent(&s);
    assert_int_equal(s.u.append_first, 1);
    assert_int_equal(s.u.append_last, 3);
    assert_int_equal(s.u.commit, 2);
    solo_append(&s, 2, 1, 3, 1, NULL, 2);
    assert_reply(&s, true, 0); /* a heartbeat, at once */
    solo_durable(&s, 2);
    assert_reply(&s, true, 2);
    solo_step(&s, (struct raft_event){.type = RAFT_APPLIED, .index = 1});
    assert_reply(&s, true, 2);
    assert_int_equal(solo_message(&s, RAFT_APPEND_REPLY, 2, 0)->applied, 1);
    solo_durable(&s, 3);
    assert_reply(&s, true, 3);
    assert_int_equal(solo_message(&s, RAFT_APPEND_REPLY, 2, 0)->round, 1);
    solo_append(&s, 2, 1, 0, 0, TERMS(1, 1, 1), 2); /* doubled: nothing to write */
    assert_int_equal(s.u.append_first, 0);
    assert_reply(&s, true, 3);
    solo_free(&s);
}

static void test_only_what_is_missing_is_appended(void **state)
{
    struct solo s = solo_new(3, TERMS(1, 1, 2));
    solo_append(&s, 2, 3, 1, 1, TERMS(1, 2, 2, 3), 0);
    assert_false(s.u.truncate);
    assert_int_equal(s.u.append_first, 4);
    assert_int_equal(s.u.append_last, 5);
    assert_silent(&s);
    solo_append(&s, 2, 3, 1, 1, TERMS(1), 0);
    assert_reply(&s, true, 3);                    /* 4 and 5 are verified, not durable */
    assert_int_equal(raft_last_index(s.raft), 5); /* a late short one cuts nothing */
    solo_free(&s);
}

/* What a former life or leader left counts only as far as this leader vouched for it. */
static void test_match_is_verified_with_this_leader(void **state)
{
    struct solo s = solo_new(3, TERMS(1, 1, 1, 1));
    solo_append(&s, 2, 2, 2, 1, NULL, 0);
    assert_reply(&s, true, 2);
    assert_int_equal(s.u.commit, 0);
    solo_append(&s, 2, 2, 3, 1, NULL, 4);
    assert_int_equal(s.u.commit, 3); /* the 4th may not be the leader's */
    solo_append(&s, 3, 3, 3, 1, NULL, 4);
    assert_reply(&s, true, 3);
    solo_free(&s);
}

/* G3: append, truncate, append anew: the first completion must not count. */
static void test_stale_durable(void **state)
{
    struct solo s = solo_new(3, TERMS(1));
    solo_append(&s, 2, 1, 1, 1, TERMS(1, 1), 0);
    uint64_t old = s.u.generation;
    solo_append(&s, 3, 2, 1, 1, TERMS(2, 2), 0);
    assert_true(s.u.truncate);
    assert_int_equal(s.u.truncate_to, 1);
    assert_int_not_equal(s.u.generation, old);
    uint64_t generation = s.u.generation;
    solo_step(&s,
              (struct raft_event){.type = RAFT_DURABLE, .index = 3, .generation = old});
    assert_silent(&s);
    assert_int_equal(raft_durable(s.raft), 1);
    solo_step(&s, (struct raft_event){
                      .type = RAFT_DURABLE, .index = 3, .generation = generation});
    assert_reply(&s, true, 3);
    solo_append(&s, 2, 3, 1, 1, TERMS(3),
                0); /* and what is cut is not durable any more */
    assert_int_equal(raft_durable(s.raft), 1);
    solo_free(&s);
}

static void test_hints_skip_terms(void **state)
{
    static const struct {
        uint64_t prev, prev_term, hint, hint_term;
    } cases[] = {
        {9, 4, 6, 2}, /* too short */
        {6, 4, 5, 2}, /* another term there: what is before it may agree */
        {6, 1, 3, 1}, /* all of term 2 is wrong */
        {20, 1, 3, 1},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        struct solo s = solo_new(3, TERMS(1, 1, 1, 2, 2, 2));
        solo_append(&s, 2, 5, cases[i].prev, cases[i].prev_term, NULL, 0);
        assert_reply(&s, false, 0);
        const struct raft_message *m = solo_message(&s, RAFT_APPEND_REPLY, 2, 0);
        assert_int_equal(m->hint_index, cases[i].hint);
        assert_int_equal(m->hint_term, cases[i].hint_term);
        assert_int_equal(m->round, 1); /* a refusal confirms the round too */
        solo_free(&s);
    }
}

/* ---- What no correct node sends
 * ------------------------------------------------------------------- */

static void assert_ignored(struct solo *s, int error)
{
    assert_int_equal(error, -EPROTO);
    assert_int_equal(raft_last_index(s->raft), 4);
    assert_int_equal(raft_commit(s->raft), 2);
    assert_int_equal(raft_term(s->raft), 2);
    assert_int_equal(raft_leader(s->raft), 2);
    assert_int_equal(raft_role(s->raft), RAFT_FOLLOWER);
}

static void test_impossible_appends(void **state)
{
    struct solo s = solo_new(3, NULL);
    solo_append(&s, 2, 2, 0, 0, TERMS(1, 1, 2, 2), 2);
    assert_int_equal(s.u.commit, 2);
    /* against what is committed, in a later term too */
    assert_ignored(&s, solo_append(&s, 2, 2, 0, 0, TERMS(1, 2), 0));
    assert_ignored(&s, solo_append(&s, 3, 7, 2, 2, NULL, 0));
    assert_ignored(&s, solo_append(&s, 3, 7, 0, 0, TERMS(1, 5), 0));
    /* against what this leader itself sent */
    assert_ignored(&s, solo_append(&s, 2, 2, 2, 1, TERMS(1), 0));
    /* a second leader of the term */
    assert_ignored(&s, solo_append(&s, 3, 2, 4, 2, NULL, 2));
    /* from the future, backwards, not where it says, half a position */
    assert_ignored(&s, solo_append(&s, 2, 2, 4, 2, TERMS(3), 0));
    assert_ignored(&s, solo_append(&s, 2, 2, 4, 2, TERMS(1), 0));
    assert_ignored(&s, solo_append(&s, 2, 2, 4, 0, NULL, 0));
    assert_ignored(&s, solo_append(&s, 2, 2, 0, 2, NULL, 0));
    assert_ignored(&s, solo_append(&s, 1, 2, 4, 2, NULL, 0));
    assert_ignored(&s, solo_append(&s, 0, 2, 4, 2, NULL, 0));
    struct raft_run run = {6, 2};
    struct raft_message m = {.type = RAFT_APPEND,
                             .from = 2,
                             .to = 1,
                             .term = 2,
                             .prev_index = 4,
                             .prev_term = 2,
                             .last = 7};
    struct raft_event e = {
        .type = RAFT_RECEIVE, .message = &m, .runs = &run, .run_count = 1};
    assert_ignored(&s, solo_step(&s, e));
    m.last = 6;
    struct raft_config none = {0},
                       twice = {.count = 2, .members = {{1, true}, {1, true}}};
    struct raft_config good = {.count = 1, .members = {{1, true}}};
    e.config = &none;
    e.config_index = 5;
    assert_ignored(&s, solo_step(&s, e));
    e.config = &twice;
    assert_ignored(&s, solo_step(&s, e));
    e.config = &good;
    e.config_index = 7;
    assert_ignored(&s, solo_step(&s, e));
    e.config_index = 5;
    e.previous_config = &good;
    e.previous_config_index = 5;
    assert_ignored(&s, solo_step(&s, e));
    e.previous_config = NULL;
    assert_int_equal(solo_step(&s, e), 0);
    solo_free(&s);
}

static void test_impossible_messages(void **state)
{
    struct solo s = solo_new(3, NULL);
    solo_append(&s, 2, 2, 0, 0, TERMS(1, 1, 2, 2), 2);
    struct raft_message m = {.type = RAFT_TIMEOUT_NOW, .from = 3, .term = 2};
    assert_ignored(&s, solo_receive(&s, m)); /* not the leader */
    m = (struct raft_message){.type = 0, .from = 2, .term = 2};
    assert_ignored(&s, solo_receive(&s, m));
    m.type = RAFT_SNAPSHOT + 1;
    assert_ignored(&s, solo_receive(&s, m));
    m = vote(3, 9, 4, 9); /* a log of the term that is only asked for */
    assert_ignored(&s, solo_receive(&s, m));
    m = vote(3, 0, 0, 0);
    assert_ignored(&s, solo_receive(&s, m));
    m = (struct raft_message){
        .type = RAFT_VOTE_REPLY, .from = 3, .term = 5, .granted = true};
    assert_ignored(&s, solo_receive(&s, m)); /* never asked for */
    m = (struct raft_message){.type = RAFT_VOTE_REPLY, .from = 3, .term = 2, .to = 1};
    m.to = 2;
    struct raft_event e = {.type = RAFT_RECEIVE, .message = &m};
    assert_ignored(&s, solo_step(&s, e));
    solo_free(&s);
}

static void test_an_old_leader_learns_the_term(void **state)
{
    struct solo s = solo_new(3, TERMS(5));
    assert_int_equal(solo_append(&s, 2, 3, 0, 0, NULL, 0), 0);
    assert_reply(&s, false, 0);
    assert_int_equal(solo_message(&s, RAFT_APPEND_REPLY, 2, 0)->term, 5);
    assert_int_equal(raft_leader(s.raft), 0);
    solo_free(&s);
}

static void test_not_eligible(void **state)
{
    struct solo s = solo_new(3, NULL);
    solo_step(&s, (struct raft_event){.type = RAFT_ELIGIBLE, .eligible = false});
    solo_append(&s, 2, 1, 0, 0, NULL, 0);
    solo_tick(&s, 2 * T_US);
    assert_silent(&s);
    assert_int_equal(raft_leader(s.raft), 0);
    solo_append(&s, 2, 1, 0, 0, NULL, 0);
    struct raft_message m = {.type = RAFT_TIMEOUT_NOW, .from = 2, .term = 1};
    assert_int_equal(solo_receive(&s, m), 0);
    assert_silent(&s);
    solo_step(&s, (struct raft_event){.type = RAFT_ELIGIBLE, .eligible = true});
    assert_int_equal(solo_receive(&s, m), 0);
    assert_int_equal(raft_term(s.raft), 2);
    assert_true(solo_message(&s, RAFT_VOTE, 3, 0)->transfer);
    assert_false(solo_message(&s, RAFT_VOTE, 3, 0)->pre);
    solo_free(&s);
}

static void test_a_learner_votes_and_never_campaigns(void **state)
{
    struct raft_options o = {.id = 1,
                             .seed = 1,
                             .election_us = T_US,
                             .heartbeat_us = BEAT_US,
                             .config = {.count = 2, .members = {{1, false}, {2, true}}}};
    struct solo s = {.now_us = 1000000};
    assert_int_equal(raft_new(&s.raft, &o, s.now_us), 0);
    for (int i = 0; i < 5; i++) {
        solo_tick(&s, 2 * T_US);
        assert_silent(&s);
        assert_int_equal(raft_role(s.raft), RAFT_FOLLOWER);
    }
    assert_true(granted(&s, vote(3, 4, 0, 0)));
    solo_free(&s);
}

/* A truncated configuration gives way to the one before it. */
static void test_config_goes_with_its_entry(void **state)
{
    struct solo s = solo_new(3, NULL);
    struct raft_config two = {.count = 2, .members = {{1, true}, {2, true}}};
    struct raft_run run = {2, 1};
    struct raft_message m = {
        .type = RAFT_APPEND, .from = 2, .to = 1, .term = 1, .last = 2};
    struct raft_event e = {.type = RAFT_RECEIVE,
                           .message = &m,
                           .runs = &run,
                           .run_count = 1,
                           .config = &two,
                           .config_index = 2};
    assert_int_equal(solo_step(&s, e), 0);
    uint64_t index = 0;
    assert_int_equal(raft_config(s.raft, &index)->count, 2);
    assert_int_equal(index, 2);
    assert_true(raft_config_is_pending(s.raft));
    solo_append(&s, 3, 2, 1, 1, TERMS(2), 0);
    assert_int_equal(raft_config(s.raft, &index)->count, 3);
    assert_int_equal(index, 0);
    assert_false(raft_config_is_pending(s.raft));
    solo_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_contradict),
        cmocka_unit_test(test_vote_needs_a_current_log),
        cmocka_unit_test(test_one_vote_in_a_term),
        cmocka_unit_test(test_a_live_leader_is_not_disturbed),
        cmocka_unit_test(test_pre_vote_terms),
        cmocka_unit_test(test_votes_count_once_and_only_voters),
        cmocka_unit_test(test_who_grants_stops_asking),
        cmocka_unit_test(test_answers_wait_for_the_disk),
        cmocka_unit_test(test_only_what_is_missing_is_appended),
        cmocka_unit_test(test_match_is_verified_with_this_leader),
        cmocka_unit_test(test_stale_durable),
        cmocka_unit_test(test_hints_skip_terms),
        cmocka_unit_test(test_impossible_appends),
        cmocka_unit_test(test_impossible_messages),
        cmocka_unit_test(test_an_old_leader_learns_the_term),
        cmocka_unit_test(test_not_eligible),
        cmocka_unit_test(test_a_learner_votes_and_never_campaigns),
        cmocka_unit_test(test_config_goes_with_its_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
