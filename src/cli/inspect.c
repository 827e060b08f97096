/* inspect.c - what is in the files of a node that does not run, for people and programs.
 */
#include "cli.h"

#include <errno.h>

enum { KIND_COLUMN = 13, INDENT = 2 };

struct output {
    bool json;
    struct buf line;
};

/* How far a kind is indented: what it is a part of stands above it. */
static int depth_of(const char *kind)
{
    static const struct {
        const char *kind;
        int depth;
    } depths[] = {
        {"entry", 1}, {"manifest_file", 1}, {"incoming_file", 1}, {"record", 2}};
    for (size_t i = 0; i < array_length(depths); i++)
        if (!strcmp(depths[i].kind, kind))
            return depths[i].depth;
    return 0;
}

static void put_hex(struct buf *to, const struct fact_field *field)
{
    const uint8_t *data = field->data;
    for (size_t i = 0; i < field->size; i++)
        buf_printf(to, "%02x", data[i]);
}

/* ---- JSON ------------------------------------------------------------------------ */

static void json_value(struct buf *to, const struct fact_field *field)
{
    switch (field->type) {
    case FACT_NUMBER:
        buf_printf(to, "%llu", (unsigned long long)field->number);
        break;
    case FACT_ID:
        buf_printf(to, "\"%016llx\"", (unsigned long long)field->number);
        break;
    case FACT_TEXT:
        cli_json_string(to, field->data);
        break;
    case FACT_BYTES:
    case FACT_HEX:
        buf_u8(to, '"');
        put_hex(to, field);
        buf_u8(to, '"');
        break;
    case FACT_FLAG:
        buf_printf(to, "%s", field->number ? "true" : "false");
        break;
    }
}

static void json_line(struct buf *to, const struct fact *fact)
{
    buf_printf(to, "{\"kind\": \"%s\"", fact->kind);
    for (size_t i = 0; i < fact->count; i++) {
        buf_printf(to, ", \"%s\": ", fact->fields[i].name);
        json_value(to, &fact->fields[i]);
    }
    buf_printf(to, "}\n");
}

/* ---- For people ------------------------------------------------------------------ */

/* A key's first byte is its class, and the rest numbers and a name. */
static void put_escaped(struct buf *to, const struct fact_field *field)
{
    const uint8_t *data = field->data;
    buf_u8(to, '"');
    for (size_t i = 0; i < field->size; i++) {
        if (data[i] == '"' || data[i] == '\\')
            buf_printf(to, "\\%c", data[i]);
        else if (data[i] >= ' ' && data[i] <= '~')
            buf_u8(to, data[i]);
        else
            buf_printf(to, "\\x%02x", data[i]);
    }
    buf_u8(to, '"');
}

static void put_name(struct buf *to, const char *name)
{
    for (; *name; name++)
        buf_u8(to, *name == '_' ? ' ' : (uint8_t)*name);
}

static void text_value(struct buf *to, const struct fact_field *field)
{
    switch (field->type) {
    case FACT_NUMBER:
        buf_printf(to, " %llu", (unsigned long long)field->number);
        break;
    case FACT_ID:
        buf_printf(to, " %016llx", (unsigned long long)field->number);
        break;
    case FACT_TEXT:
        buf_printf(to, " %s", (const char *)field->data);
        break;
    case FACT_BYTES:
        buf_u8(to, ' ');
        put_escaped(to, field);
        break;
    case FACT_HEX:
        buf_u8(to, ' ');
        put_hex(to, field);
        break;
    case FACT_FLAG:
        break;
    }
}

static void text_line(struct buf *to, const struct fact *fact)
{
    int indent = INDENT * depth_of(fact->kind);
    const char *between = " ";
    buf_printf(to, "%*s%-*s", indent, "", KIND_COLUMN - indent, fact->kind);
    for (size_t i = 0; i < fact->count; i++) {
        const struct fact_field *field = &fact->fields[i];
        bool unnamed = !strcmp(field->name, "file") || !strcmp(field->name, "what");
        if (!strcmp(field->name, "what"))
            between = ":";
        buf_printf(to, "%s", between);
        if (field->type == FACT_FLAG && !field->number)
            buf_printf(to, "not ");
        if (!unnamed)
            put_name(to, field->name);
        /* A value that stands without its name has the blank of `between`. */
        size_t at = to->length;
        text_value(to, field);
        if (unnamed && i == 0 && to->length > at)
            memmove(to->data + at, to->data + at + 1, --to->length - at);
        between = ", ";
    }
    buf_u8(to, '\n');
}

static int print(void *context, const struct fact *fact)
{
    struct output *out = context;
    buf_clear(&out->line);
    if (out->json)
        json_line(&out->line, fact);
    else
        text_line(&out->line, fact);
    if (out->line.failed)
        return -ENOMEM;
    fwrite(out->line.data, 1, out->line.length, stdout);
    return ferror(stdout) ? -EPIPE : 0;
}

int cli_inspect(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    struct output out = {.json = call->given & CLI_JSON};
    struct node_inspect what = {.data = call->data,
                                .file = call->argument_count ? call->arguments[0] : NULL,
                                .verify = call->given & CLI_VERIFY,
                                .fact = print,
                                .context = &out};
    uint64_t problems = 0;
    int result = node_inspect(&what, &problems, error);
    buf_release(&out.line);
    int flushed = cli_flush();
    if (flushed)
        return flushed;
    if (result)
        return cli_fail("%s", error[0] ? error : strerror(-result));
    if (problems && what.verify)
        return cli_fail("%llu problem%s found in %s: see the lines that begin with "
                        "\"problem\"",
                        (unsigned long long)problems, problems == 1 ? " was" : "s were",
                        what.file ? what.file : what.data);
    return CLI_OK;
}
