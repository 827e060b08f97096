/* backup.c - backup and restore: all that a cluster holds, as a file, and a new cluster.
 */
#include "cli.h"

int cli_backup(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    struct node_backup b;
    const char *file = call->arguments[0];
    if (node_call_backup(call->data, file, &b, error))
        return cli_fail("%s", error);
    if (!b.quorum)
        fprintf(stderr,
                "tierce: warning: this node reaches no majority of its cluster, and the "
                "others may know more: the backup holds what this one knew\n");
    printf("%s: entry %llu of term %llu, %llu records and %llu entries, %llu bytes\n",
           file, (unsigned long long)b.index, (unsigned long long)b.term,
           (unsigned long long)b.records, (unsigned long long)b.entries,
           (unsigned long long)b.bytes);
    return cli_flush();
}
