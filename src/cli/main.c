/*
 * main.c - the command line: the table of subcommands, their options, and help.
 *
 * A command is a row of the table. Options may stand anywhere after its name.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

static const struct cli_command commands[] = {
    {.name = "init",
     .usage = "[--data DIR] [--listen HOST:PORT] [--advertise HOST:PORT] [--name NAME] "
              "[MOUNTPOINT]",
     .summary = "make a cluster of one node; prints the join line for the next host",
     .help =
         "Makes a new cluster in an empty or missing data directory: its id, its\n"
         "certificate authority, and this host's node as its only member. The last line\n"
         "of the output is the command that lets one more host in.\n"
         "With a MOUNTPOINT it goes on as `tierce mount` does.\n",
     .options = CLI_DATA | CLI_LISTEN | CLI_ADVERTISE | CLI_NAME | CLI_FOREGROUND |
                CLI_MOUNT_OPTIONS,
     .arguments = {"MOUNTPOINT"},
     .run = cli_init},
    {.name = "join",
     .usage = "TOKEN [--data DIR] [--listen HOST:PORT] [--advertise HOST:PORT] "
              "[--name NAME] [--replace NAME] [--learner] [MOUNTPOINT]",
     .summary = "make this host a node of the cluster that gave the token",
     .help =
         "Joins the cluster whose `init`, `join` or `invite` printed the token, into an\n"
         "empty or missing data directory. A token lets one host in. After a failure,\n"
         "run the same command again. Prints the join line for one more host.\n"
         "The node votes once it runs and has caught up. With --learner it never does: a\n"
         "mount that no majority needs. --replace takes the place of a member that is\n"
         "lost: that one is removed in the same step, whatever becomes of its host.\n"
         "With a MOUNTPOINT it goes on as `tierce mount` does.\n",
     .options = CLI_DATA | CLI_LISTEN | CLI_ADVERTISE | CLI_NAME | CLI_REPLACE |
                CLI_LEARNER | CLI_FOREGROUND | CLI_MOUNT_OPTIONS,
     .arguments_min = 1,
     .arguments = {"TOKEN", "MOUNTPOINT"},
     .run = cli_join},
    {.name = "invite",
     .usage = "[--data DIR] [--ttl TIME]",
     .summary = "print a fresh token, with which one host can join",
     .help = "Prints a token alone on a line: run `tierce join TOKEN` on the new host. "
             "It can\n"
             "be used once, and within 24 hours unless --ttl says otherwise.\n",
     .options = CLI_DATA | CLI_TTL,
     .run = cli_invite},
    {.name = "mount",
     .usage = "[--data DIR] [--foreground] [-o OPTIONS] MOUNTPOINT",
     .summary = "start this host's node and mount the cluster's files",
     .help =
         "Returns when the mount can be used; where no majority of the cluster is reachable,\n"
         "after ten seconds, and writes answer EROFS until one is. Its end is `tierce stop`,\n"
         "or unmounting (umount, fusermount3 -u). The node's log is DIR/node.log.\n"
         "OPTIONS: ro, nosuid, nodev, noexec, sync, dirsync, noatime, noacl and their\n"
         "opposites;\n"
         "allow_other (what root's mounts are), allow_root; uid=N, gid=N, umask=N, which\n"
         "change what this host shows, and so lets whom do; those of /etc/fstab are ignored.\n"
         "The same: mount -t tierce DIR MOUNTPOINT -o OPTIONS, or a line in /etc/fstab:\n"
         "  DIR MOUNTPOINT tierce defaults,nofail,_netdev 0 0\n",
     .options = CLI_DATA | CLI_FOREGROUND | CLI_MOUNT_OPTIONS,
     .arguments_min = 1,
     .arguments = {"MOUNTPOINT"},
     .run = cli_mount},
    {.name = "serve",
     .usage = "[--data DIR] [--foreground]",
     .summary = "start this host's node without a mount",
     .help = "Returns when the node serves. `tierce get`, `put`, `del` and `ls` work "
             "with it.\n",
     .options = CLI_DATA | CLI_FOREGROUND,
     .run = cli_serve},
    {.name = "stop",
     .usage = "[--data DIR]",
     .summary = "end this host's node: hand over leadership, unmount, exit",
     .help = "Returns when the node's process has ended. Refused while files of its "
             "mount are\n"
             "open. The node stays a member of the cluster.\n",
     .options = CLI_DATA,
     .run = cli_stop},
    {.name = "status",
     .usage = "[--data DIR] [--json]",
     .summary = "show the node, its cluster and who can be reached",
     .help = "Shows what the node running on the data directory knows: its role, the "
             "leader,\n"
             "how far the log is, whether a majority is reachable (quorum), and the "
             "members.\n",
     .options = CLI_DATA | CLI_JSON,
     .run = cli_status},
    {.name = "members",
     .usage = "[--data DIR] [--json]",
     .summary = "show the members of the cluster",
     .help = "A line for each: a voter counts for a majority, a learner will be a voter when "
             "it\n"
             "has caught up, an observer never will. Only the node that leads knows APPLIED of\n"
             "others, and that one hangs: elsewhere REACHABLE is whether there is a connection.\n",
     .options = CLI_DATA | CLI_JSON,
     .run = cli_members},
    {.name = "locks",
     .usage = "[--data DIR] [--json]",
     .summary = "show who holds locks of files, and who waits for them",
     .help = "A line for each lock that flock(2) or fcntl(2) has set on any host: its bytes, "
             "the\n"
             "node and the process there, and since when it is held or waits. Who waits "
             "gets\n"
             "it in this order. OFD locks are shown as fcntl, with the process that has set\n"
             "them: the kernel does not tell them apart.\n",
     .options = CLI_DATA | CLI_JSON,
     .run = cli_locks},
    {.name = "remove",
     .usage = "[--data DIR] NAME",
     .summary = "remove another member, for good",
     .help =
         "For a host that is lost or not wanted any more. A node that runs stops when it is\n"
         "removed, its mount with it, and its certificate is refused from then on. Refused\n"
         "where the voters that are left could not reach a majority. To remove this very\n"
         "node: tierce leave.\n",
     .options = CLI_DATA,
     .arguments_min = 1,
     .arguments = {"NAME"},
     .run = cli_remove},
    {.name = "leave",
     .usage = "[--data DIR]",
     .summary = "remove this host's node from the cluster, and end it",
     .help =
         "As `tierce stop`, and the node is no member any more. Refused while files of its\n"
         "mount are open, and where the voters that are left could not reach a majority.\n"
         "To come back, join again with an empty data directory.\n",
     .options = CLI_DATA,
     .run = cli_leave},
    {.name = "transfer",
     .usage = "[--data DIR] [NAME]",
     .summary = "let another voter lead",
     .help = "Hands leadership to NAME, or to the voter that is best fit for it. Says who "
             "leads\n"
             "then.\n",
     .options = CLI_DATA,
     .arguments = {"NAME"},
     .run = cli_transfer},
    {.name = "rotate-ca",
     .usage = "[--data DIR]",
     .summary = "replace the cluster's CA, while it goes on",
     .help =
         "Makes a new CA, and waits until every node has a certificate of it and believes no\n"
         "other; says how far that is, and whom it waits for. A node that is off holds it\n"
         "up: start it, or remove it. Interrupted, it goes on by itself; run again, it shows\n"
         "how far it is. Tokens that were made before are of no use afterwards.\n",
     .options = CLI_DATA,
     .run = cli_rotate_ca},
    {.name = "metrics",
     .usage = "[--data DIR]",
     .summary = "print the node's queues and counters, for Prometheus",
     .help = "Prints, in the text format of Prometheus, every queue of the node that "
             "runs on the\n"
             "data directory (how full it is, was at most, may be, and how often somebody "
             "had to\n"
             "wait for it) and what it counts.\n",
     .options = CLI_DATA,
     .run = cli_metrics},
    {.name = "get",
     .usage = "[--data DIR] PATH",
     .summary = "write a key's value to stdout",
     .help =
         "PATH is counted from the root of the name space; a leading / may be left out.\n"
         "The value comes as it is, with no newline added.\n",
     .options = CLI_DATA,
     .arguments_min = 1,
     .arguments = {"PATH"},
     .run = cli_get},
    {.name = "put",
     .usage = "[--data DIR] PATH [VALUE]",
     .summary = "give a key a new value, from VALUE or from stdin",
     .help = "Exactly the bytes of VALUE are stored: no newline is added. Where VALUE is "
             "absent\n"
             "stdin is read to its end. The new value replaces the old one in one step.\n"
             "Missing directories of PATH are made. A VALUE that begins with - goes "
             "after --.\n",
     .options = CLI_DATA,
     .arguments_min = 1,
     .arguments = {"PATH", "VALUE"},
     .run = cli_put},
    {.name = "del",
     .usage = "[--data DIR] PATH",
     .summary = "delete a key, or an empty directory",
     .help = "PATH is counted from the root of the name space; a leading / may be left "
             "out.\n",
     .options = CLI_DATA,
     .arguments_min = 1,
     .arguments = {"PATH"},
     .run = cli_del},
    {.name = "ls",
     .usage = "[--data DIR] [-0] [PATH]",
     .summary = "list the names in a directory",
     .help =
         "One name a line, directories with a / at the end. Without PATH: the root.\n",
     .options = CLI_DATA | CLI_NUL,
     .arguments = {"PATH"},
     .run = cli_ls},
    {.name = "backup",
     .usage = "[--data DIR] FILE",
     .summary = "write all that the cluster holds to a file",
     .help =
         "Asks the node running on DIR; the cluster goes on meanwhile. FILE holds what all\n"
         "files were at one moment, with checksums, and replaces an older FILE when it is\n"
         "complete. Identities, keys and tokens of the cluster are not in it.\n",
     .options = CLI_DATA,
     .arguments_min = 1,
     .arguments = {"FILE"},
     .run = cli_backup},
    {.name = "restore",
     .usage = "FILE [--data DIR] [--listen HOST:PORT] [--advertise HOST:PORT] "
              "[--name NAME] [MOUNTPOINT]",
     .summary = "make a new cluster of one node, with the files of a backup",
     .help =
         "As `tierce init`, but the cluster begins with what the backup holds. All of FILE\n"
         "is checked before anything is made. The last line of the output is the command\n"
         "that lets one more host in. Never restore beside the old cluster's data: give an\n"
         "empty or missing data directory.\n"
         "With a MOUNTPOINT it goes on as `tierce mount` does.\n",
     .options = CLI_DATA | CLI_LISTEN | CLI_ADVERTISE | CLI_NAME | CLI_FOREGROUND |
                CLI_MOUNT_OPTIONS,
     .arguments_min = 1,
     .arguments = {"FILE", "MOUNTPOINT"},
     .run = cli_restore},
    {.name = "recover",
     .usage = "[--data DIR] [--force]",
     .summary = "make a new cluster of one node out of a stopped one's data",
     .help =
         "The last resort, where a majority is lost for good. Without --force it says what it\n"
         "would do, changes nothing, and exits with 1. With it the node on DIR, which must be\n"
         "stopped, becomes a cluster of its own, with a new id and a new CA, and all files\n"
         "that it has. What only the lost nodes had is lost; what was written last may be\n"
         "there though nobody was told so. Nodes of the former cluster cannot connect any\n"
         "more: empty their data directories, and let them join. Run it on the node whose\n"
         "log ends last, and on no other. Interrupted, it is run again.\n",
     .options = CLI_DATA | CLI_FORCE,
     .run = cli_recover},
    {.name = "inspect",
     .usage = "[--data DIR] [--verify] [--json] [FILE]",
     .summary = "show what is in a stopped node's files, and what is wrong with them",
     .help =
         "Without FILE: a line for each file of the store. With FILE (a segment, merged\n"
         "file, hint, MANIFEST, raft.state, commit.hint, scrub.state or incoming/STATE,\n"
         "in DIR or anywhere; or a backup): all that is in it. What is wrong is a line that\n"
         "begins with \"problem\"; a \"note\" is what the next start sees to, or what is bad\n"
         "and not needed. Nothing is changed.\n",
     .options = CLI_DATA | CLI_VERIFY | CLI_JSON,
     .arguments = {"FILE"},
     .run = cli_inspect},
};

static const struct option_row {
    unsigned bit;
    const char *name; /* NULL: short only */
    char letter;
    bool has_value;
    const char *help;
} option_rows[] = {
    {CLI_DATA, "data", 'D', true,
     "--data DIR              the node's data directory (" NODE_DEFAULT_DATA ")"},
    {CLI_LISTEN, "listen", 'L', true,
     "--listen HOST:PORT      where to listen (every address, port 7370)"},
    {CLI_ADVERTISE, "advertise", 'A', true,
     "--advertise HOST:PORT   what other nodes dial (what follows from --listen)"},
    {CLI_NAME, "name", 'N', true, "--name NAME             the node's name (the host's)"},
    {CLI_REPLACE, "replace", 'R', true,
     "--replace NAME          the member, lost for good, whose place it takes"},
    {CLI_LEARNER, "learner", 'O', false,
     "--learner               never vote, and count for no majority"},
    {CLI_TTL, "ttl", 'T', true,
     "--ttl TIME              how long the token is good: 24h, 90m, 30s, or seconds"},
    {CLI_FOREGROUND, "foreground", 'F', false,
     "--foreground            run in this process, and log to stderr"},
    {CLI_MOUNT_OPTIONS, NULL, 'o', true,
     "-o OPTIONS              mount options, comma-separated; may be repeated"},
    {CLI_JSON, "json", 'J', false, "--json                  as JSON"},
    {CLI_FORCE, "force", 'f', false, "--force                 do it"},
    {CLI_NUL, NULL, '0', false, "-0                      end each name with a NUL"},
    {CLI_VERIFY, "verify", 'V', false,
     "--verify                read and check everything; exit 1 where anything is wrong"},
};

