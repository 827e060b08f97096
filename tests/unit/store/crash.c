/* crash.c - see the header. */
#include "crash.h"
#include "transfer.h"

enum {
    KEYS = 7,
    VALUE_BYTES = 8192,
    EXPECTED_MAX = 64,
    TASKS_MAX = 100, /* that are due one after the other */
};

void crash_value(uint8_t *to, size_t size, uint32_t serial)
{
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(serial >> i % 4 * 8 ^ i);
}

/* ---- What may be found ------------------------------------------------------------- */

struct expected {
    const struct truth *truth;
    struct store *s;
    struct crash_op live[EXPECTED_MAX];
    size_t count, seen;
};

static struct crash_op *find_live(struct expected *e, const void *key, size_t size)
{
    for (size_t i = 0; i < e->count; i++)
        if (strlen(e->live[i].key) == size && memcmp(e->live[i].key, key, size) == 0)
            return &e->live[i];
    return NULL;
}

static void replay_op(struct expected *e, const struct crash_op *op)
{
    struct crash_op *former = find_live(e, op->key, strlen(op->key));
    if (op->size == SIZE_MAX && former) {
        *former = e->live[--e->count];
    } else if (op->size != SIZE_MAX) {
        ensure(former || e->count < EXPECTED_MAX);
        *(former ? former : &e->live[e->count++]) = *op;
    }
}

/* What was committed is never truncated: of the entries of one index the last. */
static const struct crash_entry *committed_entry(const struct truth *t, uint64_t index)
{
    for (size_t i = t->count; i-- > 0;)
        if (t->entries[i].index == index)
            return &t->entries[i];
    fail_msg("entry %llu was never written", (unsigned long long)index);
    return NULL;
}

static int compare_item(void *arg, const struct store_item *item)
{
    struct expected *e = arg;
    const struct crash_op *op = find_live(e, item->key, item->key_size);
    assert_non_null(op); /* else it shows what was not committed, or was removed */
    assert_int_equal(item->value_size, op->size);
    assert_int_equal(item->timestamp_us, op->timestamp_us);
    e->seen++;
    return 0;
}

void check_explained(const struct truth *t, struct store *s)
{
    static struct expected e;
    e = (struct expected){.truth = t, .s = s};
    assert_true(store_applied(s) <= t->commit && store_is_ready(s));
    for (uint64_t index = 1; index <= store_applied(s); index++) {
        const struct crash_entry *entry = committed_entry(t, index);
        for (unsigned i = 0; i < entry->count; i++)
            replay_op(&e, &entry->ops[i]);
    }
    store_scan(s, NULL, 0, NULL, 0, compare_item, &e);
    assert_int_equal(e.seen, e.count);
    static struct buf got;
    for (size_t i = 0; i < e.count; i++) {
        static uint8_t value[VALUE_BYTES];
        const struct crash_op *op = &e.live[i];
        uint64_t timestamp;
        buf_clear(&got);
        assert_int_equal(store_get(s, op->key, strlen(op->key), 0, &got, &timestamp), 0);
        crash_value(value, op->size, op->serial);
        assert_int_equal(got.length, op->size);
        assert_memory_equal(got.data, value, op->size);
        assert_int_equal(timestamp, op->timestamp_us);
    }
    buf_release(&got);
}

/* What an install has brought lacks what was superseded up to E; and of entries that came
 * together some may be lost that later ones call committed. The leader sends both. */
static bool needs_leader(const struct fixture *after)
{
    return !store_is_ready(after->s) ||
           store_last_index(after->s) < after->recovery.claim_index;
}

static void catch_up(const struct truth *t, struct fixture *after)
{
    assert_non_null(t->history);
    while (needs_leader(after)) {
        uint64_t next = store_last_index(after->s) + 1;
        assert_int_equal(store_append(after->s, t->history->bytes[next], false), 0);
        run(after);
        apply_to(after, next);
    }
}

