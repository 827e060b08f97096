/*
 * directory.c - the identity files of a data directory.
 *
 * tierce.conf is written last and is what makes a directory a node's: whatever else lies
 * there without it is an init or a join that was not finished.
 *
 *   format = 1                 first, so that an older program names the newer format
 *   cluster = 32 hex digits
 *   id = 16 hex digits
 *   name = NAME
 *   listen = HOST:PORT
 *   advertise = HOST:PORT
 *   segment_mib = N            optional
 *   scrub_days = N             optional
 *   merge_mib_per_s = N        optional
 *   certificate_life = 365d    optional: a number and s, m, h or d
 *   member = ID voter|learner|observer HOST:PORT NAME  any number
 *
 * Blank lines and lines that begin with # are skipped. Each key but `member` stands once;
 * an unknown one is an error, as it may be a setting that was misspelt.
 */
#include "node_internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    DIRECTORY_FILE_BYTES = 64 * 1024, /* of tierce.conf or a PEM file, at most */
    DIRECTORY_SCRUB_DAYS_MAX = 3650,
    DIRECTORY_MERGE_MIB_MAX = 1024,
};

#define DAY_US ((uint64_t)24 * 3600 * 1000 * 1000)

int node_error(char error[NODE_ERROR_BYTES], int result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, NODE_ERROR_BYTES, format, args);
    va_end(args);
    return result;
}

const char *directory_remedy(int result)
{
    bool forbidden = result == -EACCES || result == -EPERM;
    return forbidden && geteuid() ? "run it as root, or give another --data"
                                  : "give another --data";
}

bool node_name_valid(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == ',')
            return false;
    return length > 0 && length <= LIMIT_NAME_BYTES;
}

bool node_address_valid(const char *address)
{
    char host[LIMIT_ADDRESS_BYTES + 1];
    uint16_t port;
    if (strlen(address) > LIMIT_ADDRESS_BYTES || !node_name_valid(address))
        return false;
    return !wire_address_split(address, 0, host, &port) && host[0] && port;
}

/* ---- The text of tierce.conf ----------------------------------------------------- */

struct conf_parser {
    struct directory *d;
    const char *file;
    unsigned line;
    unsigned seen; /* bit of each key in conf_keys */
    char *error;
};

static int conf_bad(struct conf_parser *p, const char *format, const char *what)
{
    char message[NODE_ERROR_BYTES / 2];
    snprintf(message, sizeof(message), format, what);
    return node_error(p->error, -EBADMSG, "%s, line %u: %s", p->file, p->line, message);
}

static int conf_format(struct conf_parser *p, char *value)
{
    char *end;
    unsigned long format = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end || format == 0)
        return conf_bad(p, "format \"%.40s\" is not a number", value);
    uint32_t newest = version_format(WIRE_PROTOCOL_VERSION);
    p->d->members.version = version_of_format((uint32_t)min_u64(format, newest));
    if (format > newest)
        return node_error(p->error, -EPROTONOSUPPORT,
                          "%s was written by a newer tierce (format %lu); this one knows "
                          "%u: upgrade tierce on this host",
                          p->file, format, newest);
    return 0;
}

static int parse_id(const char *text, uint64_t *ret)
{
    uint8_t bytes[8];
    int result = hex_parse(text, bytes, sizeof(bytes));
    if (!result && !get_be64(bytes))
        result = -EINVAL;
    if (!result)
        *ret = get_be64(bytes);
    return result;
}

static int conf_cluster(struct conf_parser *p, char *value)
{
    if (hex_parse(value, p->d->cluster_id, sizeof(p->d->cluster_id)))
        return conf_bad(p, "cluster \"%.80s\" is not 32 hexadecimal digits", value);
    return 0;
}

static int conf_id(struct conf_parser *p, char *value)
{
    if (parse_id(value, &p->d->node_id))
        return conf_bad(p, "id \"%.80s\" is not 16 hexadecimal digits, not all 0", value);
    return 0;
}

static int conf_name(struct conf_parser *p, char *value)
{
    if (!node_name_valid(value))
        return conf_bad(p, "name \"%.80s\" is too long or has spaces or commas", value);
    strcpy(p->d->name, value);
    return 0;
}

