/* fuzz.h - what libFuzzer, or replay.c in its place, calls. */
#ifndef TIERCE_FUZZ_H
#define TIERCE_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
