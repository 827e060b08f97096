#!/usr/bin/python3
"""dpkg and apt with a root directory on a mount: installed, upgraded and removed on different
hosts. Packages, and the archive that apt gets them from, are made here."""

import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal, limit, main  # noqa: E402
from programs import mounts, run, same_everywhere  # noqa: E402

FILES = 250


def put(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, mode)


def build(tmp, name, version, depends=''):
    """A package with what packages have; returns the path of its .deb."""
    root = f'{tmp}/{name}-{version}'
    put(f'{root}/DEBIAN/control', f'Package: {name}\nVersion: {version}\nArchitecture: all\n'
        'Maintainer: Nobody <nobody@example.org>\nDescription: a package of a test\n'
        + (f'Depends: {depends}\n' if depends else ''))
    put(f'{root}/DEBIAN/conffiles', f'/etc/{name}.conf\n')
    put(f'{root}/DEBIAN/postinst',
        '#!/bin/sh\necho "$0 $*" > /dev/null\necho "$1 $2" >> '
        f'"$DPKG_ROOT/var/{name}.scripts"\n', 0o755)
    put(f'{root}/etc/{name}.conf', f'version = {version}\n')
    for k in range(FILES):
        if version == '1' or k % 5:
            put(f'{root}/usr/share/{name}/d{k % 9}/f{k}', f'{name} {version} {k}\n' * (k * 3))
    os.symlink('d1', f'{root}/usr/share/{name}/link')
    os.link(f'{root}/usr/share/{name}/d1/f1', f'{root}/usr/share/{name}/d2/same')
    put(f'{root}/usr/bin/{name}', f'#!/bin/sh\necho {name} {version}\n', 0o4755)
    path = f'{tmp}/archive/{name}_{version}_all.deb'
    os.makedirs(f'{tmp}/archive', exist_ok=True)
    run('dpkg-deb', '--root-owner-group', '-Znone', '--build', root, path)
    return path


def prepare(root):
    for directory in ('info', 'updates', 'triggers', 'alternatives', 'parts'):
        os.makedirs(f'{root}/var/lib/dpkg/{directory}')
    for name in ('status', 'available'):
        put(f'{root}/var/lib/dpkg/{name}', '')


def dpkg(root, *arguments, **keywords):
    return run('dpkg', f'--root={root}', '--force-script-chrootless', '--force-confold',
               '--force-confdef', *arguments, cwd='/', **keywords)


def read(path):
    with open(path) as f:
        return f.read()


@limit(240)
def test_dpkg(t):
    roots = [f'{root}/dpkg' for root in mounts(t.shared())]
    prepare(roots[0])
    first, second = build(t.tmp(), 'probe', '1'), build(t.tmp(), 'probe', '2')
    dpkg(roots[0], '--install', first)
    for root in roots:
        check_equal(dpkg(root, '--verify', 'probe'), '', f'what differs, on {root}')
        check_equal(run(f'{root}/usr/bin/probe'), 'probe 1\n', f'the program, on {root}')
    check_equal(os.stat(f'{roots[1]}/usr/share/probe/d2/same').st_nlink, 2, 'a hard link')
    put(f'{roots[1]}/etc/probe.conf', 'mine\n')
    dpkg(roots[2], '--install', second)
    for root in roots:
        check_equal(run(f'{root}/usr/bin/probe'), 'probe 2\n', f'the program, on {root}')
        check_equal(read(f'{root}/etc/probe.conf'), 'mine\n', f'the kept file, on {root}')
        check(os.path.exists(f'{root}/etc/probe.conf.dpkg-dist'), 'the new one beside it')
        check(not os.path.exists(f'{root}/usr/share/probe/d0/f0'), 'what 2 has no more')
        for line in dpkg(root, '--verify', 'probe', code=None).splitlines():
            check('probe.conf' in line, f'differs on {root}: {line}')
        check_equal(read(f'{root}/var/probe.scripts'), 'configure \nconfigure 1\n', 'scripts')
    same_everywhere([os.path.dirname(root) for root in roots], 'dpkg', 'what is installed')
    dpkg(roots[1], '--purge', 'probe')
    for root in roots:
        left = [name for name in os.listdir(f'{root}/var/lib/dpkg/info') if 'probe' in name]
        check_equal(left, [], f'what dpkg still knows, on {root}')
        check(not os.path.exists(f'{root}/usr'), f'files are left on {root}')
        check(not os.path.exists(f'{root}/etc/probe.conf'), f'{root}: the configuration')


