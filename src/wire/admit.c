/* admit.c - whether a peer that has said HELLO is let in, and what it is told if not. */
#include "wire_internal.h"

void connection_refuse(struct wire_connection *c, enum wire_refusal reason,
                       const char *text)
{
    if (!c->unwelcome) /* that was counted when it became so */
        c->endpoint->counters.refused_hellos++;
    if (c->kind == WIRE_PEER_JOINER && !c->joined) {
        connection_fail(c, "refused: %s", text);
        return;
    }
    connection_send_refusal(c, reason, text);
    if (c->state >= CONNECTION_FAILED)
        return;
    snprintf(c->reason, sizeof(c->reason), "refused: %.500s", text);
    c->refused = true;
    connection_close_after_sending(c);
}

static void range_text(uint16_t oldest, uint16_t newest, char to[32])
{
    if (oldest >= newest) /* above: of a program that says its version only */
        snprintf(to, 32, "version %u", newest);
    else
        snprintf(to, 32, "versions %u to %u", oldest, newest);
}

/* Whether both speak a version; its first two fields are the same in every one. */
static bool check_version(struct wire_connection *c, const struct wire_frame *frame)
{
    const struct wire_hello *own = &c->endpoint->hello;
    if (frame->length < 4)
        return true; /* malformed, as its decoder will say */
    uint16_t newest = get_u16(frame->value), oldest = get_u16(frame->value + 2);
    if (newest >= own->oldest && oldest <= own->version)
        return true;
    char ours[32], theirs[32], text[WIRE_ERROR_BYTES];
    range_text(own->oldest, own->version, ours);
    range_text(oldest, newest, theirs);
    snprintf(text, sizeof(text),
             "%s speaks protocol %s, the other %s: upgrade the older one's program",
             own->name, ours, theirs);
    if (c->kind == WIRE_PEER_JOINER) {
        c->endpoint->counters.refused_hellos++;
        c->unwelcome = true;
        c->state = CONNECTION_OPEN; /* for its JOIN */
        memcpy(c->reason, text, sizeof(c->reason));
    } else {
        connection_refuse(c, WIRE_REFUSAL_VERSION, text);
    }
    return false;
}

/* Whether this HELLO is of our cluster, and of the node the certificate is of (W5). */
static bool check_hello(struct wire_connection *c, const struct wire_frame *frame,
                        struct wire_hello *ret)
{
    if (wire_hello_decode(frame->value, frame->length, ret) < 0) {
        c->endpoint->counters.malformed_frames++;
        connection_fail(c, "%s sent a malformed HELLO", c->peer);
    } else if (memcmp(ret->cluster_id, c->endpoint->hello.cluster_id,
                      sizeof(ret->cluster_id)) != 0) {
        connection_refuse(c, WIRE_REFUSAL_OTHER, "its HELLO is of another cluster");
    } else if (ret->node_id != c->peer_id) {
        connection_refuse(c, WIRE_REFUSAL_OTHER,
                          "its HELLO is of another node than its certificate says");
    } else {
        return true;
    }
    return false;
}

/* The user's word on it. */
static bool check_admitted(struct wire_connection *c, const struct wire_hello *hello)
{
    const struct wire_handlers *h = &c->endpoint->handlers;
    char text[WIRE_ERROR_BYTES] = "";
    if (c->kind != WIRE_PEER_NODE || !h->admit)
        return true;
    int reason = h->admit(h->context, c, hello, text);
    if (c->state != CONNECTION_HELLO)
        return false;
    if (reason != WIRE_REFUSAL_NONE)
        connection_refuse(c, (enum wire_refusal)reason, text);
    return reason == WIRE_REFUSAL_NONE;
}

bool connection_admits(struct wire_connection *c, const struct wire_frame *frame,
                       struct wire_hello *ret)
{
    return check_version(c, frame) && check_hello(c, frame, ret) &&
           check_admitted(c, ret);
}
