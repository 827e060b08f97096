/* xattr.h - private: extended attributes, as readers and evaluation see them. */
#ifndef TIERCE_FS_XATTR_H
#define TIERCE_FS_XATTR_H

#include "fs.h"

#define XATTR_CAPABILITY "security.capability"

/* 0; -EOPNOTSUPP: no name space of ours; -EINVAL: nothing behind it. */
int xattr_name_check(const uint8_t *name, size_t size);
bool xattr_name_is(const uint8_t *name, size_t size, const char *known);
bool xattr_name_is_acl(const uint8_t *name, size_t size);
bool xattr_name_begins(const uint8_t *name, size_t size, const char *prefix);
/* The value, if `to` is not NULL. -ENODATA: there is none. */
int xattr_find(const struct fs_view *view, uint64_t inode, const void *name,
               size_t name_size, struct buf *to);
/* Calls `each` with every name, as it stands in the key; as fs_list. */
int xattr_each(const struct fs_view *view, uint64_t inode,
               int (*each)(void *arg, const uint8_t *name, size_t size), void *arg);

#endif
