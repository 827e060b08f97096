/* members.c - members, remove, leave, transfer: who belongs to the cluster, who leads it. */
#include "cli.h"

/* ---- The table -------------------------------------------------------------------- */

static const char *kind_of(const struct node_member *m)
{
    return m->voter ? "voter" : m->observer ? "observer" : "learner";
}

void cli_json_members(struct buf *to, const struct node_status *s)
{
    buf_printf(to, "[");
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct node_member *m = &s->members[i];
        buf_printf(to, "%s{\"name\": ", i ? ", " : "");
        cli_json_string(to, m->name);
        buf_printf(to, ", \"id\": \"%016llx\", \"address\": ", (unsigned long long)m->id);
        cli_json_string(to, m->address);
        buf_printf(
            to,
            ", \"kind\": \"%s\", \"voter\": %s, \"leader\": %s, \"reachable\": %s, "
            "\"protocol\": %u, \"ca_step\": %u, \"program\": ",
            kind_of(m), m->voter ? "true" : "false",
            m->id == s->leader ? "true" : "false", m->reachable ? "true" : "false",
            m->version, m->ca);
        if (m->program[0])
            cli_json_string(to, m->program);
        else
            buf_printf(to, "null");
        buf_printf(to, ", \"applied\": ");
        if (m->applied) /* only a leader knows it of others */
            buf_printf(to, "%llu}", (unsigned long long)m->applied);
        else
            buf_printf(to, "null}");
    }
    buf_printf(to, "]");
}

void cli_format_members(struct buf *to, const struct node_status *s)
{
    int name = 4, address = 7;
    for (uint32_t i = 0; i < s->member_count; i++) {
        name = (int)max_u64((uint64_t)name, strlen(s->members[i].name));
        address = (int)max_u64((uint64_t)address, strlen(s->members[i].address));
    }
    buf_printf(to, "%-*s  %-16s  %-*s  %-8s  %-9s  %s\n", name, "NAME", "ID", address,
               "ADDRESS", "KIND", "REACHABLE", "APPLIED");
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct node_member *m = &s->members[i];
        char applied[24] = "-";
        if (m->applied)
            snprintf(applied, sizeof(applied), "%llu", (unsigned long long)m->applied);
        buf_printf(to, "%-*s  %016llx  %-*s  %-8s  %-9s  %s%s%s\n", name, m->name,
                   (unsigned long long)m->id, address, m->address, kind_of(m),
                   m->reachable ? "yes" : "NO", applied,
                   m->id == s->leader ? "  (leads)" : "",
                   m->id == s->id ? "  (this node)" : "");
    }
}

static void json_line(struct buf *to, const struct node_status *s)
{
    cli_json_members(to, s);
    buf_printf(to, "\n");
}

int cli_members(struct cli_call *call)
{
    return cli_show_status(call, cli_format_members, json_line);
}

/* ---- Changes ---------------------------------------------------------------------- */

int cli_remove(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    if (node_call_remove(call->data, call->arguments[0], error))
        return cli_fail("%s", error);
    printf("%s is no member any more\n", call->arguments[0]);
    return cli_flush();
}

int cli_leave(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    if (node_call_leave(call->data, error))
        return cli_fail("%s", error);
    printf(
        "This node has left the cluster, and has stopped. %s is not needed any more.\n",
        call->data);
    return cli_flush();
}

int cli_transfer(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "", leader[LIMIT_NAME_BYTES + 1];
    const char *to = call->argument_count ? call->arguments[0] : "";
    if (node_call_transfer(call->data, to, leader, error))
        return cli_fail("%s", error);
    printf("%s leads\n", leader);
    return cli_flush();
}
