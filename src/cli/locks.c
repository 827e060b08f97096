/* locks.c - locks: who holds them, and who waits. */
#include "cli.h"

#include <time.h>

static void format_time(uint64_t us, char to[32])
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm tm;
    strftime(to, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
}

static void format_path(const struct node_lock *l, struct buf *to)
{
    if (l->path[0])
        buf_bytes(to, l->path, strlen(l->path));
    else
        buf_printf(to, "inode %llu", (unsigned long long)l->inode);
}

static int text_line(void *context, const struct node_lock *l)
{
    struct buf *to = context;
    char range[48] = "all", since[32];
    format_time(l->since_us, since);
    if (l->start || !l->endless)
        snprintf(range, sizeof(range), l->endless ? "%llu-" : "%llu-%llu",
                 (unsigned long long)l->start, (unsigned long long)l->end);
    buf_printf(to, "%-5s  %-5s  %-5s  %-20s  %-12s  %7u  %s  ",
               l->is_flock ? "flock" : "fcntl", l->writes ? "write" : "read",
               l->waits ? "waits" : "held", range, l->node[0] ? l->node : "-", l->pid,
               since);
    format_path(l, to);
    buf_u8(to, '\n');
    return 0;
}

static int json_object(void *context, const struct node_lock *l)
{
    struct buf *to = context;
    char since[32];
    format_time(l->since_us, since);
    buf_printf(to, "%s{\"inode\": %llu, \"path\": ", to->length > 1 ? ",\n " : "",
               (unsigned long long)l->inode);
    if (l->path[0])
        cli_json_string(to, l->path);
    else
        buf_printf(to, "null");
    buf_printf(to,
               ", \"kind\": \"%s\", \"type\": \"%s\", \"waits\": %s, \"start\": %llu, "
               "\"end\": ",
               l->is_flock ? "flock" : "fcntl", l->writes ? "write" : "read",
               l->waits ? "true" : "false", (unsigned long long)l->start);
    if (l->endless)
        buf_printf(to, "null");
    else
        buf_printf(to, "%llu", (unsigned long long)l->end);
    buf_printf(to, ", \"node\": ");
    cli_json_string(to, l->node);
    buf_printf(to, ", \"pid\": %u, \"since\": \"%s\"}", l->pid, since);
    return 0;
}

int cli_locks(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    bool json = call->given & CLI_JSON;
    struct buf to = {0};
    if (json)
        buf_u8(&to, '[');
    else
        buf_printf(&to, "%-5s  %-5s  %-5s  %-20s  %-12s  %7s  %-20s  %s\n", "KIND",
                   "TYPE", "STATE", "BYTES", "NODE", "PID", "SINCE", "PATH");
    int result = node_call_locks(call->data, json ? json_object : text_line, &to, error)
                     ? cli_fail("%s", error)
                     : CLI_OK;
    if (json)
        buf_printf(&to, "]\n");
    if (!result && to.failed)
        result = cli_fail("out of memory");
    if (!result) {
        fwrite(to.data, 1, to.length, stdout);
        result = cli_flush();
    }
    buf_release(&to);
    return result;
}
