/* check.h - the invariants of src/fs/README.md, N1-N3, A1 and E1-E6, over a whole view. */
#ifndef TIERCE_TEST_CHECK_H
#define TIERCE_TEST_CHECK_H

#include "fs.h"

/* Ends the process where one is broken. */
void check_view(const struct fs_view *view);

struct check_counts {
    uint64_t names, inodes, extents, void_extents, contents, xattrs, orphans;
};
struct check_counts check_count(const struct fs_view *view);

#endif
