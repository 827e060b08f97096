/*
 * control_keys.c - keys without a mount: GET, PUT, DEL and LIST of the control socket.
 *
 * Reading and walking happen on the pager thread, as they may wait for the disk; changes
 * are operations like a mount's. A large value is put piece by piece under a content id
 * that nobody sees, and the last piece makes it the file's in one entry.
 */
#include "control.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

enum { GET_TRIES = 100 }; /* readings that a writer may spoil, one after another */

struct key_call {
    char path[LIMIT_PATH_BYTES + 1];
    int error;
    const char *text; /* what there is to say beside the errno */
    struct buf out;   /* the answer */
    /* GET */
    uint64_t version, offset;
    /* PUT */
    uint64_t content, size;
    struct buf ranges;
    /* PUT, DEL: where the walk ended */
    uint64_t parent, inode;
    const char *name; /* into path */
    size_t name_size;
    bool last, is_directory;
    /* LIST */
    char after[LIMIT_NAME_BYTES + 1];
    uint32_t names;
    bool more;
};

static void release_key_call(void *state)
{
    struct key_call *k = state;
    buf_release(&k->out);
    buf_release(&k->ranges);
    free(k);
}

static struct key_call *begin(struct control_request *r, struct reader *frame)
{
    struct key_call *k = calloc(1, sizeof(*k));
    if (!k) {
        control_answer_error(r, -ENOMEM, "");
        return NULL;
    }
    r->state = k;
    r->release_state = release_key_call;
    reader_cstring(frame, k->path, sizeof(k->path));
    return k;
}

static struct control_request *request_of(struct pager_task *task)
{
    return container_of(task, struct control_request, task);
}

static void page(struct control_request *r, void (*work)(struct pager_task *task),
                 void (*done)(struct pager_task *task))
{
    r->task = (struct pager_task){.work = work, .done = done};
    pager_submit(r->node, &r->task);
}

/* The end of a call whose answer lies in `out`. */
static void answer_out(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct key_call *k = r->state;
    if (!k->error && k->out.failed)
        k->error = -ENOMEM;
    if (k->error)
        control_answer_error(r, k->error, k->text ? k->text : "");
    else
        control_answer(r, k->out.data, k->out.length);
}

static void submit(struct control_request *r, const struct fs_op *op,
                   void (*done)(struct client_op *op))
{
    struct buf bytes = r->op.op;
    buf_clear(&bytes);
    fs_op_encode(op, &bytes);
    r->op = (struct client_op){.op = bytes, .subject = fs_op_subject(op), .done = done};
    if (bytes.failed)
        control_answer_error(r, -ENOMEM, "");
    else
        client_submit(r->node, &r->op);
}

/* ---- The walk -------------------------------------------------------------------- */

static int check_name(const char *name, size_t size)
{
    if (size > LIMIT_NAME_BYTES)
        return -ENAMETOOLONG;
    if ((size == 1 && name[0] == '.') || (size == 2 && !memcmp(name, "..", 2)))
        return -EINVAL;
    return 0;
}

static int stat_inode(const struct fs_view *view, uint64_t inode, struct fs_inode *ret)
{
    struct buf scratch = {0};
    int result = fs_stat(view, inode, &scratch, ret);
    if (!result)
        ret->inline_bytes = NULL;
    buf_release(&scratch);
    return result;
}

/* Where a name is missing: is there a directory it could be made in? */
static int check_parent(const struct fs_view *view, uint64_t parent)
{
    struct fs_inode inode;
    int result = stat_inode(view, parent, &inode);
    return result ? result : S_ISDIR(inode.mode) ? 0 : -ENOTDIR;
}

/* Goes down the path as far as names exist: k->name in k->parent is k->inode, 0 where it
 * is missing; k->last: it is the path's last. The root has no name. */
static int walk(const struct fs_view *view, struct key_call *k)
{
    k->parent = 0;
    k->inode = FS_ROOT_INODE;
    k->name = k->path;
    k->name_size = 0;
    const char *at = k->path + strspn(k->path, "/");
    k->last = !*at;
    while (*at) {
        k->parent = k->inode;
        k->name = at;
        k->name_size = strcspn(at, "/");
        at += k->name_size;
        at += strspn(at, "/");
        k->last = !*at;
        int result = check_name(k->name, k->name_size);
        if (!result)
            result = fs_lookup(view, k->parent, k->name, k->name_size, &k->inode);
        if (result == -ENOENT) {
            k->inode = 0;
            return check_parent(view, k->parent);
        }
        if (result)
            return result;
    }
    return 0;
}

