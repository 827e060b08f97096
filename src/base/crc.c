/* crc.c - the one checksum, by libdeflate (carry-less multiplication where there is). */
#include "base.h"

#include <libdeflate.h>

uint32_t crc32_of(uint32_t crc, const void *data, size_t length)
{
    return length ? libdeflate_crc32(crc, data, length) : crc;
}
