/* mount_options.c - what may stand after -o. */
#include "mount_internal.h"

#include <unistd.h>

enum option_kind {
    OPTION_PASS,    /* libfuse or the kernel takes it */
    OPTION_IGNORE,  /* of fstab and mount(8), or what is so anyway */
    OPTION_DEFAULT, /* seen to elsewhere */
    OPTION_LAX,     /* what is unknown is ignored */
};

static const struct {
    const char *name;
    enum option_kind kind;
} known_options[] = {
    {"ro", OPTION_PASS},
    {"rw", OPTION_PASS},
    {"suid", OPTION_PASS},
    {"nosuid", OPTION_PASS},
    {"dev", OPTION_PASS},
    {"nodev", OPTION_PASS},
    {"exec", OPTION_PASS},
    {"noexec", OPTION_PASS},
    {"sync", OPTION_PASS},
    {"async", OPTION_PASS},
    {"dirsync", OPTION_PASS},
    {"noatime", OPTION_PASS},
    {"allow_other", OPTION_DEFAULT},
    {"allow_root", OPTION_PASS},
    {"default_permissions", OPTION_DEFAULT},
    {"sloppy", OPTION_LAX},
    {"nonempty", OPTION_IGNORE},
    {"atime", OPTION_IGNORE},
    {"diratime", OPTION_IGNORE},
    {"nodiratime", OPTION_IGNORE}, /* libfuse does not know it */
    {"relatime", OPTION_IGNORE},
    {"norelatime", OPTION_IGNORE},
    {"strictatime", OPTION_IGNORE},
    {"nostrictatime", OPTION_IGNORE},
    {"lazytime", OPTION_IGNORE},
    {"nolazytime", OPTION_IGNORE},
    {"iversion", OPTION_IGNORE},
    {"noiversion", OPTION_IGNORE},
    {"mand", OPTION_IGNORE},
    {"nomand", OPTION_IGNORE},
    {"acl", OPTION_IGNORE},
    {"defaults", OPTION_IGNORE},
    {"auto", OPTION_IGNORE},
    {"noauto", OPTION_IGNORE},
    {"user", OPTION_IGNORE},
    {"nouser", OPTION_IGNORE},
    {"users", OPTION_IGNORE},
    {"nousers", OPTION_IGNORE},
    {"owner", OPTION_IGNORE},
    {"noowner", OPTION_IGNORE},
    {"group", OPTION_IGNORE},
    {"nogroup", OPTION_IGNORE},
    {"nofail", OPTION_IGNORE},
    {"_netdev", OPTION_IGNORE},
    {"silent", OPTION_IGNORE},
    {"loud", OPTION_IGNORE},
};

/* Of mount(8), for itself, with a value that is nothing to us; and of file systems with FUSE,
 * what is said here by the source and the type, and how much a READ asks for. */
static const char *const ignored_values[] = {
    "x-",       "X-",      "comment=", "user=",    "helper=",
    "uhelper=", "fsname=", "subtype=", "max_read="};

static bool has_prefix(const char *name, size_t size, const char *prefix)
{
    size_t length = strlen(prefix);
    return size >= length && memcmp(name, prefix, length) == 0;
}

static bool is_ignored(const char *name, size_t size)
{
    for (size_t i = 0; i < array_length(ignored_values); i++)
        if (has_prefix(name, size, ignored_values[i]))
            return true;
    return !size;
}

/* The number behind "NAME="; false: it is none, or beyond `most`. */
static bool option_number(const char *text, size_t size, int base, uint64_t most,
                          uint32_t *ret)
{
    const char *digits = base == 8 ? "01234567" : "0123456789";
    uint64_t value = 0;
    for (size_t i = 0; i < size && value <= most; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (!digit)
            return false;
        value = value * (uint64_t)base + (uint64_t)(digit - digits);
    }
    if (!size || value > most)
        return false;
    *ret = (uint32_t)value;
    return true;
}

