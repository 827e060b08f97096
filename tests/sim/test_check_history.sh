#!/usr/bin/env bash
# test_check_history.sh PROGRAM: what check_history says of files known to be good, bad, and
# no histories at all.
set -uo pipefail

program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

expect() { # CODE WHAT IN-THE-OUTPUT; the file is standard input
    local output code
    cat >"$work/history"
    output=$("$program" "$work/history" 2>&1)
    code=$?
    if [ $code -ne "$1" ] || [[ $output != *"$3"* ]]; then
        echo "FAIL $2: exit code $code, expected $1 and \"$3\" in:"
        echo "$output"
        failed=1
    fi
}

expect 0 'a good file' '3 histories, 10 calls, 0 undecided, 0 not linearizable' <<'END'
history register r1
100 200 1 write 7 0 0 - -
300 400 2 read 0 0 0 7 0
500 - 1 write 8 0 0 - -
600 700 2 read 0 0 0 8 0
history list l2
100 200 1 append 1 0 0 - -
history names d3
100 200 1 make 0 0 0 55 -
300 400 2 make 0 0 -17 - -
500 600 2 lookup 0 0 0 55 0
700 800 2 link 55 1 0 - -
900 999 2 exchange 0 1 0 - -
END
expect 1 'a write that was acknowledged and is lost' '-> 500 600 3 read 0 0 0 7 0' <<'END'
history register r1
100 200 1 write 7 0 0 - -
300 400 2 write 8 0 0 - -
500 600 3 read 0 0 0 7 0
END
expect 1 'the first of two histories is bad' '2 histories, 4 calls, 0 undecided, 1 not' <<'END'
history names d1
100 200 1 unlink 0 0 0 - -
history register r2
100 200 1 write 7 0 0 - -
300 400 1 write 8 0 0 - -
500 600 1 read 0 0 0 8 0
END
expect 2 'an unknown call' 'a register has no call "append"' <<'END'
history register r1
100 200 1 append 7 0 0 - -
END
expect 2 'an unknown kind' 'there is no kind "queue"' <<'END'
history queue q1
END
expect 2 'a call of nothing' 'a call before the first history' <<'END'
100 200 1 write 7 0 0 - -
END
expect 2 'a line that is cut' 'neither a history nor a call' <<'END'
history register r1
100 200 1 write 7
END
expect 2 'no number' '"x7" is not a number' <<'END'
history register r1
x7 200 1 write 7 0 0 - -
END
expect 2 'time that goes back' 'returned before it was made' <<'END'
history register r1
300 200 1 write 7 0 0 - -
END
expect 2 'a name too many' 'names 0 to 5' <<'END'
history names d1
100 200 1 make 6 0 0 55 -
END
exit $failed
