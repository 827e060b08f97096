/* models.c - what a register, a list and a directory do, one call at a time. */
#include "linear.h"

#include <errno.h>

/* ---- A register ----------------------------------------------------------------------
 */

struct register_state {
    uint64_t value;
};

static void register_begin(void *state)
{
    *(struct register_state *)state = (struct register_state){0};
}

static bool register_step(void *state, const struct linear_call *c, bool answered)
{
    struct register_state *s = state;
    if (c->kind == REGISTER_READ)
        return !answered || s->value == c->r1;
    s->value = c->a;
    return true;
}

const struct linear_model linear_register = {sizeof(struct register_state),
                                             register_begin, register_step};

/* ---- A list --------------------------------------------------------------------------
 */

struct list_state {
    uint64_t length, hash;
};

uint64_t linear_list_hash(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
    return hash ^ (hash >> 31);
}

static void list_begin(void *state)
{
    *(struct list_state *)state = (struct list_state){0, 0};
}

static bool list_step(void *state, const struct linear_call *c, bool answered)
{
    struct list_state *s = state;
    if (c->kind == LIST_READ)
        return !answered || (s->length == c->r1 && s->hash == c->r2);
    s->length++;
    s->hash = linear_list_hash(s->hash, c->a);
    return !answered || c->r1 == LINEAR_NOT_TOLD || s->length == c->r1;
}

const struct linear_model linear_list = {sizeof(struct list_state), list_begin,
                                         list_step};

/* ---- A directory
 * ----------------------------------------------------------------------- */

/* 0: none. What a call without an answer has made has a number nobody knows: its own. */
struct names_state {
    uint64_t inodes[NAMES];
    uint64_t directories; /* bits by name */
};

#define UNKNOWN (1ull << 63)

static void names_begin(void *state)
{
    memset(state, 0, sizeof(struct names_state));
}

/* A number is what was asked for, what the file system gave, or this: nobody was told. */
static uint64_t number_of_made(const struct linear_call *c, bool answered)
{
    if (c->b)
        return c->b;
    return answered && c->r1 != LINEAR_NOT_TOLD ? c->r1 : UNKNOWN | c->invoked;
}

static unsigned count_names(const struct names_state *s, uint64_t inode)
{
    unsigned count = 0;
    for (unsigned i = 0; i < NAMES; i++)
        count += s->inodes[i] == inode;
    return count;
}

/* `shown` of a place whose number is not known yet tells it, for all names it has. */
static bool is_inode(struct names_state *s, unsigned at, uint64_t shown)
{
    uint64_t known = s->inodes[at];
    if (shown == LINEAR_NOT_TOLD)
        return known != 0;
    if ((known & UNKNOWN) && shown) {
        if (count_names(s, shown))
            return false;
        for (unsigned i = 0; i < NAMES; i++)
            if (s->inodes[i] == known)
                s->inodes[i] = shown;
    }
    return s->inodes[at] == shown;
}

static bool is_directory(const struct names_state *s, unsigned at)
{
    return s->directories >> at & 1;
}

static void set(struct names_state *s, unsigned at, uint64_t inode, bool directory)
{
    s->inodes[at] = inode;
    s->directories &= ~(1ull << at);
    s->directories |= (uint64_t)directory << at;
}

static int64_t make_error(const struct names_state *s, unsigned at)
{
    return s->inodes[at] ? -EEXIST : 0;
}

static bool make(struct names_state *s, const struct linear_call *c, bool answered)
{
    int64_t error = make_error(s, (unsigned)c->a);
    if (answered && error != c->error)
        return false;
    if (error)
        return true;
    uint64_t number = number_of_made(c, answered);
    set(s, (unsigned)c->a, number, c->kind == NAMES_MKDIR);
    return !answered || c->r1 == LINEAR_NOT_TOLD || c->r1 == number;
}

/* What has no name any more is there still while somebody may hold it (S8), and what else
 * is wrong is found first then. */
static bool may_say_of_orphan(const struct names_state *s, unsigned to, int64_t error)
{
    return error == -ENOENT || error == (s->inodes[to] ? -EEXIST : -EPERM);
}

static int64_t link_error(const struct names_state *s, unsigned from, unsigned to)
{
    if (s->inodes[to])
        return -EEXIST;
    if (is_directory(s, from))
        return -EPERM;
    return count_names(s, s->inodes[from]) < NAMES_LINKS_MOST ? 0 : -EMLINK;
}

