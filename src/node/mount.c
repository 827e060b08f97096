/*
 * mount.c - the node as the mount's backend: the way its operations take, the inode
 * numbers it hands out.
 */
#include "node_core.h"

#include <errno.h>
#include <semaphore.h>

/* ---- Operations: from the mount's threads to the loop and back --------------------- */

struct mount_op {
    struct mail mail;
    struct client_op op;
    struct fs_request *request;
    struct node *node;
};

static void request_done(struct client_op *op)
{
    struct mount_op *m = container_of(op, struct mount_op, op);
    struct fs_request *request = m->request;
    request->error = op->error;
    fs_result_decode(op->result, &request->result);
    request->session = op->session;
    request->op = op->op; /* it was lent */
    request->backend = NULL;
    free(m);
    request->done(request);
}

static void request_arrived(struct node *n, struct mail *mail)
{
    struct mount_op *m = container_of(mail, struct mount_op, mail);
    client_submit(n, &m->op);
}

static void backend_submit(void *context, struct fs_request *request)
{
    struct node *n = context;
    struct mount_op *m = calloc(1, sizeof(*m));
    node_must(m ? 0 : -ENOMEM, "submitting");
    m->node = n;
    m->request = request;
    m->op.op = request->op;
    m->op.subject = request->subject;
    m->op.session = request->session;
    m->op.done = request_done;
    m->mail.deliver = request_arrived;
    request->backend = m;
    mail_post(n, &m->mail);
}

struct interrupt_mail {
    struct mail mail;
    struct fs_request *request;
    bool fatal;
};

static void interrupt_arrived(struct node *n, struct mail *mail)
{
    struct interrupt_mail *i = container_of(mail, struct interrupt_mail, mail);
    /* The request may have been answered meanwhile: look, do not touch. */
    for (struct client_op *op = n->client.head; op; op = op->next) {
        if (op->done != request_done)
            continue;
        struct mount_op *m = container_of(op, struct mount_op, op);
        if (m->request == i->request) {
            client_interrupt(n, op, i->fatal);
            break;
        }
    }
    free(i);
}

static void backend_interrupt(void *context, struct fs_request *request, bool fatal)
{
    struct interrupt_mail *i = calloc(1, sizeof(*i));
    node_must(i ? 0 : -ENOMEM, "interrupting");
    i->request = request;
    i->fatal = fatal;
    i->mail.deliver = interrupt_arrived;
    mail_post(context, &i->mail);
}

static bool backend_writable(void *context)
{
    struct node *n = context;
    return n->writable;
}

static bool backend_has_room(void *context)
{
    struct node *n = context;
    return !n->full;
}

/* The number first: it changes after the time. */
static uint64_t backend_session(void *context, bool *ret_sure)
{
    struct node *n = context;
    uint64_t session = n->session;
    *ret_sure = session && node_now() < n->session_sure_us;
    return session;
}

static void backend_space(void *context, uint64_t *ret_free, uint64_t *ret_total,
                          uint64_t *ret_keys)
{
    struct node *n = context;
    *ret_free = n->space_free;
    *ret_total = n->space_total;
    *ret_keys = n->space_keys;
}

/* ---- What has lost its name ---------------------------------------------------------- */

bool mount_asked(const struct node *n, const struct store_entry *entry)
{
    if (!entry->request || entry->session != n->client.session)
        return false;
    for (const struct client_op *op = n->client.head; op; op = op->next)
        if (op->request == entry->request)
            return op->done == request_done;
    return false;
}

static void backend_release(void *context, uint64_t inode)
{
    struct mount *m = &((struct node *)context)->mount;
    pthread_mutex_lock(&m->mutex);
    buf_u64(&m->released, inode);
    node_must(m->released.failed ? -ENOMEM : 0, "noting a removed inode");
    pthread_mutex_unlock(&m->mutex);
}

void mount_take_released(struct node *n, struct buf *to)
{
    struct mount *m = &n->mount;
    pthread_mutex_lock(&m->mutex);
    buf_bytes(to, m->released.data, m->released.length);
    buf_release(&m->released);
    pthread_mutex_unlock(&m->mutex);
    node_must(to->failed ? -ENOMEM : 0, "noting a removed inode");
}

/* ---- .tierce/ ------------------------------------------------------------------------ */

struct text_mail {
    struct mail mail;
    enum fs_text which;
    struct buf *to;
    int error;
    sem_t written;
};

static int write_status(struct node *n, enum fs_text which, struct buf *to)
{
    const struct node_run_options *o = n->options;
    void (*show)(struct buf * to, const struct node_status *s) =
        which == FS_TEXT_STATUS ? o->show_status : o->show_members;
    struct node_status *status = calloc(1, sizeof(*status));
    if (!status)
        return -ENOMEM;
    node_fill_status(n, status);
    if (show)
        show(to, status);
    free(status);
    return 0;
}

static void text_asked(struct node *n, struct mail *mail)
{
    struct text_mail *t = container_of(mail, struct text_mail, mail);
    if (t->which == FS_TEXT_METRICS)
        metrics_write(n, t->to);
    else
        t->error = write_status(n, t->which, t->to);
    sem_post(&t->written);
}

