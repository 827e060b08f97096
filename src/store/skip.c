/*
 * skip.c - an ordered map with one writer and readers that take no lock.
 *
 * A search always goes down to level 0 and takes its answer there: level 0 is the list,
 * the levels above are shortcuts into it. So one store to level 0 publishes, replaces or
 * removes a key at one instant. A node taken out keeps its pointers: a reader that stands
 * on it goes on from there; it is freed when no such reader is left.
 */
#include "store_internal.h"

static struct skip_node *load(struct skip_node *const *link)
{
    return __atomic_load_n(link, __ATOMIC_ACQUIRE);
}

static void publish(struct skip_node **link, struct skip_node *node)
{
    __atomic_store_n(link, node, __ATOMIC_RELEASE);
}

void skip_init(struct skip_list *list)
{
    *list = (struct skip_list){.seed = random_u64() | 1};
}

unsigned skip_draw_height(struct skip_list *list)
{
    uint64_t bits = random_next(&list->seed) >> 32;
    unsigned height = 1;
    for (; height < SKIP_HEIGHT && (bits & 3) == 0; bits >>= 2)
        height++;
    return height;
}

size_t skip_extra(unsigned height, size_t key_size)
{
    return height * sizeof(struct skip_node *) + key_size;
}

const uint8_t *skip_key(const struct skip_node *node)
{
    return (const uint8_t *)(node->next + node->height);
}

void skip_node_init(struct skip_node *node, unsigned height, const void *key, size_t size)
{
    ensure(height >= 1 && height <= SKIP_HEIGHT && size <= LIMIT_KEY_BYTES);
    node->height = (uint8_t)height;
    node->key_size = (uint16_t)size;
    memset(node->next, 0, height * sizeof(node->next[0]));
    memcpy(node->next + height, key, size);
}

int key_compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
    size_t size = a_size < b_size ? a_size : b_size;
    int order = size ? memcmp(a, b, size) : 0;
    if (order != 0)
        return order;
    return (a_size > b_size) - (a_size < b_size);
}

static bool below(const struct skip_node *node, const void *key, size_t size)
{
    return key_compare(skip_key(node), node->key_size, key, size) < 0;
}

struct skip_node *skip_next(const struct skip_node *node)
{
    return load(&node->next[0]);
}

struct skip_node *skip_seek(const struct skip_list *list, const void *key, size_t size)
{
    struct skip_node *const *tower = list->head;
    struct skip_node *node = NULL;
    for (int level = SKIP_HEIGHT - 1; level >= 0; level--) {
        node = load(&tower[level]);
        while (node && below(node, key, size)) {
            tower = node->next;
            node = load(&tower[level]);
        }
    }
    return node;
}

struct skip_node *skip_find(const struct skip_list *list, const void *key, size_t size)
{
    struct skip_node *node = skip_seek(list, key, size);
    if (node && key_compare(skip_key(node), node->key_size, key, size) == 0)
        return node;
    return NULL;
}

/* The pointers, one a level, that a node of this key is or would be hung on. */
static struct skip_node *find_links(struct skip_list *list, const void *key, size_t size,
                                    struct skip_node **links[SKIP_HEIGHT])
{
    struct skip_node **tower = list->head;
    for (int level = SKIP_HEIGHT - 1; level >= 0; level--) {
        while (tower[level] && below(tower[level], key, size))
            tower = tower[level]->next;
        links[level] = &tower[level];
    }
    struct skip_node *node = *links[0];
    if (node && key_compare(skip_key(node), node->key_size, key, size) == 0)
        return node;
    return NULL;
}

struct skip_node *skip_put(struct skip_list *list, struct skip_node *node)
{
    struct skip_node **links[SKIP_HEIGHT];
    struct skip_node *old = find_links(list, skip_key(node), node->key_size, links);
    for (int level = 0; level < node->height; level++) {
        struct skip_node *next = *links[level];
        node->next[level] = old && next == old ? old->next[level] : next;
    }
    for (int level = 0; level < node->height; level++)
        publish(links[level], node);
    for (int level = node->height; old && level < old->height; level++)
        publish(links[level], old->next[level]);
    if (!old)
        list->count++;
    return old;
}

struct skip_node *skip_remove(struct skip_list *list, const void *key, size_t size)
{
    struct skip_node **links[SKIP_HEIGHT];
    struct skip_node *old = find_links(list, key, size, links);
    for (int level = 0; old && level < old->height; level++)
        publish(links[level], old->next[level]);
    if (old)
        list->count--;
    return old;
}

/* In order at every level, each level a part of the one below. */
void skip_check(const struct skip_list *list)
{
    uint64_t count = 0;
    for (struct skip_node *at = list->head[0]; at; at = at->next[0]) {
        struct skip_node *next = at->next[0];
        ensure(!next || key_compare(skip_key(at), at->key_size, skip_key(next),
                                    next->key_size) < 0);
        count++;
    }
    ensure(count == list->count);
    for (int level = 1; level < SKIP_HEIGHT; level++) {
        struct skip_node *lower = list->head[level - 1];
        for (struct skip_node *at = list->head[level]; at; at = at->next[level]) {
            while (lower && lower != at)
                lower = lower->next[level - 1];
            ensure(lower == at && at->height > level);
        }
    }
}
