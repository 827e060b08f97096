/* setup.h - what setup.c, naming.c and place.c share: a data directory that is being
 * filled. */
#ifndef TIERCE_NODE_SETUP_H
#define TIERCE_NODE_SETUP_H

#include "node_internal.h"

#include <limits.h>
#include <sys/types.h>

/* What the store of a new cluster begins with. */
struct setup_source {
    /* Makes the store, which is not there yet. */
    int (*make)(void *context, const struct store_options *options,
                const struct members *members, char error[NODE_ERROR_BYTES]);
    void *context;
    uint64_t bytes; /* that it will take, about */
};

/* setup.c: a new cluster with `d` as its only node: identity, store, first entry and files, in
 * d->path, which is there and locked. `source` NULL: an empty one. */
int setup_found(struct directory *d, const struct setup_source *source, char **ret_token,
                char error[NODE_ERROR_BYTES]);

struct place {
    char *path; /* absolute */
    int lock_fd;
    size_t made_from; /* the path up to here and all below it was made; 0: nothing */
    mode_t mode;      /* what it had before */
    bool unfinished;  /* it holds the rest of a join */
};

/* Finds the place and judges what is there; makes nothing, and takes nothing but memory:
 * place_release(). -EEXIST: it is not empty (`join`: nor the rest of an unfinished join).
 */
int place_look(struct place *ret, const char *data, bool join,
               char error[NODE_ERROR_BYTES]);
/* That its disk has room for a node's first segments and so many bytes besides; the directory
 * itself may be missing. -ENOSPC: it has not. */
int place_check_room(const struct place *p, uint64_t segment_bytes, uint64_t more_bytes,
                     char error[NODE_ERROR_BYTES]);
/* Makes the directory where it is missing, takes its lock, and judges it again. On
 * failure nothing is left; place_release() follows in every case. */
int place_take(struct place *p, bool join, char error[NODE_ERROR_BYTES]);
/* Removes what an earlier join left, but for its key. */
int place_clear_but_key(struct place *p, char error[NODE_ERROR_BYTES]);
/* As it was before place_take(). place_release() follows. */
void place_undo(struct place *p);
void place_release(struct place *p);
/* Removes a directory and all in it. -ENOENT. */
int place_remove(const char *path);

/* Name and addresses as `setup` says, or as the host suggests. */
int naming_choose(const struct node_setup *setup, struct directory *d,
                  char error[NODE_ERROR_BYTES]);
/* That the node could listen where it is to listen. */
int naming_check_port(const struct directory *d, char error[NODE_ERROR_BYTES]);

#endif
