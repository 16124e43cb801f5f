"""An OCI layer onto a directory, in overlayfs' form; the archive is taken for hostile."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from nbcontain.errors import BadArchive
from nbcontain.linux.directories import open_directory
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.store import removal, tar
from nbcontain.store.compression import uncompressed
from nbcontain.store.inventory import Recorder
from nbcontain.store.metadata import Metadata
from nbcontain.store.new_files import Data, NewFiles, in_batches
from nbcontain.store.open_directories import LEAF_BYTES, OpenDirectories, parted, split
from nbcontain.store.owners import Ledger
from nbcontain.store.seams import Seams
from nbcontain.store.whiteouts import META, OPAQUE, WHITEOUT, is_whiteout, join, opaque_xattr
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from nbcontain.store.plain_members import Made, PlainMembers

    Directory = tuple[int, int, int, int, dict[bytes, bytes]]
    """What is set of one at the end: mode, user, group, time in ns, extended attributes."""
    Ids = Literal["all", "single"]  # whether owners can be kept here, or everything belongs to the only id there is
else:
    Ids = str

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LEAF = (b"", b".", b"..")
_NONE: dict[bytes, bytes] = {}
NAME_BYTES = 100
_KEPT_BYTES, _DIRECTORY_BYTES = 128 << 20, 300
"""What may be kept in memory of one archive until its end; and of that for each name, and directory, beside its path.
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an unpacked layer amounted to."""

    diff_id: DiffID | None
    """None if somebody else hashes."""
    entries: int
    size_bytes: int
    """The sum of its regular files."""
    lost_owners: int = 0
    """Entries whose owner has no id here."""
    skipped: int = 0
    """Entries that may not be made here: device nodes, forged whiteouts, metadata of aufs."""
    lost_xattrs: int = 0
    """Extended attributes that the file system or the kernel refused."""
    seams: Seams = Seams()
    """What depends on what the layer lies on."""


def apply_tar(
    stream: tar.Readable | tar.Pieces, root: str = "/", *, userxattr: bool, ids: Ids = "all",
    limits: tar.Limits = tar.DEFAULT_LIMITS, hashes: bool = True, ledger: Ledger | None = None,
    target_type: type[Target] | None = None, recorder: Recorder | None = None, plain: type[PlainMembers] | None = None,
) -> Applied:  # fmt: skip
    """Unpack a layer's tar into an empty directory, in overlayfs' form; or as another `target_type` does it.

    With `ids="single"` everything belongs to the caller. Owners and devices that cannot be are recorded in `ledger`, or
    lost. `recorder` takes down what the tar says, and `plain` makes what it can, to the same effect. Raises BadArchive
    for what is damaged or means harm, OSError for what the disk says; the directory is then to be thrown away.
    """
    old_umask = os.umask(0)
    try:
        with (target_type or Target)(root, userxattr, ids, ledger) as target:
            recorder = recorder or Recorder()
            if plain is not None:
                target.use(plain, recorder.take_made)
            return target.unpack(stream, limits, recorder.take, hashes=hashes)
    finally:
        os.umask(old_umask)


def add_tar(
    stream: tar.Readable,
    root: str,
    *,
    owner: tuple[int, int] | None,
    limits: tar.Limits = tar.DEFAULT_LIMITS,
    ledger: Ledger | None = None,
    whole: bool = False,
    admit: Callable[[tar.Entry], None] | None = None,
    target_type: type[Target] | None = None,
) -> Applied:
    """Unpack an archive that is no layer onto a directory with things in it, plain or compressed; they are merged.

    Everything becomes `owner`'s, if that is given. `whole` says that the directory will be in no layer, as a volume is
    not: what looks like a whiteout is a file, and the archive's own directory tells of the one it is unpacked to.
    `admit` is asked about each device, and raises for one that is not to be made; another `target_type` may do it in
    its own way. Raises like `apply_tar`.
    """

    def each(entry: tar.Entry) -> None:
        if owner is not None:
            entry.uid, entry.gid = owner
        if admit is not None and entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            admit(entry)

    old_umask = os.umask(0)
    try:
        with (target_type or Target)(root, False, "all", ledger, is_layer=False, is_whole=whole) as target:
            return target.unpack(uncompressed(stream), limits, each, hashes=False)
    finally:
        os.umask(old_umask)


class Target:
    """The directory that a layer is unpacked into. Paths are relative bytes without `.` and `..`; b"" is the root."""

    def __init__(
        self, root: str, userxattr: bool, ids: Ids, ledger: Ledger | None, *, is_layer: bool = True,
        is_whole: bool = False,
    ) -> None:  # fmt: skip
        self._is_layer = is_layer
        self._hides_below = is_layer
        """Whether what is in the directory lies over what is elsewhere, and is all of this archive."""
        self._is_whole = is_whole
        self._metadata = Metadata(keeps_owners=ids == "all", ledger=ledger)
        self._files = NewFiles(self._metadata)
        self.size_bytes = self.skipped = 0
        self._opaque_xattr = opaque_xattr(userxattr=userxattr)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._opened = OpenDirectories(self._root, self._is_own, self._make_opaque, self._was_made, self._leave)
        self._unnamed: set[bytes] = set()
        self._hiding: set[bytes] = set()
        """Directories that were not named by then, and those in which something of below is hidden."""
        self._directories: dict[bytes, Directory] = {}
        """Owner, mode and time of directories are set at the end, when nothing changes them any more."""
        self._left_bytes = _KEPT_BYTES
        self._maker: PlainMembers | None = None

    def __enter__(self) -> Target:
        if not self._is_layer:
            return self
        status = os.fstat(self._root)
        if status.st_mode & stat.S_ISGID:
            os.fchmod(self._root, stat.S_IMODE(status.st_mode) & 0o777)
        try:
            # Inherited from a user's directory, it would change the mode of every file made here.
            os.removexattr(self._root, b"system.posix_acl_default")
        except OSError:
            pass
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
        self._opened.forget()
        os.close(self._root)

    def unpack(
        self, stream: tar.Readable | tar.Pieces, limits: tar.Limits, each: Callable[[tar.Entry], None], *, hashes: bool
    ) -> Applied:  # fmt: skip
        """All of an archive, of which `each` sees every entry first that this makes; what it amounted to."""
        plain = self._take_plain if self._maker is not None else None
        reader = in_batches(stream, limits, each, self._take, self._files.finish, hashes=hashes, plain=plain)
        total = reader.finish()
        self._finish_directories()
        lost, diff_id = self._metadata, DiffID(Digest("sha256", total)) if total else None
        seams = Seams(tuple(sorted(self._unnamed - self._directories.keys())), tuple(sorted(self._hiding)))
        return Applied(
            diff_id, reader.entries, self.size_bytes, lost.lost_owners, self.skipped, lost.lost_xattrs, seams
        )  # fmt: skip

    # --- plain members, made by the processor's own code ---

    _looks_back = False
    """Whether a directory that is opened depends on what has been made by then."""

    def use(self, maker: type[PlainMembers], told: Callable[[Made], None]) -> None:
        """Have these made by it, where that can be, and `told` what was made."""

        def made(members: Made) -> None:
            self.size_bytes += members.size_bytes
            self._take_made(members)
            told(members)

        with suppress(OSError):
            self._maker = maker(
                self._opened.spelled_at, made, keeps_owners=self._metadata.keeps_owners, looks_back=self._looks_back
            )

    def _take_plain(
        self, reader: tar.Reader, before: list[tuple[tar.Entry, memoryview]], leave: Callable[[], None]
    ) -> None:  # fmt: skip
        if self._maker is not None and (own := self._metadata.own) is not None:
            self._maker.take(reader, own, before, leave)

    def _leave(self) -> None:
        """No directory stays open."""
        if self._maker is not None:
            self._maker.tell()
            self._maker.forget()

    def _take_made(self, members: Made) -> None:
        """What is to be known of these, whose directories are open yet: here, what is to be set of directories."""
        if self._metadata.remembers:
            for name in members.names.split(b"\0")[:-1]:
                head, leaf = parted(name)
                self._metadata.belongs_to_root(join(self._opened.spelled[head][1], leaf))
        place = members.kinds.find(tar.DIRECTORY)
        if place < 0:
            return
        names = members.names.split(b"\0")
        modes, uids, gids, _, mtimes = members.columns
        while place >= 0:
            name = names[place]
            head, leaf = parted(name)
            path = join(self._opened.spelled[head][1], leaf)
            self._keep(len(path) + _DIRECTORY_BYTES)
            self._directories[path] = modes[place], uids[place], gids[place], mtimes[place], _NONE
            place = members.kinds.find(tar.DIRECTORY, place + 1)

    # --- one member ---

    def _take(self, entry: tar.Entry, data: Data) -> None:
        """Make one entry; a later one of the same name wins."""
        self._opened.make_room()
        name = entry.name
        head, leaf = parted(name)
        known = self._opened.spelled.get(head)
        if known is None or leaf in _NO_LEAF or len(leaf) > LEAF_BYTES:
            parts = split(name)
            if not parts:
                if entry.kind != tar.DIRECTORY:
                    raise BadArchive("the archive replaces the root directory by something else")
                # Of a layer it says nothing: what stands on it has a root of its own, which is 0755 and root's.
                if self._is_whole:
                    self._put_off(b"", entry)
                return
            is_last = parts[-1] == leaf
            leaf = parts.pop()
            known = self._opened.at(parts, b"/".join(parts))
            if is_last:
                self._opened.spelled[head] = known
        parent, path = known
        if leaf.startswith(WHITEOUT) and not self._is_whole:
            if self._is_layer:
                self._whiteout(parent, path, leaf)
            else:
                # As a file it would become a whiteout of the layer that it is packed into.
                self.skipped += 1
            return
        self._claim(path, leaf)
        try:
            self._make(parent, path, leaf, entry, data)
        except FileExistsError:
            # By one of these, perhaps; what is said of it comes before what is said of this one.
            self._files.finish()
            # Replacing a directory or a symlink forgets all open directories; this one is still needed.
            parent = os.dup(parent)
            try:
                if self._make_way(parent, leaf, entry):
                    self._make(parent, path, leaf, entry, data)
                else:
                    self._put_off(join(path, leaf), entry)
            finally:
                os.close(parent)

    def _make(self, parent: int, path: bytes, leaf: bytes, entry: tar.Entry, data: Data) -> None:
        kind = entry.kind
        if kind == tar.REGULAR:
            self._files.take(os.open(leaf, _NEW_FILE, entry.mode, dir_fd=parent), data, path, leaf, entry)
            self.size_bytes += entry.size
        elif kind == tar.DIRECTORY:
            # Already as it will be, where that does not stand in the way of its content.
            os.mkdir(leaf, entry.mode if entry.mode & 0o7700 == 0o700 else 0o700, dir_fd=parent)
            self._put_off(join(path, leaf), entry)
        elif kind == tar.SYMLINK:
            if not entry.link:
                raise BadArchive(f"{entry.name!r} is a symlink to nowhere")
            os.symlink(entry.link, leaf, dir_fd=parent)
            self._metadata.set_at(parent, path, leaf, entry)
        elif kind == tar.LINK:
            self._link(parent, path, leaf, entry)
        elif kind == tar.FIFO:
            os.mkfifo(leaf, entry.mode, dir_fd=parent)
            self._metadata.set_at(parent, path, leaf, entry)
        elif kind == tar.CHARACTER and not entry.major and not entry.minor:
            # Overlayfs would take it for a whiteout, and whiteouts are spelled .wh. in a tar.
            self.skipped += 1
        else:
            self.device(parent, path, leaf, entry)

    def device(self, parent: int, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """Make a device node, or record it."""
        kind = stat.S_IFCHR if entry.kind == tar.CHARACTER else stat.S_IFBLK
        try:
            os.mknod(leaf, kind | entry.mode, os.makedev(entry.major, entry.minor), dir_fd=parent)
        except PermissionError:
            if not self._metadata.records:
                self.skipped += 1
            else:
                self._placeholder(parent, path, leaf, entry)
            return
        except OverflowError as error:
            raise BadArchive(f"{entry.name!r} has an impossible device number") from error
        self._metadata.set_at(parent, path, leaf, entry)

    def _placeholder(self, parent: int, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """An empty file for a device that may not be made here."""
        fd = os.open(leaf, _NEW_FILE, entry.mode, dir_fd=parent)
        try:
            self._metadata.set(fd, path, leaf, entry)
        finally:
            os.close(fd)

    def _link(self, parent: int, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """A hard link, to what this layer has already."""
        parts = split(entry.link)
        try:
            if not parts:
                raise FileNotFoundError
            name = parts.pop()
            source, where = self._opened.at(parts, b"/".join(parts), make=False)
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or is_whiteout(status) or not self._is_own(join(where, name)):
                raise FileNotFoundError
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BadArchive(
                f"{entry.name!r} is a hard link to {entry.link!r}", why="this layer has no such file before it"
            ) from error
        try:
            os.link(name, leaf, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if not os.path.samestat(status, os.stat(leaf, dir_fd=parent, follow_symlinks=False)):
                raise
        if self._metadata.records:
            # What is said of the first name may be to come.
            self._files.finish()
            self._metadata.link(join(where, name), join(path, leaf))

    def _make_way(self, parent: int, leaf: bytes, entry: tar.Entry) -> bool:
        """Remove what stands where `entry` goes. False if both are directories, which are merged."""
        status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and entry.kind == tar.DIRECTORY:
            return False
        if is_directory or stat.S_ISLNK(status.st_mode):
            self._opened.forget()
        removal.remove_at(parent, leaf)
        if self._hides_below and entry.kind == tar.DIRECTORY:
            # A whiteout, or whatever else it was, hid a directory of below: the new one must not show its content.
            os.mkdir(leaf, 0o700, dir_fd=parent)
            self._make_opaque(parent, leaf)
            return False
        return True

    def _claim(self, path: bytes, leaf: bytes) -> None:
        """What has this name in that directory is this archive's from now on."""

    def _is_own(self, path: bytes) -> bool:
        """Whether what is at this path came from this archive: here, all that there is."""
        return True

    # --- whiteouts ---

    def _whiteout(self, parent: int, path: bytes, leaf: bytes) -> None:
        """`.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all they have in this directory."""
        if leaf == OPAQUE:
            os.setxattr(parent, self._opaque_xattr, b"y")
            return
        if leaf.startswith(META):
            self.skipped += 1
            return
        name = leaf[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise BadArchive(f"a whiteout of {name!r} in {path!r}")
        if path not in self._hiding:
            self._keep(len(path) + NAME_BYTES)
            self._hiding.add(path)
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            # What this layer itself has is not hidden (layer.md#whiteouts), only what is below it.
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._make_opaque(parent, name)

    def _make_opaque(self, parent: int, name: bytes) -> None:
        fd = open_directory(name, parent)
        try:
            os.setxattr(fd, self._opaque_xattr, b"y")
        finally:
            os.close(fd)

    # --- directories ---

    def _was_made(self, path: bytes) -> None:
        """This one had to be, and no entry has named it so far."""
        if self._hides_below:
            self._keep(len(path) + NAME_BYTES)
            self._unnamed.add(path)

    def _put_off(self, path: bytes, entry: tar.Entry) -> None:
        """What this says of a directory is set at the end."""
        xattrs = entry.xattrs
        self._keep(len(path) + _DIRECTORY_BYTES + sum(map(len, (*xattrs, *xattrs.values()))))
        self._directories[path] = entry.mode, entry.uid, entry.gid, entry.mtime_ns, xattrs or _NONE

    def _keep(self, size_bytes: int) -> None:
        """So many more bytes stay in memory. Raises BadArchive where it is too much."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise BadArchive("the archive has too many names to remember", why=f"they take {_KEPT_BYTES >> 20} MiB")

    def _finish_directories(self) -> None:
        """Owner, mode, attributes and time of each directory, deepest first. What became something else is left out."""
        self._opened.forget()
        way = [(b"", os.dup(self._root))]
        try:
            for path in sorted(self._directories, reverse=True):
                head, _, leaf = path.rpartition(b"/")
                try:
                    parent = self._at(head, way)
                    mode, uid, gid, mtime_ns, xattrs = self._directories[path]
                    entry = tar.Entry(path, tar.DIRECTORY, mode, uid, gid, 0, mtime_ns, xattrs=xattrs)
                    self._metadata.set_directory(parent, head, leaf, entry)
                except (FileNotFoundError, NotADirectoryError):
                    continue
        finally:
            for _, fd in way:
                os.close(fd)

    def _at(self, path: bytes, way: list[tuple[bytes, int]]) -> int:
        """A directory by its resolved path, no symlink on the way; `way` are directories on the way to the last one.

        They are left open for the next one, but for some of very many. Raises what opening them raises.
        """
        while way[-1][0] != path and way[-1][0] and not path.startswith(way[-1][0] + b"/"):
            os.close(way.pop()[1])
        above, fd = way[-1]
        for part in split(path[len(above) :]):
            fd = open_directory(part, fd)
            above = join(above, part)
            way.append((above, fd))
            if len(way) > self._opened.many:
                os.close(way.pop(1)[1])
        return fd