/* ---- GET ------------------------------------------------------------------------- */

static int check_readable(struct key_call *k, uint32_t mode)
{
    if (S_ISDIR(mode))
        return -EISDIR;
    if (!S_ISREG(mode)) {
        k->text = S_ISLNK(mode) ? "it is a symbolic link, and those are not followed here"
                                : "it is not a regular file";
        return -EINVAL;
    }
    return 0;
}

/* One piece of one version: -EAGAIN where it changed meanwhile. */
static int read_piece(const struct fs_view *view, struct key_call *k)
{
    struct fs_inode before, after;
    int result = stat_inode(view, k->inode, &before);
    if (!result)
        result = check_readable(k, before.mode);
    if (result)
        return result;
    if (k->version && k->version != before.version)
        return -ESTALE;
    uint64_t left = before.size > k->offset ? before.size - k->offset : 0;
    size_t length = min_u64(left, CONTROL_PIECE_BYTES), got = 0;
    buf_clear(&k->out);
    buf_u64(&k->out, before.version);
    buf_u64(&k->out, before.size);
    uint8_t *to = buf_extend(&k->out, length);
    if (k->out.failed)
        return -ENOMEM;
    result = length ? fs_read(view, k->inode, k->offset, length, to, &got) : 0;
    if (!result)
        result = stat_inode(view, k->inode, &after);
    if (!result && (got != length || after.version != before.version))
        return -EAGAIN;
    return result;
}

static void get_work(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct key_call *k = r->state;
    const struct fs_view *view = node_view(r->node);
    for (int i = 0; i < GET_TRIES; i++) {
        k->error = walk(view, k);
        if (!k->error && (!k->inode || !k->last))
            k->error = -ENOENT;
        if (!k->error)
            k->error = read_piece(view, k);
        /* A name whose inode is gone: both were removed between the two looks. */
        if (k->error != -EAGAIN)
            return;
    }
}

void control_get(struct control_request *r, struct reader *frame)
{
    struct key_call *k = begin(r, frame);
    if (!k)
        return;
    k->version = reader_u64(frame);
    k->offset = reader_u64(frame);
    if (reader_done(frame))
        page(r, get_work, answer_out);
    else
        control_malformed(r);
}

/* ---- PUT ------------------------------------------------------------------------- */

static void put_walk(struct pager_task *task);
static void put_walked(struct pager_task *task);

static void put_built(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    struct fs_result result;
    uint8_t content[8];
    if (op->error) {
        control_answer_error(r, op->error, "");
        return;
    }
    fs_result_decode(op->result, &result);
    put_u64(content, result.value);
    control_answer(r, content, sizeof(content));
}

static void put_made_parent(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    if (op->error && op->error != -EEXIST) /* another made it: as good */
        control_answer_error(r, op->error, "");
    else
        page(r, put_walk, put_walked);
}

static void put_made(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    uint8_t none[8] = {0};
    if (op->error)
        control_answer_error(r, op->error, "");
    else
        control_answer(r, none, sizeof(none));
}

static void put_walk(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct key_call *k = r->state;
    const struct fs_view *view = node_view(r->node);
    struct fs_inode inode;
    k->error = walk(view, k);
    if (k->error || !k->inode)
        return;
    k->error = stat_inode(view, k->inode, &inode);
    if (!k->error)
        k->error = check_readable(k, inode.mode);
    if (k->error == -ENOENT) { /* removed between the two looks: make it anew */
        k->error = 0;
        k->inode = 0;
    }
}

static void put_walked(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct key_call *k = r->state;
    if (k->error) {
        control_answer_error(r, k->error, k->text ? k->text : "");
        return;
    }
    struct fs_op op = {.type = FS_MAKE,
                       .parent = k->parent,
                       .name = (const uint8_t *)k->name,
                       .name_size = (uint16_t)k->name_size};
    if (!k->last) {
        op.mode = S_IFDIR | 0755;
        submit(r, &op, put_made_parent);
        return;
    }
    op.flags = FS_OVER;
    op.mode = S_IFREG | 0644;
    op.content = k->content;
    op.size = k->size;
    op.ranges = k->ranges.data;
    op.ranges_size = (uint32_t)k->ranges.length;
    submit(r, &op, put_made);
}