static bool is_written(const struct truth *t, uint64_t index, uint32_t crc)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->entries[i].index == index && t->entries[i].crc == crc &&
            !t->entries[i].gone)
            return true;
    return false;
}

static void check_found(const struct truth *t, struct fixture *after)
{
    const struct store_recovery *found = &after->recovery;
    assert_true(found->last_index >= min_u64(t->durable, t->lowest));
    assert_true(found->commit <= t->commit && found->commit >= t->hint);
    bool is_old = found->term == t->term && found->vote == t->vote;
    bool is_new = found->term == t->next_term && found->vote == t->next_vote;
    assert_true(is_old || is_new);
    assert_true(found->claim_index <= t->commit);
    uint64_t term, timestamp;
    uint32_t crc;
    store_chain(after->s, &term, &crc, &timestamp);
    /* The chain vouches for all before it. */
    assert_true(found->last_index == 0 || is_written(t, found->last_index, crc));
    if (needs_leader(after))
        catch_up(t, after);
    check_explained(t, after->s);
    store_check(after->s);
}

void check_recovered(const struct truth *t, struct fixture *after)
{
    if (fixture_open(after) != 0)
        fail_msg("%s", after->error);
    check_found(t, after);
}

void check_goes_on(const struct truth *t, struct fixture *after)
{
    store_set_retention(after->s, UINT64_MAX);
    if (run_tasks(after) > 0) {
        check_explained(t, after->s);
        fixture_reopen(after);
        check_explained(t, after->s);
    }
    uint64_t term = 100, index = after->recovery.last_index;
    append_one(after, term, "new", "a value written after the crash");
    run(after);
    fixture_reopen(after);
    assert_int_equal(after->recovery.last_index, index + 1);
    assert_int_equal(after->recovery.cut_bytes, 0);
    apply_to(after, index + 1);
    assert_value(after->s, "new", "a value written after the crash");
    store_check(after->s);
}

/* ---- What a scenario does ---------------------------------------------------------- */

bool is_injected(struct scenario_run *r, int rc)
{
    bool of_disk = rc == -EIO || rc == -ENOSPC || rc == -EDQUOT || rc == -ENOMEM;
    bool injected = (rc == -ENOMEM && alloc_failures() > 0) ||
                    (of_disk && memory_disk_faults().failed > 0);
    r->injected += injected;
    memory_disk_set_quiet(r->f.disk, true);
    if (injected && r->f.s)
        store_check(r->f.s);
    memory_disk_set_quiet(r->f.disk, false);
    return injected;
}

static struct crash_op *add_op(struct crash_entry *entry, uint64_t key, size_t size)
{
    struct crash_op *op = &entry->ops[entry->count++];
    snprintf(op->key, sizeof(op->key), "key%llu", (unsigned long long)key % KEYS);
    op->size = size;
    return op;
}

/* One value; with every third entry also a tombstone and a value that sits in the keydir.
 */
static void choose_ops(struct crash_entry *entry, uint64_t n, size_t size)
{
    add_op(entry, n, size);
    if (n % 3 == 2)
        add_op(entry, n + 3, SIZE_MAX);
    if (n % 3 == 1)
        add_op(entry, n + 2, 5);
}

static void append_entry(struct scenario_run *r, uint64_t term, size_t size)
{
    static uint8_t values[CRASH_OPS][VALUE_BYTES];
    struct truth *t = &r->truth;
    ensure(t->count < CRASH_ENTRIES && size <= VALUE_BYTES);
    struct crash_entry *entry = &t->entries[t->count];
    *entry = (struct crash_entry){.index = store_last_index(r->f.s) + 1};
    choose_ops(entry, entry->index, size);
    struct put puts[CRASH_OPS];
    for (unsigned i = 0; i < entry->count; i++) {
        struct crash_op *op = &entry->ops[i];
        op->serial = (uint32_t)(t->count * CRASH_OPS + i + 1) * 0x9e3779b1u;
        bool dead = op->size == SIZE_MAX;
        if (!dead)
            crash_value(values[i], op->size, op->serial);
        puts[i] =
            (struct put){op->key, dead ? NULL : (char *)values[i], dead ? 0 : op->size};
    }
    struct store_bytes *bytes =
        make_entry(r->f.s, term, store_applied(r->f.s), puts, entry->count);
    assert_int_equal(store_has_room(r->f.s, bytes->length), 0);
    int rc;
    CALL_STORE(r, rc, store_append(r->f.s, bytes, true));
    assert_int_equal(rc, 0);
    store_bytes_unref(bytes);
    uint64_t got_term, newest;
    store_chain(r->f.s, &got_term, &entry->crc, &newest);
    for (unsigned i = 0; i < entry->count; i++)
        entry->ops[i].timestamp_us = newest - entry->count + 1 + i;
    t->count++;
}

