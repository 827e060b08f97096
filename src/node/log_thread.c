/*
 * log_thread.c - the thread that may wait for the disk on behalf of the log. While one
 * job is out, the store collects the next: that is the group commit.
 */
#include "node_core.h"

#include <errno.h>

static void job_finished(struct node *n, struct mail *mail)
{
    struct store_done done = store_finish_job(n->store, n->log.finished);
    n->log.finished = NULL;
    n->log.busy = false;
    if (done.installed)
        snapshot_installed(n); /* what else was durable is of the former log */
    if (done.install_failed)
        snapshot_install_failed(n, done.incoming);
    driver_durable(n, &done);
    repair_job_done(n);
    log_thread_kick(n);
}

static void *log_thread_main(void *arg)
{
    struct node *n = arg;
    struct log_thread *log = &n->log;
    pthread_mutex_lock(&log->mutex);
    for (;;) {
        while (!log->job && !log->stopping)
            pthread_cond_wait(&log->wake, &log->mutex);
        struct store_job *job = log->job;
        if (!job)
            break;
        log->job = NULL;
        pthread_mutex_unlock(&log->mutex);
        char error[STORE_ERROR_BYTES];
        int ret = store_run_job(job, error);
        /* What reached the disk is unknown now, and asking again would be told a lie. */
        if (ret < 0)
            log_fatal("the log could not be written: %s; the node stops, start it again "
                      "when the disk is well",
                      error);
        pthread_mutex_lock(&log->mutex);
        log->finished = job;
        mail_post(n, &log->mail);
    }
    pthread_mutex_unlock(&log->mutex);
    return NULL;
}

int log_thread_start(struct node *n)
{
    struct log_thread *log = &n->log;
    log->mail.deliver = job_finished;
    pthread_mutex_init(&log->mutex, NULL);
    pthread_cond_init(&log->wake, NULL);
    int ret = -pthread_create(&log->thread, NULL, log_thread_main, n);
    log->started = ret == 0;
    return ret;
}

void log_thread_stop(struct node *n)
{
    struct log_thread *log = &n->log;
    if (!log->started)
        return;
    pthread_mutex_lock(&log->mutex);
    log->stopping = true;
    pthread_cond_signal(&log->wake);
    pthread_mutex_unlock(&log->mutex);
    pthread_join(log->thread, NULL);
    log->started = false;
    if (log->finished) {
        store_incoming_free(store_finish_job(n->store, log->finished).incoming);
        log->finished = NULL;
    }
}

void log_thread_kick(struct node *n)
{
    struct log_thread *log = &n->log;
    if (log->busy || !log->started)
        return;
    struct store_job *job = store_take_job(n->store);
    if (!job)
        return;
    log->busy = true;
    log->since_us = node_now();
    repair_issued(n);
    n->driver.hard_states_issued = n->driver.hard_states;
    pthread_mutex_lock(&log->mutex);
    log->job = job;
    pthread_mutex_unlock(&log->mutex);
    pthread_cond_signal(&log->wake); /* outside, or it wakes only to wait for the mutex */
}

/* A disk that hangs does not hang the timers, but its node cannot lead: it hands over,
 * and takes part again when the disk answers. */
void log_thread_tick(struct node *n, uint64_t now_us)
{
    struct log_thread *log = &n->log;
    bool hung = log->busy && now_us - log->since_us > NODE_HUNG_US;
    if (hung == log->hung)
        return;
    log->hung = hung;
    if (hung)
        log_error("the disk of %s has not answered a write for %d s: this node will not "
                  "lead until it does; look at the disk",
                  n->directory.path, NODE_HUNG_US / 1000000);
    else
        log_info("the disk of %s answers again", n->directory.path);
    eligible_judge(n);
}
