/* linear.c - the search. */
#include "linear.h"

struct entry { /* of the list of calls and returns, in the order of time */
    struct entry *next, *previous, *match; /* match: of a call, its return */
    size_t call;
    bool is_return;
};

enum { WORDS = LINEAR_CALLS / 64 };

struct configuration {
    uint64_t done[WORDS];
    uint8_t state[LINEAR_STATE];
};

struct memory { /* of configurations, by hash, open */
    struct configuration *all;
    uint64_t *hashes;
    size_t capacity, count;
};

struct frame {
    struct entry *entry;
    uint8_t state[LINEAR_STATE];
};

struct search {
    const struct linear_model *model;
    const struct linear_call *calls;
    size_t count, answered;
    struct entry *entries, head;
    struct configuration now;
    struct memory memory;
    struct frame *frames;
    size_t depth, deepest, stuck;
};

static uint64_t hash_of(const struct configuration *c)
{
    const uint64_t *words = (const uint64_t *)c;
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < sizeof(*c) / 8; i++)
        h = (h ^ words[i]) * 0x9e3779b97f4a7c15ull, h ^= h >> 32;
    return h | 1;
}

static void memory_grow(struct memory *m)
{
    struct memory old = *m;
    m->capacity = old.capacity ? 2 * old.capacity : 256;
    m->all = calloc(m->capacity, sizeof(*m->all));
    m->hashes = calloc(m->capacity, sizeof(*m->hashes));
    ensure(m->all && m->hashes);
    for (size_t i = 0; i < old.capacity; i++) {
        if (!old.hashes[i])
            continue;
        size_t at = old.hashes[i] % m->capacity;
        while (m->hashes[at])
            at = (at + 1) % m->capacity;
        m->hashes[at] = old.hashes[i];
        m->all[at] = old.all[i];
    }
    free(old.all);
    free(old.hashes);
}

/* False: it was there. */
static bool remember(struct memory *m, const struct configuration *c)
{
    if (2 * m->count >= m->capacity)
        memory_grow(m);
    uint64_t hash = hash_of(c);
    size_t at = hash % m->capacity;
    while (m->hashes[at]) {
        if (m->hashes[at] == hash && memcmp(&m->all[at], c, sizeof(*c)) == 0)
            return false;
        at = (at + 1) % m->capacity;
    }
    m->hashes[at] = hash;
    m->all[at] = *c;
    m->count++;
    return true;
}

/* ---- The list --------------------------------------------------------------------- */

struct moment {
    uint64_t at;
    size_t call;
    bool is_return;
};

static int compare_moments(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (int)x->is_return - (int)y->is_return;
}

static void list_make(struct search *s)
{
    struct moment *moments = calloc(2 * s->count + 1, sizeof(*moments));
    struct entry **invoked = calloc(s->count + 1, sizeof(*invoked)), *last = &s->head;
    ensure(moments && invoked);
    for (size_t i = 0; i < s->count; i++) {
        moments[2 * i] = (struct moment){s->calls[i].invoked, i, false};
        moments[2 * i + 1] = (struct moment){s->calls[i].returned, i, true};
        s->answered += s->calls[i].returned != UINT64_MAX;
    }
    qsort(moments, 2 * s->count, sizeof(*moments), compare_moments);
    for (size_t i = 0; i < 2 * s->count; i++) {
        struct entry *e = &s->entries[i];
        *e = (struct entry){.call = moments[i].call, .is_return = moments[i].is_return};
        if (e->is_return)
            invoked[e->call]->match = e;
        else
            invoked[e->call] = e;
        e->previous = last;
        last->next = e;
        last = e;
    }
    free(moments);
    free(invoked);
}

static void unlink_entry(struct entry *e)
{
    e->previous->next = e->next;
    if (e->next)
        e->next->previous = e->previous;
}

static void link_entry(struct entry *e)
{
    e->previous->next = e;
    if (e->next)
        e->next->previous = e;
}

static void lift(struct entry *e)
{
    unlink_entry(e);
    unlink_entry(e->match);
}

static void unlift(struct entry *e)
{
    link_entry(e->match);
    link_entry(e);
}

/* ---- The search -------------------------------------------------------------------- */

static bool is_answered(const struct search *s, size_t call)
{
    return s->calls[call].returned != UINT64_MAX;
}

/* Places this call next, if the model and the memory let it. */
static bool place(struct search *s, struct entry *e)
{
    struct configuration after = s->now;
    bool answered = is_answered(s, e->call);
    if (!s->model->step(after.state, &s->calls[e->call], answered))
        return false;
    after.done[e->call / 64] |= 1ull << (e->call % 64);
    if (!remember(&s->memory, &after))
        return false;
    struct frame *f = &s->frames[s->depth++];
    f->entry = e;
    memcpy(f->state, s->now.state, sizeof(f->state));
    s->now = after;
    s->answered -= answered;
    lift(e);
    return true;
}

/* Takes back what was placed last, and goes on behind it. */
static struct entry *take_back(struct search *s)
{
    struct frame *f = &s->frames[--s->depth];
    struct entry *e = f->entry;
    memcpy(s->now.state, f->state, sizeof(f->state));
    s->now.done[e->call / 64] &= ~(1ull << (e->call % 64));
    s->answered += is_answered(s, e->call);
    unlift(e);
    return e->next;
}

static enum linear_verdict search(struct search *s, uint64_t budget)
{
    struct entry *e = s->head.next;
    while (s->answered > 0) {
        if (budget-- == 0)
            return LINEAR_UNDECIDED;
        if (e && !e->is_return) {
            e = place(s, e) ? s->head.next : e->next;
            continue;
        }
        if (s->depth >= s->deepest && e) {
            s->deepest = s->depth;
            s->stuck = e->call;
        }
        if (s->depth == 0)
            return LINEAR_NO;
        e = take_back(s);
    }
    return LINEAR_YES;
}

enum linear_verdict linear_check(const struct linear_model *model,
                                 const struct linear_call *calls, size_t count,
                                 uint64_t budget, size_t *ret_stuck)
{
    struct search s = {.model = model, .calls = calls, .count = count};
    ensure(count <= LINEAR_CALLS && model->state_bytes <= LINEAR_STATE);
    s.entries = calloc(2 * count + 1, sizeof(*s.entries));
    s.frames = calloc(count + 1, sizeof(*s.frames));
    ensure(s.entries && s.frames);
    list_make(&s);
    model->begin(s.now.state);
    enum linear_verdict verdict = search(&s, budget);
    *ret_stuck = s.stuck;
    free(s.entries);
    free(s.frames);
    free(s.memory.all);
    free(s.memory.hashes);
    return verdict;
}
