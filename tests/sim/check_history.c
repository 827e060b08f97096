/*
 * check_history.c - is what callers saw linearizable? Reads histories that a test of real
 * processes wrote, judges each by linear.c, and prints those that no order explains.
 *
 *   check_history [--budget STEPS] FILE...
 *
 * A file is lines of words:
 *
 *   history KIND NAME                       KIND: register, list, names
 *   INVOKED RETURNED CLIENT CALL A B ERROR R1 R2
 *
 * The calls of a history follow its line, in any order. INVOKED, RETURNED: of one clock
 * that never stands; `-` as RETURNED: no answer came. `-` as R1 or R2: not told.
 * Exit code: 0 all are linearizable, 1 one is not, 2 a file cannot be understood.
 */
#include "linear.h"

#include <inttypes.h>
#include <stdarg.h>

enum { LINE = 256, BUDGET = 4 * 1000 * 1000 };

struct kind {
    const char *name;
    const struct linear_model *model;
    const char *calls[10]; /* by their number in linear.h */
};

static const struct kind kinds[] = {
    {"register",
     &linear_register,
     {[REGISTER_WRITE] = "write", [REGISTER_READ] = "read"}},
    {"list", &linear_list, {[LIST_APPEND] = "append", [LIST_READ] = "read"}},
    {"names",
     &linear_names,
     {[NAMES_MAKE] = "make",
      [NAMES_MKDIR] = "mkdir",
      [NAMES_UNLINK] = "unlink",
      [NAMES_RMDIR] = "rmdir",
      [NAMES_RENAME] = "rename",
      [NAMES_RENAME_NOREPLACE] = "rename-noreplace",
      [NAMES_LOOKUP] = "lookup",
      [NAMES_LINK] = "link",
      [NAMES_EXCHANGE] = "exchange"}},
};

struct history {
    const struct kind *kind; /* NULL: none was begun */
    char name[LINE];
    struct linear_call calls[LINEAR_CALLS];
    size_t count;
};

static uint64_t budget = BUDGET, judged, calls_judged, wrong, undecided;
static const char *path;
static unsigned line_number;

