/* alloc.c - see the header. */
#include "alloc.h"
#include "memory_disk.h"

#include <stdatomic.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *former, size_t size);
void __real_free(void *p);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *former, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *p);

static _Thread_local bool armed;
static _Thread_local uint64_t left; /* until one fails; 0: none will */
static _Thread_local bool lasts, out;
static uint64_t failures;
static _Atomic int64_t live;

void alloc_arm(void)
{
    armed = true;
}

void alloc_disarm(void)
{
    armed = false;
    out = false;
}

void alloc_fail(uint64_t number)
{
    left = number;
    lasts = out = false;
}

void alloc_fail_from(uint64_t number)
{
    alloc_fail(number);
    lasts = true;
}

uint64_t alloc_failures(void)
{
    uint64_t count = failures;
    failures = 0;
    return count;
}

int64_t alloc_live(void)
{
    return atomic_load(&live);
}

static bool fails(void)
{
    if (!armed || memory_disk_inside() || (!out && (left == 0 || --left > 0)))
        return false;
    out = lasts;
    failures++;
    return true;
}

static void *counted(void *p)
{
    if (p)
        atomic_fetch_add(&live, 1);
    return p;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *former, size_t size)
{
    if (fails())
        return NULL;
    void *p = __real_realloc(former, size);
    return former ? p : counted(p);
}

char *__wrap_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = __wrap_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

void __wrap_free(void *p)
{
    if (p)
        atomic_fetch_sub(&live, 1);
    __real_free(p);
}
