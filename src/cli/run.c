/* run.c - mount, serve, stop: the node's process begins and ends. */
#include "cli.h"

int cli_mount(struct cli_call *call)
{
    char *mountpoint = NULL;
    if (cli_mountpoint(call->arguments[0], call->data, &mountpoint))
        return CLI_FAILED;
    int result = cli_run_node(call, mountpoint);
    free(mountpoint);
    return result;
}

int cli_serve(struct cli_call *call)
{
    return cli_run_node(call, NULL);
}

int cli_stop(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    return node_call_stop(call->data, error) ? cli_fail("%s", error) : CLI_OK;
}