static int conf_listen(struct conf_parser *p, char *value)
{
    char host[LIMIT_ADDRESS_BYTES + 1];
    uint16_t port;
    if (strlen(value) > LIMIT_ADDRESS_BYTES ||
        wire_address_split(value, WIRE_DEFAULT_PORT, host, &port) || !port)
        return conf_bad(p, "listen \"%.80s\" is not HOST:PORT", value);
    strcpy(p->d->listen, value);
    return 0;
}

static int conf_advertise(struct conf_parser *p, char *value)
{
    if (!node_address_valid(value))
        return conf_bad(p, "advertise \"%.80s\" is not HOST:PORT", value);
    strcpy(p->d->advertise, value);
    return 0;
}

static bool parse_number(const char *text, unsigned long min, unsigned long max,
                         unsigned long *ret)
{
    char *end;
    *ret = strtoul(text, &end, 10);
    return isdigit((unsigned char)text[0]) && !*end && *ret >= min && *ret <= max;
}

static int conf_segment(struct conf_parser *p, char *value)
{
    unsigned long mib;
    if (!parse_number(value, NODE_SEGMENT_MIB_MIN, NODE_SEGMENT_MIB_MAX, &mib))
        return conf_bad(p, "segment_mib \"%.40s\" is not a number from 16 to 1024",
                        value);
    p->d->segment_bytes = mib * MiB;
    return 0;
}

static int conf_scrub(struct conf_parser *p, char *value)
{
    unsigned long days;
    if (!parse_number(value, 0, DIRECTORY_SCRUB_DAYS_MAX, &days))
        return conf_bad(p, "scrub_days \"%.40s\" is not a number from 0 (never) to 3650",
                        value);
    p->d->scrub_period_us = days ? days * DAY_US : STORE_NEVER;
    return 0;
}

static int conf_merge(struct conf_parser *p, char *value)
{
    unsigned long mib;
    if (!parse_number(value, 1, DIRECTORY_MERGE_MIB_MAX, &mib))
        return conf_bad(p, "merge_mib_per_s \"%.40s\" is not a number from 1 to 1024",
                        value);
    p->d->merge_bytes_per_s = mib * MiB;
    return 0;
}

_Static_assert(NODE_SEGMENT_MIB_MIN == 16 && NODE_SEGMENT_MIB_MAX == 1024 &&
                   DIRECTORY_SCRUB_DAYS_MAX == 3650 && DIRECTORY_MERGE_MIB_MAX == 1024,
               "the bounds that the message names");

static bool is_member_kind(const char *kind)
{
    return !strcmp(kind, "voter") || !strcmp(kind, "learner") ||
           !strcmp(kind, "observer");
}

int node_duration_parse(const char *text, uint64_t *ret_s)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {0, 1}};
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || n > UINT32_MAX || (*end && end[1]))
        return -EINVAL;
    for (size_t i = 0; i < array_length(units); i++)
        if (units[i].unit == *end && n) {
            *ret_s = n * units[i].seconds;
            return 0;
        }
    return -EINVAL;
}

static int conf_certificate(struct conf_parser *p, char *value)
{
    uint64_t life_s;
    if (node_duration_parse(value, &life_s) || life_s < NODE_CERTIFICATE_S_MIN ||
        life_s > NODE_CERTIFICATE_S_MAX)
        return conf_bad(p,
                        "certificate_life \"%.40s\" is not a time like 365d, 12h, 30m, "
                        "from 10s to 3650d",
                        value);
    p->d->certificate_life_s = life_s;
    return 0;
}

_Static_assert(NODE_CERTIFICATE_S_MIN == 10 && NODE_CERTIFICATE_S_MAX == 3650 * 86400,
               "the bounds that the message names");

static int conf_member(struct conf_parser *p, char *value)
{
    struct members *members = &p->d->members;
    char *rest = NULL, *id = strtok_r(value, " \t", &rest);
    char *kind = strtok_r(NULL, " \t", &rest), *address = strtok_r(NULL, " \t", &rest);
    char *name = strtok_r(NULL, " \t", &rest);
    struct member m = {0};
    if (!id || !kind || !address || !name || strtok_r(NULL, " \t", &rest) ||
        parse_id(id, &m.id) || !is_member_kind(kind) || !node_address_valid(address) ||
        !node_name_valid(name))
        return conf_bad(p, "%s", "a member is: ID voter|learner|observer HOST:PORT NAME");
    if (members->count == LIMIT_MEMBERS)
        return conf_bad(p, "%s", "there are too many members");
    if (members_find(members, m.id))
        return conf_bad(p, "member %.20s stands twice", id);
    m.version = members->version; /* at least: `format` stands before */
    m.voter = !strcmp(kind, "voter");
    m.observer = !strcmp(kind, "observer");
    strcpy(m.address, address);
    strcpy(m.name, name);
    members->list[members->count++] = m;
    return 0;
}

