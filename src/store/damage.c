/*
 * damage.c - what was found damaged, until it is repaired (G9).
 *
 *   found (any thread) --> NEW --next--> TOLD --repaired--> out of the list
 *                           ^              |
 *                           '-found again- STAYS <--no peer has it, or writing failed
 *
 * A damage is named by (key, timestamp) or by index, never by its place: a merge moves
 * it. The list is bounded: what finds no room is found again by the next read or scrub.
 */
#include "store_internal.h"

enum damage_state { DAMAGE_NEW, DAMAGE_TOLD, DAMAGE_STAYS };

struct damage_item {
    struct store_damage damage;
    enum damage_state state;
};

void damage_init(struct damage_list *list)
{
    *list = (struct damage_list){0};
    ensure(pthread_mutex_init(&list->lock, NULL) == 0);
}

void damage_release(struct damage_list *list)
{
    free(list->items);
    pthread_mutex_destroy(&list->lock);
}

static bool is_same(const struct store_damage *a, const struct store_damage *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == STORE_DAMAGED_ENTRY)
        return a->index == b->index;
    return a->timestamp_us == b->timestamp_us &&
           key_compare(a->key, a->key_size, b->key, b->key_size) == 0;
}

static struct damage_item *find_item(struct damage_list *list,
                                     const struct store_damage *damage)
{
    for (size_t i = 0; i < list->count; i++) {
        if (is_same(&list->items[i].damage, damage))
            return &list->items[i];
    }
    return NULL;
}

/* NULL: no room. */
static struct damage_item *add_item(struct damage_list *list,
                                    const struct store_damage *damage,
                                    enum damage_state state)
{
    if (list->count == DAMAGE_MAX)
        return NULL;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 8;
        struct damage_item *items = realloc(list->items, capacity * sizeof(*items));
        if (!items)
            return NULL;
        list->items = items;
        list->capacity = capacity;
    }
    struct damage_item *item = &list->items[list->count++];
    *item = (struct damage_item){.damage = *damage, .state = state};
    list->found++;
    return item;
}

static void remove_item(struct damage_list *list, struct damage_item *item)
{
    list->stay -= item->state == DAMAGE_STAYS;
    size_t i = (size_t)(item - list->items);
    memmove(item, item + 1, (list->count - i - 1) * sizeof(*item));
    list->count--;
}

/* ---- Found: any thread ------------------------------------------------------------- */

static void found(struct store *s, const struct store_damage *damage,
                  enum damage_state state)
{
    struct damage_list *list = &s->damage;
    bool tell = false;
    pthread_mutex_lock(&list->lock);
    struct damage_item *item = find_item(list, damage);
    if (!item) {
        item = add_item(list, damage, state);
        tell = item && state == DAMAGE_NEW;
    } else if (item->state == DAMAGE_STAYS) {
        item->state = state;
        list->stay--;
        tell = state == DAMAGE_NEW;
    }
    if (item && damage->term)
        item->damage.term = damage->term;
    pthread_mutex_unlock(&list->lock);
    if (tell && s->damaged)
        s->damaged(s->context);
}

static struct store_damage damage_of(const void *key, size_t key_size,
                                     uint64_t timestamp_us)
{
    ensure(key_size > 0 && key_size <= LIMIT_KEY_BYTES);
    struct store_damage damage = {.kind = STORE_DAMAGED_RECORD,
                                  .key_size = (uint32_t)key_size,
                                  .timestamp_us = timestamp_us};
    memcpy(damage.key, key, key_size);
    return damage;
}

void damage_found_record(struct store *s, const void *key, size_t key_size,
                         uint64_t timestamp_us)
{
    struct store_damage damage = damage_of(key, key_size, timestamp_us);
    found(s, &damage, DAMAGE_NEW);
}

void damage_found_here(struct store *s, const struct store_record *record)
{
    struct store_damage damage =
        damage_of(record->key, record->key_size, record->timestamp_us);
    found(s, &damage, DAMAGE_TOLD);
}

