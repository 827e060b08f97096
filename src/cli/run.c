/* run.c - mount, serve, stop: the node's process begins and ends; metrics: how it fares. */
#include "cli.h"

int cli_mount(struct cli_call *call)
{
    char *mountpoint = NULL;
    node_call_await_ending(call->data); /* first: a mountpoint may hang until then (K9) */
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

int cli_metrics(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "", *text;
    if (node_call_metrics(call->data, &text, error))
        return cli_fail("%s", error);
    fputs(text, stdout);
    free(text);
    return cli_flush();
}

int cli_stop(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    return node_call_stop(call->data, error) ? cli_fail("%s", error) : CLI_OK;
}