enum { OPTION_HELP = 'h', OPTIONS_MAX = array_length(option_rows) + 2 };

/* ---- Speaking -------------------------------------------------------------------- */

int cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fputs("tierce: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_FAILED;
}

int cli_misused(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("tierce: ", stderr);
    vfprintf(stderr, format, args);
    fputs("; see `tierce help`\n", stderr);
    va_end(args);
    return CLI_USAGE;
}

int cli_flush(void)
{
    if (!fflush(stdout) && !ferror(stdout))
        return CLI_OK;
    return errno == EPIPE ? CLI_FAILED
                          : cli_fail("cannot write to stdout: %s", strerror(errno));
}

static const struct cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < array_length(commands); i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static void print_overview(FILE *to)
{
    fputs("tierce - a replicated key-value store, mounted as a directory\n\n"
          "usage: tierce COMMAND [OPTION...] [ARGUMENT...]\n\n",
          to);
    for (size_t i = 0; i < array_length(commands); i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].summary);
    fputs("  help     show this, or with a COMMAND all about it; the same: --help, -h\n\n"
          "Three hosts in three commands:\n"
          "  first host:   tierce init MOUNTPOINT          prints a line `tierce join "
          "TOKEN`\n"
          "  second host:  tierce join TOKEN MOUNTPOINT    prints one more such line\n"
          "  third host:   tierce join TOKEN MOUNTPOINT\n\n"
          "Exit codes: 0 done, 1 failed, 2 used wrongly.\n",
          to);
}