/* A spare that found no room is asked for again, as a node does now and then. */
static void make_room(struct scenario_run *r)
{
    if (r->cut || store_has_room(r->f.s, VALUE_BYTES / 4) == 0)
        return;
    do_run(r);
    int rc;
    CALL_STORE(r, rc, store_refresh_space(r->f.s));
    assert_int_equal(rc, 0);
    do_run(r);
}

void do_append(struct scenario_run *r, uint64_t term, unsigned count, size_t size)
{
    for (unsigned i = 0; i < count; i++) {
        make_room(r);
        if (!r->cut)
            append_entry(r, term, size + i);
    }
}

void do_truncate(struct scenario_run *r, uint64_t index, uint64_t generation)
{
    if (r->cut)
        return;
    int rc;
    CALL_STORE(r, rc, store_truncate(r->f.s, index, generation));
    assert_int_equal(rc, 0);
    r->truth.lowest = min_u64(r->truth.lowest, index);
    for (size_t i = 0; i < r->truth.count; i++)
        if (r->truth.entries[i].index > index)
            r->truth.entries[i].going = true;
}

void do_hard_state(struct scenario_run *r, uint64_t term, uint64_t vote)
{
    if (r->cut)
        return;
    int rc;
    CALL_STORE(r, rc, store_set_hard_state(r->f.s, term, vote));
    assert_int_equal(rc, 0);
    r->truth.next_term = term;
    r->truth.next_vote = vote;
}

void do_hint(struct scenario_run *r, uint64_t commit)
{
    if (r->cut)
        return;
    int rc;
    CALL_STORE(r, rc, store_set_commit_hint(r->f.s, commit));
    assert_int_equal(rc, 0);
    r->truth.next_hint = commit;
    r->truth.commit = max_u64(r->truth.commit, commit);
}

static void keep_entries(struct history *h)
{
    for (uint64_t i = store_last_index(h->run.f.s); i > 0 && !h->bytes[i]; i--) {
        h->bytes[i] = store_entry_cached(h->run.f.s, i);
        assert_non_null(h->bytes[i]);
    }
}

bool do_run(struct scenario_run *r)
{
    struct truth *t = &r->truth;
    struct store_job *job = r->cut ? NULL : store_take_job(r->f.s);
    if (!job)
        return false;
    alloc_arm();
    int rc = store_run_job(job, r->f.error);
    alloc_disarm();
    if (rc != 0) {
        r->cut = true;
        return false;
    }
    struct store_done done = store_finish_job(r->f.s, job);
    store_incoming_free(done.incoming);
    t->lowest = UINT64_MAX;
    for (size_t i = 0; i < t->count; i++) /* G3: they never come back */
        t->entries[i].gone = t->entries[i].going;
    t->durable = done.durable_index ? done.durable_index : t->durable;
    if (done.installed)
        t->durable = max_u64(t->durable, store_last_index(r->f.s));
    t->term = t->next_term;
    t->vote = t->next_vote;
    t->hint = t->next_hint;
    if (t->history && t->history == container_of(r, struct history, run))
        keep_entries((struct history *)t->history);
    return true;
}

