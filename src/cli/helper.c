/*
 * helper.c - what mount(8) runs, for its type tierce and of lines of /etc/fstab:
 *
 *   /sbin/mount.tierce DATA MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
 *   tierce DATA MOUNTPOINT [-o OPTIONS]     of the type fuse.tierce, by /sbin/mount.fuse
 *
 * The first is this program by another name, and its exit codes are those of mount(8).
 */
#include "cli.h"

#include <getopt.h>

enum { MOUNT_USAGE = 1, MOUNT_FAILED = 32 };

#define HELPER_PREFIX "mount."

static bool is_mount_program(const char *program)
{
    const char *slash = strrchr(program, '/');
    const char *name = slash ? slash + 1 : program;
    return !strncmp(name, HELPER_PREFIX, strlen(HELPER_PREFIX));
}

bool cli_is_helper(int argc, char **argv)
{
    if (argc && is_mount_program(argv[0]))
        return true;
    return argc > 1 && argv[1][0] != '-' && strchr(argv[1], '/');
}

static bool has_option(const char *options, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = options; *at;) {
        size_t length = strcspn(at, ",");
        if (length == size && !memcmp(at, name, size))
            return true;
        at += length + (at[length] == ',');
    }
    return false;
}

static int take_options(struct cli_call *call, const char *options)
{
    if (has_option(options, "remount"))
        return cli_misused(
            "a mount of tierce cannot be changed while it is mounted: umount "
            "it, and mount it again");
    return cli_add_mount_options(call, options);
}

/* *ret_fake: everything but the mount. */
static int parse(struct cli_call *call, int argc, char **argv, bool *ret_fake)
{
    int result = 0;
    opterr = 0;
    for (int c; !result && (c = getopt(argc, argv, ":sfnvhN:o:t:")) != -1;) {
        if (c == 'o')
            result = take_options(call, optarg);
        else if (c == 's')
            result = take_options(call, "sloppy");
        else if (c == 'f')
            *ret_fake = true;
        else if (c == 'N')
            result = cli_misused(
                "-N: run it in the namespace: nsenter --mount=%s mount ...", optarg);
        else if (c == ':' || c == '?' || c == 'h')
            result = cli_misused("usage: %s DATA MOUNTPOINT [-o OPTIONS]", argv[0]);
    }
    if (!result && argc - optind != 2)
        result = cli_misused("usage: %s DATA MOUNTPOINT [-o OPTIONS]", argv[0]);
    if (!result) {
        call->data = argv[optind];
        call->arguments = argv + optind + 1;
        call->argument_count = 1;
    }
    return result;
}

int cli_helper(int argc, char **argv)
{
    struct cli_call call = {.given = CLI_DATA | CLI_MOUNT_OPTIONS};
    bool fake = false;
    int result = parse(&call, argc, argv, &fake);
    if (!result && !fake)
        result = cli_mount(&call);
    buf_release(&call.mount_options);
    if (!result || !is_mount_program(argv[0]))
        return result;
    return result == CLI_USAGE ? MOUNT_USAGE : MOUNT_FAILED;
}