static void print_help(const struct cli_command *command)
{
    printf("usage: tierce %s %s\n\n%s\n", command->name, command->usage, command->help);
    for (size_t i = 0; i < array_length(option_rows); i++)
        if (command->options & option_rows[i].bit)
            printf("  %s\n", option_rows[i].help);
}

static int help(int argc, char **argv)
{
    if (argc > 2)
        return cli_misused("help: unexpected argument \"%s\"", argv[2]);
    if (argc == 2 && strcmp(argv[1], "help")) {
        const struct cli_command *command = find_command(argv[1]);
        if (!command)
            return cli_misused("unknown command \"%s\"", argv[1]);
        print_help(command);
    } else {
        print_overview(stdout);
    }
    return cli_flush();
}

/* ---- Options --------------------------------------------------------------------- */

struct option_set {
    char letters[2 * OPTIONS_MAX + 3];
    struct option longs[OPTIONS_MAX];
};

static void collect_options(const struct cli_command *command, struct option_set *ret)
{
    size_t letters = 0, longs = 0;
    ret->letters[letters++] = ':'; /* a missing value is told apart */
    ret->letters[letters++] = OPTION_HELP;
    ret->longs[longs++] = (struct option){"help", no_argument, NULL, OPTION_HELP};
    for (size_t i = 0; i < array_length(option_rows); i++) {
        const struct option_row *o = &option_rows[i];
        if (!(command->options & o->bit))
            continue;
        if (o->name) {
            ret->longs[longs++] = (struct option){
                o->name, o->has_value ? required_argument : no_argument, NULL, o->letter};
            continue;
        }
        ret->letters[letters++] = o->letter;
        if (o->has_value)
            ret->letters[letters++] = ':';
    }
    ret->letters[letters] = 0;
    ret->longs[longs] = (struct option){0};
}