void do_apply(struct scenario_run *r, uint64_t index)
{
    if (r->cut)
        return;
    while (store_applied(r->f.s) < index) {
        int rc;
        CALL_STORE(r, rc, store_apply(r->f.s, store_applied(r->f.s) + 1, NULL, NULL));
        assert_int_equal(rc, 0);
    }
    r->truth.commit = max_u64(r->truth.commit, index);
}

/* 1: to be run again; 0: the loop's turn; -1: the process stops. */
static int run_stretch(struct scenario_run *r, struct store_task *task)
{
    uint64_t wait_us;
    alloc_arm();
    int rc = store_run_task(task, &wait_us, r->f.error);
    alloc_disarm();
    r->cut = rc < 0;
    return rc;
}

static void run_task_beside(struct scenario_run *r, struct store_task *task,
                            scenario *beside)
{
    for (bool more = true; more && !r->cut;) {
        int rc;
        while ((rc = run_stretch(r, task)) == 1) {
            if (beside)
                beside(r);
            if (r->cut)
                return;
        }
        if (rc < 0)
            return;
        alloc_arm();
        more = store_step_task(r->f.s, task);
        alloc_disarm();
        if (beside)
            beside(r);
    }
}

bool do_tasks(struct scenario_run *r, scenario *beside)
{
    bool some = false;
    if (r->cut)
        return false;
    store_set_retention(r->f.s, UINT64_MAX);
    unsigned count = 0;
    for (int idle = 0; idle < 2 && !r->cut;) { /* one may have been given up */
        if (r->lying && count == TASKS_MAX)
            break;
        assert_true(count++ < TASKS_MAX); /* it comes to rest */
        r->f.now_us += 100 * 1000 * 1000;
        alloc_arm();
        struct store_task *task = store_next_task(r->f.s, r->f.now_us);
        alloc_disarm();
        idle = task ? 0 : idle + 1;
        if (!task)
            continue;
        some = true;
        run_task_beside(r, task, beside);
    }
    return some;
}

/* ---- Leader and follower ----------------------------------------------------------- */

void history_begin(struct history *h, scenario *what)
{
    *h = (struct history){0};
    scenario_begin(&h->run);
    h->run.truth.history = h;
    what(&h->run);
    assert_false(h->run.cut);
}

void history_release(struct history *h)
{
    for (size_t i = 0; i < array_length(h->bytes); i++)
        store_bytes_unref(h->bytes[i]);
    fixture_release(&h->run.f);
}

void do_follow(struct scenario_run *r, const struct history *h, uint64_t last)
{
    struct truth *t = &r->truth;
    const struct truth *leader = &h->run.truth;
    memcpy(t->entries, leader->entries, sizeof(t->entries));
    t->count = leader->count;
    t->commit = leader->commit;
    t->history = h;
    while (!r->cut && store_last_index(r->f.s) < last) {
        int rc;
        make_room(r);
        if (r->cut)
            break;
        CALL_STORE(r, rc,
                   store_append(r->f.s, h->bytes[store_last_index(r->f.s) + 1], false));
        assert_int_equal(rc, 0);
    }
}

struct receiving {
    struct store_snapshot *snapshot;
    struct buf description;
    struct store_incoming *in;
};

/* 0, or the error of a fault: what has come stays, for another try. */
static int receive(struct scenario_run *r, struct receiving *from)
{
    struct buf piece = {0};
    uint32_t file, length;
    uint64_t offset;
    alloc_arm();
    int rc = store_incoming_open(r->f.s, from->description.data, from->description.length,
                                 77, &from->in, r->f.error);
    while (rc == 0 && store_incoming_next(from->in, &file, &offset, &length)) {
        alloc_disarm();
        buf_clear(&piece);
        assert_int_equal(store_snapshot_read(from->snapshot, file, offset,
                                             min_u64(length, 2000), &piece),
                         0);
        alloc_arm();
        rc = store_incoming_write(from->in, file, offset, piece.data, piece.length,
                                  r->f.error);
    }
    if (rc == 0)
        rc = prepare_all(from->in, r->f.error);
    alloc_disarm();
    buf_release(&piece);
    if (rc != 0) {
        store_incoming_free(from->in);
        from->in = NULL;
    }
    return rc;
}