static const struct conf_key {
    const char *name;
    int (*parse)(struct conf_parser *p, char *value);
    bool required;
    bool many;
} conf_keys[] = {
    {"format", conf_format, true, false},
    {"cluster", conf_cluster, true, false},
    {"id", conf_id, true, false},
    {"name", conf_name, true, false},
    {"listen", conf_listen, true, false},
    {"advertise", conf_advertise, true, false},
    {"segment_mib", conf_segment, false, false},
    {"scrub_days", conf_scrub, false, false},
    {"merge_mib_per_s", conf_merge, false, false},
    {"certificate_life", conf_certificate, false, false},
    {"member", conf_member, false, true},
};

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = 0;
    return text;
}

static int conf_line(struct conf_parser *p, char *line)
{
    line = trim(line);
    if (!line[0] || line[0] == '#')
        return 0;
    char *equals = strchr(line, '=');
    if (!equals)
        return conf_bad(p, "\"%.80s\" is not KEY = VALUE", line);
    *equals = 0;
    char *key = trim(line), *value = trim(equals + 1);
    size_t i = 0;
    while (i < array_length(conf_keys) && strcmp(conf_keys[i].name, key))
        i++;
    if (!p->seen && i != 0)
        return conf_bad(p, "%s", "the first key must be format");
    if (i == array_length(conf_keys))
        return conf_bad(p, "unknown key \"%.80s\"", key);
    if (p->seen & 1u << i && !conf_keys[i].many)
        return conf_bad(p, "%s stands twice", key);
    p->seen |= 1u << i;
    return conf_keys[i].parse(p, value);
}

int directory_conf_parse(const char *text, const char *file, struct directory *ret,
                         char error[NODE_ERROR_BYTES])
{
    struct directory *d = calloc(1, sizeof(*d));
    char *copy = strdup(text), *rest = copy;
    struct conf_parser p = {.d = d, .file = file, .error = error};
    int result = d && copy ? 0 : node_error(error, -ENOMEM, "out of memory");
    if (result)
        goto out;
    d->segment_bytes = NODE_SEGMENT_MIB * MiB;
    for (char *line; !result && (line = strsep(&rest, "\n"));) {
        p.line++;
        result = conf_line(&p, line);
    }
    for (size_t i = 0; !result && i < array_length(conf_keys); i++)
        if (conf_keys[i].required && !(p.seen & 1u << i))
            result = node_error(error, -EBADMSG, "%s: \"%s\" is missing", file,
                                conf_keys[i].name);
    if (!result) {
        memcpy(ret->cluster_id, d->cluster_id, sizeof(d->cluster_id));
        ret->node_id = d->node_id;
        strcpy(ret->name, d->name);
        strcpy(ret->listen, d->listen);
        strcpy(ret->advertise, d->advertise);
        ret->segment_bytes = d->segment_bytes;
        ret->scrub_period_us = d->scrub_period_us;
        ret->merge_bytes_per_s = d->merge_bytes_per_s;
        ret->certificate_life_s = d->certificate_life_s;
        ret->members = d->members;
    }
out:
    free(copy);
    free(d);
    return result;
}

void directory_conf_format(const struct directory *d, struct buf *to)
{
    char cluster[2 * WIRE_CLUSTER_ID_BYTES + 1];
    hex_format(cluster, d->cluster_id, sizeof(d->cluster_id));
    buf_printf(to, "format = %u\n", version_format(d->members.version));
    buf_printf(to, "cluster = %s\n", cluster);
    buf_printf(to, "id = %016llx\n", (unsigned long long)d->node_id);
    buf_printf(to, "name = %s\n", d->name);
    buf_printf(to, "listen = %s\n", d->listen);
    buf_printf(to, "advertise = %s\n", d->advertise);
    buf_printf(to, "segment_mib = %llu\n", (unsigned long long)(d->segment_bytes / MiB));
    if (d->scrub_period_us)
        buf_printf(to, "scrub_days = %llu\n",
                   d->scrub_period_us == STORE_NEVER
                       ? 0ull
                       : (unsigned long long)(d->scrub_period_us / DAY_US));
    if (d->merge_bytes_per_s)
        buf_printf(to, "merge_mib_per_s = %llu\n",
                   (unsigned long long)(d->merge_bytes_per_s / MiB));
    if (d->certificate_life_s)
        buf_printf(to, "certificate_life = %llus\n",
                   (unsigned long long)d->certificate_life_s);
    for (uint32_t i = 0; i < d->members.count; i++) {
        const struct member *m = &d->members.list[i];
        buf_printf(to, "member = %016llx %s %s %s\n", (unsigned long long)m->id,
                   m->voter      ? "voter"
                   : m->observer ? "observer"
                                 : "learner",
                   m->address, m->name);
    }
}

