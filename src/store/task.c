/*
 * task.c - background work: which, when, how fast.
 *
 * One task at a time goes to and fro between the loop, which owns the state in memory,
 * and the merge thread, which may wait for the disk:
 *
 *   store_next_task      store_run_task (1: again)     store_step_task
 *   loop ------------------> merge thread -----------------> loop --> done
 *                                  ^-------- more to do -------'
 *
 * Kinds are asked in the order of the table whether they have something to do.
 */
#include "store_internal.h"

static const struct task_kind *const kinds[TASK_KINDS] = {
    [TASK_SEAL] = &seal_kind,
    [TASK_MERGE] = &merge_kind,
    [TASK_SCRUB] = &scrub_kind,
};

bool no_room(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT;
}

bool no_descriptor(int rc)
{
    return rc == -EMFILE || rc == -ENFILE;
}

/* ---- The loop ---------------------------------------------------------------------- */

struct store_task *store_next_task(struct store *s, uint64_t now_us)
{
    s->task_now_us = now_us;
    if (s->task || s->installing || now_us < s->task_due_us)
        return NULL;
    s->task_due_us = now_us + TASK_LOOK_US;
    atomic_store_explicit(&s->task_stop, false, memory_order_relaxed);
    space_update(s);
    for (int i = 0; i < TASK_KINDS && !s->task; i++) {
        if (now_us >= s->task_retry_us[i])
            s->task = kinds[i]->plan(s, now_us);
    }
    return s->task;
}

/* What a task has changed may make the next one due: that is looked at without delay. */
bool store_step_task(struct store *s, struct store_task *task)
{
    ensure(task == s->task);
    if (task->kind->step(s, task))
        return true;
    task->kind->free(task);
    s->task = NULL;
    s->task_due_us = 0;
    space_update(s);
    check_step(s);
    return false;
}

void task_gave_up(struct store *s, const struct store_task *task)
{
    for (int i = 0; i < TASK_KINDS; i++) {
        if (kinds[i] == task->kind)
            s->task_retry_us[i] = s->task_now_us + TASK_RETRY_US;
    }
}

bool task_stop(struct store *s)
{
    atomic_store_explicit(&s->task_stop, true, memory_order_relaxed);
    return !s->task;
}

/* ---- The merge thread -------------------------------------------------------------- */

int store_run_task(struct store_task *task, uint64_t *ret_wait_us,
                   char error[STORE_ERROR_BYTES])
{
    *ret_wait_us = 0;
    return task->kind->run(task, ret_wait_us, error);
}

bool task_stopping(const struct store *s)
{
    return atomic_load_explicit(&s->task_stop, memory_order_relaxed);
}

/* Small ones do not come in bursts; without pauses between them they would only cost. */
uint64_t task_stretch(const struct store *s)
{
    uint32_t hurry = atomic_load_explicit(&s->merge_hurry, memory_order_relaxed);
    return hurry < HURRY_FULL ? PIECE_BYTES : STRETCH_BYTES;
}

/* At the set rate in peace; without a wait where the bound of space is reached. */
uint64_t task_pace(const struct store *s, uint64_t bytes)
{
    uint32_t hurry = atomic_load_explicit(&s->merge_hurry, memory_order_relaxed);
    ensure(hurry <= HURRY_FULL);
    uint64_t wait_us = bytes * 1000000 / s->merge_bytes_per_s;
    return wait_us * (HURRY_FULL - hurry) / HURRY_FULL;
}