void do_install(struct scenario_run *r, struct history *h)
{
    if (r->cut)
        return;
    struct receiving from = {0};
    assert_int_equal(store_snapshot_open(h->run.f.s, &from.snapshot), 0);
    assert_int_equal(store_snapshot_describe(from.snapshot, &from.description), 0);
    int rc = receive(r, &from);
    if (is_injected(r, rc)) /* a node tries again, later */
        rc = receive(r, &from);
    r->cut = rc != 0;
    if (rc == 0) {
        CALL_STORE(r, rc, store_install(r->f.s, from.in));
        assert_int_equal(rc, 0);
        do_run(r);
    }
    buf_release(&from.description);
    store_snapshot_close(h->run.f.s, from.snapshot);
}

/* ---- Looking ----------------------------------------------------------------------- */

static int take_item(void *arg, const struct store_item *item)
{
    struct buf *keys = arg;
    buf_string(keys, item->key, item->key_size);
    return keys->failed ? -ENOMEM : 0;
}

static void look_at_keys(struct scenario_run *r)
{
    struct store *s = r->f.s;
    struct buf got = {0}, ahead = {0}, keys = {0};
    int rc;
    CALL_STORE(r, rc,
               (buf_release(&keys), store_scan(s, NULL, 0, NULL, 0, take_item, &keys)));
    assert_int_equal(rc, 0);
    struct reader reader = reader_of(keys.data, keys.length);
    while (reader_left(&reader) > 0) {
        size_t size;
        const uint8_t *key = reader_string(&reader, &size);
        CALL_STORE(r, rc, (buf_release(&got), store_get(s, key, size, 0, &got, NULL)));
        assert_int_equal(rc, 0);
        CALL_STORE(r, rc,
                   (buf_release(&ahead), store_get_ahead(s, key, size, &ahead, NULL)));
        assert_true(rc == 0 || rc == -ENOENT);
    }
    CALL_STORE(
        r, rc,
        (buf_release(&keys), store_scan_ahead(s, NULL, 0, NULL, 0, take_item, &keys)));
    assert_int_equal(rc, 0);
    buf_release(&got);
    buf_release(&ahead);
    buf_release(&keys);
}

static void look_at_entries(struct scenario_run *r)
{
    struct store *s = r->f.s;
    uint64_t term, index = store_base(s, &term);
    while (index < store_last_index(s)) {
        struct store_read *read;
        struct store_bytes *bytes;
        int rc;
        CALL_STORE(r, rc, store_read_plan(s, index + 1, 3000, &read));
        assert_int_equal(rc, 0);
        CALL_STORE(r, rc, store_read_run(read, &bytes, &index));
        assert_int_equal(rc, 0);
        store_read_free(read);
        store_bytes_unref(bytes);
    }
}

void do_look(struct scenario_run *r)
{
    if (r->cut)
        return;
    look_at_keys(r);
    look_at_entries(r);
    memory_disk_set_quiet(r->f.disk, true);
    check_explained(&r->truth, r->f.s);
    memory_disk_set_quiet(r->f.disk, false);
}

static void open_store(struct scenario_run *r)
{
    int rc;
    CALL_STORE(r, rc, fixture_open(&r->f));
    memory_disk_set_quiet(r->f.disk, true);
    if (rc == 0)
        check_found(&r->truth, &r->f);
    memory_disk_set_quiet(r->f.disk, false);
    r->cut = rc != 0;
    assert_true(rc == 0 || memory_disk_open_count(r->f.disk) == 0);
}

void do_reopen(struct scenario_run *r)
{
    if (r->cut)
        return;
    fixture_close(&r->f);
    open_store(r);
}

void scenario_begin(struct scenario_run *r)
{
    *r = (struct scenario_run){.truth.lowest = UINT64_MAX};
    fixture_init(&r->f, SMALL_SEGMENT);
    fixture_reopen(&r->f);
    r->f.error[0] = 0;
}
