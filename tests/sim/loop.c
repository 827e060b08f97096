/*
 * loop.c - libevent, as far as a node uses it: one loop with two priorities, timers,
 * events that are made active, and one signal.
 */
#include "sim.h"

#include <event2/thread.h>
#include <signal.h>

struct turn { /* what is active */
    struct turn *next;
    void (*fn)(void *arg);
    void *arg;
    struct event *event;
};

struct turns {
    struct turn *head, *tail;
};

struct event_base {
    struct sim_node *node;
    struct turns due[2];
    bool sleeping, broken;
    struct event *all;
};

struct event {
    struct event *next;
    struct event_base *base;
    short what;
    int number, priority;
    event_callback_fn fn;
    void *arg;
    bool active, freed, running;
    uint64_t armed; /* the timer that counts; 0: none */
    uint64_t period_us;
};

static uint64_t armings;

static void add(struct event_base *base, int priority, struct turn turn)
{
    struct turn *t = malloc(sizeof(*t));
    struct turns *list = &base->due[priority];
    ensure(t);
    *t = turn;
    t->next = NULL;
    if (list->tail)
        list->tail->next = t;
    else
        list->head = t;
    list->tail = t;
    if (base->sleeping) {
        base->sleeping = false;
        sim_wake(base, true, chance_below(CHANCE_CPU, 10));
    }
}

static struct turn *take(struct event_base *base)
{
    for (int i = 0; i < 2; i++) {
        struct turn *t = base->due[i].head;
        if (!t)
            continue;
        base->due[i].head = t->next;
        if (!t->next)
            base->due[i].tail = NULL;
        return t;
    }
    return NULL;
}

void loop_post(struct sim_node *n, void (*fn)(void *arg), void *arg)
{
    ensure(n->loop);
    add(n->loop, 0, (struct turn){.fn = fn, .arg = arg});
}

struct event_base *event_base_new(void)
{
    struct event_base *base = calloc(1, sizeof(*base));
    ensure(base && sim_at_node);
    base->node = sim_at_node;
    sim_at_node->loop = base;
    return base;
}

int event_base_priority_init(struct event_base *base, int count)
{
    return 0;
}

void event_base_free(struct event_base *base)
{
    base->node->loop = NULL;
}

int evthread_use_pthreads(void)
{
    return 0;
}

struct event *event_new(struct event_base *base, evutil_socket_t fd, short what,
                        event_callback_fn fn, void *arg)
{
    struct event *e = calloc(1, sizeof(*e));
    ensure(e);
    *e = (struct event){.next = base->all,
                        .base = base,
                        .what = what,
                        .number = fd,
                        .fn = fn,
                        .arg = arg};
    base->all = e;
    return e;
}

int event_priority_set(struct event *e, int priority)
{
    e->priority = priority;
    return 0;
}

static void run_event(struct event *e)
{
    e->active = false;
    if (!e->freed)
        e->fn(e->number, e->what, e->arg);
}

void event_active(struct event *e, int result, short calls)
{
    if (e->active)
        return;
    e->active = true;
    add(e->base, e->priority, (struct turn){.event = e});
}

struct arming {
    struct event *event;
    uint64_t number;
};

static void timer_due(void *arg);

static void arm(struct event *e, uint64_t us)
{
    struct arming *a = malloc(sizeof(*a));
    ensure(a);
    *a = (struct arming){e, ++armings};
    e->armed = a->number;
    /* A node's microseconds are not the world's. */
    double rate = e->base->node->rate;
    sim_after((uint64_t)((double)us / rate) + chance_below(CHANCE_CPU, 50), e->base->node,
              timer_due, a);
}

static void timer_due(void *arg)
{
    struct arming *a = arg;
    struct event *e = a->event;
    bool due = !e->freed && e->armed == a->number;
    free(a);
    if (!due)
        return;
    e->armed = 0;
    if (e->what & EV_PERSIST)
        arm(e, e->period_us);
    event_active(e, EV_TIMEOUT, 0);
}

int event_add(struct event *e, const struct timeval *timeout)
{
    if (e->what & EV_SIGNAL || !timeout)
        return 0;
    e->period_us = (uint64_t)timeout->tv_sec * 1000000 + (uint64_t)timeout->tv_usec;
    arm(e, e->period_us);
    return 0;
}

int event_del(struct event *e)
{
    e->armed = 0;
    return 0;
}

void event_free(struct event *e)
{
    e->freed = true;
}

void loop_signal(struct sim_node *n, int number)
{
    for (struct event *e = n->loop ? n->loop->all : NULL; e; e = e->next)
        if ((e->what & EV_SIGNAL) && e->number == number && !e->freed)
            event_active(e, EV_SIGNAL, 1);
}

bool loop_has_ended(const struct sim_node *n)
{
    return n->loop && n->loop->broken;
}

int event_base_loopbreak(struct event_base *base)
{
    base->broken = true;
    return 0;
}

int event_base_dispatch(struct event_base *base)
{
    while (!base->broken) {
        struct turn *t = take(base);
        if (!t) {
            base->sleeping = true;
            sim_wait(base, UINT64_MAX);
            continue;
        }
        if (t->event)
            run_event(t->event);
        else
            t->fn(t->arg);
        free(t);
    }
    return 0;
}