int cli_add_mount_options(struct cli_call *call, const char *options)
{
    struct buf *b = &call->mount_options;
    if (b->length)
        b->data[b->length - 1] = ',';
    buf_bytes(b, options, strlen(options) + 1);
    return b->failed ? cli_fail("out of memory") : 0;
}

static int take_value(struct cli_call *call, const struct option_row *o,
                      const char *value)
{
    const char **places[] = {&call->data, &call->listen, &call->advertise, &call->name,
                             &call->ttl};
    if (call->given & o->bit && o->has_value && o->bit != CLI_MOUNT_OPTIONS)
        return cli_misused("--%s is given twice", o->name);
    call->given |= o->bit;
    if (!o->has_value)
        return 0;
    if (!value[0])
        return cli_misused("%s%s needs a value", o->name ? "--" : "-",
                           o->name ? o->name : (char[]){o->letter, 0});
    if (o->bit == CLI_MOUNT_OPTIONS)
        return cli_add_mount_options(call, value);
    if (o->bit == CLI_REPLACE)
        call->replace = value;
    else
        *places[__builtin_ctz(o->bit)] = value;
    return 0;
}

_Static_assert(CLI_DATA == 1 && CLI_LISTEN == 2 && CLI_ADVERTISE == 4 && CLI_NAME == 8 &&
                   CLI_TTL == 16,
               "the order of places[]");

