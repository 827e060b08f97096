"""The mutations of tests/mutate: single changes of the sources that the tests must notice.

Each is a name, the rule or the lesson (docs/lessons.md) it breaks, a file of src/store or
FOLDER/FILE of src, the text that is replaced (it stands there once), the text that replaces it,
and the unit tests that are to be asked first, those most likely to notice: NAME of the same
folder, FOLDER/NAME, golden/NAME, a trace of the simulator; NAME:PATTERN are single cases of it. docs/mutations.md is made of this
list.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    name: str
    rule: str
    what: str  # in words, for the table
    file: str
    before: str
    after: str
    tests: tuple
    only: bool = False  # no other test is asked: it is there to show what these notice


MUTATIONS = [
    # ---- G1, G2: what an entry and a record must be ------------------------------------
    Mutation('chain-without-crc', 'G1', 'an entry need not name the checksum of the one before',
             'entry.c', '           entry->prev_crc == end->crc && entry->term >= end->term &&',
             '           entry->term >= end->term &&', ('recovery', 'store', 'entry')),
    Mutation('chain-without-term', 'G1', 'an entry need not name the term of the one before',
             'entry.c', 'entry->index == end->index + 1 && entry->prev_term == end->term &&',
             'entry->index == end->index + 1 &&', ('recovery', 'store', 'entry')),
    Mutation('terms-may-fall', 'G1', 'an entry may have a lower term than the one before',
             'entry.c', 'entry->prev_crc == end->crc && entry->term >= end->term &&',
             'entry->prev_crc == end->crc &&', ('store', 'entry', 'recovery')),
    Mutation('record-without-crc', 'G1', 'the checksum of a record is not looked at',
             'record.c', 'if (r->bad || crc32_of(0, covered, (size_t)(r->at - covered)) != crc)',
             'if (r->bad || (crc32_of(0, covered, (size_t)(r->at - covered)) != crc && r->bad))', ('entry', 'recovery', 'store')),
    Mutation('reader-without-timestamp', 'G1', 'a reader does not check the version it gets',
             'read.c', '           ret->timestamp_us == node->timestamp_us &&\n', '',
             ('store', 'readers')),
    Mutation('reader-without-key', 'G1', 'a reader does not check the key of what it gets',
             'read.c', '''key_compare(ret->key, ret->key_size, keydir_key(node),
                       keydir_key_size(node)) == 0''', 'true', ('store', 'readers')),
    Mutation('key-twice', 'G2', 'a key may stand twice in an entry',
             'entry.c', '''            !key_set_add(&set, &record, offset))''',
             '''            (key_set_add(&set, &record, offset), false))''', ('entry',)),
    Mutation('timestamps-any', 'G2', 'timestamps within an entry may be any',
             'entry.c', '''            record.timestamp_us != e.timestamp_us + 1 + i ||\n''', '',
             ('entry',)),
    # ---- G3: truncation ----------------------------------------------------------------
    Mutation('truncate-unsynced', 'G3', 'a truncation is not synced',
             'job.c', '''    int rc = io->truncate(io->context, segment->fd, size);
    if (rc == 0)
        rc = io->sync_all(io->context, segment->fd);''',
             '''    int rc = io->truncate(io->context, segment->fd, size);''', ('crash',)),
    Mutation('unlink-unsynced', 'G3', 'removed segments are not synced one by one',
             'job.c', '''        return store_fail_call(error, rc, "remove", path.text);
    rc = io->sync_dir(io->context, directory.text);''',
             '''        return store_fail_call(error, rc, "remove", path.text);''', ('crash',)),
    Mutation('generation-ignored', 'G3', 'what a truncation takes back still counts as durable',
             'job.c', 's->durable = min_u64(done.durable_index, stays);',
             's->durable = done.durable_index;', ('store',)),
    # ---- G4: recovered is not durable --------------------------------------------------
    Mutation('tail-not-rewritten', 'G4', 'recovery trusts the page cache with the log\'s tail',
             'recovery_settle.c', '''    if (rc == 0)
        rc = rewrite_tail(r);
    if (rc != 0)
        return rc;
    uint64_t kept''', '''    if (rc == 0)
        rc = rewrite_tail ? 0 : -1;
    if (rc != 0)
        return rc;
    uint64_t kept''', ('crash', 'faults')),
    Mutation('recovered-log-unsynced', 'G4', 'recovery does not sync the log',
             'recovery_settle.c', '''        if (rc == 0)
            rc = s->io->sync_all(s->io->context, segment->fd);
''', '', ('crash', 'faults')),
    Mutation('recovered-state-unwritten', 'G4', 'recovery does not write term and vote again',
             'recovery_settle.c', '''    int rc = hard_state_write(s->io, s->state_fd, &r->state, !r->state_slot);
    if (rc == 0)
        rc = hard_state_write(s->io, s->state_fd, &r->state, r->state_slot);
    if (rc == 0)
        return 0;''', '''    int rc = 0;
    if (rc == 0)
        return 0;''', ('crash', 'faults')),
    Mutation('removed-before-names', 'G4', 'recovery removes files on the word of a name that is not synced',
             'recovery_settle.c', '''    int rc = sync_directories(r);
    if (rc == 0)
        rc = remove_leftovers(r);
''', '''    int rc = remove_leftovers(r);
''', ('crash_merge', 'crash_install')),
    Mutation('recovered-names-unsynced', 'G4', 'recovery does not sync the directories',
             'recovery_settle.c', '''    int rc = s->io->sync_dir(s->io->context, path.text);
    if (rc != 0)
        return store_fail_call(r->error, rc, "sync", path.text);
    rc = s->io->sync_dir(s->io->context, s->path);
''', '''    int rc = s->io->sync_dir(s->io->context, s->path);
''', ('crash', 'crash_merge', 'crash_install')),
    # ---- G5: hard state ----------------------------------------------------------------
    Mutation('one-slot', 'G5', 'term and vote are written to one slot only',
             'job.c', 'for (int slot = 0; slot < 2; slot++) { /* G5 */',
             'for (int slot = 0; slot < 1; slot++) {', ('recovery', 'store', 'crash')),
    Mutation('slots-unsynced', 'G5', 'slots are not synced',
             'state_files.c', 'return rc == 0 ? io->sync(io->context, fd) : rc;', 'return rc;',
             ('crash',)),
    Mutation('slot-without-crc', 'G5', 'the checksum of a slot is not looked at',
             'state_files.c', '''memcmp(data, magic, 8) != 0 ||
        get_u32(data + SLOT_CRC) != crc32_of(0, data, SLOT_CRC))''',
             'memcmp(data, magic, 8) != 0)', ('recovery', 'crash')),
    # ---- G6: torn or damaged -----------------------------------------------------------
    Mutation('hint-proves-nothing', 'G6', 'the commit hint is no proof of damage',
             'recovery_files.c', 'r->proven = max_u64(r->hint, r->s->manifest.applied_index);',
             'r->hint = 0;\n    r->proven = r->s->manifest.applied_index;',
             ('recovery', 'table')),
    Mutation('entry-proves-nothing', 'G6', 'a later entry is no proof of damage',
             'recovery_log.c', 'if (entry->commit > r->later_commit) {',
             'if (entry->commit > r->later_commit && r->claim_index == UINT64_MAX) {',
             ('recovery', 'table')),
    Mutation('bad-body-passes', 'G6', 'an entry with a bad record passes for intact',
             'recovery_log.c',
             'store_entry_verify(data, length, &head) == 0 ? FOUND_ENTRY : FOUND_BAD_BODY;',
             'store_entry_verify(data, length, &head) == 0 ? FOUND_ENTRY : FOUND_ENTRY;',
             ('recovery', 'crash')),
    Mutation('hint-before-log', 'G6', 'the commit hint is written before what it promises is synced',
             'job.c', 'if (dirty && (op->kind != OP_APPEND || op->segment != dirty)) {',
             'if (dirty && op->kind != OP_COMMIT_HINT &&\n'
             '            (op->kind != OP_APPEND || op->segment != dirty)) {', ('crash',)),
    Mutation('damage-is-cut', 'G6', 'what is behind a hole is cut off',
             'recovery_log.c', '''    if (r->hole)
        return keep_beyond(r);''', '''    if (r->hole && keep_beyond(r) != 0)
        return -ENOMEM;''', ('hole', 'table')),
    Mutation('append-unsynced', 'G6', 'the last batch of a job is not synced',
             'job.c', '''    if (rc == 0 && dirty)
        rc = sync_segment(job, dirty, error);
    return rc;''', '''    return rc;''', ('crash',)),
    # ---- Names and headers -------------------------------------------------------------
    Mutation('header-unsynced', 'I3', 'a segment gets its name before its header is synced',
             'segment.c', '''    rc = io->sync_all(io->context, segment->fd);
    if (rc != 0)
        return store_fail_call(error, rc, "sync", spare.text);
    rc = io->rename''', '''    rc = io->rename''', ('crash',)),
    Mutation('name-unsynced', 'I3', 'a new segment\'s name is not synced',
             'segment.c', '''    rc = io->sync_dir(io->context, directory.text);
    if (rc != 0)
        return store_fail_call(error, rc, "sync", directory.text);
    return 0;''', '''    return 0;''', ('crash',)),
    Mutation('create-renames-early', 'I3', 'a store\'s state has its name before it is synced',
             'store.c', '''    if (rc == 0)
        rc = hard_state_write(io, fd, &state, 1);
    if (rc == 0)
        rc = io->sync_all(io->context, fd);
    io->close(io->context, fd);
    if (rc == 0) /* the log directory before the name that vouches for it */
        rc = io->sync_dir(io->context, options->path);
    if (rc == 0)
        rc = io->rename(io->context, new_path, path);''', '''    if (rc == 0)
        rc = io->rename(io->context, new_path, path);
    if (rc == 0)
        rc = hard_state_write(io, fd, &state, 1);
    if (rc == 0)
        rc = io->sync_all(io->context, fd);
    io->close(io->context, fd);
    if (rc == 0)
        rc = io->sync_dir(io->context, options->path);''', ('crash', 'faults')),
    # ---- G7: merging -------------------------------------------------------------------
    Mutation('e-is-m', 'G7', 'the manifest says M where it must say E',
             'merge.c', '.applied_index = s->applied.index,', '.applied_index = m->merged.index,',
             ('crash_merge', 'merge', 'merge_faults')),
    Mutation('e-proves-nothing', 'G7', 'recovery does not take E for committed',
             'recovery_files.c', 'r->proven = max_u64(r->hint, r->s->manifest.applied_index);',
             'r->proven = r->hint;', ('crash_merge', 'merge', 'manifest')),
    Mutation('always-ready', 'G7', 'what lacks superseded records counts as ready',
             'merge.c', 'return s->applied.index >= s->manifest.applied_index;', 'return true;',
             ('snapshot', 'manifest', 'crash_install', 'merge')),
    Mutation('merged-log-stays', 'G7', 'recovery reads log segments that were merged',
             'recovery_files.c', 'if (names->ids[i] >= s->manifest.first_file)', 'if (true)',
             ('crash_merge', 'merge', 'manifest', 'crash_install')),
    Mutation('outputs-unsynced', 'G7', 'a merged file is not synced before it is published',
             'merged.c', '''    if (rc == 0)
        rc = io->sync_all(io->context, w->fd);
    if (rc == 0)
        rc = io->rename''', '''    if (rc == 0)
        rc = io->rename''', ('crash_merge',)),
    Mutation('output-names-unsynced', 'G7', 'merged files\' names are not synced before they are '
             'published', 'merge.c',
             'return m->output_count > 0 ? sync_directory(m->task.store, error) : 0;', 'return 0;',
             ('crash_merge',)),
    Mutation('pieces-stay', 'D38', 'a long write is not sent to the disk piece by piece',
             'io.c', 'return rc == 0 && io->write_out ?', 'return rc != 0 && io->write_out ?',
             ('files',)),
    Mutation('pieces-unchecked', 'D38', 'a piece that the disk has not taken is not told',
             'io.c', 'io->write_out(io->context, fd, begin, *offset) : rc;',
             '((void)!io->write_out(io->context, fd, begin, *offset), 0) : rc;', ('files',)),
    Mutation('victims-stay', 'G7', 'one of the victims is not removed',
             'merge.c', 'if (m->removed == m->victim_count)',
             'if (m->removed + 1 >= m->victim_count)', ('merge', 'crash_merge')),
    Mutation('manifest-unsynced', 'G7', 'the manifest is renamed before it is synced',
             'io.c', '''    if (rc == 0)
        rc = io->sync_all(io->context, fd);
    io->close(io->context, fd);
    return rc;''', '''    io->close(io->context, fd);
    return rc;''', ('crash_merge', 'crash_install')),
    Mutation('manifest-name-unsynced', 'G7', 'victims go before the manifest\'s name is synced',
             'manifest.c', '''    if (rc == 0)
        rc = s->io->sync_dir(s->io->context, directory.text);
''', '', ('crash_merge', 'crash_install')),
    Mutation('victims-go-first', 'G7', 'victims are removed before the manifest is published',
             'merge.c', '''    int rc = manifest_write(m->task.store, &m->manifest, error);
    if (rc == 0) {
        m->phase''', '''    int rc = 0;
    for (size_t i = 0; rc == 0 && i < m->victim_count; i++)
        rc = remove_file(m->task.store, m->victims[i].segment->kind,
                         m->victims[i].segment->file_id, error);
    if (rc == 0)
        rc = sync_directory(m->task.store, error);
    if (rc == 0)
        rc = manifest_write(m->task.store, &m->manifest, error);
    if (rc == 0) {
        m->phase''', ('crash_merge',)),
    Mutation('tombstones-go', 'G7', 'no tombstone outlives a merge',
             'merge_copy.c', 'return has_key(m, source) ? 0 : hides_something(m, &source->at);',
             'return hides_something && has_key(m, source) ? 0 : 0;',
             ('crash_merge', 'merge', 'merge_faults')),
    Mutation('tombstones-stay', 'G7', 'no tombstone goes',
             'merge_copy.c', 'return has_key(m, source) ? 0 : hides_something(m, &source->at);',
             'return has_key(m, source) || !hides_something ? 0 : 1;', ('merge', 'merge_faults')),
    Mutation('copy-unverified', 'G7', 'a merge copies what it has not checked',
             'merge_copy.c', 'if (n == (ssize_t)length && is_right(m, at))',
             'if (n == (ssize_t)length && (is_right(m, at) || true))', ('merge', 'merge_faults')),
    Mutation('relocate-any-version', 'G7', 'a pointer moves to another version\'s copy',
             'merge.c', '''    if (!node || node->timestamp_us != record->timestamp_us)
        return;
    uint64_t place = keydir_place(node);
    if (place == PLACE_GONE)
        return;
    const struct segment *segment = place_segment(keydir->slots, place);
    if (atomic_load_explicit(&segment->merging, memory_order_relaxed))
''', '''    if (!node)
        return;
    uint64_t place = keydir_place(node);
    if (place != PLACE_GONE)
''', ('crash_merge', 'merge')),
    Mutation('relocate-blindly', 'G7', 'a pointer moves though the loop has taken the node out',
             'keydir.c', '''    bool done = atomic_compare_exchange_strong_explicit(
        &moved->place, &from, to, memory_order_acq_rel, memory_order_acquire);''',
             '''    bool done = true;
    atomic_store(&moved->place, to);''', ('keydir', 'merge')),
    Mutation('state-not-saved', 'G7', 'the caller\'s state is not kept with what is merged',
             'merge.c', 'int rc = s->save_state ? s->save_state(s->context, &state) : 0;',
             'int rc = 0;', ('merge', 'crash_merge')),
    # ---- G8 ----------------------------------------------------------------------------
    Mutation('retention-ignored', 'G8', 'the log is not kept for members that are behind',
             'space.c', '            (last >= s->keep_from && behind < s->retain_bytes))',
             '            (last >= s->keep_from && behind < s->retain_bytes && false))',
             ('merge', 'merge_faults')),
    Mutation('pins-ignored', 'G8', 'the log is not kept for a transfer',
             'space.c', 'uint64_t applied = min_u64(s->applied.index, lowest_pin(s) - 1);',
             'uint64_t applied = lowest_pin(s) ? s->applied.index : 0;', ('merge', 'snapshot')),
    # ---- Hints -------------------------------------------------------------------------
    Mutation('stale-hint', 'I11', 'a hint of a file of another length is taken',
             'hint_read.c', 'get_u64(head + 32) != file_id || get_u64(head + 40) != data_bytes ||',
             'get_u64(head + 32) != file_id ||', ('files', 'manifest', 'table', 'recovery')),
    Mutation('hint-without-crc', 'I11', 'the checksum of a hint\'s block is not looked at',
             'hint_read.c', '''block[8] != kind || get_u32(block + 4) != crc32_of(0, block + 8, length))''',
             '''block[8] != kind)''', ('files', 'manifest', 'table')),
    Mutation('hint-unsynced', 'I11', 'a hint has its name before it is synced',
             'hint.c', '''    if (rc == 0)
        rc = io->sync_all(io->context, w->fd);
    if (rc == 0)
        rc = io->rename''', '''    if (rc == 0)
        rc = io->rename''', ('crash_merge', 'crash_install', 'merge_faults')),
    Mutation('hint-skips-a-block', 'I11', 'a block that could not be read for lack of memory is '
             'passed over', 'hint_read.c', '''    if (rc == 0) /* else the same block is read by the next call */
        r->next_block++;''', '''    r->next_block++;''', ('crash_merge',)),
    # ---- G9: repair --------------------------------------------------------------------
    Mutation('repair-any-version', 'G9', 'a record of another version is taken for a repair',
             'repair.c', 'if (!node || node->timestamp_us != r.timestamp_us) {', 'if (!node) {',
             ('repair',)),
    Mutation('repair-unverified', 'G9', 'a peer\'s record is not checked',
             'repair.c', '''if (store_record_read(&reader, &r) != 0 || !reader_done(&reader) || !r.value)
        return -EBADMSG;
    const struct keydir_node''', '''if (store_record_read(&reader, &r) == 1 || !r.value)
        return -EBADMSG;
    const struct keydir_node''', ('repair',)),
    Mutation('repair-in-part', 'G9', 'a repair writes less than whole blocks',
             'repair.c', 'b->first = op->offset - op->offset % BLOCK_BYTES;',
             'b->first = op->offset;', ('repair',)),
    Mutation('reader-tries-once', 'G9', 'a reader that met bad bytes does not read again',
             'read.c', '''for (int attempt = 0; attempt < 2 && rc == -EBADMSG; attempt++) {
        do {
            reading_begin();
            rc = get_once(''',
             '''for (int attempt = 0; attempt < 1 && rc == -EBADMSG; attempt++) {
        do {
            reading_begin();
            rc = get_once(''', ('readers', 'store', 'repair')),
    # ---- G10 ---------------------------------------------------------------------------
    Mutation('sequence-still', 'G10', 'a reader of several keys is not told of an entry',
             'log.c', '''    __atomic_store_n(&s->sequence, s->sequence + 1, __ATOMIC_RELEASE);
    keydir_commit(s->keydir, change, entry, s->shared);
    __atomic_store_n(&s->sequence, s->sequence + 1, __ATOMIC_RELEASE);''',
             '''    keydir_commit(s->keydir, change, entry, s->shared);''', ('store', 'readers')),
    # ---- Installing --------------------------------------------------------------------
    Mutation('install-names-unsynced', 'G7', 'an installed file\'s name is not synced before the '
             'manifest', 'install.c', '''    int rc = io->sync_dir(io->context, directory.text);
    /* Both:''', '''    int rc = 0;
    /* Both:''', ('crash_install', 'install')),
    Mutation('install-removes-first', 'G7', 'the former files go before the manifest is published',
             'install.c', '''    if (rc == 0)
        rc = manifest_write(s, &in->installed, error);''', '''    if (rc == 0)
        rc = remove_former(job, in, error);
    if (rc == 0)
        rc = manifest_write(s, &in->installed, error);''', ('crash_install', 'install')),
    Mutation('install-failure-forgotten', 'G7', 'memory that runs out in an installation counts as success',
             'install.c', 'return rc == 0 ? settle(job, in, error) : rc;',
             'return rc == 0 ? settle(job, in, error) * 0 : rc == -ENOMEM ? 0 : rc;',
             ('install', 'crash_install')),
    Mutation('install-not-newer', 'G7', 'a snapshot that is behind what is applied is installed',
             'install.c', 'if (index <= s->applied.index || index <= min_u64(s->hint, s->end.index))',
             'if (index == 0)', ('snapshot',)),
    # ---- Memory ------------------------------------------------------------------------
    Mutation('leak-on-failure', 'memory', 'an allocation that fails half-way leaks the first half',
             'keydir.c', '''    int rc = store_entry_each(entry->data, entry->length, prepare_record, &p);
    if (rc != 0) {
        change_free(keydir, change);
''',
             '''    int rc = store_entry_each(entry->data, entry->length, prepare_record, &p);
    if (rc != 0) {
''', ('faults', 'crash_merge')),
    Mutation('node-reused-early', 'memory', 'a node is taken again while readers may hold it',
             'keydir.c', '''    change->pool = keydir->pool;
''', '''    for (uint32_t i = 0; i < change->count; i++) {
        if (change->nodes[i])
            pool_give(keydir->pool, change->nodes[i]);
        change->nodes[i] = NULL;
    }
    change->pool = keydir->pool;
''', ('pool', 'readers')),
    Mutation('nodes-not-collected', 'memory', 'nodes that readers may have held never serve again',
             'keydir.c', '    pool_collect(keydir->pool);\n', '', ('pool',)),
    Mutation('pool-goes-first', 'memory', 'the pool goes with its keydir, though nodes are to come back',
             'keydir.c', '    pool_ref(keydir->pool);\n', '', ('pool', 'readers')),
    Mutation('slab-stays', 'memory', 'a slab without blocks stays its size\'s', 'pool.c',
             '''    if (slab->used == 0)
        slab_free(pool, slab);
''', '', ('pool',)),
    # ---- Lessons (docs/lessons.md): each breaks what one of their tests is about ----------
    Mutation('lesson-01', 'lesson 1', 'what was merged is taken for the state of an earlier index',
             'merge.c', '.applied_index = s->applied.index,', '.applied_index = m->merged.index,',
             ('lessons:lesson_01*',), True),
    Mutation('lesson-02', 'lesson 2', 'a leader counts itself before its own disk has it',
             'raft/replicate.c', 'uint64_t to = quorum_of(r, r->durable, match_of);',
             'uint64_t to = quorum_of(r, runs_last_index(&r->log), match_of);', ('lessons:lesson_02*',), True),
    Mutation('lesson-03', 'lesson 3', 'a read that is asked again keeps its number',
             'raft/read.c', '    round_begin(r);\n    peers_beat(r, true);\n    r->out',
             '    if (r->lead.round < 2)\n        round_begin(r);\n    peers_beat(r, true);\n    r->out',
             ('lessons:lesson_03*',), True),
    Mutation('lesson-03-term', 'lesson 3', 'an answer of a former term confirms a read',
             'raft/replicate.c', 'if (m->term < r->term || r->role != RAFT_LEADER)',
             'if (r->role != RAFT_LEADER)', ('lessons:lesson_03*',), True),
    Mutation('lesson-04', 'lesson 4', 'a read needs no commit of the own term',
             'raft/read.c', '    if (!raft_established(r))\n        return -EAGAIN; /* S1 */\n', '',
             ('lessons:lesson_04*',), True),
    Mutation('lesson-06', 'lesson 6', 'a follower answers before its disk has it',
             'raft/append.c', 'return min_u64(r->durable, r->follow.verified);',
             'return r->follow.verified;', ('lessons:lesson_06*',), True),
    Mutation('lesson-07', 'lesson 7', 'an entry of a batch counts by its head alone',
             'recovery_log.c',
             'store_entry_verify(data, length, &head) == 0 ? FOUND_ENTRY : FOUND_BAD_BODY;',
             'store_entry_verify(data, length, &head) == 0 ? FOUND_ENTRY : FOUND_ENTRY;',
             ('lessons:lesson_07*',), True),
    Mutation('lesson-09', 'lesson 9', 'a sync that failed is tried once more',
             'job.c', '''    int rc = io->sync(io->context, segment->fd);
    job->syncs++;''', '''    int rc = io->sync(io->context, segment->fd);
    if (rc != 0)
        rc = io->sync(io->context, segment->fd);
    job->syncs++;''', ('lessons:lesson_09*',), True),
    Mutation('lesson-10', 'lesson 10', 'a suffix is cut from the front',
             'job.c', '''        size_t n = 1;
        if (op->kind == OP_APPEND) {''', '''        size_t n = 1, end = i;
        while (op->kind == OP_UNLINK && end + 1 < job->count &&
               job->ops[end + 1].kind == OP_UNLINK)
            end++;
        if (end > i) {
            n = end - i + 1;
            for (; rc == 0 && end + 1 > i; end--)
                rc = run_unlink(job, &job->ops[end], error);
        } else if (op->kind == OP_APPEND) {''', ('lessons:lesson_10*',), True),
    Mutation('lesson-11', 'lesson 11', 'each entry goes as a message of its own',
             'raft/replicate.c', 'p->sending_last = runs_last_index(&r->log);',
             'p->sending_last = p->next;', ('lessons:lesson_11*',), True),
    Mutation('lesson-11-bytes', 'lesson 11', 'bytes on their way to a peer are not counted',
             'node/flight.c', ' && f->bytes < LIMIT_FLIGHT_BYTES;', ';', ('flight:lesson_11*',), True),
    Mutation('lesson-11-messages', 'lesson 11', 'any number of messages is on its way to a peer',
             'node/entries.c', 'p->flight.waits = !flight_has_room(&p->flight);',
             'if (!flight_has_room(&p->flight))\n        flight_clear(&p->flight);',
             ('golden/lesson-11-slow-follower',), True),
    Mutation('lesson-12', 'lesson 12', 'what a leader knows outlives its leadership',
             'raft/role.c', '    memset(&r->lead, 0, sizeof(r->lead));\n', '', ('lessons:lesson_12*',), True),
    Mutation('lesson-13', 'lesson 13', 'a pre-vote is refused with the term it asked for',
             'raft/election.c', 'if (m->pre && granted)', 'if (m->pre)', ('lessons:lesson_13*',), True),
    Mutation('lesson-14', 'lesson 14', 'room is taken for granted',
             'log.c', '''        return s->stats.disk_free_bytes >= s->segment_bytes;
    return s->spare_state == SPARE_READY;''', '''        return s->stats.disk_free_bytes >= s->segment_bytes;
    return true;''', ('lessons:lesson_14*',), True),
    Mutation('lesson-15', 'lesson 15', 'a majority is one too small',
             'raft/config.c', 'return values[count / 2];', 'return values[count / 2 - (count > 1)];',
             ('random',), True),
    Mutation('lesson-16', 'lesson 16', 'term and vote are written to one place',
             'job.c', 'for (int slot = 0; slot < 2; slot++) { /* G5 */',
             'for (int slot = 0; slot < 1; slot++) { /* G5 */', ('lessons:lesson_16*',), True),
    Mutation('lesson-16-durable', 'lesson 16', 'durable does not go back with a truncation',
             'raft/append.c', '    r->durable = min_u64(r->durable, to);\n', '', ('lessons:lesson_16*',), True),
    Mutation('lesson-16-stale', 'lesson 16', 'a completion of what was truncated counts',
             'raft/raft.c', '''    if (e->generation != r->generation)
        return 0; /* G3: of entries that were truncated meanwhile */
''', '', ('lessons:lesson_16*',), True),
    Mutation('lesson-19', 'lesson 19', 'an entry is taken wherever it stands',
             'entry.c', """    return entry->index == end->index + 1 && entry->prev_term == end->term &&
           entry->prev_crc == end->crc && entry->term >= end->term &&""",
             '    return', ('lessons:lesson_19*',), True),
    Mutation('lesson-19-synced', 'lesson 19', 'a term is not synced before what comes of it',
             'state_files.c', '    return rc == 0 ? io->sync(io->context, fd) : rc;\n',
             '    return rc;\n', ('lessons:lesson_19*',), True),
    Mutation('lesson-19-told', 'lesson 19', 'nobody is told to write a higher term',
             'raft/role.c', '    r->term = term;\n    r->vote = 0;\n    r->out.hard_state_changed = true;\n',
             '    r->term = term;\n    r->vote = 0;\n', ('lessons:lesson_19*',), True),
    Mutation('lesson-20', 'lesson 20', 'a leader that no majority hears leads on',
             'raft/replicate.c', 'return r->now_us < quorum_due_us(r);',
             'return r->now_us < quorum_due_us(r) || r->now_us > 0;', ('drawn',), True),
    Mutation('lesson-20-shortcut', 'lesson 20', 'who campaigns asks in earnest at once',
             'raft/election.c', 'role_campaign(r, true, false);', 'role_campaign(r, false, false);',
             ('drawn',), True),
    Mutation('lesson-05', 'lesson 5', 'a read is not judged again when it has read',
             'node/view.c', 'bool counts = atomic_load(&g->epoch) == epoch;',
             'bool counts = atomic_load(&g->epoch) >= epoch;', ('background:lesson_05*',), True),
    Mutation('lesson-05-list', 'lesson 5', 'a list is not judged again when it has been read',
             'node/view.c', 'if (atomic_load(&n->gate.epoch) == epoch)',
             'if (atomic_load(&n->gate.epoch) >= epoch)', ('background:lesson_05*',), True),
    Mutation('lesson-08', 'lesson 8', 'a leader whose disk hangs leads on',
             'node/eligible.c', 'bool eligible = sane && room && !n->log.hung;',
             'bool eligible = sane && room;', ('golden/lesson-08-hung-disk',), True),
    Mutation('lesson-17', 'lesson 17', 'who installs a snapshot answers nothing',
             'node/peers.c', 'if (snapshot_is_installing(n) && !is_harmless(n, &m))',
             'if (snapshot_is_installing(n) && (!is_harmless(n, &m) || n))',
             ('golden/lesson-17-slow-install',), True),
    Mutation('lesson-18', 'lesson 18', 'the window forgets what was answered',
             'node/session.c', 'if (slot && slot->request == request) {',
             'if (slot && slot->request == request && request == 0) {',
             ('golden/lesson-18-unlink-twice',), True),
    # ---- F: locks ----------------------------------------------------------------------
    Mutation('lock-last-come', 'F2', 'who comes to wait is granted before those who wait already',
             'fs/locks.c', 'insert(locks, locks->count, lock);', 'insert(locks, locks->held, lock);',
             ('fs/locks',), True),
    Mutation('lock-reader-passes', 'F2', 'a reader passes a writer that waits', 'fs/locks.c',
             '''    for (size_t i = locks->held; i < end; i++)
        if (fs_lock_conflicts(''', '''    for (size_t i = locks->held; i < end && wanted->writes; i++)
        if (fs_lock_conflicts(''', ('fs/locks',), True),
    Mutation('lock-holder-waits-its-turn', 'F2', 'a holder waits for those who wait for it',
             'fs/locks.c', '''    if (locks_is_holder(locks, wanted))
        return NULL;
''', '', ('fs/locks',), True),
    Mutation('lock-owner-alone', 'F1', 'owners of one number on two hosts are one', 'fs/locks.c',
             'return lock->session == owner->session && lock->owner', 'return lock->owner',
             ('fs/locks',), True),
    Mutation('lock-owner-of-any-kind', 'F1', 'an owner of fcntl locks and one of flock are one',
             'fs/locks.c', '''lock->owner == owner->owner &&
           lock->kind == owner->kind;''', 'lock->owner == owner->owner;', ('fs/locks',), True),
    Mutation('lock-rest-begins-early', 'F1', 'what is left behind a cut begins one byte before its '
             'end', 'fs/locks.c', 'rest.start = lock->end + 1;', 'rest.start = lock->end;', ('fs/locks',), True),
    Mutation('lock-rest-ends-late', 'F1', 'what is left before a cut ends one byte behind its '
             'beginning', 'fs/locks.c', 'rest.end = lock->start - 1;', 'rest.end = lock->start;',
             ('fs/locks',), True),
    Mutation('lock-ends-before-its-end', 'F1', 'locks that meet in one byte do not overlap',
             'fs/locks.c', 'return a->start <= b->end && b->start <= a->end;',
             'return a->start < b->end && b->start <= a->end;', ('fs/locks',), True),
    Mutation('lock-unlock-grants-nobody', 'F2', 'who waits for what is unlocked waits on',
             'fs/evaluate_lock.c', '''    locks_grant(&s->after, now_us(e));
    return put_locks(e, s->inode, &s->before, &s->after);''',
             '''    return put_locks(e, s->inode, &s->before, &s->after);''', ('fs/locks',), True),
    Mutation('lock-weakening-grants-nobody', 'F2', 'who waits for what becomes a reader\'s waits on',
             'fs/evaluate_lock.c', '''        locks_grant(locks, now_us(e)); /* it may take something back */''',
             '        (void)locks;', ('fs/locks',), True),
    Mutation('lock-death-leaves-one', 'F4', 'of a session\'s locks one is left when it ends',
             'fs/locks.c', '''    for (size_t i = locks->count; i-- > 0;)
        if (locks->at[i].session == session)''', '''    for (size_t i = locks->count; i-- > 1;)
        if (locks->at[i].session == session)''', ('fs/locks',), True),
    Mutation('lock-death-grants-nobody', 'F2', 'who waits for a session that ends waits on',
             'fs/evaluate_lock.c', '''        locks_grant(&s.after, now_us(e));
''', '', ('fs/locks',), True),
    Mutation('lock-death-stops-early', 'F4', 'a batch that is full by its bytes ends the session',
             'fs/evaluate_lock.c', 'return more < 0 ? more : more || i < left.count;', 'return more;',
             ('fs/locks',), True),
    Mutation('lock-ring-of-two-alone', 'F5', 'a ring of more than two is not seen',
             'fs/evaluate_deadlock.c', 'while (!error && !is_at_end(w) && w->next < w->count) {',
             'while (!error && !is_at_end(w) && w->next < w->count && w->next < 1) {', ('fs/locks',), True),
    Mutation('lock-ring-by-turn', 'F5', 'a ring that only the turn of others closes is a deadlock',
             'fs/evaluate_lock.c', 'if (deadlock && is_kept_by_holder(locks, wanted))', 'if (deadlock)',
             ('fs/locks',), True),
    Mutation('lock-waits-uncounted', 'F3', 'a W record keeps its first count', 'fs/evaluate_lock.c',
             'else if (!t->was || t->waited != t->waits)', 'else if (!t->was)', ('fs/locks',), True),
    Mutation('lock-one-more', 'F6', 'one lock more than there may be', 'fs/evaluate_lock.c',
             's->after.count > FS_LOCKS_MOST &&', 's->after.count > FS_LOCKS_MOST + 1 &&', ('fs/locks',), True),
    Mutation('lock-none-fewer', 'F6', 'where there are too many none can be taken back',
             'fs/evaluate_lock.c', ' && s->after.count > s->before.count;', ';', ('fs/locks',), True),
    Mutation('lock-grant-fails', 'F6', 'what is granted is counted against who unlocks',
             'fs/evaluate_lock.c', '''    if (is_too_many(s))
        return -ENOLCK;
    locks_grant(&s->after, now_us(e));
''', '''    locks_grant(&s->after, now_us(e));
    if (is_too_many(s))
        return -ENOLCK;
''', ('fs/locks',), True),
    Mutation('lock-ticket-of-anybody', 'F2', 'a ticket of another session is taken back', 'fs/locks.c',
             'if (locks->at[i].session == session && locks->at[i].ticket == ticket) {',
             'if (locks->at[i].ticket == ticket) {', ('fs/locks',), True),
    Mutation('lock-flock-in-place', 'F2', 'of a flock that becomes another the old one does not go '
             'first', 'fs/evaluate_lock.c', 'wanted->kind == FS_LOCK_FLOCK && locks_cut(locks, wanted);',
             'false;', ('fs/locks',), True),
    Mutation('lock-outlives-its-file', 'F4', 'a file that goes leaves its locks',
             'fs/evaluate_orphan.c', 'int error = eval_drop_locks(e, inode->inode); /*',
             'int error = 0; /*', ('fs/locks',), True),
    # ---- N4: inodes without a name -----------------------------------------------------
    Mutation('orphan-stays', 'N4', 'the last release deletes nothing', 'fs/evaluate_orphan.c',
             'if (!h.others)', 'if (false)', ('fs/orphans',), True),
    Mutation('orphan-goes-with-the-first', 'N4', 'the first release deletes it',
             'fs/evaluate_orphan.c', 'if (!h.others)', 'if (true)', ('fs/orphans',), True),
    Mutation('orphan-released-twice', 'N4', 'a release by who does not hold it counts',
             'fs/evaluate_orphan.c', 'if (error || !h.asked)', 'if (error)', ('fs/orphans',), True),
    Mutation('orphan-dead-hold-it', 'N4', 'what only sessions that have ended held stays',
             'fs/evaluate_orphan.c', 'int error = dead == end - first ? delete_inode(e, f->inodes[first]) : 0;',
             'int error = 0;', ('fs/orphans',), True),
    Mutation('orphan-living-do-not', 'N4', 'one session that has ended takes it from all',
             'fs/evaluate_orphan.c', 'int error = dead == end - first ?', 'int error = dead ?',
             ('fs/orphans',), True),
    Mutation('orphan-half-looked-at', 'N4', 'of an inode the records of one batch alone count',
             'fs/evaluate_orphan.c', 'if (end == f->count && more)', 'if (end == f->count && more && !first)',
             ('fs/orphans',), True),
    Mutation('orphan-of-one-session', 'N4', 'one session that lives may hold it, and no other',
             'fs/evaluate_orphan.c', 'for (size_t n = 0; n < s.count; n++) {',
             'for (size_t n = 0; n < 1; n++) {', ('fs/orphans',), True),
    Mutation('orphan-not-looked-for', 'N4', 'what was missed is not looked for', 'node/orphans.c',
             'n->orphans.scan_from = FS_ROOT_INODE;', 'n->orphans.scan_from = 0;', ('node/orphans',), True),
    Mutation('orphan-dead-not-looked-for', 'N4', 'who leads does not look when a session ends',
             'node/driver.c', 'a->node->leader.orphans_from = FS_ROOT_INODE; /* it held',
             'a->node->leader.orphans_from = 0; /* it held', ('node/orphans',), True),
    # ---- M9-M11, M19-M22: what the mount holds -----------------------------------------
    Mutation('orphan-released-though-held', 'M9', 'what the kernel has looked up is released',
             'fs/mount_orphans.c', 'return lookup_is_held(m, inode) || file_is_known(m, inode);',
             'return false;', ('fs/mount:*remov*',), True),
    Mutation('orphan-forgotten-and-kept', 'M9', 'what the kernel forgets is not released',
             'fs/mount_orphans.c', '''    lookups_remove(&m->lookups, l);
    release(m, inode);''', '''    lookups_remove(&m->lookups, l);''', ('fs/mount:*remov*',), True),
    Mutation('orphan-section-not-waited-for', 'M10', 'what a look-up reads meanwhile is released',
             'fs/mount_orphans.c', 'while (u->sections[!u->epoch] == 0 && (', 'while ((', ('fs/mount:*remov*',), True),
    Mutation('lock-close-leaves-all', 'K13', 'the last close of an open file leaves its locks',
             'fs/mount_files.c', '    handle_locks_drop(handle);\n', '', ('fs/mount_unlock',), True),
    Mutation('lock-any-close-leaves-all', 'K13', 'a close leaves the locks of its process',
             'fs/mount_lock.c', '''    if (!file_locks_find(handle->file, FS_LOCK_FCNTL, owner))
        return false;''', '''    if (handle)
        return false;''', ('fs/mount_unlock',), True),
    Mutation('lock-flush-asks-its-handle', 'K13', 'a close unlocks what was locked by that descriptor',
             'fs/mount_lock.c', 'if (!file_locks_find(handle->file, FS_LOCK_FCNTL, owner))',
             'if (!handle_locks_find(handle, FS_LOCK_FCNTL, owner))', ('fs/mount_unlock',), True),
    Mutation('lock-unlock-not-said-again', 'M19', 'an unlocking that failed is not tried again',
             'fs/mount_locked.c', '''    if (again) {
        d->state = DROP_FAILED;''', '''    again = false;
    if (again) {
        d->state = DROP_FAILED;''', ('fs/mount_unlock',), True),
    Mutation('lock-unlock-before-commit', 'M20', 'what was written is committed behind the unlocking',
             'fs/mount_lock.c', 'commit_then(call, last_layer(file), ask_to_unlock);',
             'commit_then(call, NULL, ask_to_unlock);', ('fs/mount_unlock',), True),
    Mutation('lock-of-a-doubtful-session', 'M21', 'a session that may have ended holds its locks',
             'fs/mount_locked.c', 'if (sure && session == handle->lock_session)',
             'if (session == handle->lock_session)', ('fs/mount_unlock',), True),
    Mutation('lock-of-another-session', 'M21', 'any session holds the locks of a former one',
             'fs/mount_locked.c', 'if (sure && session == handle->lock_session)', 'if (sure)',
             ('fs/mount_unlock',), True),
    Mutation('lock-lost-comes-back', 'M21', 'locks that were lost are held again when the session is sure',
             'fs/mount_locked.c', '    handle->lock_lost = true;\n', '', ('fs/mount_unlock',), True),
    Mutation('lock-killed-waits-on', 'M22', 'who is killed while it waits is not taken back',
             'fs/mount_lock.c', '''    take_back(call);
    call->settled = true;
    return call;''', '''    call->settled = true;
    return call;''', ('fs/mount_unlock',), True),
]
