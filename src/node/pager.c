/* pager.c - the reader thread: what the loop needs from the disk and must not wait for.
 */
#include "node_core.h"

#include <errno.h>

struct pager_done {
    struct mail mail;
    struct pager_task *task;
};

static void task_done(struct node *n, struct mail *mail)
{
    struct pager_done *done = container_of(mail, struct pager_done, mail);
    struct pager_task *task = done->task;
    free(done);
    --*task->queued;
    task->done(task);
}

static struct pager_task *next_task(struct pager *p)
{
    pthread_mutex_lock(&p->mutex);
    while (!p->head && !p->stopping)
        pthread_cond_wait(&p->wake, &p->mutex);
    struct pager_task *task = p->stopping ? NULL : p->head;
    if (task) {
        p->head = task->next;
        if (!p->head)
            p->tail = NULL;
    }
    pthread_mutex_unlock(&p->mutex);
    return task;
}

void pager_post_done(struct node *n, struct pager_task *task)
{
    struct pager_done *done = calloc(1, sizeof(*done));
    node_must(done ? 0 : -ENOMEM, "reading for the loop");
    done->task = task;
    done->mail.deliver = task_done;
    mail_post(n, &done->mail);
}

static void *pager_main(void *arg)
{
    struct node *n = arg;
    struct pager_task *task;
    while ((task = next_task(&n->pager))) {
        task->work(task);
        pager_post_done(n, task);
    }
    return NULL;
}

int pager_start(struct node *n)
{
    pthread_mutex_init(&n->pager.mutex, NULL);
    pthread_cond_init(&n->pager.wake, NULL);
    int ret = -pthread_create(&n->pager.thread, NULL, pager_main, n);
    n->pager.started = ret == 0;
    return ret;
}

void pager_stop(struct node *n)
{
    struct pager *p = &n->pager;
    if (!p->started)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stopping = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    p->started = false;
}

void pager_submit(struct node *n, struct pager_task *task)
{
    struct pager *p = &n->pager;
    task->next = NULL;
    task->queued = &p->queued;
    queue_note(n, QUEUE_READER, ++p->queued);
    pthread_mutex_lock(&p->mutex);
    if (p->tail)
        p->tail->next = task;
    else
        p->head = task;
    p->tail = task;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}
