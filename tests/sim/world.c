/*
 * world.c - virtual time: a heap of events, and threads as coroutines that run until they
 * wait. Nothing else decides what comes next, so a seed always gives the same run.
 */
#include "sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

uint64_t sim_now;
struct sim_node *sim_at_node;
struct sim_thread *sim_thread;
uint64_t sim_steps;
struct sim_node *sim_last_node;
uint64_t trace_hash;
FILE *trace_file, *trace_story;
uint64_t fault_counts[FAULT_COUNT];
const char *const fault_names[FAULT_COUNT] = {
#define X(name) #name,
    SIM_FAULTS(X)
#undef X
};

/* ---- Chance ------------------------------------------------------------------------ */

static uint64_t chances[CHANCES];

uint64_t chance(enum sim_stream stream)
{
    return random_next(&chances[stream]);
}

/* A played scenario has no chance in it but what nodes draw for themselves. */
static bool is_fixed(enum sim_stream stream)
{
    return plan.exact && stream != CHANCE_NODE;
}

uint64_t chance_below(enum sim_stream stream, uint64_t bound)
{
    if (is_fixed(stream))
        return 0;
    return bound ? (chance(stream) >> 11) % bound : 0;
}

bool chance_of(enum sim_stream stream, double probability)
{
    return probability > 0 &&
           (double)(chance(stream) >> 11) / (double)(1ull << 53) < probability;
}

uint64_t chance_latency(enum sim_stream stream, uint64_t mean)
{
    if (is_fixed(stream))
        return mean;
    uint64_t us = mean / 2 + chance_below(stream, mean + 1);
    if (chance_below(stream, 64) == 0)
        us *= 1 + chance_below(stream, 16);
    return us;
}

/* ---- The trace --------------------------------------------------------------------- */

static void mix(const void *data, size_t length)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < length; i++)
        trace_hash = (trace_hash ^ at[i]) * 0x100000001b3ull;
}

void trace_number(uint64_t value)
{
    trace_hash = (trace_hash ^ value) * 0x9e3779b97f4a7c15ull;
    trace_hash ^= trace_hash >> 29;
}

static void line(FILE *to, const char *text)
{
    if (to && plan.exact)
        fprintf(to, "%s%s%s\n", sim_at_node ? sim_at_node->name : "",
                sim_at_node ? ": " : "", text);
    else if (to)
        fprintf(to, "%6llu.%06llu %s%s%s\n", (unsigned long long)(sim_now / SIM_S),
                (unsigned long long)(sim_now % SIM_S),
                sim_at_node ? sim_at_node->name : "", sim_at_node ? ": " : "", text);
}

void trace(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    trace_number(sim_now);
    mix(text, min_u64((uint64_t)n, sizeof(text) - 1));
    line(trace_file, text);
}

/* A message that is told again and again is told once. */
static bool is_stale(const char *text)
{
    if (!strstr(text, " -> "))
        return false;
    static char recent[6][200];
    static unsigned next;
    for (unsigned i = 0; i < 6; i++)
        if (strncmp(recent[i], text, sizeof(recent[0]) - 1) == 0)
            return true;
    snprintf(recent[next++ % 6], sizeof(recent[0]), "%.199s", text);
    return false;
}

void story(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    trace("%s", text);
    if (!plan.exact || sim_at_node || !is_stale(text))
        line(trace_story, text);
}

void sim_fail(const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    line(trace_file, text);
    line(stderr, text);
    fflush(NULL);
    _exit(SIM_FAILED);
}

/* ---- Events ------------------------------------------------------------------------ */

struct sim_event {
    uint64_t at_us, number;
    struct sim_node *node;
    unsigned life;
    void (*fn)(void *arg);
    void *arg;
};

struct sim_held {
    struct sim_held *next;
    struct sim_event event;
};

static struct sim_event *heap;
static size_t heap_count, heap_capacity;
static uint64_t event_numbers;

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->number < b->number;
}

static void heap_push(struct sim_event event)
{
    if (heap_count == heap_capacity) {
        heap_capacity = heap_capacity ? 2 * heap_capacity : 1024;
        heap = realloc(heap, heap_capacity * sizeof(*heap));
        ensure(heap);
    }
    size_t at = heap_count++;
    while (at > 0 && before(&event, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = event;
}

static struct sim_event heap_pop(void)
{
    struct sim_event top = heap[0], last = heap[--heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap_count)
            break;
        if (child + 1 < heap_count && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &last))
            break;
        heap[at] = heap[child];
        at = child;
    }
    if (heap_count)
        heap[at] = last;
    return top;
}

void sim_after(uint64_t delay_us, struct sim_node *node, void (*fn)(void *arg), void *arg)
{
    heap_push((struct sim_event){sim_now + delay_us, ++event_numbers, node,
                                 node ? node->life : 0, fn, arg});
}

static void hold(struct sim_event *event)
{
    struct sim_held *h = malloc(sizeof(*h)), **at = &event->node->held;
    ensure(h);
    *h = (struct sim_held){.event = *event};
    while (*at)
        at = &(*at)->next;
    *at = h;
}

/* It runs again: what was due meanwhile is due now, in its order. */
void sim_pause(struct sim_node *n, bool pause)
{
    n->paused = pause;
    n->resumed_us = sim_now;
    while (!pause && n->held) {
        struct sim_held *h = n->held;
        n->held = h->next;
        h->event.at_us = sim_now;
        h->event.number = ++event_numbers;
        heap_push(h->event);
        free(h);
    }
}

