/* rotate.c - `tierce rotate-ca`: begins it, and tells how far it is until it is done. */
#include "cli.h"

#include <errno.h>
#include <time.h>

enum {
    ROTATE_LOOK_MS = 100,
    ROTATE_HELD_UP_MS = 3000, /* so long without a step: who holds it up is said */
    ROTATE_STEPS = CLI_ROTATION_STEPS,
};

static const char *const step_names[ROTATE_STEPS] = {
    "every node believes the new CA beside the former one",
    "every node has a certificate of the new CA",
    "no node believes the former CA any more",
};

struct rotation {
    uint32_t last; /* the step that ends it */
    uint32_t done; /* steps that every member has taken, of ROTATE_STEPS */
    uint64_t since_us;
    bool said; /* who holds it up */
    struct node_status *status;
};

/* Of the member that is the furthest behind. */
static uint32_t lowest_step(const struct node_status *s)
{
    uint32_t lowest = UINT32_MAX;
    for (uint32_t i = 0; i < s->member_count; i++)
        lowest = (uint32_t)min_u64(lowest, s->members[i].ca);
    return lowest;
}

unsigned cli_rotation_step(const struct node_status *s)
{
    uint32_t lowest = s->member_count ? lowest_step(s) : 0, highest = 0;
    for (uint32_t i = 0; i < s->member_count; i++)
        highest = (uint32_t)max_u64(highest, s->members[i].ca);
    /* Who has just joined has not told its own yet. */
    bool rests = lowest % ROTATE_STEPS == 0 && highest % ROTATE_STEPS == 0;
    return rests ? 0 : lowest % ROTATE_STEPS + 1;
}

/* Who has not taken the step `due`. */
static void format_who(struct buf *to, const struct node_status *s, uint32_t due)
{
    const char *between = " ";
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct node_member *m = &s->members[i];
        if (m->ca >= due)
            continue;
        buf_printf(to, "%s%s%s", between, m->name,
                   m->reachable ? "" : " (cannot be reached)");
        between = ", ";
    }
}

void cli_format_behind(struct buf *to, const struct node_status *s)
{
    format_who(to, s, lowest_step(s) + 1);
}

static uint32_t steps_done(const struct rotation *r)
{
    uint32_t lowest = lowest_step(r->status), before = r->last - ROTATE_STEPS;
    return lowest <= before ? 0 : (uint32_t)min_u64(lowest - before, ROTATE_STEPS);
}

static void tell_who(const struct rotation *r)
{
    struct buf who = {0};
    format_who(&who, r->status, r->last - ROTATE_STEPS + r->done + 1);
    printf(
        "waiting for%.*s: start it; or, if it will never come back, end its membership "
        "with `tierce remove`\n",
        (int)who.length, (const char *)who.data);
    buf_release(&who);
}

static int tell_progress(struct rotation *r)
{
    uint32_t done = steps_done(r);
    if (done > r->done) {
        for (; r->done < done; r->done++)
            printf("step %u of %u: %s\n", r->done + 1, ROTATE_STEPS, step_names[r->done]);
        r->since_us = clock_boot_us();
        r->said = false;
        return cli_flush();
    }
    if (r->said || clock_boot_us() - r->since_us < ROTATE_HELD_UP_MS * 1000)
        return 0;
    r->said = true;
    tell_who(r);
    return cli_flush();
}

static int look(const struct cli_call *call, struct rotation *r)
{
    char error[NODE_ERROR_BYTES];
    if (node_call_status(call->data, r->status, error))
        return cli_fail("%s; the rotation goes on all the same, run `tierce rotate-ca` "
                        "again to see how far it is",
                        error);
    return tell_progress(r);
}

static int wait_until_done(const struct cli_call *call, struct rotation *r)
{
    static const struct timespec pause = {.tv_nsec = ROTATE_LOOK_MS * 1000000};
    int result = look(call, r);
    while (!result && r->done < ROTATE_STEPS) {
        nanosleep(&pause, NULL);
        result = look(call, r);
    }
    return result;
}

int cli_rotate_ca(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    bool begun;
    struct rotation r = {.since_us = clock_boot_us()};
    if (node_call_rotate_ca(call->data, &r.last, &begun, error))
        return cli_fail("%s", error);
    if (!begun)
        printf("A rotation that was begun before goes on.\n");
    r.status = calloc(1, sizeof(*r.status));
    int result = r.status ? wait_until_done(call, &r) : cli_fail("out of memory");
    free(r.status);
    if (result)
        return result;
    printf("The CA is replaced. Tokens that were made before are of no use any more: "
           "`tierce invite` makes new ones.\n");
    return cli_flush();
}
