/* mail.c - from other threads to the loop: a lock-free stack and an eventfd. */
#include "node_core.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The stack holds the newest first; deliver in the order of posting. */
static struct mail *reverse(struct mail *m)
{
    struct mail *first = NULL;
    while (m) {
        struct mail *next = m->next;
        m->next = first;
        first = m;
        m = next;
    }
    return first;
}

static void mailbox_readable(evutil_socket_t fd, short what, void *arg)
{
    struct node *n = arg;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof(count));
    ensure(got == sizeof(count) || errno == EAGAIN);
    struct mail *m = reverse(atomic_exchange(&n->mailbox.head, NULL));
    while (m) {
        struct mail *next = m->next;
        m->deliver(n, m);
        m = next;
    }
}

int mailbox_init(struct node *n)
{
    struct mailbox *box = &n->mailbox;
    box->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (box->wake_fd < 0)
        return -errno;
    box->event =
        event_new(n->loop, box->wake_fd, EV_READ | EV_PERSIST, mailbox_readable, n);
    if (!box->event || event_add(box->event, NULL) < 0)
        return -ENOMEM;
    return 0;
}

void mailbox_release(struct node *n)
{
    if (n->mailbox.event)
        event_free(n->mailbox.event);
    if (n->mailbox.wake_fd >= 0)
        close(n->mailbox.wake_fd);
}

void mail_post(struct node *n, struct mail *m)
{
    struct mail *head = atomic_load(&n->mailbox.head);
    do
        m->next = head;
    while (!atomic_compare_exchange_weak(&n->mailbox.head, &head, m));
    if (head)
        return; /* whoever posted the first one has rung */
    uint64_t one = 1;
    ssize_t wrote = write(n->mailbox.wake_fd, &one, sizeof(one));
    ensure(wrote == sizeof(one));
}