/* By its number, as the kernel asks for it: under which name it was found is long past. */
static bool link_inode(struct names_state *s, const struct linear_call *c, bool answered)
{
    unsigned from = 0, to = (unsigned)c->b;
    while (from < NAMES && s->inodes[from] != c->a)
        from++;
    if (from == NAMES)
        return !answered || may_say_of_orphan(s, to, c->error);
    int64_t error = link_error(s, from, to);
    if (answered && error != c->error)
        return false;
    if (error == 0)
        set(s, to, c->a, false);
    return true;
}

static int64_t remove_error(const struct names_state *s, unsigned at, bool directory)
{
    if (!s->inodes[at])
        return -ENOENT;
    if (is_directory(s, at) == directory)
        return 0;
    return directory ? -ENOTDIR : -EISDIR;
}

static bool remove_name(struct names_state *s, const struct linear_call *c, bool answered)
{
    unsigned at = (unsigned)c->a;
    int64_t error = remove_error(s, at, c->kind == NAMES_RMDIR);
    if (answered && error != c->error)
        return false;
    if (error == 0 && answered && !is_inode(s, at, c->r1))
        return false;
    if (error == 0)
        set(s, at, 0, false);
    return true;
}

static int64_t rename_error(const struct names_state *s, unsigned from, unsigned to,
                            bool replace)
{
    if (!s->inodes[from])
        return -ENOENT;
    if (!s->inodes[to])
        return 0;
    if (!replace)
        return -EEXIST;
    if (is_directory(s, from) == is_directory(s, to))
        return 0;
    return is_directory(s, to) ? -EISDIR : -ENOTDIR;
}

/* Whether `shown` is what lost its last name when a rename took its place at `at`. */
static bool is_replaced(struct names_state *s, unsigned at, uint64_t shown)
{
    if (s->inodes[at] && count_names(s, s->inodes[at]) == 1)
        return is_inode(s, at, shown);
    return shown == 0 || shown == LINEAR_NOT_TOLD;
}

static bool rename_name(struct names_state *s, const struct linear_call *c, bool answered)
{
    unsigned from = (unsigned)c->a, to = (unsigned)c->b;
    int64_t error = rename_error(s, from, to, c->kind == NAMES_RENAME);
    if (answered && error != c->error)
        return false;
    if (error)
        return true;
    if (answered && (!is_inode(s, from, c->r1) || !is_replaced(s, to, c->r2)))
        return false;
    if (s->inodes[from] == s->inodes[to])
        return true; /* two names of one file: both stay */
    set(s, to, s->inodes[from], is_directory(s, from));
    set(s, from, 0, false);
    return true;
}

static bool exchange_names(struct names_state *s, const struct linear_call *c,
                           bool answered)
{
    unsigned a = (unsigned)c->a, b = (unsigned)c->b;
    int64_t error = s->inodes[a] && s->inodes[b] ? 0 : -ENOENT;
    if (answered && error != c->error)
        return false;
    if (error)
        return true;
    if (answered && !is_inode(s, a, c->r1))
        return false;
    uint64_t inode = s->inodes[a];
    bool directory = is_directory(s, a);
    set(s, a, s->inodes[b], is_directory(s, b));
    set(s, b, inode, directory);
    return true;
}

static bool names_step(void *state, const struct linear_call *c, bool answered)
{
    struct names_state *s = state;
    switch ((enum linear_names)c->kind) {
    case NAMES_MAKE:
    case NAMES_MKDIR:
        return make(s, c, answered);
    case NAMES_UNLINK:
    case NAMES_RMDIR:
        return remove_name(s, c, answered);
    case NAMES_RENAME:
    case NAMES_RENAME_NOREPLACE:
        return rename_name(s, c, answered);
    case NAMES_LINK:
        return link_inode(s, c, answered);
    case NAMES_EXCHANGE:
        return exchange_names(s, c, answered);
    case NAMES_LOOKUP:
        if (!answered)
            return true;
        return s->inodes[c->a] ? is_inode(s, (unsigned)c->a, c->r1) : c->r1 == 0;
    }
    return false;
}

const struct linear_model linear_names = {sizeof(struct names_state), names_begin,
                                          names_step};
