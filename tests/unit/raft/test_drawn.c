/*
 * test_drawn.c - the drawings in src/raft/README.md against the running code: each change of
 * a role and of a peer's mode that hundreds of storms take is drawn, and each that is
 * drawn is taken. White-box, for the drawings tell of what only raft_internal.h shows.
 */
#include "cluster.h"
#include "raft_internal.h"
#include "storm.h"

enum { SEEDS = 300 };

/* ---- What is drawn --------------------------------------------------------------------- */

enum state { FOLLOWER, PRE_VOTE, VOTE, LEADER, STATES };

static const char *const state_names[] = {"FOLLOWER", "pre-vote", "vote", "LEADER"};
static const char *const mode_names[] = {"PROBE", "REPLICATE", "SNAPSHOT"};

#define ON(type)   (1u << (type))
#define ON_MESSAGE ON(RAFT_RECEIVE)
#define ON_TIME    ON(RAFT_TICK)

/* Where a single voter leads at once, the steps between are not seen. */
static const uint32_t drawn_roles[STATES][STATES] = {
    [FOLLOWER] =
        {[PRE_VOTE] = ON_TIME, [VOTE] = ON_MESSAGE, [LEADER] = ON_TIME | ON_MESSAGE},
    [PRE_VOTE] = {[FOLLOWER] = ON_MESSAGE | ON_TIME | ON(RAFT_ELIGIBLE),
                  [VOTE] = ON_MESSAGE,
                  [LEADER] = ON_TIME},
    [VOTE] = {[FOLLOWER] = ON_MESSAGE | ON_TIME | ON(RAFT_ELIGIBLE),
              [PRE_VOTE] = ON_TIME,
              [LEADER] = ON_MESSAGE | ON_TIME},
    /* Removed: whatever shows that this is committed; and asked to campaign by a leader of a
     * later term. */
    [LEADER] = {[FOLLOWER] = ON_MESSAGE | ON_TIME | ON(RAFT_ELIGIBLE) | ON(RAFT_DURABLE) |
                             ON(RAFT_PROPOSE),
                [VOTE] = ON_MESSAGE},
};

/* Drawn, and not to be relied on: it takes a race that few seeds have. */
static const uint32_t rare_roles[STATES][STATES] = {
    [FOLLOWER] = {[LEADER] = ON_MESSAGE},
    [PRE_VOTE] = {[FOLLOWER] = ON_TIME, [LEADER] = ON_TIME},
    [VOTE] = {[LEADER] = ON_TIME, [FOLLOWER] = ON_TIME | ON(RAFT_ELIGIBLE)},
    [LEADER] = {[VOTE] = ON_MESSAGE, [FOLLOWER] = ON(RAFT_DURABLE) | ON(RAFT_PROPOSE)},
};

#define ON_LINK (ON(RAFT_CONNECTED) | ON(RAFT_DISCONNECTED))

static const uint32_t drawn_modes[3][3] = {
    [PEER_PROBE] = {[PEER_REPLICATE] = ON_MESSAGE,
                    [PEER_SNAPSHOT] = ON_MESSAGE | ON_LINK | ON(RAFT_COMPACTED)},
    [PEER_REPLICATE] = {[PEER_PROBE] = ON_MESSAGE | ON_LINK | ON_TIME,
                        [PEER_SNAPSHOT] =
                            ON_MESSAGE | ON_LINK | ON_TIME | ON(RAFT_COMPACTED)},
    [PEER_SNAPSHOT] = {[PEER_PROBE] = ON_MESSAGE, [PEER_REPLICATE] = ON_MESSAGE},
};

static const uint32_t rare_modes[3][3] = {
    [PEER_PROBE] = {[PEER_SNAPSHOT] = ON_LINK},
    [PEER_REPLICATE] = {[PEER_PROBE] = ON(RAFT_CONNECTED),
                        [PEER_SNAPSHOT] = ON_LINK | ON_TIME | ON(RAFT_COMPACTED)},
    [PEER_SNAPSHOT] = {[PEER_PROBE] = ON_MESSAGE},
};

/* ---- What happens ---------------------------------------------------------------------- */

struct view {
    enum state state;
    uint64_t term;
    uint64_t life;
    uint32_t peer_count;
    struct {
        uint64_t id;
        enum peer_mode mode;
    } peers[LIMIT_MEMBERS];
};

static struct view before[NODES_MAX];
static uint32_t taken_roles[STATES][STATES];
static uint32_t taken_modes[3][3];

static struct view view_of(const struct raft *r)
{
    struct view v = {.term = r->term, .peer_count = r->lead.peer_count};
    if (r->role == RAFT_CANDIDATE)
        v.state = r->campaign.pre ? PRE_VOTE : VOTE;
    else
        v.state = r->role == RAFT_LEADER ? LEADER : FOLLOWER;
    for (uint32_t i = 0; i < v.peer_count; i++) {
        v.peers[i].id = r->lead.peers[i].id;
        v.peers[i].mode = r->lead.peers[i].mode;
    }
    return v;
}

static void compare_modes(const struct view *was, const struct view *is, uint32_t on)
{
    for (uint32_t i = 0; i < is->peer_count; i++) {
        for (uint32_t j = 0; j < was->peer_count; j++) {
            if (was->peers[j].id == is->peers[i].id)
                taken_modes[was->peers[j].mode][is->peers[i].mode] |= on;
        }
    }
}

static void watch(struct cluster *c, struct node *n, const struct raft_event *e)
{
    struct view *was = &before[n->id], is = view_of(n->raft);
    is.life = n->lives;
    if (was->life != is.life)
        *was = (struct view){.life = is.life}; /* a new one is a follower */
    uint32_t on = ON(e->type);
    taken_roles[was->state][is.state] |= on;
    if (was->state == LEADER && is.state == LEADER && was->term == is.term)
        compare_modes(was, &is, on);
    *was = is;
}

static void compare(const char *from, const char *to, uint32_t taken, uint32_t drawn,
                    uint32_t rare)
{
    for (unsigned event = RAFT_TICK; event <= RAFT_INSTALLED; event++) {
        bool is_taken = taken & ON(event), is_drawn = drawn & ON(event);
        if (is_taken && !is_drawn)
            fail_msg("%s -> %s by event %u: taken, and not drawn", from, to, event);
        if (is_drawn && !is_taken && !(rare & ON(event)))
            fail_msg("%s -> %s by event %u: drawn, and not taken", from, to, event);
    }
}

static void lesson_20_what_is_drawn_is_what_runs(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        memset(before, 0, sizeof(before));
        storm_run(seed, watch);
    }
    for (int from = 0; from < STATES; from++) {
        for (int to = 0; to < STATES; to++) {
            if (from != to)
                compare(state_names[from], state_names[to], taken_roles[from][to],
                        drawn_roles[from][to], rare_roles[from][to]);
        }
    }
    for (int from = 0; from < 3; from++) {
        for (int to = 0; to < 3; to++) {
            if (from != to)
                compare(mode_names[from], mode_names[to], taken_modes[from][to],
                        drawn_modes[from][to], rare_modes[from][to]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lesson_20_what_is_drawn_is_what_runs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