bool world_step(uint64_t until_us)
{
    if (heap_count == 0 || heap[0].at_us > until_us) {
        sim_now = until_us;
        return false;
    }
    struct sim_event event = heap_pop();
    struct sim_node *n = event.node;
    sim_now = event.at_us;
    if (n && (event.life != n->life || !n->up))
        return true;
    if (n && n->paused) {
        hold(&event);
        return true;
    }
    sim_steps++;
    trace_number(sim_now);
    trace_number(event.number);
    sim_at_node = n;
    event.fn(event.arg);
    sim_at_node = NULL;
    sim_last_node = n;
    return true;
}

/* ---- Threads ------------------------------------------------------------------------
 */

struct coroutine {
    struct coroutine *next; /* spare ones */
    ucontext_t first;
    jmp_buf at;
    bool begun;
    void *stack;
};

static struct sim_thread *threads;
static struct coroutine *spare;
static jmp_buf scheduler;
static struct coroutine *ended; /* its stack is free once the scheduler runs */

static struct coroutine *coroutine_new(void)
{
    struct coroutine *c = spare;
    if (c) {
        spare = c->next;
    } else {
        c = calloc(1, sizeof(*c));
        ensure(c);
        c->stack = mmap(NULL, SIM_STACK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        ensure(c->stack != MAP_FAILED);
    }
    c->begun = false;
    return c;
}

static void thread_remove(struct sim_thread *t)
{
    struct sim_thread **at = &threads;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
}

static void thread_ended(struct sim_thread *t)
{
    t->done = true;
    thread_remove(t);
    ended = t->context;
    t->context = NULL;
    sim_wake(t, true, 1);
}

static void entry(void)
{
    sim_thread->main(sim_thread->arg);
    thread_ended(sim_thread);
    _longjmp(scheduler, 1);
}

void sim_thread_exit(void)
{
    ensure(sim_thread);
    if (sim_thread->context) /* else its node is gone, and took it along */
        thread_ended(sim_thread);
    _longjmp(scheduler, 1);
}

static void resume(void *arg)
{
    struct sim_thread *t = arg;
    struct coroutine *c = t->context;
    if (!c)
        return;
    sim_thread = t;
    if (_setjmp(scheduler) == 0) {
        errno = t->saved_errno;
        if (c->begun)
            _longjmp(c->at, 1);
        c->begun = true;
        getcontext(&c->first);
        c->first.uc_stack.ss_sp = c->stack;
        c->first.uc_stack.ss_size = SIM_STACK;
        c->first.uc_link = NULL;
        makecontext(&c->first, entry, 0);
        setcontext(&c->first);
    }
    sim_thread = NULL;
    if (ended) {
        ended->next = spare;
        spare = ended;
        ended = NULL;
    }
}

static void suspend(void)
{
    struct coroutine *c = sim_thread->context;
    sim_thread->saved_errno = errno;
    if (_setjmp(c->at) == 0)
        _longjmp(scheduler, 1);
}

struct sim_thread *sim_thread_new(struct sim_node *node, void *(*main)(void *arg),
                                  void *arg, uint64_t delay_us)
{
    struct sim_thread *t = calloc(1, sizeof(*t)), **at = &threads;
    ensure(t);
    *t = (struct sim_thread){.node = node, .main = main, .arg = arg};
    t->life = node ? node->life : 0;
    t->context = coroutine_new();
    while (*at)
        at = &(*at)->next;
    *at = t;
    sim_after(delay_us, node, resume, t);
    return t;
}

void sim_sleep(uint64_t us)
{
    ensure(sim_thread);
    sim_after(us, sim_thread->node, resume, sim_thread);
    suspend();
}

struct timeout {
    struct sim_thread *thread;
    uint64_t waits;
};

static void timeout_passed(void *arg)
{
    struct timeout *o = arg;
    struct sim_thread *t = o->thread;
    bool due = t->waits_for && t->waits == o->waits;
    free(o);
    if (!due)
        return;
    t->waits_for = NULL;
    t->timed_out = true;
    resume(t);
}

int sim_wait(const void *what, uint64_t timeout_us)
{
    struct sim_thread *t = sim_thread;
    ensure(t);
    t->waits_for = what;
    t->waits++;
    t->timed_out = false;
    if (timeout_us != UINT64_MAX) {
        struct timeout *o = malloc(sizeof(*o));
        ensure(o);
        *o = (struct timeout){t, t->waits};
        sim_after(timeout_us, t->node, timeout_passed, o);
    }
    suspend();
    return t->timed_out ? -ETIMEDOUT : 0;
}

void sim_wake(const void *what, bool all, uint64_t delay_us)
{
    for (struct sim_thread *t = threads; t; t = t->next) {
        if (t->waits_for != what)
            continue;
        t->waits_for = NULL;
        sim_after(delay_us, t->node, resume, t);
        if (!all)
            return;
    }
}

void sim_threads_drop(struct sim_node *node)
{
    struct sim_thread *next;
    for (struct sim_thread *t = threads; t; t = next) {
        next = t->next;
        if (t->node != node)
            continue;
        struct coroutine *c = t->context;
        thread_remove(t);
        t->context = NULL;
        if (t == sim_thread) {
            ended = c;
        } else {
            c->next = spare;
            spare = c;
        }
    }
}

void world_begin(uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    state = state ? state : 1;
    for (int i = 0; i < CHANCES; i++) {
        for (int k = 0; k < 8; k++)
            random_next(&state);
        chances[i] = random_next(&state) | 1;
    }
    trace_hash = 0xcbf29ce484222325ull;
}
