#!/usr/bin/python3
"""Counts what a `meson test` run found, test case by test case.

    count_meson.py BUILD/meson-logs/testlog.json

cmocka's cases are counted where a program printed them; a program that printed none counts as
one. A program that failed without a failed case (a crash, a time-out, a sanitizer's report)
counts as one failure more. Prints the failures, then `N passed, N failed, N skipped`.
"""

import json
import re
import sys

CASE = re.compile(r'^\[\s*(OK|FAILED|ERROR|SKIPPED)\s*\] (?!tests: )(?!\d+ test)([^:\s]+)\s*$',
                  re.MULTILINE)
GOOD, NOT_RUN = ('OK', 'EXPECTEDFAIL'), ('SKIP',)


def count_program(program):
    """(passed, failed, skipped) of one entry of the log."""
    output = program.get('stdout', '') + '\n' + program.get('stderr', '')
    cases = {}
    for result, name in CASE.findall(output):
        # The summary names a failed case again, and a failure is not taken back.
        if cases.get(name) not in ('FAILED', 'ERROR'):
            cases[name] = result
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
            print(f'FAIL {program["name"]}: {counts[1]} of {sum(counts)} cases'
                  f' ({program["result"]})')
    if not programs:
        print('FAIL meson ran no test')
        total[1] += 1
    print(f'{total[0]} passed, {total[1]} failed, {total[2]} skipped')


if __name__ == '__main__':
    main()
