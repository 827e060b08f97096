/* key.c - the keys of the name space. Numbers are big-endian, so that they sort. */
#include "fs.h"

static void key_begin(struct fs_key *key, uint8_t class, uint64_t first)
{
    key->bytes[0] = class;
    put_be64(key->bytes + 1, first);
    key->size = 9;
}

void fs_key_name(struct fs_key *key, uint64_t parent, const void *name, size_t name_size)
{
    ensure(name_size <= LIMIT_NAME_BYTES);
    key_begin(key, FS_CLASS_NAME, parent);
    if (name_size)
        memcpy(key->bytes + key->size, name, name_size);
    key->size += (uint32_t)name_size;
}

void fs_key_inode(struct fs_key *key, uint64_t inode)
{
    key_begin(key, FS_CLASS_INODE, inode);
}

void fs_key_extent(struct fs_key *key, uint64_t content, uint64_t offset)
{
    key_begin(key, FS_CLASS_EXTENT, content);
    put_be64(key->bytes + key->size, offset);
    key->size += 8;
}

void fs_key_xattr(struct fs_key *key, uint64_t inode, const void *name, size_t name_size)
{
    ensure(name_size <= LIMIT_NAME_BYTES);
    key_begin(key, FS_CLASS_XATTR, inode);
    if (name_size)
        memcpy(key->bytes + key->size, name, name_size);
    key->size += (uint32_t)name_size;
}

void fs_key_content(struct fs_key *key, uint64_t content)
{
    key_begin(key, FS_CLASS_CONTENT, content);
}

void fs_key_orphan(struct fs_key *key, uint64_t inode, uint64_t session)
{
    key_begin(key, FS_CLASS_ORPHAN, inode);
    put_be64(key->bytes + key->size, session);
    key->size += 8;
}

bool fs_key_is_orphan(const void *key, size_t key_size, uint64_t *ret_inode,
                      uint64_t *ret_session)
{
    const uint8_t *bytes = key;
    if (key_size != 17 || bytes[0] != FS_CLASS_ORPHAN)
        return false;
    *ret_inode = get_be64(bytes + 1);
    *ret_session = get_be64(bytes + 9);
    return true;
}
void fs_key_locks(struct fs_key *key, uint64_t inode)
{
    key_begin(key, FS_CLASS_LOCKS, inode);
}

void fs_key_locker(struct fs_key *key, uint64_t session, uint64_t inode)
{
    key_begin(key, FS_CLASS_LOCKER, session);
    put_be64(key->bytes + key->size, inode);
    key->size += 8;
}
