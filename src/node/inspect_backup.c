/* inspect_backup.c - what is in a backup file, as facts. */
#include "backup.h"

#include <errno.h>

struct look {
    const struct node_inspect *what;
    const char *file;
    char *error;
};

static int tell(struct look *l, const char *kind, const struct fact_field *fields,
                size_t count)
{
    struct fact fact = {.kind = kind, .fields = fields, .count = count};
    int result = l->what->fact(l->what->context, &fact);
    return result ? node_error(l->error, result, "cannot write what was found") : 0;
}

static int tell_record(struct look *l, const struct store_record *record, uint64_t offset)
{
    struct fact_field fields[] = {
        {.name = "offset", .type = FACT_NUMBER, .number = offset},
        {.name = "timestamp_us", .type = FACT_NUMBER, .number = record->timestamp_us},
        {.name = "key",
         .type = FACT_BYTES,
         .data = record->key,
         .size = record->key_size},
        {.name = "value_size", .type = FACT_NUMBER, .number = record->value_size}};
    if (!record->value)
        fields[3] =
            (struct fact_field){.name = "tombstone", .type = FACT_FLAG, .number = 1};
    return tell(l, "record", fields, array_length(fields));
}

static int see_record(void *context, const struct store_record *record,
                      const uint8_t *bytes, size_t length, uint64_t offset)
{
    return tell_record(context, record, offset);
}

struct entry_look {
    struct look *look;
    uint64_t offset;
};

static int see_change(void *arg, const struct store_record *record, uint32_t offset)
{
    struct entry_look *e = arg;
    return tell_record(e->look, record, e->offset + offset);
}

static int see_entry(void *context, const struct store_entry *entry, const uint8_t *bytes,
                     uint64_t offset)
{
    struct entry_look e = {.look = context, .offset = offset};
    const struct fact_field fields[] = {
        {.name = "offset", .type = FACT_NUMBER, .number = offset},
        {.name = "index", .type = FACT_NUMBER, .number = entry->index},
        {.name = "term", .type = FACT_NUMBER, .number = entry->term},
        {.name = "timestamp_us", .type = FACT_NUMBER, .number = entry->timestamp_us},
        {.name = "length", .type = FACT_NUMBER, .number = entry->length},
        {.name = "records", .type = FACT_NUMBER, .number = entry->record_count}};
    int result = tell(e.look, "entry", fields, array_length(fields));
    return result ? result : store_entry_each(bytes, entry->length, see_change, &e);
}

static int tell_summary(void *context, const struct backup_summary *s)
{
    struct look *l = context;
    const struct fact_field fields[] = {
        {.name = "file", .type = FACT_TEXT, .data = l->file},
        {.name = "bytes", .type = FACT_NUMBER, .number = s->bytes},
        {.name = "index", .type = FACT_NUMBER, .number = s->end.index},
        {.name = "term", .type = FACT_NUMBER, .number = s->end.term},
        {.name = "timestamp_us", .type = FACT_NUMBER, .number = s->end.timestamp_us},
        {.name = "begun_at", .type = FACT_NUMBER, .number = s->head.begin.index},
        {.name = "records", .type = FACT_NUMBER, .number = s->records},
        {.name = "entries", .type = FACT_NUMBER, .number = s->entries},
        {.name = "cluster",
         .type = FACT_HEX,
         .data = s->head.cluster_id,
         .size = sizeof(s->head.cluster_id)}};
    return tell(l, "backup", fields, array_length(fields));
}

static int tell_problem(struct look *l, const char *file, const char *text)
{
    const struct fact_field fields[] = {
        {.name = "file", .type = FACT_TEXT, .data = file},
        {.name = "what", .type = FACT_TEXT, .data = text}};
    return tell(l, "problem", fields, array_length(fields));
}

int inspect_backup(const struct node_inspect *what, const char *file,
                   uint64_t *ret_problems, char error[NODE_ERROR_BYTES])
{
    char text[NODE_ERROR_BYTES] = "";
    struct look look = {.what = what, .file = file, .error = text};
    struct backup_summary summary;
    struct backup_visitor visitor = {.context = &look};
    if (!what->verify) {
        visitor.head = tell_summary;
        visitor.record = see_record;
        visitor.entry = see_entry;
    }
    int result = backup_read(file, &visitor, &summary, text);
    bool damaged = result == -EBADMSG;
    *ret_problems = damaged;
    if (!result && what->verify)
        result = tell_summary(&look, &summary);
    else if (damaged)
        result = tell_problem(&look, file, text);
    if (result)
        node_error(error, result, "%s", text);
    return result;
}
