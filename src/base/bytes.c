/* bytes.c - fixed layouts, the bounded reader, hex. */
#include "base.h"

#include <errno.h>

struct reader reader_of(const void *data, size_t length)
{
    ensure(data || length == 0);
    static const uint8_t nothing[1];
    const uint8_t *at = data ? data : nothing;
    return (struct reader){.at = at, .end = at + length};
}

const uint8_t *reader_string(struct reader *r, size_t *ret_length)
{
    size_t length = reader_u16(r);
    const uint8_t *at = reader_bytes(r, length);
    *ret_length = at ? length : 0;
    return at;
}

void reader_cstring(struct reader *r, char *to, size_t size)
{
    size_t length;
    const uint8_t *at = reader_string(r, &length);
    if (!at || length >= size || memchr(at, 0, length)) {
        r->bad = true;
        length = 0;
    }
    if (length)
        memcpy(to, at, length);
    to[length] = 0;
}

bool reader_done(const struct reader *r)
{
    return !r->bad && r->at == r->end;
}

void hex_format(char *to, const void *data, size_t length)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < length; i++) {
        to[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        to[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    to[2 * length] = 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int hex_parse(const char *text, void *to, size_t length)
{
    if (strlen(text) != 2 * length)
        return -EINVAL;
    for (size_t i = 0; i < 2 * length; i++)
        if (hex_digit(text[i]) < 0)
            return -EINVAL;
    uint8_t *bytes = to;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    return 0;
}