/* ---- Files ----------------------------------------------------------------------- */

char *directory_file(const char *path, const char *name)
{
    char *file = NULL;
    return asprintf(&file, "%s/%s", path, name) < 0 ? NULL : file;
}

static int write_all(int fd, const uint8_t *data, size_t length)
{
    while (length) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            length -= (size_t)n;
        }
    }
    return 0;
}

static int write_synced(const char *file, const void *data, size_t length)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int result = write_all(fd, data, length);
    if (!result && fsync(fd))
        result = -errno;
    if (close(fd) && !result)
        result = -errno;
    return result;
}

static int sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fsync(fd) ? -errno : 0;
    close(fd);
    return result;
}

int directory_put_file(const char *path, const char *name, const void *data,
                       size_t length, char error[NODE_ERROR_BYTES])
{
    char *file = directory_file(path, name), *beside = NULL;
    int result = file && asprintf(&beside, "%s.new", file) >= 0 ? 0 : -ENOMEM;
    if (!result)
        result = write_synced(beside, data, length);
    if (!result && rename(beside, file))
        result = -errno;
    if (!result)
        result = sync_directory(path);
    if (result) {
        node_error(error, result, "cannot write %s/%s: %s", path, name,
                   strerror(-result));
        if (beside)
            unlink(beside);
    }
    free(beside);
    free(file);
    return result;
}

static int read_text(int fd, char **ret)
{
    char *text = malloc(DIRECTORY_FILE_BYTES + 1);
    if (!text)
        return -ENOMEM;
    size_t length = 0;
    ssize_t n = 1;
    while (n && length <= DIRECTORY_FILE_BYTES) {
        n = read(fd, text + length, DIRECTORY_FILE_BYTES + 1 - length);
        if (n < 0 && errno != EINTR) {
            n = -errno;
            free(text);
            return (int)n;
        }
        length += n > 0 ? (size_t)n : 0;
    }
    if (length > DIRECTORY_FILE_BYTES || memchr(text, 0, length)) {
        free(text);
        return -EBADMSG;
    }
    text[length] = 0;
    *ret = text;
    return 0;
}

int directory_get_file(const char *path, const char *name, char **ret,
                       char error[NODE_ERROR_BYTES])
{
    char *file = directory_file(path, name);
    if (!file)
        return node_error(error, -ENOMEM, "out of memory");
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 ? -errno : read_text(fd, ret);
    if (fd >= 0)
        close(fd);
    if (result == -EBADMSG)
        node_error(error, result,
                   "%s is not a text file of tierce: restore it from a backup", file);
    else if (result)
        node_error(error, result, "cannot read %s: %s", file, strerror(-result));
    free(file);
    return result;
}

static int cannot_open(const char *path, int result, char error[NODE_ERROR_BYTES])
{
    return node_error(error, result, "cannot open %s: %s; %s", path, strerror(-result),
                      directory_remedy(result));
}

static int locked_by_another(const char *path, int fd, char error[NODE_ERROR_BYTES])
{
    char pid[16] = "";
    ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
    pid[n > 0 ? n : 0] = 0;
    pid[strspn(pid, "0123456789")] = 0;
    return node_error(
        error, -EBUSY,
        "%s is in use by another process%s%s: a node runs on it already; end "
        "it with `tierce stop --data %s`",
        path, pid[0] ? ", pid " : "", pid, path);
}

