"""What callers at several mounts did and saw, for tests/sim/check_history.

A caller works on *objects* that all mounts share: a register (a file whose value is replaced), a
list (a file that is appended to), and names (a directory whose names are made, removed and
renamed). An object's calls and answers are its history. It is retired after a while, so
that histories stay short, and checked on its own.

What is judged is what tierce promises:

- A read counts where it comes behind an operation that the leader answered without an entry
  (`Caller.confirm`): what is applied here then is at least what was committed when it was
  asked. Reads that ask nobody may be old; only they must not go back on one mount.
- On the writer's own host a change is seen as it grows. So on one mount one caller at a time
  is busy with a file.
- A read of a file that another host replaces meanwhile may be cut to the length of the former value
  (K17): it is read again, and fails where no reading is whole.
- An error that the kernel gives for a look-up of its own counts only behind confirm(). Those of
  a rename, which looks up two names one after the other, do not, but for ENOENT.
- A call that was cut off, or failed with EIO, may have happened or not, at any time later.
  EROFS and ENOSPC say that it did not.
"""

import ctypes
import errno
import os
import random
import struct
import threading
import time

from cluster import Failure, check

OBJECT_CALLS = 300
OBJECT_OPEN = 6  # calls without an answer, after which an object is retired
PIECE = 16
NAMES = 6
CONFIRM = 'confirm'  # the directory of the callers' own directories
TOP = 'torture'
MASK = (1 << 64) - 1
TORN_TRIES = 10
NOT_TOLD = None

RENAME_NOREPLACE = 1
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)

DID_NOT_HAPPEN = (errno.EROFS, errno.ENOSPC)
SAYS_NOTHING = (errno.EIO, errno.EINTR, errno.ENOTCONN, errno.ECONNABORTED, errno.ETIMEDOUT,
                errno.ESTALE, errno.ENODEV)


def list_hash(value_hash, value):
    """linear_list_hash() of tests/sim/models.c."""
    value_hash = ((value_hash ^ value) * 0x9e3779b97f4a7c15) & MASK
    return value_hash ^ (value_hash >> 31)


