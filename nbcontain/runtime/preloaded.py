"""A container's program where a library that is loaded into it translates its paths: what that takes of the image.

The image's own loader loads it, and the image's own libc, so that both may be of another release than this machine's,
of which nothing is loaded at all but fakechroot's library. Run by init, and by an exec's process; the files are a
container's, which may mean harm.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import suppress

from nbcontain.errors import CommandNotExecutable, SetupFailed
from nbcontain.linux import fakechroot, little_programs, syscalls
from nbcontain.runtime.devices import DEVICES
from nbcontain.store import files
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = (b"/proc", *(b"/dev/%b" % name.encode() for name in DEVICES))
"""What of this machine a container sees."""
_LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
_CACHE_MAKERS = ("/sbin/ldconfig", "/usr/sbin/ldconfig")
"""Static programs, which nothing can be loaded into, and for which others end in vain."""
_ARGV0_SINCE = 33
"""The glibc, 2.N, whose loader can be told what a program is called."""
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_MAX_LINKS, _MAX_DIRECTORIES, _CONF_BYTES = 40, 200, 1 << 16
_STATIC = "a static program"
_NOTHING, _LOADING = "nothing", "loading"
"""The little programs that are made for it."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A container's files, open, whose absolute links have `base` in front (`store.rooted_links`)."""

    root: int
    base: str

    def resolved(self, path: str) -> str:
        """Where a path leads within, without a link in it; what is not there stays as it is said. Raises OSError."""
        done: list[str] = []
        waiting, links = path.split("/")[::-1], 0
        while waiting:
            name = waiting.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del done[-1:]
                continue
            here = "/".join((*done, name))
            try:
                fd = syscalls.openat2(self.root, here, os.O_PATH | os.O_NOFOLLOW, 0, _BENEATH)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise
                done.append(name)
                continue
            try:
                is_link = stat.S_ISLNK(os.fstat(fd).st_mode)
                leads_to = os.readlink("", dir_fd=fd) if is_link else ""
            finally:
                os.close(fd)
            if not is_link:
                done.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if leads_to == self.base or leads_to.startswith(f"{self.base}/"):
                leads_to = leads_to[len(self.base) :] or "/"
            if leads_to.startswith("/"):
                done.clear()
            waiting += leads_to.split("/")[::-1]
        return "/" + "/".join(done)

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """What a path leads to; nothing is waited for. Raises OSError."""
        inner = self.resolved(path).lstrip("/") or "."
        if not flags & os.O_PATH:
            flags |= os.O_NONBLOCK | os.O_NOCTTY
        return syscalls.openat2(self.root, inner, flags, 0, _BENEATH)

    def text(self, path: str, limit: int = _CONF_BYTES) -> str:
        """The beginning of a regular file; "" if it is anything else."""
        try:
            fd = self.open(path, os.O_PATH)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return ""
            finally:
                os.close(fd)
            with open(self.open(path), "rb") as stream:
                return stream.read(limit).decode(errors="surrogateescape")
        except OSError:
            return ""


