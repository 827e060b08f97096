#include "store_internal.h"
bool task_stop(struct store *s) { (void)s; return true; }
struct store_pin { uint64_t first; };
int store_pin_log(struct store *s, uint64_t first, struct store_pin **ret) { (void)s; (void)first; *ret = NULL; return 0; }
void store_unpin_log(struct store *s, struct store_pin *pin) { (void)s; (void)pin; }
void scrub_suspect(struct store *s, struct segment *segment) { (void)s; atomic_store(&segment->suspect, true); }
bool store_is_ready(const struct store *s) { return s->applied.index >= s->manifest.applied_index; }
uint64_t store_base(const struct store *s, uint64_t *ret_term) { if (ret_term) *ret_term = s->base.term; return s->base.index; }
