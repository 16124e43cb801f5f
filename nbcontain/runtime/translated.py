"""A container's root where nobody's can be changed: the paths of its programs are translated, by PRoot or a library.

What stands in a container's root is its program alone. Init stays where it was born, looks at the container's files by
descriptors, and gives up, by Landlock, all of this machine's files but those that the translator itself needs: a path
that is not translated, as of a process that outlives PRoot for a moment, leads nowhere. Run by init, and by an exec's
process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from nbcontain.errors import CommandNotExecutable, CommandNotFound, DirectoryNotFound, SetupFailed
from nbcontain.linux import confine, fakechroot, landlock, proot, starts, syscalls, trees
from nbcontain.oci.spec import Mount, Process, Spec
from nbcontain.runtime import identity, preloaded, programs
from nbcontain.runtime.annotations import DEFAULT_PATH
from nbcontain.runtime.answerers import Answers
from nbcontain.runtime.devices import DEVICES
from nbcontain.runtime.preloaded import Tree
from nbcontain.runtime.programs import Program
from nbcontain.runtime.rungs import CERTIFICATES, FURNITURE, RUNG, TRANSLATOR
from nbcontain.store import files
from nbcontain.store.rooted_links import ROOTED
from nbcontain.values import dataclass, replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container's files are, and who translates their paths."""

    root: str
    scratch: str
    """A directory of its own for the translator."""
    translator: str
    furniture: tuple[tuple[str, str], ...] = ()
    """Files of ours, with their paths inside."""
    is_preloaded: bool = False
    """A library translates them, and not PRoot."""

    @classmethod
    def of(cls, spec: Spec, rootfs: Sequence[Mount], scratch: str) -> Place:
        """Raises SetupFailed."""
        (root,) = rootfs
        ours = FURNITURE | {CERTIFICATES}
        furniture = tuple((each.source, each.destination) for each in spec.mounts if each.destination in ours)
        words = spec.annotations
        if root.type != "bind" or TRANSLATOR not in words:
            raise SetupFailed("a root file system of layers cannot be put together here", why="nothing can be mounted")
        place = cls(root.source, scratch, words[TRANSLATOR], furniture, words.get(RUNG) == "preload")
        if place.is_preloaded:
            place = replace(place, root=os.path.realpath(place.root))
            place.check_links()
        return place

    def tree(self, root: int) -> Tree | None:
        """The files, whose links are to be read in a way of their own, open; None where links are links."""
        return Tree(root, self.root) if self.is_preloaded else None

    def check_links(self) -> None:
        """Raises SetupFailed where its files lie elsewhere than they did when its links were made to lead there."""
        try:
            made_at = os.fsdecode(files.read(f"{os.path.dirname(self.root)}/{ROOTED}", 4096))
        except FileNotFoundError:
            made_at = ""
        why = ""
        if made_at != self.root:
            why = f"its links were made for {made_at}" if made_at else "its links are those of its image"
        elif not fakechroot.may_be_base(self.root):
            why = "the loader's lists of paths can hold no such path"
        if why:
            raise SetupFailed(f"{self.root} cannot be a root for a library that is preloaded", why=why)