static void put_piece(struct control_request *r, struct key_call *k)
{
    struct fs_op op = {.type = FS_BUILD,
                       .content = k->content,
                       .ranges = k->ranges.data,
                       .ranges_size = (uint32_t)k->ranges.length};
    submit(r, &op, put_built);
}

void control_put(struct control_request *r, struct reader *frame)
{
    struct key_call *k = begin(r, frame);
    if (!k)
        return;
    uint8_t flags = reader_u8(frame);
    k->content = reader_u64(frame);
    k->offset = reader_u64(frame);
    size_t length = reader_left(frame);
    const uint8_t *bytes = reader_bytes(frame, length);
    bool is_last = flags == CONTROL_PUT_LAST;
    if (!reader_done(frame) || length > CONTROL_PIECE_BYTES || (flags && !is_last) ||
        (!length && !is_last)) {
        control_malformed(r);
        return;
    }
    if (k->offset > LIMIT_FILE_BYTES || k->offset + length > LIMIT_FILE_BYTES) {
        control_answer_error(r, -EFBIG, "");
        return;
    }
    k->size = k->offset + length;
    if (length)
        fs_range_add(&k->ranges, k->offset, bytes, length);
    if (k->ranges.failed)
        control_answer_error(r, -ENOMEM, "");
    else if (is_last)
        page(r, put_walk, put_walked);
    else
        put_piece(r, k);
}

/* ---- DEL ------------------------------------------------------------------------- */

static void del_walk(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct key_call *k = r->state;
    const struct fs_view *view = node_view(r->node);
    struct fs_inode inode;
    k->error = walk(view, k);
    if (!k->error && !k->inode)
        k->error = -ENOENT;
    if (!k->error && !k->name_size) {
        k->text = "it is the root of the name space";
        k->error = -EBUSY;
    }
    if (!k->error)
        k->error = stat_inode(view, k->inode, &inode);
    if (!k->error)
        k->is_directory = S_ISDIR(inode.mode);
}

static void del_done(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    if (op->error)
        control_answer_error(r, op->error, "");
    else
        control_answer(r, NULL, 0);
}

static void del_walked(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct key_call *k = r->state;
    if (k->error) {
        control_answer_error(r, k->error, k->text ? k->text : "");
        return;
    }
    struct fs_op op = {.type = k->is_directory ? FS_RMDIR : FS_UNLINK,
                       .parent = k->parent,
                       .name = (const uint8_t *)k->name,
                       .name_size = (uint16_t)k->name_size};
    submit(r, &op, del_done);
}

void control_del(struct control_request *r, struct reader *frame)
{
    if (!begin(r, frame))
        return;
    if (reader_done(frame))
        page(r, del_walk, del_walked);
    else
        control_malformed(r);
}

/* ---- LIST ------------------------------------------------------------------------ */

static int list_name(void *arg, const uint8_t *name, size_t name_size, uint64_t inode,
                     uint8_t type)
{
    struct key_call *k = arg;
    if (k->names == CONTROL_LIST_NAMES) {
        k->more = true;
        return 1;
    }
    k->names++;
    buf_u8(&k->out, type);
    buf_string(&k->out, name, name_size);
    return 0;
}

static int list(const struct fs_view *view, struct key_call *k)
{
    int result = walk(view, k);
    if (!result && !k->inode)
        result = -ENOENT;
    struct fs_inode inode;
    if (!result)
        result = stat_inode(view, k->inode, &inode);
    if (result)
        return result;
    buf_u8(&k->out, 0);
    if (!S_ISDIR(inode.mode))
        return list_name(k, (const uint8_t *)k->name, k->name_size, k->inode,
                         (uint8_t)IFTODT(inode.mode));
    result = fs_list(view, k->inode, k->after, strlen(k->after), list_name, k);
    if (k->more && !k->out.failed)
        k->out.data[0] = 1;
    return result < 0 ? result : 0;
}

static void list_work(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct key_call *k = r->state;
    k->error = list(node_view(r->node), k);
}

void control_list(struct control_request *r, struct reader *frame)
{
    struct key_call *k = begin(r, frame);
    if (!k)
        return;
    reader_cstring(frame, k->after, sizeof(k->after));
    if (reader_done(frame))
        page(r, list_work, answer_out);
    else
        control_malformed(r);
}