static const struct option_row *find_option(int letter)
{
    for (size_t i = 0; i < array_length(option_rows); i++)
        if (option_rows[i].letter == letter)
            return &option_rows[i];
    return NULL;
}

/* What getopt did not take: argv[optind - 1], or one letter of a group. */
static int bad_option(const struct cli_command *command, char **argv, int problem)
{
    const char *text = argv[optind - 1];
    char letter[3] = {'-', (char)optopt, 0};
    bool is_long = !strncmp(text, "--", 2);
    return cli_misused(problem == ':' ? "%s: option %s needs a value"
                                      : "%s: unknown option %s",
                       command->name, is_long || !find_option(optopt) ? text : letter);
}

/* *ret_help: --help stood among them. */
static int parse_options(struct cli_call *call, int argc, char **argv, bool *ret_help)
{
    struct option_set set;
    collect_options(call->command, &set);
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, set.letters, set.longs, NULL)) != -1;) {
        if (c == OPTION_HELP) {
            *ret_help = true;
            return 0;
        }
        const struct option_row *o = c == '?' || c == ':' ? NULL : find_option(c);
        int result = o ? take_value(call, o, optarg) : bad_option(call->command, argv, c);
        if (result)
            return result;
    }
    call->arguments = argv + optind;
    call->argument_count = argc - optind;
    return 0;
}

static int check_arguments(const struct cli_call *call)
{
    const struct cli_command *c = call->command;
    int max = 0;
    while (max < CLI_ARGUMENTS && c->arguments[max])
        max++;
    if (call->argument_count > max)
        return cli_misused("%s: unexpected argument \"%s\"", c->name,
                           call->arguments[max]);
    if (call->argument_count < c->arguments_min)
        return cli_misused("%s: the argument %s is missing: tierce %s %s", c->name,
                           c->arguments[call->argument_count], c->name, c->usage);
    return 0;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct cli_call call = {.command = command};
    bool wants_help = false;
    int result = parse_options(&call, argc, argv, &wants_help);
    if (!result && wants_help) {
        print_help(command);
        result = cli_flush();
    } else if (!result) {
        result = check_arguments(&call);
        if (!call.data)
            call.data = NODE_DEFAULT_DATA;
        if (!result)
            result = command->run(&call);
    }
    buf_release(&call.mount_options);
    return result;
}

/* A standard stream that the caller has closed must not become the next descriptor that
 * is opened: a value would go to a socket of ours. /dev/null takes its number, open the
 * wrong way round, so that using it still fails with EBADF, and is reported. */
static int fill_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return -errno;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int result = fill_standard_streams();
    if (result)
        return cli_fail("cannot open /dev/null in place of a closed standard stream: %s",
                        strerror(-result));
    /* A reader that goes away is an error of write(), not the end of a node. */
    signal(SIGPIPE, SIG_IGN);
    if (cli_is_helper(argc, argv))
        return cli_helper(argc, argv);
    if (argc < 2) {
        print_overview(stderr);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--version")) {
        printf("tierce %s\n", TIERCE_VERSION);
        return cli_flush();
    }
    if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
        return help(argc - 1, argv + 1);
    const struct cli_command *command = find_command(name);
    if (!command)
        return cli_misused("unknown %s \"%s\"", name[0] == '-' ? "option" : "command",
                           name);
    return run(command, argc - 1, argv + 1);
}
