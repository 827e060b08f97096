/* recover.c - `tierce recover`: what it would do, or that it was done. */
#include "cli.h"

static void print_end(const struct node_recovery *r)
{
    char cluster[33];
    hex_format(cluster, r->cluster, sizeof(r->cluster));
    printf("cluster  %s\n", cluster);
    printf("node     %s, whose log ends with entry %llu of term %llu\n", r->name,
           (unsigned long long)r->last_index, (unsigned long long)r->last_term);
}

static int tell(const struct cli_call *call, const struct node_recovery *r)
{
    print_end(r);
    printf(
        "\nWith --force, and only then:\n"
        "- this node becomes a cluster of its own, with a new id and a new CA, and "
        "begins\n"
        "  with all files that its data directory has;\n"
        "- every entry of its log counts as committed: what was written last may appear\n"
        "  though its writer was told that it failed, or was told nothing;\n"
        "- what other nodes had acknowledged and this one had not received yet is lost;\n"
        "- no other node of the former cluster can connect any more, nor any token or\n"
        "  backup's restore bring one back: empty their data directories, and let them\n"
        "  join.\n"
        "Where a majority can still be started, do that instead. Otherwise choose the "
        "node\n"
        "whose log ends last: the highest term, and of those the highest entry.\n");
    int result = cli_flush();
    return result ? result
                  : cli_fail("nothing was changed; to go on: tierce recover --force "
                             "--data %s",
                             call->data);
}

static void print_made(const struct cli_call *call, const struct node_recovery *r,
                       const char *token)
{
    struct node_identity i;
    char error[NODE_ERROR_BYTES], cluster[33];
    if (!node_identify(call->data, &i, error)) {
        hex_format(cluster, i.cluster, sizeof(i.cluster));
        printf("cluster  %s\n", cluster);
        printf("node     %s, id %016llx, at %s\n", i.name, (unsigned long long)i.id,
               i.advertise);
        printf("data     %s\n", call->data);
    }
    if (r->finished)
        printf("An earlier recovery is finished.\n");
    if (token) {
        printf("To let one more host in, run there, within 24 hours:\n");
        printf("tierce join %s\n", token);
    }
}

int cli_recover(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    struct node_recovery r;
    bool force = call->given & CLI_FORCE;
    if (node_recover(call->data, force, &r, &token, error))
        return cli_fail("%s", error);
    if (!force)
        return tell(call, &r);
    print_made(call, &r, token);
    free(token);
    int result = cli_flush();
    if (!result)
        fprintf(stderr, "Now start it: tierce mount --data %s MOUNTPOINT\n", call->data);
    return result;
}