def enter(place: Place) -> None:
    """Init, and an exec's process: reach the container's files from here on, and hardly any others. For good."""
    if place.is_preloaded:
        root = os.open(place.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        preloaded.make_programs(Tree(root, place.root), place.scratch)
        os.close(root)
        readable = ["/proc", place.translator, place.scratch]
    else:
        above = os.path.dirname(os.path.dirname(os.path.realpath(place.translator)))
        readable = ["/proc", place.translator, f"{above}/lib", *_LIBRARIES, *(source for source, _ in place.furniture)]
    devices = [f"/dev/{name}" for name in DEVICES]
    os.chdir(place.root)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    own = [] if place.is_preloaded else [place.scratch]
    others = [os.open(each, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for each in own]
    opened = [list(_opened(paths)) for paths in (readable, devices)]
    try:
        if not landlock.confine_to(".", others, *opened):
            raise SetupFailed("nothing keeps programs from this machine's files", why="this kernel has no Landlock")
    finally:
        for fd in (*others, *opened[0], *opened[1]):
            os.close(fd)


def _opened(paths: Sequence[str]) -> Iterator[int]:
    """Those that are there."""
    for path in paths:
        try:
            yield os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue


def prepare(
    place: Place, process: Process, annotations: Mapping[str, str], seccomp: bytes, answers: Answers
) -> tuple[Program, Process]:
    """Find the container's program and be ready to run it; what is executed for it is another one, which is given too.

    Raises SetupFailed, CommandNotFound and the like.
    """
    root = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = place.tree(root)
    seen = tree.resolved if tree is not None else _as_it_is
    texts = [_text(root, seen(each)) for each in ("/etc/passwd", "/etc/group")]
    who = identity.of_process(process, annotations, *texts)
    user = identity.with_own_group(who.user)
    env = dict(entry.partition("=")[::2] for entry in process.env)
    env.setdefault("PATH", DEFAULT_PATH)
    env.setdefault("HOME", who.home)
    directory = _directory(root, seen(process.cwd))
    found = _find(root, process.args, env["PATH"], directory, seen)
    confine.limit(process.rlimits)
    os.umask(user.umask)
    env = fakechroot.without_ours(env)
    if tree is not None:
        told, args = preloaded.environment(tree, place.translator, place.scratch, (found, *process.args[1:]))
        inside = trees.open_in(root, directory, os.O_PATH | os.O_DIRECTORY)
        if answers.words:
            answers.introduce(user)
        os.fchdir(inside)
        os.close(inside)
        os.close(root)
        last = confine.Last(seccomp, (0, 0, 0), needs_admin=False)
        return Program(args[0], env | told, last), replace(process, args=args)
    env |= proot.environment(place.scratch)
    pretended = () if answers.stand_in else ("-i", f"{user.uid}:{user.gid}")
    binds = [each for name in DEVICES for each in ("-b", f"/dev/{name}")]
    binds += [each for source, target in place.furniture for each in ("-b", f"{source}:{target}")]
    args = (
        place.translator, "--kill-on-exit", "-r", place.root, *pretended, "-b", "/proc", *binds, "-w", directory,
        found, *process.args[1:],
    )  # fmt: skip
    os.close(root)
    if answers.words:
        answers.introduce(user)
    last = confine.Last(seccomp, (0, 0, 0), needs_admin=False)
    return Program(place.translator, env, last), replace(process, args=args)


def _as_it_is(path: str) -> str:
    return path


def child_of(pid: int) -> int:
    """The first process that PRoot, which `pid` is, has started; 0 if there is none."""
    return next(iter(starts.children_of(pid)), 0)


def _text(root: int, path: str) -> str:
    """A small regular file of the container's; "" if it is anything else."""
    try:
        fd = trees.open_in(root, path, os.O_PATH)
    except OSError:
        return ""
    try:
        return programs.text_of(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _directory(root: int, path: str) -> str:
    """The working directory, which is made if it is missing."""
    try:
        fd = trees.make_target(root, path, [], directory=True)
        is_directory = trees.is_directory(fd)
        os.close(fd)
    except OSError as error:
        raise DirectoryNotFound(
            f"cannot use {path} as the working directory", errno=error.errno, path=path, why=error.strerror or ""
        ) from error
    if not is_directory:
        raise DirectoryNotFound(f"cannot use {path} as the working directory", path=path, why="it is no directory")
    return path


def _find(root: int, args: tuple[str, ...], path: str, directory: str, seen: Callable[[str], str]) -> str:
    """Where the program is, below the root. Raises CommandNotFound and CommandNotExecutable."""
    if not args or not args[0]:
        raise CommandNotFound(
            "there is no command to run", hint="give one after the image's name, or set CMD in the image"
        )
    name = args[0]
    for each in [name] if "/" in name else [f"{each or '.'}/{name}" for each in path.split(":")]:
        candidate = os.path.join(directory, each)
        try:
            fd = trees.open_in(root, seen(candidate))
        except OSError:
            continue
        try:
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
        if stat.S_ISREG(mode) and mode & 0o111:
            return candidate
        if "/" in name:
            raise CommandNotExecutable(f"{name} cannot be executed", path=name, why="it is no program")
    raise programs.not_found(name, path)