def fill(value, length):
    """A value with its length and bytes that belong to it alone."""
    head = struct.pack('<QQ', value, length)
    pattern = head + struct.pack('<Q', ~value & MASK)
    return (head + pattern * (length // len(pattern) + 1))[:length]


def read_filled(data):
    """The value; 0 of an empty file; None: no value ever looked like this."""
    if not data:
        return 0
    if len(data) < PIECE:
        return None
    value, length = struct.unpack_from('<QQ', data)
    if length > len(data) or data[:length] != fill(value, length):
        return None
    return value


def read_pieces(data):
    """(how many, their hash) of a list; None: no list ever looked like this."""
    if len(data) % PIECE:
        return None
    h = 0
    for value, other in struct.iter_unpack('<QQ', data):
        if other != ~value & MASK:
            return None
        h = list_hash(h, value)
    return len(data) // PIECE, h


class Call:
    __slots__ = ('invoked', 'returned', 'client', 'kind', 'a', 'b', 'error', 'r1', 'r2')

    def line(self):
        def word(value):
            return '-' if value is None else str(value)
        return (f'{self.invoked} {word(self.returned)} {self.client} {self.kind} {self.a} {self.b}'
                f' {self.error} {word(self.r1)} {word(self.r2)}')


class Object:
    def __init__(self, kind, number):
        self.kind, self.name = kind, f'{kind[0]}{number}'
        self.lock = threading.Lock()
        self.calls, self.busy, self.open = [], 0, 0
        self.made = self.retired = False

    def begin(self, client, kind, a=0, b=0):
        call = Call()
        call.client, call.kind, call.a, call.b = client, kind, a, b
        call.returned, call.error, call.r1, call.r2 = None, 0, NOT_TOLD, NOT_TOLD
        with self.lock:
            self.calls.append(call)
            self.busy += 1
            if len(self.calls) >= OBJECT_CALLS:
                self.retired = True
        call.invoked = time.monotonic_ns()
        return call

    def answered(self, call, error=0, r1=NOT_TOLD, r2=NOT_TOLD):
        call.error, call.r1, call.r2 = error, r1, r2
        call.returned = time.monotonic_ns()
        with self.lock:
            self.busy -= 1

    def dropped(self, call):
        """As if it had never been asked."""
        with self.lock:
            self.calls.remove(call)
            self.busy -= 1

    def left_open(self, call):
        with self.lock:
            self.busy -= 1
            self.open += 1
            if self.open >= OBJECT_OPEN:
                self.retired = True

    def failed(self, call, error):
        if error.errno in SAYS_NOTHING:
            self.left_open(call)
        elif error.errno in DID_NOT_HAPPEN:
            self.dropped(call)
        else:
            raise Failure(f'{call.kind} of {self.name} failed: {error}') from error

    def text(self):
        if self.kind == 'names':
            self._doubt_equal_renames()
        return ''.join([f'history {self.kind} {self.name}\n']
                       + [f'{call.line()}\n' for call in self.calls])

    def _doubt_equal_renames(self):
        """Two renames of one name to one other, at a time: the kernel of the later may have found
        both names to be one file, and said success without asking anybody."""
        renames = [c for c in self.calls if c.kind.startswith('rename') and c.error == 0]
        for c in renames:
            for d in renames:
                if (c is not d and (c.a, c.b) == (d.a, d.b) and c.client != d.client
                        and c.returned and c.invoked <= (d.returned or c.returned)
                        and d.invoked <= c.returned):
                    c.returned = None


class Life:
    """A mount from its start to its end, held by a descriptor of its own: when it has died, its
    path may lead elsewhere, this does not."""

    def __init__(self, mount):
        self.fd = os.open(f'{mount}/{TOP}', os.O_PATH | os.O_DIRECTORY)
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.users = 0
        self.object_locks, self.seen = {}, {}

    def enter(self):
        with self.lock:
            if self.ended.is_set():
                return False
            self.users += 1
            return True

    def leave(self):
        with self.lock:
            self.users -= 1
            self._close_unused()

    def end(self):
        with self.lock:
            self.ended.set()
            self._close_unused()

    def _close_unused(self):
        if self.ended.is_set() and self.users == 0 and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lock_of(self, name):
        with self.lock:
            return self.object_locks.setdefault(name, threading.Lock())


class Caller(threading.Thread):
    """One of a mount's callers: picks an object, and calls."""

    def __init__(self, work, slot, number, seed):
        super().__init__(daemon=True)
        self.work, self.slot = work, slot
        self.client = slot * 16 + number
        self.random = random.Random(f'{seed} caller {self.client}')
        self.error = None
        self.life = None
        self.changed_at = 0.0  # when a change was acknowledged last
        self.start()

    def run(self):
        try:
            while not self.work.ending.is_set():
                self.life = self.work.life(self.slot)
                if not self.life or not self.life.enter():
                    self.work.ending.wait(0.02)
                    continue
                try:
                    self.call_once()
                finally:
                    self.life.leave()
                self.work.ending.wait(self.random.random() * self.work.think_seconds)
        except BaseException as e:
            self.error = e

    def call_once(self):
        at = self.random.randrange(len(self.work.objects))
        obj = self.work.object(at)
        lock = self.life.lock_of(obj.name)
        if obj.kind == 'names':  # the kernel has a lock of its own for a directory
            self.call_object(obj)
            return
        with lock:
            self.call_object(obj)

    def call_object(self, obj):
        if not obj.made:
            self.make(obj)
        elif obj.kind == 'register':
            (self.read_register if self.random.randrange(3) == 0 else self.write)(obj)
        elif obj.kind == 'list':
            (self.append, self.append, self.read_list, self.read_here)[
                self.random.randrange(4)](obj)
        else:
            if self.random.randrange(3) == 0:
                self.look_up(obj, self.random.randrange(NAMES))
            else:
                self.change_names(obj)

    def confirm(self):
        """An operation that the leader answers without an entry. False: it did not."""
        try:
            os.rmdir(f'{CONFIRM}/{self.client}/full', dir_fd=self.life.fd)
        except OSError as e:
            if e.errno == errno.ENOTEMPTY:
                return True
            check(e.errno in SAYS_NOTHING + DID_NOT_HAPPEN + (errno.ENOENT,),
                  f'rmdir of a full directory: {e}')
            self.pause(e)
            return False
        raise Failure('rmdir removed a directory with something in it')

    def pause(self, error):
        """After an error that is not the call's own: the mount is dead, or alone."""
        if error.errno in SAYS_NOTHING + DID_NOT_HAPPEN:
            self.work.count_error(error.errno)
            self.life.ended.wait(0.1)

    def note_change(self):
        self.changed_at = time.monotonic()
        self.work.count_change()

    # ---- Making objects

    def make(self, obj):
        with obj.lock:
            if obj.busy or obj.retired:
                return
            obj.busy = 1
        try:
            if obj.kind == 'names':
                os.mkdir(obj.name, dir_fd=self.life.fd)
            else:
                os.close(os.open(obj.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644,
                                 dir_fd=self.life.fd))
            obj.made = True
        except OSError as e:
            check(e.errno in SAYS_NOTHING + DID_NOT_HAPPEN, f'making {obj.name}: {e}')
            # It may be there, or come to be: another name.
            obj.retired = e.errno in SAYS_NOTHING
            self.pause(e)
        finally:
            with obj.lock:
                obj.busy = 0

    # ---- Files

    def change_file(self, obj, call, flags, data, sync):
        """One commit: open, write, close or fsync. Tells the history how it ended."""
        try:
            fd = os.open(obj.name, flags, dir_fd=self.life.fd)
        except OSError as e:
            check(e.errno in SAYS_NOTHING + DID_NOT_HAPPEN + (errno.ENOENT,),
                  f'opening {obj.name}: {e}')
            obj.dropped(call)  # nothing was written
            self.pause(e)
            return
        synced = False
        try:
            try:
                check(os.write(fd, data) == len(data), f'a short write to {obj.name}')
                if sync:
                    os.fsync(fd)
                    synced = True
            finally:
                try:
                    os.close(fd)
                except OSError:
                    if not synced and not sync:
                        raise
        except OSError as e:
            obj.failed(call, e)
            self.pause(e)
            return
        obj.answered(call)
        self.note_change()

    def write(self, obj):
        value = self.work.next_value()
        length = PIECE + self.random.choice((self.random.randrange(200),
                                             self.random.randrange(4000),
                                             self.random.randrange(16000)))
        call = obj.begin(self.client, 'write', value)
        how, sync = ((os.O_TRUNC, False), (os.O_TRUNC, True), (0, True))[
            self.random.randrange(3)]
        self.change_file(obj, call, os.O_WRONLY | how, fill(value, length), sync)

    def append(self, obj):
        value = self.work.next_value()
        call = obj.begin(self.client, 'append', value)
        self.change_file(obj, call, os.O_WRONLY | os.O_APPEND,
                         struct.pack('<QQ', value, ~value & MASK), True)

    def read_file(self, obj, confirmed):
        """None: no answer that counts."""
        try:
            fd = os.open(obj.name, os.O_RDONLY, dir_fd=self.life.fd)
            try:
                return os.read(fd, 1 << 20)
            finally:
                os.close(fd)
        except OSError as e:
            if confirmed and e.errno == errno.ENOENT:
                raise Failure(f'{obj.name} was made, and is not there on mount {self.slot}'
                              ) from e
            check(e.errno in SAYS_NOTHING + (errno.ENOENT,), f'reading {obj.name}: {e}')
            self.pause(e)
            return None

    def read_whole(self, obj, confirmed):
        """What is in the file as one value; None: no answer that counts."""
        parse = read_filled if obj.kind == 'register' else read_pieces
        for _ in range(TORN_TRIES):
            data = self.read_file(obj, confirmed)
            if data is None:
                return None
            value = parse(data)
            if value is not None:
                return value
            self.work.count_torn()
        raise Failure(f'{obj.name} is torn on mount {self.slot}: {len(data)} bytes,'
                      f' {data[:48].hex()}...')

    def read_register(self, obj):
        call = obj.begin(self.client, 'read')
        value = self.read_whole(obj, True) if self.confirm() else None
        if value is None:
            obj.dropped(call)
        else:
            obj.answered(call, r1=value)

    def read_list(self, obj):
        call = obj.begin(self.client, 'read')
        value = self.read_whole(obj, True) if self.confirm() else None
        if value is None:
            obj.dropped(call)
        else:
            obj.answered(call, r1=value[0], r2=value[1])

    def read_here(self, obj):
        value = self.read_whole(obj, False)
        if value is None:
            return
        count = value[0]
        seen = self.life.seen.get(obj.name, 0)
        check(count >= seen,
              f'mount {self.slot} shows {count} pieces of {obj.name}, and showed {seen}')
        self.life.seen[obj.name] = count

    # ---- Names

    def change_names(self, obj):
        kind = self.random.choice(('make', 'make', 'mkdir', 'unlink', 'rmdir', 'rename', 'rename',
                                   'rename-noreplace'))
        a = self.random.randrange(NAMES)
        b = (a + 1 + self.random.randrange(NAMES - 1)) % NAMES if kind[:3] == 'ren' else 0
        renames = kind.startswith('rename')
        call = obj.begin(self.client, kind, a, b)
        confirmed = (renames or self.random.randrange(2) == 0) and self.confirm()
        if renames and not confirmed:
            obj.dropped(call)
            return
        try:
            inode = self.change_name(kind, f'{obj.name}/{a}', f'{obj.name}/{b}')
        except OSError as e:
            if e.errno in SAYS_NOTHING + DID_NOT_HAPPEN:
                obj.failed(call, e)
                self.pause(e)
                return
            check(e.errno in (errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR),
                  f'{kind} in {obj.name}: {e}')
            if confirmed and (not renames or e.errno == errno.ENOENT):
                obj.answered(call, error=-e.errno)
            else:
                obj.dropped(call)
            return
        obj.answered(call, r1=inode)
        self.note_change()

    def change_name(self, kind, a, b):
        """The inode made, where the call tells it."""
        at = self.life.fd
        if kind == 'make':
            fd = os.open(a, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at)
            try:
                return os.fstat(fd).st_ino
            except OSError:
                return NOT_TOLD
            finally:
                try:
                    os.close(fd)
                except OSError:
                    pass  # nothing was written
        if kind == 'mkdir':
            os.mkdir(a, dir_fd=at)
        elif kind == 'unlink':
            os.unlink(a, dir_fd=at)
        elif kind == 'rmdir':
            os.rmdir(a, dir_fd=at)
        else:
            flags = RENAME_NOREPLACE if kind == 'rename-noreplace' else 0
            if libc.renameat2(at, a.encode(), at, b.encode(), flags):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        return NOT_TOLD

    def look_up(self, obj, a):
        call = obj.begin(self.client, 'lookup', a)
        if not self.confirm():
            obj.dropped(call)
            return
        try:
            inode = os.stat(f'{obj.name}/{a}', dir_fd=self.life.fd,
                            follow_symlinks=False).st_ino
        except OSError as e:
            if e.errno != errno.ENOENT:
                check(e.errno in SAYS_NOTHING, f'stat in {obj.name}: {e}')
                obj.dropped(call)
                self.pause(e)
                return
            inode = 0
        obj.answered(call, r1=inode)

    def read_object(self, obj):
        """By another thread, when this one has ended: all there is to see of an object."""
        if obj.kind == 'names':
            for a in range(NAMES):
                self.look_up(obj, a)
        else:
            (self.read_register if obj.kind == 'register' else self.read_list)(obj)


class Work:
    """All callers of all mounts, their objects, and what became of them."""

    KINDS = ('register', 'list', 'names')

    def __init__(self, slots, callers, seed, checker, directory, run, objects=6,
                 think_seconds=0.02):
        self.slots, self.callers_of_each, self.seed = slots, callers, seed
        self.checker, self.directory, self.run = checker, directory, run
        self.think_seconds = think_seconds
        self.lock = threading.Lock()
        self.lives = [None] * slots
        self.values = self.numbers = self.changes = self.files = self.torn = 0
        self.histories = self.calls = self.undecided = 0
        self.errors = {}
        self.retired, self.finished = [], []
        self.ending = threading.Event()
        self.objects = [self._new_object(k) for k in range(objects)]
        self.callers = []

    def _new_object(self, at):
        self.numbers += 1
        return Object(self.KINDS[at % len(self.KINDS)], self.numbers)

    def object(self, at):
        with self.lock:
            if self.objects[at].retired:
                self.retired.append(self.objects[at])
                self.objects[at] = self._new_object(at)
            return self.objects[at]

    def next_value(self):
        with self.lock:
            self.values += 1
            return self.values

    def count_change(self):
        with self.lock:
            self.changes += 1

    def count_torn(self):
        with self.lock:
            self.torn += 1

    def count_error(self, code):
        with self.lock:
            name = errno.errorcode.get(code, str(code))
            self.errors[name] = self.errors.get(name, 0) + 1

    # ---- Mounts and callers

    def prepare(self, mount):
        """Through any mount, once: the directories that the callers rely on."""
        os.mkdir(f'{mount}/{TOP}')
        os.mkdir(f'{mount}/{TOP}/{CONFIRM}')
        for slot in range(self.slots):
            for k in range(self.callers_of_each):
                os.makedirs(f'{mount}/{TOP}/{CONFIRM}/{slot * 16 + k}/full/x')

    def begin(self):
        self.callers = [Caller(self, slot, k, self.seed) for slot in range(self.slots)
                        for k in range(self.callers_of_each)]

    def mounted(self, slot, mount):
        self.lives[slot] = Life(mount)

    def unmounted(self, slot):
        life, self.lives[slot] = self.lives[slot], None
        if life:
            life.end()
        return life

    def life(self, slot):
        return self.lives[slot]

    def check_callers(self):
        for caller in self.callers:
            if caller.error:
                raise caller.error

    def changed_since(self, slot, at):
        return any(c.changed_at > at for c in self.callers if c.slot == slot)

    def end(self, seconds=60):
        self.ending.set()
        deadline = time.monotonic() + seconds
        for caller in self.callers:
            caller.join(max(0.1, deadline - time.monotonic()))
            check(not caller.is_alive(), f'a call through mount {caller.slot} does not return')
        self.check_callers()
        self.retired += self.objects

    # ---- Histories

    def check_histories(self):
        """Of the objects that nobody is busy with any more. Returns these objects."""
        with self.lock:
            ready = [o for o in self.retired if not o.busy]
            self.retired = [o for o in self.retired if o.busy]
        ready = [o for o in ready if o.calls]
        if not ready:
            return []
        self.files += 1
        path = f'{self.directory}/history-{self.files}'
        with open(path, 'w') as f:
            f.writelines(o.text() for o in ready)
        done = self.run([self.checker, path])
        text = done.stdout.decode()
        words = text.splitlines()[-1:] or ['']
        check(done.returncode in (0, 1), f'check_history of {path}: {done.stderr.decode()}')
        if done.returncode:
            raise Failure(f'{path}:\n{text}')
        counts = [int(word) for word in words[0].split() if word.isdigit()]
        self.histories += counts[0]
        self.calls += counts[1]
        self.undecided += counts[2]
        os.unlink(path)
        return ready
