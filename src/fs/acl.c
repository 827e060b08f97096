/* acl.c - POSIX ACLs: whether they are valid, and how they and a mode follow each other. */
#include "acl.h"

enum {
    ACL_VERSION = 2,
    ACL_HEADER = 4,
    ACL_ENTRY = 8,
    USER_OBJ = 0x01,
    USER = 0x02,
    GROUP_OBJ = 0x04,
    GROUP = 0x08,
    MASK = 0x10,
    OTHER = 0x20,
};

/* The order of entries is that of their tags. */
_Static_assert(USER_OBJ < USER && USER < GROUP_OBJ && GROUP_OBJ < GROUP && GROUP < MASK &&
                   MASK < OTHER,
               "tags ascend");

static size_t entry_count(size_t size)
{
    return (size - ACL_HEADER) / ACL_ENTRY;
}

static const uint8_t *entry_at(const uint8_t *acl, size_t i)
{
    return acl + ACL_HEADER + i * ACL_ENTRY;
}

static uint16_t tag_at(const uint8_t *acl, size_t i)
{
    return get_u16(entry_at(acl, i));
}

static uint16_t permissions_at(const uint8_t *acl, size_t i)
{
    return get_u16(entry_at(acl, i) + 2);
}

static void permissions_set(uint8_t *acl, size_t i, uint32_t permissions)
{
    put_u16(acl + ACL_HEADER + i * ACL_ENTRY + 2, (uint16_t)permissions);
}

static bool entry_valid(uint16_t tag, uint16_t permissions, uint16_t before)
{
    bool several = tag == USER || tag == GROUP;
    bool known = tag && tag <= OTHER && (tag & (tag - 1)) == 0;
    return known && permissions <= 7 && (several ? tag >= before : tag > before);
}

bool acl_valid(const uint8_t *acl, size_t size)
{
    if (size < ACL_HEADER || size > ACL_BYTES || (size - ACL_HEADER) % ACL_ENTRY ||
        get_u32(acl) != ACL_VERSION)
        return false;
    uint16_t seen = 0, before = 0;
    for (size_t i = 0; i < entry_count(size); i++) {
        uint16_t tag = tag_at(acl, i);
        if (!entry_valid(tag, permissions_at(acl, i), before))
            return false;
        seen |= tag;
        before = tag;
    }
    const uint16_t needed = USER_OBJ | GROUP_OBJ | OTHER;
    return (seen & needed) == needed && (!(seen & (USER | GROUP)) || seen & MASK);
}

/* Where the permissions of an entry stand in a mode: those of the group are the mask's,
 * where there is one. -1: nowhere. */
static int mode_shift(uint16_t tag, bool masked)
{
    switch (tag) {
    case USER_OBJ:
        return 6;
    case GROUP_OBJ:
        return masked ? -1 : 3;
    case MASK:
        return 3;
    case OTHER:
        return 0;
    default:
        return -1;
    }
}

static bool is_masked(const uint8_t *acl, size_t size)
{
    for (size_t i = 0; i < entry_count(size); i++)
        if (tag_at(acl, i) == MASK)
            return true;
    return false;
}

bool acl_to_mode(const uint8_t *acl, size_t size, uint32_t *mode)
{
    bool masked = is_masked(acl, size);
    *mode &= ~(uint32_t)0777;
    for (size_t i = 0; i < entry_count(size); i++) {
        int shift = mode_shift(tag_at(acl, i), masked);
        if (shift >= 0)
            *mode |= (uint32_t)permissions_at(acl, i) << shift;
    }
    return !masked; /* who names users or groups has a mask */
}

void acl_set_mode(uint8_t *acl, size_t size, uint32_t mode)
{
    bool masked = is_masked(acl, size);
    for (size_t i = 0; i < entry_count(size); i++) {
        int shift = mode_shift(tag_at(acl, i), masked);
        if (shift >= 0)
            permissions_set(acl, i, mode >> shift & 7);
    }
}

void acl_inherit(uint8_t *acl, size_t size, uint32_t *mode)
{
    bool masked = is_masked(acl, size);
    for (size_t i = 0; i < entry_count(size); i++) {
        int shift = mode_shift(tag_at(acl, i), masked);
        if (shift < 0)
            continue;
        uint32_t both = permissions_at(acl, i) & (*mode >> shift & 7);
        permissions_set(acl, i, both);
        *mode = (*mode & ~((uint32_t)7 << shift)) | both << shift;
    }
}
