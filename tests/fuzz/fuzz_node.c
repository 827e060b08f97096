/*
 * fuzz_node.c - what nodes say to each other, and the state kept with what is merged. The
 * first byte of the input chooses:
 *
 *   'm'  a consensus message; the next byte is its frame type
 *   'o'  an OPERATION      'a'  an ANSWER
 *   'q'  a FETCH           'f'  a FETCHED
 *   's'  the node's state (docs/format.md)
 *
 * What decodes encodes to the same bytes, where there is one way to write it.
 */
#include "fuzz.h"
#include "node_core.h"

static void expect_same(struct buf *again, const uint8_t *data, size_t size)
{
    ensure(!again->failed && again->length == size &&
           memcmp(again->data, data, size) == 0);
    buf_release(again);
}

static void fuzz_message(const uint8_t *data, size_t size)
{
    struct raft_message m;
    const uint8_t *rest;
    size_t rest_length;
    uint64_t clock_us;
    if (size == 0 || message_decode(data[0], data + 1, size - 1, &m, &rest, &rest_length,
                                    &clock_us) < 0)
        return;
    ensure(rest_length <= size - 1);
    if (data[0] == WIRE_RAFT_APPEND_REPLY) /* tells the time when it is encoded */
        return;
    struct buf again = {0};
    ensure(message_encode(&m, &again) == data[0]);
    buf_bytes(&again, rest, rest_length);
    expect_same(&again, data + 1, size - 1);
}

static void fuzz_operation(const uint8_t *data, size_t size)
{
    struct operation_head head;
    const uint8_t *op;
    size_t length;
    if (operation_decode(data, size, &head, &op, &length) < 0)
        return;
    struct buf again = {0};
    operation_encode(&head, op, length, &again);
    expect_same(&again, data, size);
}

static void fuzz_answer(const uint8_t *data, size_t size)
{
    struct answer a;
    if (answer_decode(data, size, &a) < 0)
        return;
    struct buf again = {0};
    answer_encode(&a, &again);
    expect_same(&again, data, size);
}

static void fuzz_fetch(const uint8_t *data, size_t size)
{
    struct fetch_request q;
    if (fetch_request_decode(data, size, &q) < 0)
        return;
    struct buf again = {0};
    fetch_request_encode(&q, &again);
    expect_same(&again, data, size);
}

static void fuzz_fetched(const uint8_t *data, size_t size)
{
    uint64_t id;
    int error;
    const uint8_t *bytes;
    size_t length;
    if (fetch_answer_decode(data, size, &id, &error, &bytes, &length) < 0)
        return;
    uint8_t head[FETCH_HEAD_BYTES];
    fetch_answer_head(head, id, error);
    ensure(length == size - sizeof(head) && memcmp(head, data, sizeof(head)) == 0);
}

/* Sessions and slots have no one order: it loads again, to the same length. */
static void fuzz_state(const uint8_t *data, size_t size)
{
    struct node *n = calloc(1, sizeof(*n));
    struct buf again = {0};
    ensure(n);
    if (state_load(n, data, size) == 0) {
        ensure(state_save(n, &again) == 0 && again.length == size);
        ensure(state_load(n, again.data, again.length) == 0);
    }
    sessions_release(n);
    buf_release(&again);
    free(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    void (*const kinds[256])(const uint8_t *data, size_t size) = {
        ['m'] = fuzz_message, ['o'] = fuzz_operation, ['a'] = fuzz_answer,
        ['q'] = fuzz_fetch,   ['f'] = fuzz_fetched,   ['s'] = fuzz_state,
    };
    if (kinds[data[0]])
        kinds[data[0]](data + 1, size - 1);
    return 0;
}
