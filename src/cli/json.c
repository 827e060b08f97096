/* json.c - strings in JSON. */
#include "cli.h"

/* Bytes of the UTF-8 character that begins at `at`; 0: none does. */
static size_t utf8_length(const unsigned char *at)
{
    size_t length = at[0] < 0x80   ? 1
                    : at[0] < 0xc2 ? 0
                    : at[0] < 0xe0 ? 2
                    : at[0] < 0xf0 ? 3
                    : at[0] < 0xf5 ? 4
                                   : 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
        (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    return length;
}

void cli_json_string(struct buf *to, const char *text)
{
    buf_u8(to, '"');
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t length = utf8_length(at);
        if (length == 0)
            buf_bytes(to, "\\ufffd", 6);
        else if (*at == '"' || *at == '\\')
            buf_printf(to, "\\%c", *at);
        else if (*at < ' ' || *at == 0x7f)
            buf_printf(to, "\\u%04x", *at);
        else
            buf_bytes(to, at, length);
        at += length ? length : 1;
    }
    buf_u8(to, '"');
}
