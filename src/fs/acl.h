/*
 * acl.h - private: POSIX ACLs as their extended attributes hold them.
 *
 *   acl   = version u32: 2 | entry*
 *   entry = tag u16 | permissions u16: 0 to 7 | id u32, of USER and GROUP
 *
 * Valid: USER_OBJ, USER*, GROUP_OBJ, GROUP*, MASK, OTHER in this order; MASK may lack where
 * there is no USER and no GROUP.
 */
#ifndef TIERCE_FS_ACL_H
#define TIERCE_FS_ACL_H

#include "fs.h"

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

enum { ACL_BYTES = 4096 }; /* the kernel asks for no more */

bool acl_valid(const uint8_t *acl, size_t size);
/* The mode whose permissions are those of the ACL's classes. True: they say all that it says. */
bool acl_to_mode(const uint8_t *acl, size_t size, uint32_t *mode);
/* chmod: the classes' permissions become those of the mode. */
void acl_set_mode(uint8_t *acl, size_t size, uint32_t mode);
/* A directory's default ACL becomes what is made in it with `mode`: neither allows what the
 * other does not. */
void acl_inherit(uint8_t *acl, size_t size, uint32_t *mode);

#endif
