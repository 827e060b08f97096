/*
 * merge_thread.c - the thread for bulk I/O that nobody waits for: the store's tasks
 * (hints, merges, scrubbing) in short stretches, and between those what snapshots and
 * repairs read and write.
 *
 *   loop                  merge thread                  loop
 *   store_next_task ----> store_run_task, again ------> store_step_task
 *     ^                     ^  and again                  |      |
 *     |                     +--------- true --------------+      |
 *     +------------------------------- false --------------------+
 */
#include "node_core.h"

#include <errno.h>
#include <time.h>

static uint64_t monotonic_us(void)
{
    struct timespec t;
    ensure(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Until there is something to do; with the mutex held. */
static void wait_for_work(struct merge_thread *m)
{
    while (!m->stopping && !m->head) {
        if (!m->task) {
            pthread_cond_wait(&m->wake, &m->mutex);
            continue;
        }
        if (monotonic_us() >= m->task_at_us)
            return;
        struct timespec until = {(time_t)(m->task_at_us / 1000000),
                                 (long)(m->task_at_us % 1000000) * 1000};
        pthread_cond_timedwait(&m->wake, &m->mutex, &until);
    }
}

static struct pager_task *take_queued(struct merge_thread *m)
{
    struct pager_task *task = m->head;
    m->head = task->next;
    if (!m->head)
        m->tail = NULL;
    return task;
}

static void run_queued(struct node *n, struct pager_task *task)
{
    task->work(task);
    pager_post_done(n, task);
}

static int run_stretch(struct store_task *task, uint64_t *ret_wait_us)
{
    char error[STORE_ERROR_BYTES] = "";
    int ret = store_run_task(task, ret_wait_us, error);
    if (ret < 0)
        log_fatal("merging failed: %s; the node stops, start it again when the disk is "
                  "well",
                  error);
    return ret;
}

static void *merge_thread_main(void *arg)
{
    struct node *n = arg;
    struct merge_thread *m = &n->merge;
    pthread_mutex_lock(&m->mutex);
    for (;;) {
        wait_for_work(m);
        if (m->stopping)
            break;
        struct pager_task *queued = m->head ? take_queued(m) : NULL;
        struct store_task *task = m->task;
        pthread_mutex_unlock(&m->mutex);
        uint64_t wait_us = 0;
        int more = 1;
        if (queued)
            run_queued(n, queued);
        else
            more = run_stretch(task, &wait_us);
        pthread_mutex_lock(&m->mutex);
        if (!queued)
            m->task_at_us = monotonic_us() + wait_us;
        if (more == 0) {
            m->task = NULL;
            mail_post(n, &m->mail);
        }
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}

/* ---- The loop's side --------------------------------------------------------------- */

static void hand_over(struct merge_thread *m)
{
    pthread_mutex_lock(&m->mutex);
    m->task = m->out;
    m->task_at_us = 0;
    pthread_mutex_unlock(&m->mutex);
    pthread_cond_signal(&m->wake);
}

/* The log may begin later now. */
static void note_base(struct node *n)
{
    uint64_t term, base = store_base(n->store, &term);
    if (base == n->base)
        return;
    n->base = base;
    driver_step(n, &(struct raft_event){.type = RAFT_COMPACTED, .index = base});
}

static void task_finished(struct node *n, struct mail *mail)
{
    struct merge_thread *m = &n->merge;
    bool more = store_step_task(n->store, m->out);
    if (!more)
        m->out = NULL;
    note_base(n);
    driver_flush_soon(n); /* it may have left something for the log thread */
    if (more) {
        hand_over(m);
        return;
    }
    snapshot_install_due(n);
    serve_pin_due(n);
    merge_thread_kick(n);
}

void merge_thread_kick(struct node *n)
{
    struct merge_thread *m = &n->merge;
    if (!m->started || m->out || m->holds > 0)
        return;
    m->out = store_next_task(n->store, node_now());
    if (m->out)
        hand_over(m);
}

void merge_thread_hold(struct node *n)
{
    n->merge.holds++;
}

void merge_thread_release(struct node *n)
{
    ensure(n->merge.holds > 0);
    n->merge.holds--;
    merge_thread_kick(n);
}

void merge_thread_submit(struct node *n, struct pager_task *task)
{
    struct merge_thread *m = &n->merge;
    task->next = NULL;
    task->queued = &m->queued;
    queue_note(n, QUEUE_MERGE, ++m->queued);
    pthread_mutex_lock(&m->mutex);
    if (m->tail)
        m->tail->next = task;
    else
        m->head = task;
    m->tail = task;
    pthread_mutex_unlock(&m->mutex);
    pthread_cond_signal(&m->wake);
}

int merge_thread_start(struct node *n)
{
    struct merge_thread *m = &n->merge;
    pthread_condattr_t attr;
    m->mail.deliver = task_finished;
    pthread_mutex_init(&m->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->wake, &attr);
    pthread_condattr_destroy(&attr);
    int ret = -pthread_create(&m->thread, NULL, merge_thread_main, n);
    m->started = ret == 0;
    return ret;
}

void merge_thread_stop(struct node *n)
{
    struct merge_thread *m = &n->merge;
    if (!m->started)
        return;
    pthread_mutex_lock(&m->mutex);
    m->stopping = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->mutex);
    pthread_join(m->thread, NULL);
    m->started = false;
}