int directory_lock(const char *path, int *ret_fd, char error[NODE_ERROR_BYTES])
{
    char *file = directory_file(path, DIRECTORY_LOCK);
    if (!file)
        return node_error(error, -ENOMEM, "out of memory");
    int result = 0, fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        result = cannot_open(file, -errno, error);
    else if (flock(fd, LOCK_EX | LOCK_NB))
        result = errno == EWOULDBLOCK ? locked_by_another(path, fd, error)
                                      : node_error(error, -errno, "cannot lock %s: %s",
                                                   file, strerror(errno));
    if (!result) {
        /* Only for the message above: a lock without a pid is held all the same. */
        if (ftruncate(fd, 0) || dprintf(fd, "%ld\n", (long)getpid()) < 0)
            log_debug("%s: %s", file, strerror(errno));
        *ret_fd = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    free(file);
    return result;
}

/* ---- The whole ------------------------------------------------------------------- */

static bool has_file(const char *path, const char *name)
{
    char *file = directory_file(path, name);
    struct stat st;
    bool has = file && !lstat(file, &st);
    free(file);
    return has;
}

struct wire_identity directory_identity(const struct directory *d)
{
    struct wire_identity identity = {.ca_pem = d->ca_pem,
                                     .cert_pem = d->cert_pem,
                                     .key_pem = d->key_pem,
                                     .node_id = d->node_id};
    memcpy(identity.cluster_id, d->cluster_id, sizeof(identity.cluster_id));
    return identity;
}

struct wire_hello directory_hello(const struct directory *d)
{
    struct wire_hello hello = {.node_id = d->node_id};
    memcpy(hello.cluster_id, d->cluster_id, sizeof(hello.cluster_id));
    strcpy(hello.name, d->name);
    strcpy(hello.address, d->advertise);
    return hello;
}

struct store_options directory_store_options(const struct directory *d)
{
    struct store_options options = {.io = &store_io_posix,
                                    .path = d->path,
                                    .segment_bytes = d->segment_bytes,
                                    .format = version_format(d->members.version),
                                    .scrub_period_us = d->scrub_period_us,
                                    .merge_bytes_per_s = d->merge_bytes_per_s};
    _Static_assert((int)STORE_CLUSTER_ID_BYTES == (int)WIRE_CLUSTER_ID_BYTES,
                   "one cluster id");
    memcpy(options.cluster_id, d->cluster_id, sizeof(options.cluster_id));
    return options;
}

uint64_t directory_certificate_life_s(const struct directory *d)
{
    return d->certificate_life_s ? d->certificate_life_s : NODE_CERTIFICATE_S;
}

int directory_look(const char *path, char error[NODE_ERROR_BYTES])
{
    struct stat st;
    if (stat(path, &st)) {
        if (errno != ENOENT)
            return cannot_open(path, -errno, error);
        return node_error(
            error, -ENOENT,
            "%s does not exist: make a cluster with `tierce init --data %s`, "
            "or join one with `tierce join TOKEN --data %s`",
            path, path, path);
    }
    if (!S_ISDIR(st.st_mode))
        return node_error(error, -EBADMSG, "%s is not a directory: give another --data",
                          path);
    if (access(path, R_OK | X_OK))
        return cannot_open(path, -errno, error);
    if (has_file(path, DIRECTORY_RECOVERY "/" DIRECTORY_CONF))
        return node_error(
            error, -EBADMSG,
            "%s holds a recovery that was not finished: run `tierce recover "
            "--force --data %s` again",
            path, path);
    if (directory_is_removed(path))
        return node_error(
            error, -ESHUTDOWN,
            "the node of %s was removed from its cluster (%s/%s says when) and cannot come "
            "back: to join again, remove %s, or give another --data, and run `tierce join "
            "TOKEN`",
            path, path, DIRECTORY_REMOVED, path);
    if (has_file(path, DIRECTORY_CONF))
        return 0;
    if (has_file(path, DIRECTORY_KEY))
        return node_error(error, -EBADMSG,
                          "%s holds a join that was not finished: run `tierce join TOKEN "
                          "--data %s` again, with the same token",
                          path, path);
    return node_error(
        error, -EBADMSG,
        "%s is not a data directory of tierce (it has no %s): make a cluster "
        "with `tierce init --data DIR`, or join one with `tierce join TOKEN "
        "--data DIR`",
        path, DIRECTORY_CONF);
}

bool directory_is_removed(const char *path)
{
    return has_file(path, DIRECTORY_REMOVED);
}

int directory_mark_removed(const struct directory *d, char error[NODE_ERROR_BYTES])
{
    char text[NODE_ERROR_BYTES], when[32] = "";
    time_t now = (time_t)(clock_real_us() / 1000000);
    struct tm tm;
    if (gmtime_r(&now, &tm))
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    int length = snprintf(text, sizeof(text),
                          "node %s (%016llx) knows since %s that it was removed from its "
                          "cluster\n",
                          d->name, (unsigned long long)d->node_id, when);
    return directory_put_file(d->path, DIRECTORY_REMOVED, text, (size_t)length, error);
}

static int read_all(struct directory *d, char error[NODE_ERROR_BYTES])
{
    char *text = NULL, *file = directory_file(d->path, DIRECTORY_CONF);
    int result = file ? 0 : node_error(error, -ENOMEM, "out of memory");
    if (!result)
        result = directory_get_file(d->path, DIRECTORY_CONF, &text, error);
    if (!result)
        result = directory_conf_parse(text, file, d, error);
    if (!result)
        result = directory_get_file(d->path, DIRECTORY_CA, &d->ca_pem, error);
    if (!result)
        result = directory_get_file(d->path, DIRECTORY_CERT, &d->cert_pem, error);
    if (!result)
        result = directory_get_file(d->path, DIRECTORY_KEY, &d->key_pem, error);
    if (result == -ENOENT) /* a file of a node is missing: broken, not "no node here" */
        result = -EBADMSG;
    free(file);
    free(text);
    return result;
}

int directory_take(struct directory *ret, const char *path, char error[NODE_ERROR_BYTES])
{
    int result = 0;
    struct directory *d = calloc(1, sizeof(*d));
    if (!d)
        return node_error(error, -ENOMEM, "out of memory");
    d->lock_fd = -1;
    d->path = realpath(path, NULL);
    if (!d->path)
        result = node_error(error, -errno, "cannot open %s: %s", path, strerror(errno));
    else
        result = directory_lock(d->path, &d->lock_fd, error);
    if (!result)
        result = read_all(d, error);
    if (result)
        directory_release(d);
    else
        *ret = *d;
    free(d);
    return result;
}

int directory_open(struct directory *ret, const char *path, char error[NODE_ERROR_BYTES])
{
    int result = directory_look(path, error);
    return result ? result : directory_take(ret, path, error);
}

int node_identify(const char *data, struct node_identity *ret,
                  char error[NODE_ERROR_BYTES])
{
    int result = directory_look(data, error);
    if (result)
        return result;
    struct directory *d = calloc(1, sizeof(*d));
    char *file = directory_file(data, DIRECTORY_CONF), *text = NULL;
    result = d && file ? 0 : node_error(error, -ENOMEM, "out of memory");
    if (!result)
        result = directory_get_file(data, DIRECTORY_CONF, &text, error);
    if (!result)
        result = directory_conf_parse(text, file, d, error);
    if (!result) {
        ret->id = d->node_id;
        memcpy(ret->cluster, d->cluster_id, sizeof(ret->cluster));
        strcpy(ret->name, d->name);
        strcpy(ret->listen, d->listen);
        strcpy(ret->advertise, d->advertise);
    }
    free(text);
    free(file);
    free(d);
    return result;
}

int directory_write(const struct directory *d, char error[NODE_ERROR_BYTES])
{
    ensure(d->lock_fd >= 0 && d->ca_pem && d->cert_pem && d->key_pem);
    struct buf conf = {0};
    directory_conf_format(d, &conf);
    int result = conf.failed ? node_error(error, -ENOMEM, "out of memory") : 0;
    const char *const files[][2] = {{DIRECTORY_CA, d->ca_pem},
                                    {DIRECTORY_CERT, d->cert_pem},
                                    {DIRECTORY_KEY, d->key_pem}};
    for (size_t i = 0; !result && i < array_length(files); i++)
        result = directory_put_file(d->path, files[i][0], files[i][1],
                                    strlen(files[i][1]), error);
    if (!result) /* N18: last */
        result =
            directory_put_file(d->path, DIRECTORY_CONF, conf.data, conf.length, error);
    buf_release(&conf);
    return result;
}

void directory_release(struct directory *d)
{
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    free(d->path);
    free(d->ca_pem);
    free(d->cert_pem);
    free(d->key_pem);
    d->lock_fd = -1;
    d->path = d->ca_pem = d->cert_pem = d->key_pem = NULL;
}
