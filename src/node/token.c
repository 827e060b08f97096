/* token.c - the line that lets a host in: whom to ask, how to know them, and the secret.
 */
#include "node_internal.h"

#include <errno.h>

#define TOKEN_PREFIX "tierce1:"

enum {
    TOKEN_BODY = WIRE_HASH_BYTES + 8 + NODE_SECRET_BYTES,
    TOKEN_BYTES = TOKEN_BODY + 4
};

_Static_assert(sizeof(TOKEN_PREFIX) + 2 * TOKEN_BYTES + 1 +
                       sizeof(((struct token *)0)->addresses) <=
                   TOKEN_TEXT_BYTES,
               "a token with all its addresses fits");

static int bad_token(char error[NODE_ERROR_BYTES], const char *what)
{
    return node_error(
        error, -EINVAL,
        "the token is malformed: %s; copy the whole line that `tierce invite` "
        "prints on a node of the cluster",
        what);
}

static int parse_addresses(const char *text, struct token *ret,
                           char error[NODE_ERROR_BYTES])
{
    size_t count = 0;
    for (;;) {
        size_t length = strcspn(text, ",");
        char address[LIMIT_ADDRESS_BYTES + 1];
        if (length >= sizeof(address))
            return bad_token(error, "an address is too long");
        memcpy(address, text, length);
        address[length] = 0;
        if (!node_address_valid(address))
            return bad_token(error, "what follows the @ is not a list of HOST:PORT");
        if (++count > TOKEN_ADDRESSES)
            return bad_token(error, "it has too many addresses");
        token_add_address(ret, address);
        if (!text[length])
            return 0;
        text += length + 1;
    }
}

char *token_format(const struct token *token)
{
    uint8_t bytes[TOKEN_BYTES];
    memcpy(bytes, token->ca_hash, WIRE_HASH_BYTES);
    put_u64(bytes + WIRE_HASH_BYTES, token->id);
    memcpy(bytes + WIRE_HASH_BYTES + 8, token->secret, NODE_SECRET_BYTES);
    put_u32(bytes + TOKEN_BODY, crc32_of(0, bytes, TOKEN_BODY));
    char hex[2 * TOKEN_BYTES + 1];
    hex_format(hex, bytes, sizeof(bytes));
    char *text = NULL;
    if (asprintf(&text, TOKEN_PREFIX "%s@%s", hex, token->addresses) < 0)
        return NULL;
    return text;
}

int token_parse(const char *text, struct token *ret, char error[NODE_ERROR_BYTES])
{
    size_t prefix = strlen(TOKEN_PREFIX);
    if (strncmp(text, TOKEN_PREFIX, prefix))
        return bad_token(error, "it does not begin with " TOKEN_PREFIX);
    text += prefix;
    size_t digits = strcspn(text, "@");
    if (!text[digits])
        return bad_token(error, "it has no @ADDRESS, its end is missing");
    if (digits != 2 * TOKEN_BYTES)
        return bad_token(error, digits < 2 * TOKEN_BYTES
                                    ? "digits are missing before the @"
                                    : "there are too many digits");
    char hex[2 * TOKEN_BYTES + 1];
    memcpy(hex, text, digits);
    hex[digits] = 0;
    uint8_t bytes[TOKEN_BYTES];
    if (hex_parse(hex, bytes, sizeof(bytes)))
        return bad_token(error, "what precedes the @ is not all hexadecimal digits");
    if (get_u32(bytes + TOKEN_BODY) != crc32_of(0, bytes, TOKEN_BODY))
        return bad_token(error, "its checksum is wrong, a digit was changed");
    struct token token = {.id = get_u64(bytes + WIRE_HASH_BYTES)};
    memcpy(token.ca_hash, bytes, WIRE_HASH_BYTES);
    memcpy(token.secret, bytes + WIRE_HASH_BYTES + 8, NODE_SECRET_BYTES);
    int result = parse_addresses(text + digits + 1, &token, error);
    if (!result)
        *ret = token;
    return result;
}

int token_make(const char *ca_pem, struct token *ret)
{
    struct token token = {0};
    int result = wire_pki_fingerprint(ca_pem, token.ca_hash);
    if (result)
        return result;
    while (!token.id)
        token.id = random_u64();
    random_bytes(token.secret, sizeof(token.secret));
    *ret = token;
    return 0;
}

void token_add_address(struct token *token, const char *address)
{
    size_t length = strlen(address), count = 0;
    const char *at = token->addresses;
    while (*at) {
        size_t other = strcspn(at, ",");
        if (other == length && !memcmp(at, address, length))
            return;
        count++;
        at += other + (at[other] == ',');
    }
    if (count == TOKEN_ADDRESSES)
        return;
    size_t used = (size_t)(at - token->addresses);
    ensure(length <= LIMIT_ADDRESS_BYTES && used + 1 + length < sizeof(token->addresses));
    snprintf(token->addresses + used, sizeof(token->addresses) - used, "%s%s",
             used ? "," : "", address);
}
