/* version.c - what goes with a version of the protocol (docs/protocol.md, "Versions"). */
#include "node_internal.h"

uint16_t version_oldest(uint16_t newest)
{
    return (uint16_t)max_u64(3, newest - 1u); /* 3: the first that was released */
}

uint32_t version_format(uint16_t version)
{
    return version < 4 ? 1 : 2;
}

uint16_t version_of_format(uint32_t format)
{
    return format < 2 ? 3 : 4;
}