def environment(
    tree: Tree, library: str, scratch: str, args: tuple[str, ...]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the program and those that it starts are told, and how it is started: by the image's own loader.

    `args[0]` is where the program is in the tree. Raises SetupFailed and CommandNotExecutable.
    """
    machine = os.uname().machine
    path, args = _started(tree, args)
    _check(tree, path, machine, args[0])
    loader = _loader(tree, machine)
    # fakechroot itself would tell a script's interpreter too little where it told the loader what it is called.
    directories = list(_library_directories(tree, machine))
    glibc = _glibc(tree, library, directories)
    argv0 = ("--argv0", args[0]) if glibc >= _ARGV0_SINCE else ()
    nothing = f"{scratch}/{_NOTHING}"
    told = fakechroot.told(
        tree.base, [os.fsdecode(each) for each in SHOWN], ELFLOADER=f"{scratch}/{_LOADING}" if argv0 else loader,
        CMD_SUBST=":".join(f"{each}={nothing}" for each in _CACHE_MAKERS),
    )  # fmt: skip
    env = {"LD_PRELOAD": library, "LD_LIBRARY_PATH": ":".join(f"{tree.base}{each}" for each in directories), **told}
    return env, (loader, *argv0, f"{tree.base}{path}", *args[1:])


def make_programs(tree: Tree, scratch: str) -> None:
    """Init, before it gives up this machine's files: the programs that others are run by, or instead of others, in a
    directory of its own. Raises SetupFailed."""
    machine = os.uname().machine
    loader = _loader(tree, machine)
    for name, data in (
        (_NOTHING, little_programs.nothing(machine)),
        (_LOADING, little_programs.loading(machine, loader, len(os.fsencode(tree.base)))),
    ):
        with suppress(FileExistsError):
            files.write_new(f"{scratch}/{name}", data, 0o500)


def _started(tree: Tree, args: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The program that is loaded, as a path without a link in it, and its arguments; of a script its interpreter's."""
    path = tree.resolved(args[0])
    head = tree.text(path, 256).partition("\n")[0]
    if not head.startswith("#!"):
        return path, args
    words = head[2:].strip().split(maxsplit=1)
    if not words:
        raise CommandNotExecutable(f"{args[0]} cannot be executed", path=args[0], why="it names no interpreter")
    return tree.resolved(words[0]), (*words, *args)


def _check(tree: Tree, path: str, machine: str, name: str) -> None:
    """Raises CommandNotExecutable for what the library cannot be loaded into."""
    why = ""
    try:
        with open(tree.open(path), "rb") as stream:
            head = stream.read(64)
            if head[:4] != b"\x7fELF":
                why = "it is no program"
            elif head[4:6] != b"\x02\x01" or head[18:20] != little_programs.MACHINES[machine].to_bytes(2, "little"):
                why = f"it is for another kind of machine than {machine}"
            else:
                start, size, count = (*struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54))
                stream.seek(start)
                table = stream.read(min(size * count, _CONF_BYTES))
                kinds = [int.from_bytes(table[each : each + 4], "little") for each in range(0, len(table), size or 56)]
                if 3 not in kinds:  # PT_INTERP
                    why = f"it is {_STATIC}: no library can be loaded into it, and so nothing translates its paths"
    except OSError as error:
        why = error.strerror or ""
    if why:
        raise CommandNotExecutable(f"{name} cannot be executed", path=name, why=why)


def _loader(tree: Tree, machine: str) -> str:
    """glibc's loader, as this machine sees it. Raises SetupFailed."""
    if machine not in _LOADERS:
        raise SetupFailed("no library can be preloaded here", why=f"nobody has tried it on {machine}")
    usual = _LOADERS[machine]
    try:
        os.close(tree.open(usual))
    except OSError as error:
        musl = f"/lib/ld-musl-{machine}.so.1"
        has_musl = bool(tree.text(musl, 4))
        why = f"the image's libc is musl ({musl})" if has_musl else f"the image has no {usual}: {error.strerror}"
        raise SetupFailed(
            "fakechroot's library cannot be loaded into the programs of this image",
            why=f"{why}, and the library is for glibc", hint="an image of Debian, Ubuntu or Fedora, say",
        ) from error  # fmt: skip
    # By this name, where another one is after an update.
    return f"{tree.base}{usual}"


def _glibc(tree: Tree, library: str, directories: list[str]) -> int:
    """Which glibc, 2.N, the image has. Raises SetupFailed if the library wants a newer one."""
    has = 0
    for directory in directories:
        try:
            fd = tree.open(f"{directory}/libc.so.6")
        except OSError:
            continue
        try:
            has = fakechroot.glibc_of(fd)
        finally:
            os.close(fd)
        break
    with open(library, "rb") as stream:
        wants = fakechroot.glibc_of(stream.fileno())
    if has < wants:
        found = f"the image's is 2.{has}" if has else "the image has none"
        raise SetupFailed(
            "fakechroot's library cannot be loaded into the programs of this image",
            why=f"{library} was made for glibc 2.{wants} and later, and {found}", hint="an image of a later release",
        )  # fmt: skip
    return has


def _library_directories(tree: Tree, machine: str) -> Iterator[str]:
    """Where the image's loader would look: in what its configuration names, and then where it always does."""
    triplet = f"{machine}-linux-gnu"
    always = (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
    known: set[str] = set()
    for each in (*_configured(tree, "/etc/ld.so.conf", 0), *always):
        try:
            inner = tree.resolved(each)
            if inner in known or not fakechroot.may_be_base(inner) or len(known) >= _MAX_DIRECTORIES:
                continue
            os.close(tree.open(inner, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            continue
        known.add(inner)
        yield inner


def _configured(tree: Tree, path: str, depth: int) -> Iterator[str]:
    """ldconfig(8): a directory a line, and patterns of further files."""
    from fnmatch import fnmatch

    for line in tree.text(path).splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 1 and words[0].startswith("/"):
            yield words[0]
        elif len(words) == 2 and words[0] == "include" and depth < 2:
            directory, pattern = os.path.split(os.path.join(os.path.dirname(path), words[1]))
            try:
                fd = tree.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            try:
                names = sorted(name for name in os.listdir(fd) if fnmatch(name, pattern))
            finally:
                os.close(fd)
            for name in names:
                yield from _configured(tree, f"{directory}/{name}", depth + 1)