void damage_found_entry(struct store *s, uint64_t index, uint64_t term)
{
    struct store_damage damage = {
        .kind = STORE_DAMAGED_ENTRY, .index = index, .term = term};
    found(s, &damage, DAMAGE_NEW);
}

/* ---- What became of it ------------------------------------------------------------- */

static void ended(struct store *s, const struct store_damage *damage, bool repaired)
{
    struct damage_list *list = &s->damage;
    pthread_mutex_lock(&list->lock);
    struct damage_item *item = find_item(list, damage);
    if (item) {
        remove_item(list, item);
        list->repaired += repaired;
    }
    pthread_mutex_unlock(&list->lock);
}

void damage_ended_record(struct store *s, const struct store_record *record,
                         bool repaired)
{
    struct store_damage damage =
        damage_of(record->key, record->key_size, record->timestamp_us);
    ended(s, &damage, repaired);
}

void damage_ended_entry(struct store *s, uint64_t index, bool repaired)
{
    ended(s, &(struct store_damage){.kind = STORE_DAMAGED_ENTRY, .index = index},
          repaired);
}

/* It is in no list: nobody asks for its entries, the leader sends them. */
void damage_found_hole(struct store *s)
{
    pthread_mutex_lock(&s->damage.lock);
    s->damage.found++;
    pthread_mutex_unlock(&s->damage.lock);
}

void damage_ended_hole(struct store *s)
{
    pthread_mutex_lock(&s->damage.lock);
    s->damage.repaired++;
    pthread_mutex_unlock(&s->damage.lock);
}

/* Whether the log or the keydir still has what is damaged. */
static bool is_needed(const struct store *s, const struct store_damage *damage)
{
    if (damage->kind == STORE_DAMAGED_ENTRY)
        return damage->index > s->base.index && damage->index <= s->end.index;
    const struct keydir_node *node =
        keydir_find(s->keydir, damage->key, damage->key_size);
    return node && node->timestamp_us == damage->timestamp_us;
}

void damage_stays(struct store *s, const struct store_damage *damage)
{
    struct damage_list *list = &s->damage;
    pthread_mutex_lock(&list->lock);
    struct damage_item *item = find_item(list, damage);
    if (item && !is_needed(s, damage))
        remove_item(list, item);
    else if (item && item->state != DAMAGE_STAYS) {
        item->state = DAMAGE_STAYS;
        list->stay++;
    }
    pthread_mutex_unlock(&list->lock);
}

void damage_prune(struct store *s)
{
    struct damage_list *list = &s->damage;
    pthread_mutex_lock(&list->lock);
    for (size_t i = list->count; i-- > 0;) {
        const struct damage_item *item = &list->items[i];
        if (item->state != DAMAGE_TOLD && !is_needed(s, &item->damage))
            remove_item(list, &list->items[i]);
    }
    pthread_mutex_unlock(&list->lock);
}

void damage_clear(struct store *s)
{
    pthread_mutex_lock(&s->damage.lock);
    s->damage.count = 0;
    s->damage.stay = 0;
    pthread_mutex_unlock(&s->damage.lock);
}

bool store_is_damaged(struct store *s, const struct store_damage *damage)
{
    pthread_mutex_lock(&s->damage.lock);
    bool is = find_item(&s->damage, damage) != NULL;
    pthread_mutex_unlock(&s->damage.lock);
    return is;
}

void damage_stats(struct store *s, struct store_stats *ret)
{
    pthread_mutex_lock(&s->damage.lock);
    ret->damaged = s->damage.found;
    ret->repaired = s->damage.repaired;
    ret->unrepaired = s->damage.stay;
    pthread_mutex_unlock(&s->damage.lock);
}

bool store_next_damage(struct store *s, struct store_damage *ret)
{
    struct damage_list *list = &s->damage;
    bool have = false;
    pthread_mutex_lock(&list->lock);
    for (size_t i = 0; i < list->count && !have; i++) {
        struct damage_item *item = &list->items[i];
        if (item->state == DAMAGE_NEW) {
            item->state = DAMAGE_TOLD;
            *ret = item->damage;
            have = true;
        }
    }
    pthread_mutex_unlock(&list->lock);
    return have;
}