static void give_up(const char *format, ...)
{
    va_list args;
    fprintf(stderr, "check_history: %s:%u: ", path, line_number);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

/* ---- Judging ------------------------------------------------------------------------ */

static void print_number(uint64_t value, uint64_t none)
{
    if (value == none)
        printf(" -");
    else
        printf(" %" PRIu64, value);
}

static void print_call(const struct history *h, size_t at, bool stuck)
{
    const struct linear_call *c = &h->calls[at];
    printf("%s %" PRIu64, stuck ? "->" : "  ", c->invoked);
    print_number(c->returned, UINT64_MAX);
    printf(" %u %s %" PRIu64 " %" PRIu64 " %" PRId64, c->client, h->kind->calls[c->kind],
           c->a, c->b, c->error);
    print_number(c->r1, LINEAR_NOT_TOLD);
    print_number(c->r2, LINEAR_NOT_TOLD);
    putchar('\n');
}

static void judge(const struct history *h)
{
    size_t stuck = 0;
    if (!h->kind)
        return;
    enum linear_verdict verdict =
        linear_check(h->kind->model, h->calls, h->count, budget, &stuck);
    judged++;
    calls_judged += h->count;
    undecided += verdict == LINEAR_UNDECIDED;
    if (verdict != LINEAR_NO)
        return;
    wrong++;
    printf("%s %s is not linearizable; no order has a place for the call at ->\n",
           h->kind->name, h->name);
    for (size_t i = 0; i < h->count; i++)
        print_call(h, i, i == stuck);
}

/* ---- Reading ------------------------------------------------------------------------ */

static uint64_t number_or(const char *word, uint64_t none)
{
    char *end;
    if (strcmp(word, "-") == 0)
        return none;
    uint64_t value = strtoull(word, &end, 10);
    if (*word < '0' || *word > '9' || *end)
        give_up("\"%s\" is not a number", word);
    return value;
}

static void begin_history(struct history *h, const char *kind, const char *name)
{
    judge(h);
    h->kind = NULL;
    h->count = 0;
    for (size_t i = 0; i < array_length(kinds); i++)
        if (strcmp(kinds[i].name, kind) == 0)
            h->kind = &kinds[i];
    if (!h->kind)
        give_up("there is no kind \"%s\"", kind);
    snprintf(h->name, sizeof(h->name), "%s", name);
}

static unsigned call_kind(const struct history *h, const char *word)
{
    for (unsigned i = 0; i < array_length(h->kind->calls) && h->kind->calls[i]; i++)
        if (strcmp(h->kind->calls[i], word) == 0)
            return i;
    give_up("a %s has no call \"%s\"", h->kind->name, word);
    return 0;
}

static void check_names(const struct linear_call *c)
{
    bool makes = c->kind == NAMES_MAKE || c->kind == NAMES_MKDIR; /* b: an inode */
    if ((c->a >= NAMES && c->kind != NAMES_LINK) || (c->b >= NAMES && !makes))
        give_up("a directory has the names 0 to %d", NAMES - 1);
}

static void add_call(struct history *h, char words[9][LINE])
{
    if (!h->kind)
        give_up("a call before the first history");
    if (h->count == LINEAR_CALLS)
        give_up("history %s has more than %d calls", h->name, LINEAR_CALLS);
    struct linear_call *c = &h->calls[h->count++];
    *c = (struct linear_call){
        .invoked = number_or(words[0], 0),
        .returned = number_or(words[1], UINT64_MAX),
        .client = (unsigned)number_or(words[2], 0),
        .kind = call_kind(h, words[3]),
        .a = number_or(words[4], 0),
        .b = number_or(words[5], 0),
        .error = strtoll(words[6], NULL, 10),
        .r1 = number_or(words[7], LINEAR_NOT_TOLD),
        .r2 = number_or(words[8], LINEAR_NOT_TOLD),
    };
    if (c->returned < c->invoked)
        give_up("a call returned before it was made");
    if (h->kind->model == &linear_names)
        check_names(c);
}

static void read_line(struct history *h, const char *line)
{
    char words[10][LINE];
    int count =
        sscanf(line, "%255s %255s %255s %255s %255s %255s %255s %255s %255s %255s",
               words[0], words[1], words[2], words[3], words[4], words[5], words[6],
               words[7], words[8], words[9]);
    if (count == 3 && strcmp(words[0], "history") == 0)
        begin_history(h, words[1], words[2]);
    else if (count == 9)
        add_call(h, words);
    else if (count > 0)
        give_up("neither a history nor a call: %s", line);
}

static void read_file(void)
{
    static struct history h;
    char line[LINE];
    h = (struct history){0};
    line_number = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        give_up("it cannot be opened");
    while (fgets(line, sizeof(line), f)) {
        line_number++;
        if (!strchr(line, '\n'))
            give_up("a line without an end");
        read_line(&h, line);
    }
    if (ferror(f))
        give_up("it cannot be read");
    fclose(f);
    judge(&h);
}

int main(int argc, char **argv)
{
    int first = 1;
    if (argc > 3 && strcmp(argv[1], "--budget") == 0) {
        budget = strtoull(argv[2], NULL, 10);
        first = 3;
    }
    if (first >= argc) {
        fprintf(stderr, "usage: check_history [--budget STEPS] FILE...\n");
        return 2;
    }
    for (int i = first; i < argc; i++) {
        path = argv[i];
        read_file();
    }
    printf("%" PRIu64 " histories, %" PRIu64 " calls, %" PRIu64 " undecided, %" PRIu64
           " not linearizable\n",
           judged, calls_judged, undecided, wrong);
    return wrong ? 1 : 0;
}
