/* status.c - what a node says of itself and its cluster, for people and for programs. */
#include "cli.h"

#include <time.h>

static const char *const role_names[] = {
    [NODE_LEADER] = "leader",
    [NODE_FOLLOWER] = "follower",
    [NODE_CANDIDATE] = "candidate",
    [NODE_LEARNER] = "learner",
};

/* Which role the core gives it; a learner that is to stay one is called as `members` does. */
static const char *role_name(const struct node_status *s)
{
    for (uint32_t i = 0; s->role == NODE_LEARNER && i < s->member_count; i++)
        if (s->members[i].id == s->id && s->members[i].observer)
            return "observer";
    return role_names[s->role];
}

static const char *leader_name(const struct node_status *s)
{
    for (uint32_t i = 0; s->leader && i < s->member_count; i++)
        if (s->members[i].id == s->leader)
            return s->members[i].name;
    return NULL;
}

/* ---- JSON ------------------------------------------------------------------------ */

static void json_text(struct buf *to, const char *key, const char *value)
{
    buf_printf(to, "\"%s\": ", key);
    if (value)
        cli_json_string(to, value);
    else
        buf_printf(to, "null");
}

static void json_number(struct buf *to, const char *key, uint64_t value)
{
    buf_printf(to, ", \"%s\": %llu", key, (unsigned long long)value);
}

static void json_bool(struct buf *to, const char *key, bool value)
{
    buf_printf(to, ", \"%s\": %s", key, value ? "true" : "false");
}

static void json_id(struct buf *to, const char *key, uint64_t id)
{
    buf_printf(to, ", \"%s\": \"%016llx\"", key, (unsigned long long)id);
}

static void json_disk(struct buf *to, const struct node_status *s)
{
    json_bool(to, "complete", s->complete);
    json_bool(to, "disk_hung", s->disk_hung);
    json_number(to, "base", s->base);
    json_number(to, "live_bytes", s->live_bytes);
    json_number(to, "merged_bytes", s->merged_bytes);
    json_number(to, "merged_files", s->merged_files);
    json_number(to, "hint_bytes", s->hint_bytes);
    json_number(to, "merges", s->merges);
    json_number(to, "merge_bytes_written", s->merge_bytes_written);
    json_number(to, "scrubs", s->scrubs);
    json_number(to, "scrubbed_bytes", s->scrubbed_bytes);
    json_number(to, "bad_reads", s->bad_reads);
    json_number(to, "damaged", s->damaged);
    json_number(to, "repaired", s->repaired);
    json_number(to, "unrepaired", s->unrepaired);
    json_number(to, "snapshot_bytes", s->snapshot_bytes);
    json_number(to, "snapshot_total", s->snapshot_total);
}

void cli_json_status(struct buf *to, const struct node_status *s)
{
    char cluster[33];
    hex_format(cluster, s->cluster, sizeof(s->cluster));
    buf_printf(to, "{");
    json_text(to, "name", s->name);
    json_id(to, "id", s->id);
    buf_printf(to, ", ");
    json_text(to, "cluster", cluster);
    buf_printf(to, ", ");
    json_text(to, "role", role_name(s));
    json_number(to, "term", s->term);
    buf_printf(to, ", ");
    json_text(to, "leader", leader_name(s));
    json_number(to, "commit", s->commit);
    json_number(to, "applied", s->applied);
    json_number(to, "last", s->last);
    json_bool(to, "quorum", s->quorum);
    buf_printf(to, ", ");
    json_text(to, "mountpoint", s->mountpoint[0] ? s->mountpoint : NULL);
    buf_printf(to, ", ");
    json_text(to, "version", s->version);
    json_number(to, "pid", s->pid);
    json_bool(to, "space_low", s->space_low);
    json_number(to, "keys", s->keys);
    json_number(to, "log_bytes", s->log_bytes);
    json_number(to, "disk_free_bytes", s->disk_free_bytes);
    json_disk(to, s);
    json_number(to, "certificate_end", s->certificate_end_s);
    json_number(to, "ca_rotation", cli_rotation_step(s));
    json_number(to, "refused", s->refused);
    json_number(to, "protocol", s->cluster_version);
    buf_printf(to, ", \"members\": ");
    cli_json_members(to, s);
    buf_printf(to, "}\n");
}

/* ---- For people ------------------------------------------------------------------ */

static void format_bytes(char to[32], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t i = 0;
    for (; value >= 1024 && i + 1 < array_length(units); i++)
        value /= 1024;
    snprintf(to, 32, i ? "%.1f %s" : "%.0f %s", value, units[i]);
}

