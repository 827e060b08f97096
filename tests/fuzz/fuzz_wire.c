/*
 * fuzz_wire.c - the decoders of bytes from the network. The first byte of the input
 * chooses:
 *
 *   'h'  the value of a HELLO
 *   'r'  the value of a REFUSAL
 *   'a'  an address as a user writes it
 *   'f'  kind u8, then frames as such a peer may send them
 *   'l'  bytes on the control socket of a node
 *
 * A finding is a crash, a sanitizer's report, or a property below that does not hold.
 */
#include "wire_internal.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_hello(const uint8_t *data, size_t size)
{
    struct wire_hello hello;
    if (wire_hello_decode(data, size, &hello) < 0)
        return;
    struct buf again = {0};
    wire_hello_encode(&hello, &again);
    ensure(again.length == size || hello.version > WIRE_PROTOCOL_VERSION);
    ensure(again.length <= size && memcmp(again.data, data, again.length) == 0);
    buf_release(&again);
}

static void fuzz_refusal(const uint8_t *data, size_t size)
{
    enum wire_refusal reason;
    char text[WIRE_ERROR_BYTES];
    if (refusal_decode(data, size, &reason, text) < 0)
        return;
    ensure(reason > WIRE_REFUSAL_NONE && reason <= WIRE_REFUSAL_OTHER);
    ensure(strlen(text) == size - 3);
    for (const char *at = text; *at; at++)
        ensure((unsigned char)*at >= ' ' && *at != 0x7f);
}

static void fuzz_address(const uint8_t *data, size_t size)
{
    char host[LIMIT_ADDRESS_BYTES + 1];
    uint16_t port;
    char *text = malloc(size + 1);
    ensure(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    if (wire_address_split(text, WIRE_DEFAULT_PORT, host, &port) == 0)
        ensure(strlen(host) <= strlen(text) && !strpbrk(host, "[]/ "));
    free(text);
}

/* What a connection does with its input, without the connection. */
static void fuzz_frames(const uint8_t *data, size_t size)
{
    struct reader r = reader_of(data, size);
    enum wire_peer_kind kind = reader_u8(&r) % 3;
    enum frame_phase phase = kind == WIRE_PEER_LOCAL ? PHASE_OPEN : PHASE_HELLO;
    while (reader_left(&r) >= WIRE_FRAME_HEADER) {
        uint8_t bytes[WIRE_FRAME_HEADER];
        struct frame_header h = frame_header_get(reader_bytes(&r, WIRE_FRAME_HEADER));
        frame_header_put(bytes, h);
        ensure(memcmp(bytes, r.at - WIRE_FRAME_HEADER, WIRE_FRAME_HEADER) == 0);
        enum frame_verdict verdict = frame_judge(kind, phase, &h);
        if (verdict == FRAME_TOO_LONG || verdict == FRAME_REFUSED)
            return;
        ensure(h.length <= LIMIT_FRAME_BYTES);
        ensure(kind != WIRE_PEER_JOINER || h.length <= LIMIT_JOIN_FRAME_BYTES);
        ensure(kind == WIRE_PEER_LOCAL || h.type != WIRE_CONTROL ||
               verdict == FRAME_SKIPPED);
        const uint8_t *value = reader_bytes(&r, h.length);
        if (!value)
            return;
        if (verdict == FRAME_IS_HELLO)
            fuzz_hello(value, h.length);
        if (verdict == FRAME_IS_REFUSAL)
            return fuzz_refusal(value, h.length);
        phase = kind == WIRE_PEER_JOINER && verdict == FRAME_DELIVERED ? PHASE_JOINED
                                                                       : PHASE_OPEN;
    }
}

/* ---- A node's control socket ----------------------------------------------------- */

static void echo(void *context, struct wire_connection *c, const struct wire_frame *frame)
{
    ensure(frame->type == WIRE_CONTROL);
    if (frame->length && frame->value[0] == 'x')
        wire_close(c);
    else if (frame->length && frame->value[0] == 'r')
        wire_refuse(c, "it asked for it");
    else
        wire_send_bytes(c, WIRE_CONTROL_ANSWER, frame->stream, frame->value,
                        frame->length);
}

static struct event_base *loop;
static struct wire_endpoint *node;

static void make_node(void)
{
    struct wire_identity identity = {.node_id = 1};
    struct wire_hello hello = {.node_id = 1};
    struct wire_handlers handlers = {.frame = echo};
    char error[WIRE_ERROR_BYTES], *ca_key, *ca, *key, *request, *cert;
    ensure(wire_pki_make_ca(identity.cluster_id, &ca_key, &ca) == 0);
    ensure(wire_pki_make_key(&key) == 0);
    ensure(wire_pki_make_request(key, &request) == 0);
    ensure(wire_pki_sign(ca_key, ca, request, identity.cluster_id, 1, "", 3600, &cert) == 0);
    identity.ca_pem = ca;
    identity.cert_pem = cert;
    identity.key_pem = key;
    loop = event_base_new();
    ensure(loop);
    ensure(wire_endpoint_new(&node, loop, &identity, &hello, &handlers, error) == 0);
    free(ca_key);
    free(ca);
    free(key);
    free(request);
    free(cert);
}

static void fuzz_local(const uint8_t *data, size_t size)
{
    int pair[2];
    uint8_t sink[4096];
    if (!node)
        make_node();
    ensure(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    endpoint_accept_local(node, pair[0]);
    while (size) {
        ssize_t n = send(pair[1], data, size, MSG_NOSIGNAL);
        event_base_loop(loop, EVLOOP_NONBLOCK);
        if (n < 0 && errno != EAGAIN)
            break;
        data += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
        while (recv(pair[1], sink, sizeof(sink), 0) > 0)
            ;
    }
    close(pair[1]);
    while (!TAILQ_EMPTY(&node->connections))
        event_base_loop(loop, EVLOOP_ONCE);
    event_base_loop(loop, EVLOOP_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0]) {
    case 'h':
        fuzz_hello(data + 1, size - 1);
        break;
    case 'r':
        fuzz_refusal(data + 1, size - 1);
        break;
    case 'a':
        fuzz_address(data + 1, size - 1);
        break;
    case 'f':
        fuzz_frames(data + 1, size - 1);
        break;
    case 'l':
        fuzz_local(data + 1, size - 1);
        break;
    default:
        break;
    }
    return 0;
}
