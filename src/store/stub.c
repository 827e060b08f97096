#include "store_internal.h"
void scrub_suspect(struct store *s, struct segment *segment) { (void)s; atomic_store(&segment->suspect, true); }
