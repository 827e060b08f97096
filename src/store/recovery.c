/*
 * recovery.c - from the files to the state in memory, in this order:
 *
 *   1. names, hard state, commit hint, manifest; headers of all that is listed
 *   2. the first segments whose hints are whole, and the keydir from all hints
 *   3. the rest of the log, walked; what is proven is applied on the way
 *   4. the end is judged
 *   5. what was judged becomes so on disk, and durable (G4)
 *
 * The end is the first position that holds no intact entry of the chain. Its index is n:
 *
 *   the commit hint, or E of the manifest, is n or more           damaged
 *   there is a later segment (it does not begin with n)           damaged
 *   an intact entry behind it, reached through intact lengths or
 *       at a later segment's first place, says that n was
 *       committed                                                 damaged
 *   none of these                                 torn, or simply the end: cut
 *
 * Damaged: a hole. Nothing behind it is changed; see hole.c. What is not to be had from
 * another node is refused: the headers, the hard state, the manifest and what it lists.
 */
#include "recovery.h"

static int load(struct recovery *r)
{
    bool no_log;
    int rc = recovery_list(r, &no_log);
    if (rc == 0)
        rc = recovery_load_small_files(r, no_log);
    if (rc == 0)
        rc = recovery_open_files(r);
    if (rc == 0)
        rc = recovery_use_hints(r);
    if (rc == 0)
        rc = recovery_walk(r);
    return rc == 0 ? recovery_judge(r) : rc;
}

static void release(struct recovery *r)
{
    buf_release(&r->window);
    for (int kind = 0; kind < NAME_KINDS; kind++)
        free(r->names[kind].ids);
    free(r->merged_away.ids);
    for (size_t i = 0; i < r->file_count; i++)
        segment_unref_unread(r->files[i].segment);
    free(r->files);
}

int store_recover(struct store *s, const struct store_options *options,
                  struct store_recovery *ret, char error[STORE_ERROR_BYTES])
{
    struct recovery r = {.s = s, .options = options, .error = error};
    int rc = load(&r);
    if (rc == 0)
        rc = recovery_settle(&r);
    if (rc == 0) {
        *ret = (struct store_recovery){.term = r.state.term,
                                       .vote = r.state.vote,
                                       .base_index = s->base.index,
                                       .base_term = s->base.term,
                                       .last_index = s->end.index,
                                       .claim_index = s->claim_index,
                                       .claim_term = s->claim_term,
                                       .commit = s->applied.index,
                                       .runs = s->runs,
                                       .run_count = s->run_count,
                                       .cut_bytes = r.cut_bytes,
                                       .hints_used = r.hints_used,
                                       .hints_rebuilt = r.hints_rebuilt};
        if (r.hole)
            memcpy(ret->damage, r.damage, sizeof(ret->damage));
    }
    release(&r);
    return rc;
}
