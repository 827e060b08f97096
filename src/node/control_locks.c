/*
 * control_locks.c - LOCKS: who holds locks and who waits for them, as this node has applied
 * it. Records are read, and names looked for, on the pager thread; the loop knows which node
 * a session is of.
 */
#include "control.h"

#include <errno.h>

struct found_inode {
    uint64_t inode;
    struct fs_locks locks;
    struct fs_place place;
    struct buf path; /* "" where no name leads there, or none was found in time */
};

struct locks_call {
    uint64_t after;
    struct found_inode *found;
    size_t count;
    bool more;
    int error;
};

static void release_locks_call(void *state)
{
    struct locks_call *l = state;
    for (size_t i = 0; i < l->count; i++) {
        fs_locks_release(&l->found[i].locks);
        buf_release(&l->found[i].path);
    }
    free(l->found);
    free(l);
}

static int found_item(void *arg, const struct fs_item *item)
{
    struct locks_call *l = arg;
    uint64_t inode = get_be64(item->key + 1);
    if (item->key_size != 9 || inode == l->after)
        return 0;
    if (l->count == CONTROL_LOCKS_INODES) {
        l->more = true;
        return 1;
    }
    l->found[l->count++].inode = inode;
    return 0;
}

static int find_paths(const struct fs_view *view, struct locks_call *l)
{
    struct fs_place *places = calloc(l->count + 1, sizeof(*places));
    if (!places)
        return -ENOMEM;
    for (size_t i = 0; i < l->count; i++)
        places[i].inode = l->found[i].inode;
    int error = fs_find_places(view, places, l->count);
    for (size_t i = 0; i < l->count && !error; i++)
        fs_place_path(view, &places[i], &l->found[i].path);
    free(places);
    return error;
}

static void read_locks(struct pager_task *task)
{
    struct control_request *r = container_of(task, struct control_request, task);
    struct locks_call *l = r->state;
    const struct fs_view *view = node_view(r->node);
    const uint8_t to[] = {FS_CLASS_LOCKS + 1};
    struct fs_key from;
    fs_key_locks(&from, l->after);
    l->found = calloc(CONTROL_LOCKS_INODES, sizeof(*l->found));
    int error = l->found ? 0 : -ENOMEM;
    if (!error)
        error = view->scan(view->context, from.bytes, from.size, to, 1, found_item, l);
    for (size_t i = 0; i < l->count && error >= 0; i++)
        error = fs_locks_read(view, l->found[i].inode, &l->found[i].locks);
    if (error >= 0 && l->count)
        error = find_paths(view, l);
    l->error = error < 0 ? error : 0;
}

static void put_node(struct node *n, uint64_t session, struct buf *to)
{
    const struct member *m = members_find(node_members(n), node_of_session(n, session));
    buf_cstring(to, m ? m->name : "");
}

static void put_lock(struct node *n, const struct fs_lock *l, struct buf *to)
{
    put_node(n, l->session, to);
    buf_u32(to, l->pid);
    buf_u8(to, l->kind);
    buf_u8(to, l->writes);
    buf_u8(to, l->waits);
    buf_u64(to, l->start);
    buf_u64(to, l->end);
    buf_u64(to, l->since_us);
}

static void put_inode(struct node *n, const struct found_inode *f, struct buf *to)
{
    buf_u64(to, f->inode);
    buf_string(to, f->path.data, f->path.length);
    buf_u32(to, (uint32_t)f->locks.count);
    for (size_t i = 0; i < f->locks.count; i++)
        put_lock(n, &f->locks.at[i], to);
}

static void answer_locks(struct pager_task *task)
{
    struct control_request *r = container_of(task, struct control_request, task);
    struct locks_call *l = r->state;
    struct buf to = {0};
    buf_u8(&to, l->more);
    for (size_t i = 0; i < l->count; i++)
        put_inode(r->node, &l->found[i], &to);
    if (l->error || to.failed)
        control_answer_error(r, l->error ? l->error : -ENOMEM, "");
    else
        control_answer(r, to.data, to.length);
    buf_release(&to);
}

void control_locks(struct control_request *r, struct reader *frame)
{
    uint64_t after = reader_u64(frame);
    if (!reader_done(frame)) {
        control_malformed(r);
        return;
    }
    struct locks_call *l = calloc(1, sizeof(*l));
    if (!l) {
        control_answer_error(r, -ENOMEM, "");
        return;
    }
    l->after = after;
    r->state = l;
    r->release_state = release_locks_call;
    r->task = (struct pager_task){.work = read_locks, .done = answer_locks};
    pager_submit(r->node, &r->task);
}