/* uid=, gid=, umask=, noacl. 0: it is none of them. */
static int option_shown(const char *name, size_t size, struct mount_shown *to)
{
    bool good;
    if (has_prefix(name, size, "uid=")) {
        good = option_number(name + 4, size - 4, 10, UINT32_MAX - 1, &to->uid);
        to->has_uid = true;
    } else if (has_prefix(name, size, "gid=")) {
        good = option_number(name + 4, size - 4, 10, UINT32_MAX - 1, &to->gid);
        to->has_gid = true;
    } else if (has_prefix(name, size, "umask=")) {
        good = option_number(name + 6, size - 6, 8, 0777, &to->umask);
        to->has_umask = true;
    } else if (size == 5 && memcmp(name, "noacl", size) == 0) {
        good = true;
    } else {
        return 0;
    }
    to->no_acl = true; /* the others too: nothing but what they say is to count */
    return good ? 1 : -EINVAL;
}

static int option_add(const char *name, size_t size, bool lax, struct buf *to,
                      struct mount_shown *shown, char error[FS_ERROR_BYTES])
{
    if (is_ignored(name, size))
        return 0;
    for (size_t i = 0; i < array_length(known_options); i++) {
        const char *known = known_options[i].name;
        if (strlen(known) != size || memcmp(known, name, size))
            continue;
        if (known_options[i].kind == OPTION_PASS)
            buf_printf(to, ",%s", known);
        return 0;
    }
    int result = option_shown(name, size, shown);
    if (result > 0 || (!result && lax))
        return 0;
    int length = (int)min_u64(size, 100);
    if (result)
        snprintf(error, FS_ERROR_BYTES,
                 "mount option \"%.*s\" has a bad value: uid and gid are numbers, umask "
                 "an octal number up to 777",
                 length, name);
    else
        snprintf(error, FS_ERROR_BYTES,
                 "mount option \"%.*s\" is unknown; known are ro, rw, nosuid, nodev, "
                 "noexec, sync, dirsync, noatime, nodiratime, noacl and their opposites, "
                 "allow_other, allow_root, uid, gid, umask",
                 length, name);
    return -EINVAL;
}

static bool option_given(const char *options, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = options; at && *at;) {
        size_t length = strcspn(at, ",");
        if (length == size && memcmp(at, name, size) == 0)
            return true;
        at += length + (at[length] == ',');
    }
    return false;
}

/* libfuse ends an option's value at a comma, and takes a backslash before one. */
static void add_escaped(struct buf *to, const char *text)
{
    for (; *text; text++) {
        if (*text == ',' || *text == '\\')
            buf_u8(to, '\\');
        buf_u8(to, (uint8_t)*text);
    }
}

/* Root's mounts are for all, unless they are to be for root and one more. */
static bool is_for_all(const char *options)
{
    return option_given(options, "allow_other") ||
           (geteuid() == 0 && !option_given(options, "allow_root"));
}

int mount_options_parse(const struct fs_mount_options *options, char **ret,
                        struct mount_shown *ret_shown, char error[FS_ERROR_BYTES])
{
    struct buf out = {0};
    struct mount_shown shown = {0};
    int result = 0;
    bool lax = option_given(options->options, "sloppy");
    buf_printf(&out, "-osubtype=tierce,default_permissions,fsname=");
    add_escaped(&out, options->source ? options->source : "tierce");
    if (is_for_all(options->options))
        buf_printf(&out, ",allow_other");
    for (const char *at = options->options; at && *at && !result;) {
        size_t length = strcspn(at, ",");
        result = option_add(at, length, lax, &out, &shown, error);
        at += length + (at[length] == ',');
    }
    buf_u8(&out, 0);
    if (!result && out.failed) {
        snprintf(error, FS_ERROR_BYTES, "out of memory");
        result = -ENOMEM;
    }
    if (result) {
        buf_release(&out);
        return result;
    }
    *ret = (char *)out.data;
    *ret_shown = shown;
    return 0;
}
