#!/usr/bin/python3
"""A C project is unpacked, configured and built on a mount; its program runs on another host."""

import io
import os
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal, limit, main, wait_for  # noqa: E402
from programs import bash, mounts, run, same, same_everywhere, start, tree  # noqa: E402

MODULES = 60

# What the usual ones do: a directory for what is tried, programs compiled and run, results
# put into templates, and written only where they differ.
CONFIGURE = r'''#!/bin/sh
set -e
source=$(cd "$(dirname "$0")" && pwd)
mkdir conftest.dir
trap 'rm -rf conftest.dir' EXIT
: > config.log
try() {
    echo "$2" > conftest.dir/conftest.c
    if (cd conftest.dir && cc -o conftest conftest.c >> ../config.log 2>&1 && ./conftest); then
        echo "$1 yes" >> config.log; echo "#define $1 1"
    else
        echo "$1 no" >> config.log; echo "/* no $1 */"
    fi
}
{
    for header in stdint unistd no_such_header string sys/stat; do
        name=$(echo "HAVE_$header" | tr 'a-z/' 'A-Z_')
        try "$name" "#include <$header.h>
int main(void) { return 0; }"
    done
    for function in strlen mkfifo no_such_function; do
        name=$(echo "HAVE_$function" | tr a-z A-Z)
        try "$name" "char $function(); int main(void) { return $function != 0 ? 0 : 1; }"
    done
} 2>> config.log > config.h.new
if cmp -s config.h.new config.h; then rm config.h.new; else mv -f config.h.new config.h; fi
sed "s|@source@|$source|" "$source/Makefile.in" > Makefile
'''

MAKEFILE = r'''VPATH = @source@/src
CFLAGS = -O1 -I. -I@source@/src -MMD
MODULES = @modules@
OBJECTS = $(MODULES:%=%.o)

all: program
gen: gen.c ; $(CC) -o $@ $<
table.h: gen ; ./gen > $@.new && mv $@.new $@
$(OBJECTS) main.o: table.h config.h
libmodules.a: $(OBJECTS) ; rm -f $@ && ar rcs $@ $^
program: main.o libmodules.a ; $(CC) -o $@ main.o -L. -lmodules
install: all
	install -D -m 755 program $(DESTDIR)/usr/bin/program
	install -D -m 644 config.h $(DESTDIR)/usr/include/program/config.h
	ln -sf program $(DESTDIR)/usr/bin/alias
clean: ; rm -f *.o *.d *.a gen table.h program
distclean: clean ; rm -f Makefile config.h config.log
.PHONY: all install clean distclean
-include *.d
'''

GENERATOR = r'''#include <stdio.h>
int main(void) {
    printf("static const unsigned table[] = {");
    for (unsigned k = 0, x = 1; k < 5000; k++, x = x * 1664525u + 1013904223u)
        printf("%uu,%s", x, k % 8 ? "" : "\n");
    printf("};\n");
    return 0;
}
'''


def module(k):
    return (f'#include "config.h"\n#include "part{k % 6}.h"\n#include "table.h"\n'
            f'unsigned module_{k}(unsigned x) {{\n'
            f'    for (unsigned i = 0; i < 5000; i++) x = (x ^ table[i]) * {2 * k + 3}u;\n'
            f'    return x + PART{k % 6};\n}}\n')


def project():
    names = [f'm{k}' for k in range(MODULES)]
    main_c = ('#include <stdio.h>\n#ifdef HAVE_NO_SUCH_HEADER\n#error it says so\n#endif\n'
              + ''.join(f'unsigned module_{k}(unsigned x);\n' for k in range(MODULES))
              + 'int main(void) {\n    unsigned x = 1;\n'
              + ''.join(f'    x = module_{k}(x);\n' for k in range(MODULES))
              + '    printf("%u\\n", x);\n    return 0;\n}\n')
    files = {'configure': CONFIGURE, 'src/gen.c': GENERATOR, 'src/main.c': main_c,
             'Makefile.in': MAKEFILE.replace('@modules@', ' '.join(names))}
    files.update({f'src/m{k}.c': module(k) for k in range(MODULES)})
    files.update({f'src/part{k}.h': f'#define PART{k} {k}u\n' for k in range(6)})
    return files


def make_tarball(path):
    with tarfile.open(path, 'w:gz') as tar:
        for name, text in project().items():
            entry = tarfile.TarInfo(f'project/{name}')
            entry.size, entry.mtime = len(text), 1700000000
            entry.mode = 0o755 if name == 'configure' else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))


