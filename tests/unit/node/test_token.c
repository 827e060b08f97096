/* test_token.c - tokens as text, and each way they can be malformed. */
#include "common.h"

#include <errno.h>

static struct token example(void)
{
    struct token t = {.id = 0x0123456789abcdef, .addresses = "10.0.0.1:7370,[::1]:7371"};
    for (int i = 0; i < WIRE_HASH_BYTES; i++)
        t.ca_hash[i] = (uint8_t)i;
    memset(t.secret, 0x5a, sizeof(t.secret));
    return t;
}

static void test_comes_back(void **state)
{
    struct token t = example(), back = {0};
    char error[NODE_ERROR_BYTES] = "", *text = token_format(&t);
    assert_non_null(text);
    assert_int_equal(token_parse(text, &back, error), 0);
    assert_memory_equal(back.ca_hash, t.ca_hash, sizeof(t.ca_hash));
    assert_memory_equal(back.secret, t.secret, sizeof(t.secret));
    assert_int_equal(back.id, t.id);
    assert_string_equal(back.addresses, t.addresses);
    free(text);
}

/* The text is what other versions will read: kept byte for byte. */
static void test_layout(void **state)
{
    struct token t = example();
    char *text = token_format(&t), *at = strchr(text, '@');
    assert_memory_equal(text,
                        "tierce1:000102030405060708090a0b0c0d0e0f"
                        "101112131415161718191a1b1c1d1e1fefcdab8967452301"
                        "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
                        8 + 2 * 56);
    assert_int_equal(at - text, 8 + 2 * 60);
    assert_string_equal(at, "@10.0.0.1:7370,[::1]:7371");
    free(text);
}

static void refuse(const char *text, const char *says)
{
    struct token untouched = {0};
    char error[NODE_ERROR_BYTES] = "";
    assert_int_equal(token_parse(text, &untouched, error), -EINVAL);
    assert_says(error, "the token is malformed: ");
    assert_says(error, says);
    assert_says(error, "`tierce invite`");
    assert_int_equal(untouched.id, 0);
}

static void test_each_way_to_be_malformed(void **state)
{
    struct token t = example();
    char *good = token_format(&t), text[2 * TOKEN_TEXT_BYTES];
    size_t body = 8 + 2 * 60; /* up to the @ */
    refuse("", "does not begin with tierce1:");
    refuse("tierce2:00@a:1", "does not begin with tierce1:");
    refuse("tierce1:", "it has no @ADDRESS");
    refuse("tierce1:00@a:1", "digits are missing");
    snprintf(text, sizeof(text), "%.*s", (int)body, good);
    refuse(text, "it has no @ADDRESS");
    snprintf(text, sizeof(text), "%.*s00%s", (int)body, good, good + body);
    refuse(text, "too many digits");
    static const struct {
        const char *addresses, *says;
    } rows[] = {
        {"", "not a list of HOST:PORT"},
        {"a", "not a list of HOST:PORT"},
        {"a:1,", "not a list of HOST:PORT"},
        {"a:1,,b:1", "not a list of HOST:PORT"},
        {"a:1 b:1", "not a list of HOST:PORT"},
        {"a:0", "not a list of HOST:PORT"},
        {"a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1", "too many addresses"},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        snprintf(text, sizeof(text), "%.*s@%s", (int)body, good, rows[i].addresses);
        refuse(text, rows[i].says);
    }
    snprintf(text, sizeof(text), "%.*s@%0400d:1", (int)body, good, 1);
    refuse(text, "an address is too long");
    free(good);
}

/* No digit can be changed or left out unseen. */
static void test_every_digit_is_checked(void **state)
{
    struct token t = example(), back;
    char *good = token_format(&t), error[NODE_ERROR_BYTES];
    for (size_t i = 8; good[i] != '@'; i++) {
        char was = good[i];
        good[i] = was == '0' ? '1' : '0';
        assert_int_equal(token_parse(good, &back, error), -EINVAL);
        assert_says(error, "checksum");
        good[i] = 'g';
        assert_int_equal(token_parse(good, &back, error), -EINVAL);
        assert_says(error, "hexadecimal");
        good[i] = was;
    }
    for (size_t length = 0; length <= (size_t)(strchr(good, '@') - good); length++) {
        char cut[TOKEN_TEXT_BYTES];
        snprintf(cut, sizeof(cut), "%.*s", (int)length, good);
        assert_int_equal(token_parse(cut, &back, error), -EINVAL);
    }
    free(good);
}

static void test_addresses_are_bounded_and_once(void **state)
{
    struct token t = {0}, back;
    char longest[LIMIT_ADDRESS_BYTES + 1], error[NODE_ERROR_BYTES] = "";
    token_add_address(&t, "a:1");
    token_add_address(&t, "a:12");
    token_add_address(&t, "a:1");
    assert_string_equal(t.addresses, "a:1,a:12");
    t.addresses[0] = 0;
    for (int i = 0; i < TOKEN_ADDRESSES + 2; i++) {
        memset(longest, 'a' + i, sizeof(longest));
        memcpy(longest + LIMIT_NAME_BYTES - 2, ":1", 3);
        token_add_address(&t, longest);
    }
    char *text = token_format(&t);
    assert_true(strlen(text) < TOKEN_TEXT_BYTES);
    assert_int_equal(token_parse(text, &back, error), 0);
    assert_string_equal(back.addresses, t.addresses);
    assert_null(strchr(t.addresses, 'a' + TOKEN_ADDRESSES));
    free(text);
}

static void test_make_is_fresh_and_of_the_ca(void **state)
{
    uint8_t cluster[WIRE_CLUSTER_ID_BYTES] = {1}, hash[WIRE_HASH_BYTES];
    char *key = NULL, *cert = NULL;
    struct token a, b;
    assert_int_equal(wire_pki_make_ca(cluster, &key, &cert), 0);
    assert_int_equal(token_make(cert, &a), 0);
    assert_int_equal(token_make(cert, &b), 0);
    assert_int_equal(wire_pki_fingerprint(cert, hash), 0);
    assert_memory_equal(a.ca_hash, hash, sizeof(hash));
    assert_int_not_equal(a.id, b.id);
    assert_memory_not_equal(a.secret, b.secret, sizeof(a.secret));
    assert_int_not_equal(a.id, 0);
    free(key);
    free(cert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_each_way_to_be_malformed),
        cmocka_unit_test(test_every_digit_is_checked),
        cmocka_unit_test(test_addresses_are_bounded_and_once),
        cmocka_unit_test(test_make_is_fresh_and_of_the_ca),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
