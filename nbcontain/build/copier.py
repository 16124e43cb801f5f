"""COPY, ADD and WORKDIR where they happen: inside the root file system that they change. Run by init.

The launcher has the zygote load this module (`Launcher(functions=…)`); here "/" is the image's root, its
symlinks lead nowhere else, and its ids are the container's.
"""

from __future__ import annotations

import difflib  # noqa: F401 - for did_you_mean, which cannot import it any more where this runs: in the container's root
import errno
import os
import stat

from nbcontain.build import modes, unpacker
from nbcontain.build.fingerprint import kept_xattrs
from nbcontain.build.patterns import Ignore
from nbcontain.build.selection import Wanted, select
from nbcontain.build.walk import Entry, Walk
from nbcontain.errors import BadArchive, BuildError, did_you_mean
from nbcontain.linux import trees
from nbcontain.oci.spec import User
from nbcontain.runtime import identity
from nbcontain.runtime.programs import text_of
from nbcontain.runtime.rootfs import Arguments, function, ledger_from
from nbcontain.store.clone import copy_content
from nbcontain.store.owners import OWNER, Ledger, Record
from nbcontain.values import dataclass, field

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_OWNER = frozenset({errno.EINVAL, errno.EPERM})


@function
def copy_files(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Lay entries on the root: of the directories fds[:n], as many as there are lists in `entries`, and of a further
    root file system, if `sources` names something of it.

    `ledgers` are the positions of the ledger to write to, of all that is known of this root, and of that of the further
    one, where owners that cannot be are recorded. Raises BuildError for what is not there or cannot be written.
    """
    ledger, source_ledger = _ledgers(arguments, fds)
    groups = [(fd, [Entry(*fields) for fields in group]) for fd, group in zip(fds, arguments["entries"], strict=False)]
    kept = bool(arguments["sources"])
    if kept:
        wanted = Wanted(tuple(arguments["sources"]), arguments["parents"], tuple(arguments["excludes"]))
        walk = Walk(fds[-1], Ignore(), special=True)
        entries = select(walk, wanted, _missing)
        groups.insert(0, (fds[-1], unpacker.with_archives(fds[-1], entries) if arguments["unpack"] else entries))
    owner = owner_of(arguments["chown"]) if arguments["chown"] or not kept else None
    keeps = not arguments["chown"]
    copy = _Copy(
        arguments["destination"], owner, arguments["chmod"], arguments["into_directory"], keeps, ledger, source_ledger,
        fds[-1] if kept else -1,
    )  # fmt: skip
    copy.take_all(groups)
    return {"lost_owners": copy.lost_owners}


def _ledgers(arguments: Arguments, fds: list[int]) -> tuple[Ledger | None, Ledger | None]:
    numbers = arguments.get("ledgers") or []
    writing = ledger_from(fds[numbers[1]], fds[numbers[0]]) if numbers else None
    return writing, ledger_from(fds[numbers[2]]) if len(numbers) > 2 else None


def _missing(walk: Walk, path: str) -> BuildError:
    parent, _, name = path.rpartition("/")
    directory = walk.resolve(parent or ".")
    names = walk.names(directory) if directory is not None else ()
    hint = did_you_mean(name, names, shown=lambda near: os.path.join("/", parent, near))
    return BuildError(f"no /{path} in that stage or image", hint=hint)


@function
def make_directory(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """WORKDIR: make a directory and what is missing above it, owned by `user`; nothing if it is there."""
    _make_directories(arguments["path"], owner_of(arguments["user"]), _ledgers(arguments, fds)[0])
    return {}


@function
def furnish_cache(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Make the root, a new cache mount's directory, begin as `source` of another file system, and somebody's."""
    if arguments["source"]:
        copy_files(
            {
                "entries": [], "sources": [arguments["source"].strip("/") or "."], "parents": False, "excludes": [],
                "unpack": False, "chown": "", "chmod": "", "destination": "/", "into_directory": True,
            },
            fds,
        )  # fmt: skip
    if (arguments["uid"], arguments["gid"]) != (0, 0):
        try:
            os.chown("/", arguments["uid"], arguments["gid"])
        except OSError as error:
            if error.errno not in _NO_OWNER:
                raise
    os.chmod("/", arguments["mode"])
    return {}


def owner_of(words: str) -> User:
    """Whom --chown or USER means, by the image's own files."""
    return identity.owner(words, text_of("/etc/passwd"), text_of("/etc/group"))


@dataclass(slots=True)
class _Copy:
    """One COPY being done."""

    destination: str
    owner: User | None
    """None lets everything belong to whom it belonged."""
    chmod: str
    into_directory: bool
    keeps_archived: bool
    """What an archive holds stays its owners'."""
    ledger: Ledger | None = None
    """Takes the owners that cannot be; without one they are lost."""
    source_ledger: Ledger | None = None
    """Knows those of another file system's files."""
    stage_fd: int = -1
    """Another file system's root, if something is copied from one."""
    lost_owners: int = 0
    source_fd: int = -1
    directories: list[tuple[str, int, int]] = field(default_factory=list)
    """Path, mode and modification time, to be set when nothing more is put into them."""
    names: dict[tuple[int, int], str] = field(default_factory=dict)
    """Where the first name of each file of this source that has several was put."""
    made: str = ""
    """The destination, if it is a directory that was not there."""
    on_the_way: list[str] = field(default_factory=list)
    """Directories that were made, the destination among them."""

    def take_all(self, groups: list[tuple[int, list[Entry]]]) -> None:
        try:
            for source_fd, entries in groups:
                self.source_fd = source_fd
                self.names.clear()
                self._prepare(entries)
                for entry in entries:
                    self._take(entry)
            for path, mode, mtime_ns in reversed(self.directories):
                os.chmod(path, mode)
                os.utime(path, ns=(mtime_ns, mtime_ns))
            if (told := modes.octal(self.chmod)) is not None:
                # As in BuildKit of 2025; 20.10's left them as they were made. Last, since nobody may be able to enter.
                for path in reversed(self.on_the_way):
                    os.chmod(path, told)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else self.destination
            raise BuildError(f"cannot write {name}", why=error.strerror or "") from error

    def _prepare(self, entries: list[Entry]) -> None:
        """The directories on the way to the destination; a symlink as the destination is where it leads."""
        # Sources come one after the other, as in BuildKit: where the first is a file, the next finds a file.
        is_directory = self.into_directory or any(entry.is_content or entry.is_archive for entry in entries[:1])
        self._make(os.path.dirname(self.destination))
        self.destination = _real(self.destination)
        if is_directory and entries and not os.path.isdir(self.destination):
            # A directory that is made for what is in another keeps that one's time stamp, but not its mode and owner.
            self._make(self.destination)
            self.made = self.destination
        else:
            self._make(os.path.dirname(self.destination))

    def _make(self, path: str) -> None:
        self.on_the_way += _make_directories(path, self.owner or User(), self.ledger)

    def _take(self, entry: Entry) -> None:
        if entry.is_archive:
            self._unpack(entry)
            return
        if entry.target == "." or not entry.is_content:
            # As in BuildKit, two sources do not share files.
            self.names.clear()
        path = self._path(entry)
        match entry.kind:
            case "directory":
                self._directory(path, entry)
            case "file":
                self._file(path, entry)
            case _:
                self._special(path, entry)

    def _path(self, entry: Entry) -> str:
        if entry.target == ".":
            return self.destination
        if entry.is_content or self.into_directory or os.path.isdir(self.destination):
            return os.path.join(self.destination, entry.target)
        return self.destination

    def _directory(self, path: str, entry: Entry) -> None:
        is_new = True
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            is_new = False
            if entry.target == "." and os.path.isdir(path):
                # The destination keeps the mode that it has.
                if path == self.made:
                    mode = stat.S_IMODE(os.stat(path).st_mode)
                    self.directories.append((path, mode, self._mtime_ns(entry)))
                return
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                what = "a symlink" if os.path.islink(path) else "a file"
                raise BuildError(
                    f"cannot copy a directory to {path}", why=f"{what} of the image is in the way"
                ) from None
        self._own(path, path, entry, is_new=is_new)
        self.directories.append((path, self._mode(entry), self._mtime_ns(entry)))

    def _file(self, path: str, entry: Entry) -> None:
        # JSON made a list of it.
        first = self.names.setdefault((entry.inode[0], entry.inode[1]), path) if entry.inode else path
        if first != path:
            self._made(path, lambda: os.link(first, path))
            if self.ledger is not None:
                self.ledger.link(*(os.fsencode(name).strip(b"/") for name in (first, path)))
            return
        source = self._opened(entry.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise BuildError(f"{entry.path} changed while it was copied", why="it is no regular file any more")
            mode = self._mode(entry)
            # Set when it is made, where nothing that follows could take bits away again: a call less per file.
            is_plain = self._owner(entry, source) == (0, 0) and not mode & 0o7000
            try:
                made = os.open(path, _NEW_FILE, mode if is_plain else 0o600)
            except FileExistsError:
                self._clear(path)
                made = os.open(path, _NEW_FILE, mode if is_plain else 0o600)
            try:
                copy_content(source, made, status)
                self._own(made, path, entry, source)
                # After the owner, since changing that clears the set-id bits and capabilities.
                for name, value in kept_xattrs(source):
                    if name == OWNER and self.ledger is not None:
                        continue
                    # As with docker: what somebody's desktop noted at a file of the context, as where it was downloaded
                    # from, is nobody else's business, and the image is the same wherever its files lay.
                    if self.source_fd == self.stage_fd or not name.startswith(b"user."):
                        _set_xattr(made, name, value)
                if not is_plain:
                    os.fchmod(made, mode)
                os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(made)
        finally:
            os.close(source)

    def _special(self, path: str, entry: Entry) -> None:
        """A symlink, the empty file that stands for a context's socket or device, or what only another file system of
        an image can have: a pipe or a device."""
        if entry.kind == "symlink":
            self._made(path, lambda: os.symlink(entry.link, path))
        elif entry.kind == "empty":
            self._made(path, lambda: os.close(os.open(path, _NEW_FILE, 0o600)))
        elif entry.kind == "pipe":
            self._made(path, lambda: os.mkfifo(path, 0o600))
        else:
            self._made(path, lambda: os.mknod(path, entry.mode, entry.device))
        mtime_ns = self._mtime_ns(entry)
        self._own(path, path, entry, mtime_ns=mtime_ns)
        if entry.kind != "symlink":
            os.chmod(path, self._mode(entry))
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def _mtime_ns(self, entry: Entry) -> int:
        source = self._opened(entry.path, os.O_PATH)
        try:
            return os.fstat(source).st_mtime_ns
        finally:
            os.close(source)

    def _unpack(self, entry: Entry) -> None:
        _make_directories(self.destination, self.owner or User(), self.ledger)
        source = self._opened(entry.path, os.O_RDONLY)
        owner = None if self.keeps_archived or self.owner is None else (self.owner.uid, self.owner.gid)
        try:
            self.lost_owners += unpacker.unpack(source, self.destination, owner, self.ledger)
        except BadArchive as error:
            raise BuildError(f"cannot unpack {entry.target}: {error.message}", why=error.why) from error
        finally:
            os.close(source)

    def _opened(self, path: str, flags: int) -> int:
        """A source. `Walk` has resolved its path: a symlink in it now was put there meanwhile."""
        try:
            return trees.open_beneath(self.source_fd, path, flags | os.O_NOFOLLOW)
        except OSError as error:
            raise BuildError(f"{path} cannot be read", why=error.strerror or "") from error

    def _made(self, path: str, make: Any) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(path)
            make()

    def _clear(self, path: str) -> None:
        """Make way for a file or symlink."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            raise BuildError(f"cannot copy a file to {path}", why="a directory of the image is in the way") from error

    def _mode(self, entry: Entry) -> int:
        mode = stat.S_IMODE(entry.mode)
        return modes.changed(self.chmod, mode, is_directory=entry.kind == "directory") if self.chmod else mode

    def _owner(self, entry: Entry, source: int | None = None) -> tuple[int, int]:
        """Whom it will belong to; `source` is open for it if it is a file."""
        if self.owner is not None:
            return self.owner.uid, self.owner.gid
        if self.source_ledger is None or tuple(entry.owner) != (0, 0):
            return entry.owner[0], entry.owner[1]
        place = source
        if entry.kind == "directory":
            place = self._opened(entry.path, os.O_RDONLY | os.O_DIRECTORY)
        status = self._opened(entry.path, os.O_PATH)
        try:
            return self.source_ledger.owner(place, os.fsencode(entry.path), os.fstat(status))
        finally:
            os.close(status)
            if place is not None and place != source:
                os.close(place)

    def _own(
        self, target: str | int, path: str, entry: Entry, source: int | None = None, *, is_new: bool = True,
        mtime_ns: int | None = None,
    ) -> None:  # fmt: skip
        owner = self._owner(entry, source)
        if owner == (0, 0) and self.ledger is not None:
            # What is new has no attribute, but a name that somebody else's may have had.
            self.ledger.forget(None if is_new else target, os.fsencode(path).strip(b"/"))
        if is_new and owner == (0, 0):
            status = os.stat(target, follow_symlinks=isinstance(target, int))
            # In a directory with the set-group-id bit it has that one's group.
            if (status.st_uid, status.st_gid) == owner:
                return
        if not _give(target, path, owner, self.ledger, mtime_ns):
            self.lost_owners += 1


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        # As in BuildKit, what this file system does not take is left out.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EACCES):
            raise


def _make_directories(path: str, owner: User, ledger: Ledger | None = None) -> list[str]:
    """`mkdir -p` with mode 0755, following the image's symlinks; what is made, and given, belongs to `owner`."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    return [made for each in reversed(missing) for made in _make_directory(each, owner, ledger)]


def _make_directory(path: str, owner: User, ledger: Ledger | None) -> list[str]:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if os.path.islink(path) and not os.path.exists(path):
            # A symlink that leads to nothing yet: what it names is made.
            return _make_directories(_real(path), owner, ledger)
        raise BuildError(f"{path} cannot be made a directory", why="a file of the image has that name") from None
    if (owner.uid, owner.gid) != (0, 0):
        _give(path, os.path.realpath(path), (owner.uid, owner.gid), ledger)
    return [path]


def _real(path: str) -> str:
    """Where a path leads. Raises BuildError for symlinks in circles, which realpath leaves as they are."""
    real = os.path.realpath(path)
    if os.path.islink(real):
        raise BuildError(f"{real} is a symlink that leads in circles")
    return real


def _give(
    target: str | int, path: str, owner: tuple[int, int], ledger: Ledger | None, mtime_ns: int | None = None
) -> bool:
    """Make somebody the owner of a path, or of what is open there; False if that is lost.

    Where there is no such id, it is recorded. `mtime_ns` is the final time of what carries no attributes.
    """
    try:
        os.chown(target, *owner, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno not in _NO_OWNER:
            raise
        if ledger is None:
            return False
        place = target if mtime_ns is None else None
        ledger.record(place, os.fsencode(path).strip(b"/"), Record(*owner, mtime_ns=mtime_ns))
    return True