def write_index(archive):
    """What dpkg-scanpackages would write."""
    stanzas = []
    for name in sorted(os.listdir(archive)):
        if name.endswith('.deb'):
            control = run('dpkg-deb', '-f', f'{archive}/{name}')
            with open(f'{archive}/{name}', 'rb') as f:
                data = f.read()
            stanzas.append(f'{control}Filename: ./{name}\nSize: {len(data)}\n'
                           f'SHA256: {hashlib.sha256(data).hexdigest()}\n')
    put(f'{archive}/Packages', '\n'.join(stanzas))


def apt_configuration(tmp, root):
    path = f'{tmp}/apt.conf'
    put(path, f'Dir "{root}";\nDir::State::status "{root}/var/lib/dpkg/status";\n'
        'APT::Sandbox::User "root";\nAPT::Architecture "amd64";\nAPT::Architectures {{"amd64";}};\n'
        'APT::Get::Assume-Yes "true";\nAcquire::Languages "none";\nDpkg::Use-Pty "false";\n'
        f'Dpkg::Options {{"--root={root}"; "--force-script-chrootless"; "--force-not-root";'
        ' "--force-confold";}};\nDir::Bin::dpkg "/usr/bin/dpkg";\n'.replace('{{', '{')
        .replace('}}', '}'))
    return path


@limit(240)
def test_apt(t):
    """Its lists, caches and locks on the mount as well."""
    roots = [f'{root}/apt' for root in mounts(t.shared())]
    prepare(roots[0])
    for directory in ('etc/apt/apt.conf.d', 'etc/apt/sources.list.d', 'etc/apt/preferences.d',
                      'etc/apt/trusted.gpg.d', 'var/lib/apt/lists/partial', 'var/log/apt',
                      'var/cache/apt/archives/partial'):
        os.makedirs(f'{roots[0]}/{directory}')
    build(t.tmp(), 'library', '1')
    build(t.tmp(), 'tool', '1', depends='library')
    write_index(f'{t.tmp()}/archive')
    put(f'{roots[0]}/etc/apt/sources.list', f'deb [trusted=yes] copy:{t.tmp()}/archive ./\n')

    def apt(root, *arguments):
        return run('apt-get', '-q', *arguments, cwd='/', DEBIAN_FRONTEND='noninteractive',
                   APT_CONFIG=apt_configuration(t.tmp(), root))
    apt(roots[0], 'update')
    apt(roots[1], 'install', 'tool')
    for root in roots:
        check_equal(run(f'{root}/usr/bin/tool'), 'tool 1\n', f'the program, on {root}')
        check_equal(dpkg(root, '--verify'), '', f'what differs, on {root}')
    build(t.tmp(), 'library', '2')
    os.unlink(f'{t.tmp()}/archive/library_1_all.deb')
    write_index(f'{t.tmp()}/archive')
    apt(roots[2], 'update')
    apt(roots[0], 'upgrade')
    check_equal(run(f'{roots[1]}/usr/bin/library'), 'library 2\n', 'what was upgraded')
    apt(roots[1], 'remove', 'library')
    apt(roots[2], 'clean')
    for root in roots:
        check(not os.path.exists(f'{root}/usr'), f'files are left on {root}')


if __name__ == '__main__':
    main(globals())