def answer_of(path):
    """What the program says, built beside the cluster."""
    bash('tar xzf project.tgz && cd project && ./configure && make -sj4', cwd=path)
    return run(f'{path}/project/program')


@limit(300)
def test_configure_make_run(t):
    roots = mounts(t.shared())
    make_tarball(f'{t.tmp()}/project.tgz')
    expected = answer_of(t.tmp())
    builder = f'{roots[0]}/project'
    run('tar', 'xzf', f'{t.tmp()}/project.tgz', cwd=roots[0])
    unpacked = same_everywhere(roots, 'project', 'unpacked')
    bash('./configure && make -j4', cwd=builder)
    for root in roots:
        check_equal(run(f'{root}/project/program'), expected, f'the program, on {root}')
        check_equal(run('make', '-q', cwd=f'{root}/project'), '', f'what is to do, on {root}')
    same_everywhere(roots, 'project', 'built')
    # One header is changed on another host: what depends on it is made anew, nothing else.
    bash('echo "#define PART3 4u" > src/part3.h', cwd=f'{roots[1]}/project')
    told = run('make', '-j4', cwd=f'{roots[2]}/project')
    made = [line.split('-o ')[1].split()[0] for line in told.splitlines() if ' -c ' in line]
    check_equal(sorted(made), sorted(f'm{k}.o' for k in range(3, MODULES, 6)), 'made anew')
    check(run(f'{builder}/program') != expected, 'the program is still the old one')
    # To another directory of the mount, and away again.
    run('make', 'install', f'DESTDIR={roots[1]}/root', cwd=f'{roots[1]}/project')
    check_equal(run(f'{roots[0]}/root/usr/bin/alias'), run(f'{builder}/program'), 'installed')
    run('make', 'distclean', cwd=builder)
    bash('echo "#define PART3 3u" > src/part3.h && touch -d @1700000000 src/part3.h',
         cwd=builder)
    left = tree(f'{roots[2]}/project')
    for each in (left, unpacked):
        for name in ('.', 'src'):  # directories have changed
            each[name].pop('mtime')
        for seen in each.values():
            for field in ('inode', 'ctime', 'blocks', 'links to'):
                seen.pop(field, None)
    same(left, unpacked, 'what distclean leaves, and what was unpacked')


@limit(300)
def test_each_host_builds(t):
    """Beside the sources, three hosts at once."""
    roots = mounts(t.shared())
    make_tarball(f'{t.tmp()}/project.tgz')
    os.mkdir(f'{roots[0]}/sources')
    run('tar', 'xzf', f'{t.tmp()}/project.tgz', cwd=f'{roots[0]}/sources')
    builds = []
    for k, root in enumerate(roots):
        os.mkdir(f'{root}/build{k}')
        builds.append(start('sh', '-ec', '../sources/project/configure && make -s program',
                            cwd=f'{root}/build{k}'))
    for k, build in enumerate(builds):
        _, err = build.communicate(timeout=250)
        check_equal(build.returncode, 0, f'build {k}: {err}')
    answers = {run(f'{roots[k - 1]}/build{k}/program') for k in range(3)}
    check_equal(len(answers), 1, 'different answers of the programs')


@limit(300)
def test_leader_dies_meanwhile(t):
    """The build waits for the next leader, and does not notice."""
    c = t.cluster(3)
    roots, leader = mounts(c), c.leader()
    make_tarball(f'{t.tmp()}/project.tgz')
    expected = answer_of(t.tmp())
    build = start('bash', '-euc', f'tar xzf {t.tmp()}/project.tgz; cd project; ./configure;'
                  ' make -sj4', cwd=roots[0])
    made = f'{roots[2]}/project/m20.o'
    wait_for(lambda: os.path.exists(made), 'a part is built', 120)
    c.kill9(leader)
    check(build.poll() is None, 'the build was over before the leader was killed')
    _, err = build.communicate(timeout=200)
    check_equal(build.returncode, 0, f'the build: {err}')
    c.start(leader)
    c.wait_ready()
    for root in roots:
        check_equal(run(f'{root}/project/program'), expected, f'the program, on {root}')
        run('make', '-q', cwd=f'{root}/project')
    same_everywhere(roots, 'project', 'built')


if __name__ == '__main__':
    main(globals())
