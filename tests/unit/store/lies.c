/*
 * lies.c - a disk that lies, and one that rots; see crash.h. What is lost by it may be
 * lost, if there is no other node to ask; what is read is right, or an error.
 */
#include "crash.h"

enum { NAMES_MAX = 64, ROT_STEP = 61 }; /* one bit of every so many bytes */

static const struct crash_op *find_version(const struct truth *t,
                                           const struct store_item *item)
{
    for (size_t i = 0; i < t->count; i++)
        for (unsigned k = 0; k < t->entries[i].count; k++) {
            const struct crash_op *op = &t->entries[i].ops[k];
            if (op->timestamp_us == item->timestamp_us &&
                strlen(op->key) == item->key_size &&
                memcmp(op->key, item->key, item->key_size) == 0)
                return op;
        }
    return NULL;
}

struct honest {
    const struct truth *truth;
    const struct crash_op *found[CRASH_ENTRIES];
    size_t count;
};

static int find_item(void *arg, const struct store_item *item)
{
    struct honest *h = arg;
    const struct crash_op *op = find_version(h->truth, item);
    assert_non_null(op); /* such a version was never written */
    assert_int_equal(item->value_size, op->size);
    h->found[h->count++] = op;
    return 0;
}

/* Every key has a version that was written, and its bytes; or cannot be read. */
static uint64_t check_honest(const struct truth *t, struct store *s)
{
    struct honest h = {.truth = t};
    struct buf got = {0};
    uint64_t refused = 0;
    store_scan(s, NULL, 0, NULL, 0, find_item, &h);
    for (size_t i = 0; i < h.count; i++) {
        uint8_t value[8192];
        const struct crash_op *op = h.found[i];
        buf_clear(&got);
        int rc = store_get(s, op->key, strlen(op->key), 0, &got, NULL);
        assert_true(rc == 0 || rc == -EBADMSG);
        refused += rc != 0;
        if (rc != 0)
            continue;
        crash_value(value, op->size, op->serial);
        assert_int_equal(got.length, op->size);
        assert_memory_equal(got.data, value, op->size);
    }
    buf_release(&got);
    return refused;
}

struct tally {
    uint64_t disks, refused, damaged, unread;
};

/* Starts on it; damage is told, or does not matter. */
static void start_on(const struct truth *t, struct memory_disk *disk, struct tally *tally)
{
    struct fixture after;
    fixture_init_on(&after, disk, SMALL_SEGMENT);
    after.unchecked = true;
    int rc = fixture_open(&after);
    tally->disks++;
    if (rc != 0) {
        assert_int_equal(rc, -EBADMSG);
        assert_non_null(strstr(after.error, "d/"));
        tally->refused++;
    } else {
        const struct store_recovery *found = &after.recovery;
        bool is_old = found->term == t->term && found->vote == t->vote;
        assert_true(is_old ||
                    (found->term == t->next_term && found->vote == t->next_vote));
        tally->damaged += found->claim_index > 0;
        tally->unread += check_honest(t, after.s);
    }
    fixture_release(&after);
}

void lie_everywhere(scenario *what)
{
    static struct scenario_run r;
    struct tally tally = {0};
    memory_disk_faults();
    bool lied = true;
    for (uint64_t at = 1; lied; at++) {
        scenario_begin(&r);
        r.lying = true;
        uint64_t number = memory_disk_calls(r.f.disk) + at;
        memory_disk_misdirect_call(r.f.disk, number, at % 2 ? 512 : 4096);
        what(&r);
        lied = number <= memory_disk_calls(r.f.disk);
        check_honest(&r.truth, r.f.s);
        start_on(&r.truth, memory_disk_copy(r.f.disk), &tally);
        fixture_release(&r.f);
    }
    uint64_t misdirected = memory_disk_faults().misdirected;
    print_message("%llu writes misdirected: %llu starts refused, %llu with a hole\n",
                  (unsigned long long)misdirected, (unsigned long long)tally.refused,
                  (unsigned long long)tally.damaged);
    assert_true(misdirected > 5);
}

/* ---- Rot --------------------------------------------------------------------------- */

struct names_found {
    char paths[NAMES_MAX][64];
    size_t count;
};

static int note_name(void *arg, const char *name)
{
    struct names_found *names = arg;
    ensure(names->count < NAMES_MAX);
    snprintf(names->paths[names->count++], sizeof(names->paths[0]), "d/log/%s", name);
    return 0;
}

void rot_everywhere(scenario *what)
{
    static struct scenario_run r;
    struct tally tally = {0};
    struct names_found names = {{"d/raft.state", "d/commit.hint"}, 2};
    scenario_begin(&r);
    what(&r);
    assert_false(r.cut);
    fixture_close(&r.f);
    assert_int_equal(r.f.io.list(r.f.io.context, "d/log", note_name, &names), 0);
    for (size_t i = 0; i < names.count; i++) {
        uint64_t size = memory_disk_size(r.f.disk, names.paths[i]);
        for (uint64_t at = i % ROT_STEP; at < size; at += ROT_STEP) {
            struct memory_disk *disk = memory_disk_copy(r.f.disk);
            memory_disk_flip(disk, names.paths[i], at, (unsigned)at);
            start_on(&r.truth, disk, &tally);
        }
    }
    print_message(
        "%llu rotten disks: %llu refused, %llu with a hole, %llu values unread\n",
        (unsigned long long)tally.disks, (unsigned long long)tally.refused,
        (unsigned long long)tally.damaged, (unsigned long long)tally.unread);
    assert_true(tally.disks > 100 && tally.damaged + tally.unread > 10);
    fixture_release(&r.f);
}
