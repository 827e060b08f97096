/* setup.c - init, restore, join, invite: a cluster and its nodes begin. */
#include "cli.h"

#include <errno.h>

/* With a MOUNTPOINT: checked before anything is made. */
static int check_mountpoint(struct cli_call *call, int argument, char **ret)
{
    if (call->argument_count > argument)
        return cli_mountpoint(call->arguments[argument], call->data, ret) ? CLI_FAILED
                                                                          : CLI_OK;
    if (call->given & (CLI_FOREGROUND | CLI_MOUNT_OPTIONS))
        return cli_misused("--foreground and -o need a MOUNTPOINT");
    return CLI_OK;
}

static struct node_setup setup_of(const struct cli_call *call)
{
    return (struct node_setup){.data = call->data,
                               .name = call->name,
                               .listen = call->listen,
                               .advertise = call->advertise,
                               .replace = call->replace,
                               .observer = call->given & CLI_LEARNER};
}

static void print_identity(const struct cli_call *call)
{
    struct node_identity i;
    char error[NODE_ERROR_BYTES], cluster[33];
    if (node_identify(call->data, &i, error))
        return;
    hex_format(cluster, i.cluster, sizeof(i.cluster));
    printf("cluster  %s\n", cluster);
    printf("node     %s, id %016llx, at %s\n", i.name, (unsigned long long)i.id,
           i.advertise);
    printf("data     %s\n", call->data);
}

static void print_join_line(const char *token)
{
    printf("To let one more host in, run there, within 24 hours:\n");
    printf("tierce join %s\n", token);
}

/* The node is made. Where a MOUNTPOINT was given it goes on as `tierce mount` does.
 * `token`: for one more host; may be empty. */
static int go_on(struct cli_call *call, const char *token, const char *mountpoint,
                 const char *made)
{
    print_identity(call);
    if (token[0])
        print_join_line(token);
    int result = cli_flush();
    if (result)
        return result;
    if (mountpoint) {
        result = cli_run_node(call, mountpoint);
        if (result)
            fprintf(stderr,
                    "%s, but is not mounted: when that is mended, run tierce mount "
                    "--data %s %s\n",
                    made, call->data, mountpoint);
    } else {
        fprintf(stderr, "Now start it: tierce mount --data %s MOUNTPOINT\n", call->data);
    }
    return result;
}

int cli_init(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "", *mountpoint = NULL, *token = NULL;
    int result = check_mountpoint(call, 0, &mountpoint);
    if (result)
        return result;
    struct node_setup setup = setup_of(call);
    if (node_init(&setup, &token, error))
        result = cli_fail("%s", error);
    else
        result = go_on(call, token, mountpoint, "The cluster is made");
    free(token);
    free(mountpoint);
    return result;
}

int cli_restore(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "", *mountpoint = NULL, *token = NULL;
    int result = check_mountpoint(call, 1, &mountpoint);
    if (result)
        return result;
    struct node_setup setup = setup_of(call);
    if (node_restore(&setup, call->arguments[0], &token, error))
        result = cli_fail("%s", error);
    else
        result = go_on(call, token, mountpoint, "The cluster is restored");
    free(token);
    free(mountpoint);
    return result;
}

int cli_join(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "", *mountpoint = NULL, *next = NULL;
    int result = check_mountpoint(call, 1, &mountpoint);
    if (result)
        return result;
    struct node_setup setup = setup_of(call);
    if (node_join(&setup, call->arguments[0], &next, error))
        result = cli_fail("%s", error);
    else
        result = go_on(call, next, mountpoint, "This host has joined");
    free(next);
    free(mountpoint);
    return result;
}

int cli_invite(struct cli_call *call)
{
    uint64_t ttl_s = 24 * 60 * 60;
    if (call->ttl && node_duration_parse(call->ttl, &ttl_s))
        return cli_misused("--ttl \"%s\" is not a duration: 24h, 90m, 30s, or seconds",
                           call->ttl);
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    if (node_call_invite(call->data, ttl_s, &token, error))
        return cli_fail("%s", error);
    printf("%s\n", token);
    free(token);
    return cli_flush();
}