/* The loop waits for nothing (N2), and runs until the mount's threads have ended. */
static int backend_text(void *context, enum fs_text which, struct buf *to)
{
    struct text_mail t = {.mail.deliver = text_asked, .which = which, .to = to};
    sem_init(&t.written, 0, 0);
    mail_post(context, &t.mail);
    while (sem_wait(&t.written) && errno == EINTR)
        ;
    sem_destroy(&t.written);
    return t.error;
}

/* ---- Inode numbers ----------------------------------------------------------------- */

static void reserve_arrived(struct node *n, struct mail *mail)
{
    pthread_mutex_lock(&n->mount.mutex);
    n->mount.reserve_asked = false;
    pthread_mutex_unlock(&n->mount.mutex);
    mount_reserve(n);
}

static uint64_t backend_take_inode(void *context)
{
    struct node *n = context;
    struct mount *m = &n->mount;
    pthread_mutex_lock(&m->mutex);
    uint64_t inode = m->inode_next < m->inode_end ? m->inode_next++ : 0;
    bool ask = m->inode_end - m->inode_next < NODE_INODES_LOW && !m->reserve_asked;
    if (ask)
        m->reserve_asked = true;
    pthread_mutex_unlock(&m->mutex);
    if (ask)
        mail_post(n, &m->reserve_mail);
    return inode;
}

/* Numbers left over are dropped: the new ones are one range, and there are enough. */
static void reserved(struct client_op *op)
{
    struct node *n = container_of(op, struct node, mount.reserve);
    struct mount *m = &n->mount;
    struct fs_result result;
    m->reserving = false;
    if (op->error < 0)
        return; /* asked again when the next number is taken, or at the next tick */
    fs_result_decode(op->result, &result);
    pthread_mutex_lock(&m->mutex);
    m->inode_next = result.value;
    m->inode_end = result.value + NODE_INODES_RESERVED;
    pthread_mutex_unlock(&m->mutex);
}

void mount_reserve(struct node *n)
{
    struct mount *m = &n->mount;
    pthread_mutex_lock(&m->mutex);
    bool low = m->inode_end - m->inode_next < NODE_INODES_LOW;
    pthread_mutex_unlock(&m->mutex);
    if (!low || m->reserving || !n->client.session || !n->options->mountpoint)
        return;
    m->reserving = true;
    buf_clear(&m->reserve.op);
    fs_op_encode(&(struct fs_op){.type = FS_RESERVE, .size = NODE_INODES_RESERVED},
                 &m->reserve.op);
    m->reserve.session = 0; /* not in that of the last time, which may be over */
    m->reserve.done = reserved;
    client_submit(n, &m->reserve);
}

/* ---- Starting and stopping --------------------------------------------------------- */

static void unmounted_arrived(struct node *n, struct mail *mail)
{
    node_unmounted(n);
}

static void backend_unmounted(void *context)
{
    struct node *n = context;
    mail_post(n, &n->mount.unmounted_mail);
}

static void *caller_main(void *arg)
{
    struct node *n = arg;
    struct mount *m = &n->mount;
    struct fs_mount_options options = {.mountpoint = n->options->mountpoint,
                                       .options = n->options->mount_options,
                                       .source = n->directory.path};
    m->call_error = m->starting
                        ? fs_mount_start(&m->mount, &options, &m->backend, m->error)
                        : fs_mount_stop(m->mount, m->force);
    mail_post(n, &m->call_mail);
    return NULL;
}

static void call_returned(struct node *n, struct mail *mail)
{
    struct mount *m = &n->mount;
    pthread_join(m->caller, NULL);
    m->calling = false;
    if (m->starting)
        node_mount_started(n, m->call_error);
    else
        node_mount_stopped(n, m->call_error);
}

static void call(struct node *n)
{
    ensure(!n->mount.calling);
    n->mount.calling = true;
    node_must(-pthread_create(&n->mount.caller, NULL, caller_main, n), "mounting");
}

void mount_start(struct node *n)
{
    n->mount.starting = true;
    call(n);
}

void mount_stop(struct node *n, bool force)
{
    n->mount.starting = false;
    n->mount.force = force;
    call(n);
}

void mount_state_replaced(struct node *n)
{
    if (n->mount_shown)
        fs_mount_replaced(n->mount.mount);
}

void mount_note_record(struct node *n, const struct store_record *record)
{
    if (n->mount_shown && record->key[0] == FS_CLASS_LOCKS && record->key_size == 9)
        fs_mount_locks_changed(n->mount.mount, get_be64(record->key + 1));
}

void mount_init(struct node *n)
{
    struct mount *m = &n->mount;
    pthread_mutex_init(&m->mutex, NULL);
    m->reserve_mail.deliver = reserve_arrived;
    m->unmounted_mail.deliver = unmounted_arrived;
    m->call_mail.deliver = call_returned;
    m->backend = (struct fs_backend){.context = n,
                                     .view = n->view,
                                     .submit = backend_submit,
                                     .interrupt = backend_interrupt,
                                     .writable = backend_writable,
                                     .has_room = backend_has_room,
                                     .release = backend_release,
                                     .take_inode = backend_take_inode,
                                     .session = backend_session,
                                     .text = backend_text,
                                     .space = backend_space,
                                     .unmounted = backend_unmounted};
}

void mount_release(struct node *n)
{
    if (n->mount.mount)
        fs_mount_free(n->mount.mount);
    buf_release(&n->mount.reserve.op);
    buf_release(&n->mount.released);
}
