/* xattr.c - reading extended attributes, and what their names may be. */
#include "xattr.h"

#include "acl.h"

#include <errno.h>

static const char *const prefixes[] = {"user.", "trusted.", "security."};

bool xattr_name_begins(const uint8_t *name, size_t size, const char *prefix)
{
    size_t length = strlen(prefix);
    return size >= length && memcmp(name, prefix, length) == 0;
}

bool xattr_name_is(const uint8_t *name, size_t size, const char *known)
{
    return size == strlen(known) && xattr_name_begins(name, size, known);
}

bool xattr_name_is_acl(const uint8_t *name, size_t size)
{
    return xattr_name_is(name, size, ACL_ACCESS) ||
           xattr_name_is(name, size, ACL_DEFAULT);
}

int xattr_name_check(const uint8_t *name, size_t size)
{
    if (size > LIMIT_NAME_BYTES || (size && memchr(name, 0, size)))
        return -EINVAL;
    for (size_t i = 0; i < array_length(prefixes); i++)
        if (xattr_name_begins(name, size, prefixes[i]))
            return size == strlen(prefixes[i]) ? -EINVAL : 0;
    return xattr_name_is_acl(name, size) ? 0 : -EOPNOTSUPP;
}

struct find {
    bool found;
};

static int find_item(void *arg, const struct fs_item *item)
{
    struct find *find = arg;
    find->found = true;
    return 0;
}

/* Whether the key is there, without its value's bytes: these may lie on the disk. */
static int xattr_exists(const struct fs_view *view, const struct fs_key *key)
{
    struct fs_key to = *key;
    struct find find = {0};
    to.bytes[to.size++] = 0;
    int error = view->scan(view->context, key->bytes, key->size, to.bytes, to.size,
                           find_item, &find);
    return error ? error : find.found ? 0 : -ENODATA;
}

int xattr_find(const struct fs_view *view, uint64_t inode, const void *name,
               size_t name_size, struct buf *to)
{
    struct fs_key key;
    uint64_t timestamp;
    fs_key_xattr(&key, inode, name, name_size);
    if (!to)
        return xattr_exists(view, &key);
    int error = view->get(view->context, key.bytes, key.size, to, &timestamp);
    if (!error && to->failed)
        error = -ENOMEM;
    return error == -ENOENT ? -ENODATA : error;
}

struct each {
    int (*each)(void *arg, const uint8_t *name, size_t size);
    void *arg;
};

static int each_item(void *arg, const struct fs_item *item)
{
    struct each *each = arg;
    if (item->key_size <= 9)
        return -EBADMSG;
    return each->each(each->arg, item->key + 9, item->key_size - 9);
}

int xattr_each(const struct fs_view *view, uint64_t inode,
               int (*each)(void *arg, const uint8_t *name, size_t size), void *arg)
{
    struct fs_key from, to;
    struct each all = {.each = each, .arg = arg};
    ensure(inode != UINT64_MAX);
    fs_key_xattr(&from, inode, NULL, 0);
    fs_key_xattr(&to, inode + 1, NULL, 0);
    return view->scan(view->context, from.bytes, from.size, to.bytes, to.size, each_item,
                      &all);
}

int fs_xattr_get(const struct fs_view *view, uint64_t inode, const void *name,
                 size_t name_size, struct buf *to)
{
    int error = xattr_name_check(name, name_size);
    return error ? error : xattr_find(view, inode, name, name_size, to);
}

static int list_name(void *arg, const uint8_t *name, size_t size)
{
    struct buf *to = arg;
    buf_bytes(to, name, size);
    buf_u8(to, 0);
    return 0;
}

int fs_xattr_list(const struct fs_view *view, uint64_t inode, struct buf *to)
{
    int error = xattr_each(view, inode, list_name, to);
    return !error && to->failed ? -ENOMEM : error;
}