/* Only what is there to be told. */
static void format_trouble(struct buf *to, const struct node_status *s)
{
    char here[32], total[32];
    format_bytes(here, s->snapshot_bytes);
    format_bytes(total, s->snapshot_total);
    if (s->snapshot_total)
        buf_printf(to, "snapshot %s of %s are here\n", here, total);
    if (!s->complete)
        buf_printf(to, "state    INCOMPLETE: nothing is served before entries that are "
                       "missing have come\n");
    if (s->disk_hung)
        buf_printf(to, "disk     HANGS: a write has not been answered for seconds; this "
                       "node does not lead\n");
    if (s->damaged)
        buf_printf(to, "damage   %llu found, %llu repaired%s\n",
                   (unsigned long long)s->damaged, (unsigned long long)s->repaired,
                   s->unrepaired ? ", THE REST CANNOT BE: no other node has it" : "");
}

static void format_disk(struct buf *to, const struct node_status *s)
{
    char log[32], merged[32], live[32], disk[32];
    format_bytes(log, s->log_bytes);
    format_bytes(merged, s->merged_bytes + s->hint_bytes);
    format_bytes(live, s->live_bytes);
    format_bytes(disk, s->disk_free_bytes);
    buf_printf(to,
               "log      last %llu, committed %llu, applied %llu, begins after %llu\n",
               (unsigned long long)s->last, (unsigned long long)s->commit,
               (unsigned long long)s->applied, (unsigned long long)s->base);
    buf_printf(to, "keys     %llu records of %s, in %s of log and %s merged\n",
               (unsigned long long)s->keys, live, log, merged);
    buf_printf(to, "disk     %s free%s\n", disk,
               s->space_low ? ": TOO LITTLE, only deleting is allowed" : "");
}

static void format_certificate(struct buf *to, const struct node_status *s)
{
    char end[32];
    time_t end_s = (time_t)s->certificate_end_s;
    struct tm tm;
    if (end_s && localtime_r(&end_s, &tm) &&
        strftime(end, sizeof(end), "%Y-%m-%d %H:%M:%S", &tm))
        buf_printf(to, "renewal  of the certificate before %s\n", end);
}

/* Who has taken the step that is due is not told: it waits for the others. */
static void format_rotation(struct buf *to, const struct node_status *s)
{
    unsigned step = cli_rotation_step(s);
    if (!step)
        return;
    buf_printf(to, "CA       is being replaced, step %u of %d: waits for", step,
               CLI_ROTATION_STEPS);
    cli_format_behind(to, s);
    buf_printf(to, "\n");
}

static void format_self(struct buf *to, const struct node_status *s)
{
    char cluster[33];
    hex_format(cluster, s->cluster, sizeof(s->cluster));
    const char *leader = leader_name(s);
    buf_printf(to, "node     %s (id %016llx), %s, pid %u, tierce %s\n", s->name,
               (unsigned long long)s->id, role_name(s), s->pid, s->version);
    buf_printf(to, "cluster  %s, term %llu, leader %s, protocol version %u\n", cluster,
               (unsigned long long)s->term, leader ? leader : "unknown",
               s->cluster_version);
    buf_printf(to, "quorum   %s\n",
               s->quorum
                   ? "yes"
                   : "no: no majority of the voters can be reached, so that changes "
                     "are refused");
    buf_printf(to, "mount    %s\n", s->mountpoint[0] ? s->mountpoint : "none");
    format_disk(to, s);
    format_trouble(to, s);
    format_certificate(to, s);
    format_rotation(to, s);
    if (s->refused)
        buf_printf(to, "refused  %llu connections and frames from strangers\n",
                   (unsigned long long)s->refused);
}

static void format_all(struct buf *to, const struct node_status *s)
{
    format_self(to, s);
    buf_printf(to, "\n");
    cli_format_members(to, s);
}

int cli_show_status(const struct cli_call *call, cli_format_fn *text, cli_format_fn *json)
{
    char error[NODE_ERROR_BYTES] = "";
    struct node_status *s = calloc(1, sizeof(*s));
    struct buf to = {0};
    int result = CLI_OK;
    if (!s)
        result = cli_fail("out of memory");
    else if (node_call_status(call->data, s, error))
        result = cli_fail("%s", error);
    if (!result) {
        (call->given & CLI_JSON ? json : text)(&to, s);
        if (!to.failed)
            fwrite(to.data, 1, to.length, stdout);
        result = to.failed ? cli_fail("out of memory") : cli_flush();
    }
    buf_release(&to);
    free(s);
    return result;
}

int cli_status(struct cli_call *call)
{
    return cli_show_status(call, format_all, cli_json_status);
}
