/* mount_options.c - what may stand after -o. */
#include "mount_internal.h"

#include <unistd.h>

enum option_kind {
    OPTION_PASS,    /* libfuse or the kernel takes it */
    OPTION_IGNORE,  /* of fstab and mount(8), or what is so anyway */
    OPTION_DEFAULT, /* passed already */
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
    {"nodiratime", OPTION_PASS},
    {"allow_other", OPTION_PASS},
    {"default_permissions", OPTION_DEFAULT},
    {"atime", OPTION_IGNORE},
    {"diratime", OPTION_IGNORE},
    {"relatime", OPTION_IGNORE},
    {"norelatime", OPTION_IGNORE},
    {"strictatime", OPTION_IGNORE},
    {"nostrictatime", OPTION_IGNORE},
    {"lazytime", OPTION_IGNORE},
    {"nolazytime", OPTION_IGNORE},
    {"defaults", OPTION_IGNORE},
    {"auto", OPTION_IGNORE},
    {"noauto", OPTION_IGNORE},
    {"user", OPTION_IGNORE},
    {"nouser", OPTION_IGNORE},
    {"users", OPTION_IGNORE},
    {"nofail", OPTION_IGNORE},
    {"_netdev", OPTION_IGNORE},
};

static int option_add(const char *name, size_t size, struct buf *to,
                      char error[FS_ERROR_BYTES])
{
    if (!size || (size > 2 && memcmp(name, "x-", 2) == 0))
        return 0;
    for (size_t i = 0; i < array_length(known_options); i++) {
        const char *known = known_options[i].name;
        if (strlen(known) != size || memcmp(known, name, size))
            continue;
        if (known_options[i].kind == OPTION_PASS)
            buf_printf(to, ",%s", known);
        return 0;
    }
    snprintf(error, FS_ERROR_BYTES,
             "mount option \"%.*s\" is unknown; known are ro, rw, nosuid, nodev, noexec, "
             "sync, dirsync, noatime, allow_other and their opposites",
             (int)min_u64(size, 100), name);
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

int mount_options_parse(const struct fs_mount_options *options, char **ret,
                        char error[FS_ERROR_BYTES])
{
    struct buf out = {0};
    int result = 0;
    buf_printf(&out, "-osubtype=tierce,default_permissions,fsname=");
    add_escaped(&out, options->source ? options->source : "tierce");
    if (geteuid() == 0 && !option_given(options->options, "allow_other"))
        buf_printf(&out, ",allow_other");
    for (const char *at = options->options; at && *at && !result;) {
        size_t length = strcspn(at, ",");
        result = option_add(at, length, &out, error);
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
    return 0;
}
