/* memory_content.c - see the header. */
#include "memory_content.h"

#include <stdatomic.h>

enum { PAGE = 4096 };

struct page {
    _Atomic uint32_t references;
    uint8_t data[PAGE];
};

/* ---- Pages ------------------------------------------------------------------------- */

static struct page *page_new(const struct page *from)
{
    struct page *page = malloc(sizeof(*page));
    ensure(page);
    atomic_init(&page->references, 1);
    if (from)
        memcpy(page->data, from->data, PAGE);
    else
        memset(page->data, 0, PAGE);
    return page;
}

static void page_unref(struct page *page)
{
    if (page && atomic_fetch_sub(&page->references, 1) == 1)
        free(page);
}

static const uint8_t *page_at(const struct content *c, uint64_t offset)
{
    static const uint8_t zeros[PAGE];
    size_t i = offset / PAGE;
    return i < c->page_count && c->pages[i] ? c->pages[i]->data : zeros;
}

static bool has_page(const struct content *c, uint64_t offset)
{
    return offset / PAGE < c->page_count && c->pages[offset / PAGE];
}

/* A page of this content's own, to be written to. */
static uint8_t *own_page(struct content *c, uint64_t offset)
{
    size_t i = offset / PAGE;
    if (i >= c->page_count) {
        size_t count = i + 1 + i / 2;
        c->pages = realloc(c->pages, count * sizeof(*c->pages));
        ensure(c->pages);
        memset(c->pages + c->page_count, 0, (count - c->page_count) * sizeof(*c->pages));
        c->page_count = count;
    }
    struct page *page = c->pages[i];
    if (!page || atomic_load(&page->references) > 1) {
        c->pages[i] = page_new(page);
        page_unref(page);
    }
    return c->pages[i]->data;
}

/* ---- Contents ---------------------------------------------------------------------- */

void content_release(struct content *c)
{
    for (size_t i = 0; i < c->page_count; i++)
        page_unref(c->pages[i]);
    free(c->pages);
    *c = (struct content){0};
}

void content_copy(struct content *to, const struct content *from)
{
    *to = (struct content){.size = from->size, .page_count = from->page_count};
    if (from->page_count == 0)
        return;
    to->pages = malloc(from->page_count * sizeof(*to->pages));
    ensure(to->pages);
    for (size_t i = 0; i < from->page_count; i++) {
        to->pages[i] = from->pages[i];
        if (to->pages[i])
            atomic_fetch_add(&to->pages[i]->references, 1);
    }
}

void content_write(struct content *c, uint64_t offset, const uint8_t *data, size_t length)
{
    c->size = max_u64(c->size, offset + length);
    while (length > 0) {
        size_t within = offset % PAGE, n = min_u64(PAGE - within, length);
        memcpy(own_page(c, offset) + within, data, n);
        offset += n;
        data += n;
        length -= n;
    }
}

size_t content_read(const struct content *c, uint64_t offset, uint8_t *to, size_t length)
{
    if (offset >= c->size)
        return 0;
    length = min_u64(length, c->size - offset);
    for (size_t done = 0; done < length;) {
        size_t within = (offset + done) % PAGE, n = min_u64(PAGE - within, length - done);
        memcpy(to + done, page_at(c, offset + done) + within, n);
        done += n;
    }
    return length;
}

void content_resize(struct content *c, uint64_t size)
{
    for (uint64_t at = size; at < c->size;) {
        size_t within = at % PAGE, n = min_u64(PAGE - within, c->size - at);
        if (has_page(c, at))
            memset(own_page(c, at) + within, 0, n);
        at += n;
    }
    c->size = size;
}

bool content_equal(const struct content *a, const struct content *b)
{
    if (a->size != b->size)
        return false;
    for (uint64_t at = 0; at < a->size; at += PAGE) {
        const uint8_t *x = page_at(a, at), *y = page_at(b, at);
        if (x != y && memcmp(x, y, PAGE) != 0)
            return false;
    }
    return true;
}

/* ---- Names ------------------------------------------------------------------------- */

void names_release(struct names *names)
{
    free(names->all);
    *names = (struct names){0};
}

void names_copy(struct names *to, const struct names *from)
{
    *to = (struct names){.count = from->count, .capacity = from->count};
    if (from->count == 0)
        return;
    to->all = malloc(from->count * sizeof(*to->all));
    ensure(to->all);
    memcpy(to->all, from->all, from->count * sizeof(*to->all));
}

struct name *names_find(const struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->all[i].path, path) == 0)
            return &names->all[i];
    return NULL;
}

void names_remove(struct names *names, const char *path)
{
    struct name *name = names_find(names, path);
    if (name)
        *name = names->all[--names->count];
}

void names_link(struct names *names, const char *path, int file)
{
    names_remove(names, path);
    if (names->count == names->capacity) {
        names->capacity = names->capacity ? 2 * names->capacity : 16;
        names->all = realloc(names->all, names->capacity * sizeof(*names->all));
        ensure(names->all);
    }
    struct name *name = &names->all[names->count++];
    ensure(strlen(path) < sizeof(name->path));
    strcpy(name->path, path);
    name->file = file;
}

void names_rename(struct names *names, const char *from, const char *to)
{
    struct name *name = names_find(names, from);
    if (!name || strcmp(from, to) == 0)
        return;
    int file = name->file;
    names_remove(names, from);
    names_link(names, to, file);
}

bool in_directory(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/' &&
           !strchr(path + length + 1, '/');
}
