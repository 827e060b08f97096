/*
 * frame.c - the frame's header, and who may send which frame when.
 *
 *   type u8 | stream u16 | length u32 | value: `length` bytes        (little-endian)
 *
 * Valid: length is at most LIMIT_FRAME_BYTES, or LIMIT_JOIN_FRAME_BYTES from a peer that
 * has not said HELLO or has no certificate (W1).
 */
#include "wire_internal.h"

enum { FROM_NODE = 1 << WIRE_PEER_NODE, FROM_LOCAL = 1 << WIRE_PEER_LOCAL };

/* HELLO, REFUSAL and JOIN have their own rules below. */
static const uint8_t accepted_from[256] = {
    [WIRE_ERROR] = FROM_NODE,
    [WIRE_RAFT_VOTE] = FROM_NODE,
    [WIRE_RAFT_VOTE_REPLY] = FROM_NODE,
    [WIRE_RAFT_APPEND] = FROM_NODE,
    [WIRE_RAFT_APPEND_REPLY] = FROM_NODE,
    [WIRE_RAFT_TIMEOUT_NOW] = FROM_NODE,
    [WIRE_RAFT_SNAPSHOT] = FROM_NODE,
    [WIRE_OPERATION] = FROM_NODE,
    [WIRE_ANSWER] = FROM_NODE,
    [WIRE_FETCH] = FROM_NODE,
    [WIRE_FETCHED] = FROM_NODE,
    [WIRE_CONTROL] = FROM_LOCAL,
};

void frame_header_put(uint8_t to[WIRE_FRAME_HEADER], struct frame_header header)
{
    to[0] = header.type;
    put_u16(to + 1, header.stream);
    put_u32(to + 3, header.length);
}

struct frame_header frame_header_get(const uint8_t from[WIRE_FRAME_HEADER])
{
    return (struct frame_header){
        .type = from[0], .stream = get_u16(from + 1), .length = get_u32(from + 3)};
}

static uint32_t length_limit(enum wire_peer_kind kind, enum frame_phase phase)
{
    return kind == WIRE_PEER_JOINER || phase == PHASE_HELLO ? LIMIT_JOIN_FRAME_BYTES
                                                            : LIMIT_FRAME_BYTES;
}

enum frame_verdict frame_judge(enum wire_peer_kind kind, enum frame_phase phase,
                               const struct frame_header *header)
{
    if (header->length > length_limit(kind, phase))
        return FRAME_TOO_LONG;
    if (header->type == WIRE_REFUSAL && kind == WIRE_PEER_NODE)
        return FRAME_IS_REFUSAL;
    if (phase == PHASE_HELLO)
        return header->type == WIRE_HELLO ? FRAME_IS_HELLO : FRAME_REFUSED;
    if (kind == WIRE_PEER_JOINER)
        return header->type == WIRE_JOIN && phase == PHASE_OPEN ? FRAME_DELIVERED
                                                                : FRAME_REFUSED;
    if (header->type == WIRE_HELLO && kind == WIRE_PEER_NODE)
        return FRAME_REFUSED;
    if (header->type == WIRE_ERROR && kind == WIRE_PEER_NODE && header->length != 1)
        return FRAME_REFUSED;
    return accepted_from[header->type] & 1 << kind ? FRAME_DELIVERED : FRAME_SKIPPED;
}
