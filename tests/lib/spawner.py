"""Runs commands from a process that has no file of a mount open.

A test with files open on a mount must not fork while that mount's node may be frozen: the child has
the same descriptors, closes them, and each such close waits for the node, in the child before it
becomes the command, and in Python with the interpreter's lock held. So the commands of such a test
are run by a process that was started before: Spawner().run(...) is what subprocess.run is.
"""

import base64
import itertools
import json
import os
import subprocess
import sys
import threading


def execute(request):
    """Runs one command; its code is None where it did not end in time, or left its output open."""
    process = subprocess.Popen(request['arguments'], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=request['env'], cwd=request['cwd'])
    try:
        out, err = process.communicate(base64.b64decode(request['input']), request['timeout'])
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        code, out, err = None, b'', b''
    return {'id': request['id'], 'code': code, 'out': base64.b64encode(out).decode(),
            'err': base64.b64encode(err).decode()}


def serve():
    lock = threading.Lock()

    def answer(request):
        try:
            result = execute(request)
        except OSError as e:
            result = {'id': request['id'], 'error': str(e)}
        with lock:
            sys.stdout.write(json.dumps(result) + '\n')
            sys.stdout.flush()
    for line in sys.stdin:
        threading.Thread(target=answer, args=(json.loads(line),), daemon=True).start()


class Spawner:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.lock = threading.Condition()
        self.results, self.ended = {}, False
        self.ids = itertools.count()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            result = json.loads(line)
            with self.lock:
                self.results[result['id']] = result
                self.lock.notify_all()
        with self.lock:
            self.ended = True
            self.lock.notify_all()

    def run(self, arguments, input=b'', timeout=None, env=None, cwd=None):
        """A CompletedProcess with bytes, or subprocess.TimeoutExpired."""
        number = next(self.ids)
        request = {'id': number, 'arguments': list(map(str, arguments)), 'timeout': timeout,
                   'input': base64.b64encode(input).decode(), 'env': env, 'cwd': cwd}
        with self.lock:
            self.process.stdin.write(json.dumps(request) + '\n')
            self.process.stdin.flush()
            self.lock.wait_for(lambda: number in self.results or self.ended)
            if number not in self.results:
                raise OSError('the process that runs commands has ended')
            result = self.results.pop(number)
        if 'error' in result:
            raise OSError(f'{arguments[0]}: {result["error"]}')
        if result['code'] is None:
            raise subprocess.TimeoutExpired(arguments, timeout)
        return subprocess.CompletedProcess(arguments, result['code'],
                                           base64.b64decode(result['out']),
                                           base64.b64decode(result['err']))

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def run_here(arguments, input=b'', timeout=None, env=None, cwd=None):
    """The same, as a child of this process."""
    result = execute({'id': 0, 'arguments': list(map(str, arguments)), 'timeout': timeout,
                      'input': base64.b64encode(input).decode(), 'env': env, 'cwd': cwd})
    if result['code'] is None:
        raise subprocess.TimeoutExpired(arguments, timeout)
    return subprocess.CompletedProcess(arguments, result['code'], base64.b64decode(result['out']),
                                       base64.b64decode(result['err']))


if __name__ == '__main__':
    serve()
