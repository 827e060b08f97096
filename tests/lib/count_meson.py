#!/usr/bin/python3
"""Counts what a `meson test` run found, test case by test case.

    count_meson.py BUILD/meson-logs/testlog.json

cmocka's cases are counted where a program printed them; a program that printed none counts as
one. A program that failed without a failed case (a crash, a time-out, a sanitizer's report)
counts as one failure more. Prints the failures, each in a line with the cases and a cause where
one is seen, and what the program said of them; then `N passed, N failed, N skipped`.
"""

import json
import re
import sys

CASE = re.compile(r'^\[\s*(OK|FAILED|ERROR|SKIPPED)\s*\] (?!tests: )(?!\d+ test)([^:\s]+)\s*$',
                  re.MULTILINE)
BEGUN = re.compile(r'^\[ RUN      \] (\S+)$', re.MULTILINE)
GOOD, NOT_RUN = ('OK', 'EXPECTEDFAIL'), ('SKIP',)
# What cmocka says of a case that passes, and of all.
QUIET = re.compile(r'\[\s*(RUN|OK|PASSED|=+)\s*\]|$')
CAUSE = re.compile(r'ERROR: \w+Sanitizer: .*|WARNING: ThreadSanitizer: .*|runtime error: .*|'
                   r'(?<=\[  ERROR   \] --- )(?!\s*$).*(?:\n\[   LINE   \] --- .*)?|'
                   r'a test hangs.*|[Aa]ssertion .*')
BEGIN, END = 60, 30  # lines that are shown of a program's


def output_of(program):
    return program.get('stdout', '') + '\n' + program.get('stderr', '')


def cases_of(output):
    """The results of cmocka's cases, by name."""
    cases = {}
    for result, name in CASE.findall(output):
        # The summary names a failed case again, and a failure is not taken back.
        if cases.get(name) not in ('FAILED', 'ERROR'):
            cases[name] = result
    return cases


def explanation(program):
    """What is known of a failure: the rest of its line, and the lines below it."""
    output = output_of(program)
    cases = cases_of(output)
    names = [name for name, result in cases.items() if result in ('FAILED', 'ERROR')]
    names += [f'ended within {name}' for name in BEGUN.findall(output) if name not in cases]
    cause = CAUSE.search(output)
    lines = [line for line in output.splitlines() if not QUIET.match(line)]
    if len(lines) > BEGIN + END:
        lines[BEGIN:-END] = [f'... ({len(lines) - BEGIN - END} lines)']
    what = [', '.join(names) if names else 'no case of its own']
    what += [cause.group().replace('\n[   LINE   ] ---', ',').strip()] if cause else []
    return ': '.join(what), lines


def count_program(program):
    """(passed, failed, skipped) of one entry of the log."""
    cases = cases_of(output_of(program))
    passed = sum(r == 'OK' for r in cases.values())
    failed = sum(r in ('FAILED', 'ERROR') for r in cases.values())
    skipped = sum(r == 'SKIPPED' for r in cases.values())
    good, not_run = program['result'] in GOOD, program['result'] in NOT_RUN
    if not_run:
        skipped = max(skipped, 1)
    elif not good and failed == 0:
        failed = 1
    elif good and not cases:
        passed = 1
    return passed, failed, skipped


def main():
    total = [0, 0, 0]
    try:
        with open(sys.argv[1]) as f:
            programs = [json.loads(line) for line in f if line.strip()]
    except (FileNotFoundError, IndexError):
        programs = []
    for program in programs:
        counts = count_program(program)
        total = [a + b for a, b in zip(total, counts)]
        if counts[1]:
            what, lines = explanation(program)
            print(f'FAIL {program["name"]}: {counts[1]} of {sum(counts)} cases'
                  f' ({program["result"]}): {what}')
            for line in lines:
                print('    ' + line)
    if not programs:
        print('FAIL meson ran no test')
        total[1] += 1
    print(f'{total[0]} passed, {total[1]} failed, {total[2]} skipped')


if __name__ == '__main__':
    main()
