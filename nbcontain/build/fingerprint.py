"""What a tree's content amounts to, as one digest, and what is remembered so that an unchanged tree is not read again.

Part of it are names, kinds, modes, symlinks, contents and extended attributes; owners and times are not, since a copy
of a context has others anyway. A file counts as unchanged while device, inode, size, mtime and ctime are what they
were, unless it was changed so shortly before it was read that a second change could look the same (as in git's index).
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nbcontain.build.patterns import Ignore, Matched
from nbcontain.build.walk import Entry, Stat, opened_directory, opened_name, stat_key, unreadable
from nbcontain.errors import StoreError
from nbcontain.oci.digest import sha256
from nbcontain.store.whiteouts import is_kept_xattr
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from hashlib import _Hash

    from nbcontain.build.remembered import Known

_CHUNK = 1 << 20
_MANY = 1000
"""After so many files OpenSSL's SHA-256 is loaded, whose loading costs as much as it saves of these."""
_PIECE_BYTES = 16 << 20
_LARGE_BYTES = 4 * _PIECE_BYTES
"""A file from that size on is hashed in pieces, by more than one processor."""
_IN_PIECES = "-pieces"
"""Behind the digest of the pieces' digests, so that it is no file's that holds just those."""
_KINDS = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})
"""What is copied from a context."""
_WORTH_FILES = 200
_WORTH_BYTES = 16 << 20
"""To read as much takes longer than to keep in the store what it amounted to."""
_RACY_NS = 2_000_000_000
"""A file changed this shortly before it was read may change again within its time stamp's grain."""

Patterns = tuple[tuple[str, bool], ...]
"""What an `Ignore` says, to be compared."""
Listing = list[tuple[str, int, int, int, int, int, int]]
"""Name, mode, device, inode, size, mtime and ctime of everything in a directory, sorted."""


@dataclass(frozen=True, slots=True)
class _Directory:
    """What one directory amounted to, without its subdirectories' contents."""

    listing: Listing
    patterns: Patterns
    state: Matched
    digest: bytes
    below: tuple[tuple[str, Matched], ...]
    """The subdirectories that are not ignored."""


class ContentCache:
    """Remembers what did not change since. What is lost is read again. Any thread may use it."""

    def __init__(self, place: Path | None = None) -> None:
        """`place` is a directory of the store: what took a while to read is kept there for other processes."""
        self._files: Known = {}
        self._directories: dict[str, _Directory] = {}
        self._place = place
        self._used: dict[str, set[str]] = {}
        """By root that is kept, the files of it that were asked for since."""
        self._new: dict[str, tuple[int, int]] = {}
        """By root, how many files were read since it was kept, and how many bytes."""

    def begin(self, root: str, root_fd: int) -> None:
        """Remember what another process has seen of this directory's files."""
        if self._place is None or root in self._used or os.fstatvfs(root_fd).f_flag & os.ST_RDONLY:
            return
        self._used[root] = set()
        from nbcontain.build import remembered

        # What this process has seen itself is newer.
        self._files = remembered.load(self._place, root) | self._files

    def end(self, root: str, used: set[str], count: int, size_bytes: int) -> None:
        """These files were asked for, and so many had to be read."""
        if root not in self._used:
            return
        self._used[root].update(used)
        known_count, known_bytes = self._new.get(root, (0, 0))
        self._new[root] = known_count + count, known_bytes + size_bytes

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep what is worth it at the end, however that comes."""
        try:
            yield
        finally:
            self._keep()

    def _keep(self) -> None:
        """Of what nobody asked for in this process no more is kept than of what somebody did."""
        for root, (count, size_bytes) in list(self._new.items()):
            if self._place is None or (count < _WORTH_FILES and size_bytes < _WORTH_BYTES):
                continue
            from nbcontain.build import remembered

            used, above = self._used[root], os.path.join(root, "")
            # A copy: another build may be reading files meanwhile.
            known = {path: found for path, found in self._files.copy().items() if path.startswith(above)}
            if len(known) > 2 * len(used):
                known = {path: found for path, found in known.items() if path in used}
            # It is a hint: where it cannot be written, the next process reads the files.
            with suppress(OSError, StoreError):
                remembered.keep(self._place, root, known)
            self._new[root] = (0, 0)

    def get(self, path: str, seen: Stat) -> str | None:
        """The digest of a file's content, if it is still the one that was seen."""
        known = self._files.get(path)
        return known[1] if known is not None and known[0] == seen else None

    def put(self, path: str, seen: Stat, hexdigest: str, now_ns: int) -> None:
        """Remember a file that was read at `now_ns`, unless that was too soon after its last change."""
        if now_ns - max(seen[3], seen[4]) > _RACY_NS:
            self._files[path] = (seen, hexdigest)

    def directory(self, path: str) -> _Directory | None:
        """What a directory amounted to, when it was last looked at."""
        return self._directories.get(path)

    def put_directory(self, path: str, found: _Directory, now_ns: int) -> None:
        """Remember a directory whose files were read at `now_ns`."""
        if now_ns - max((max(each[5], each[6]) for each in found.listing), default=0) > _RACY_NS:
            self._directories[path] = found


class Fingerprint:
    """One digest being made of what lies below one directory. A context: what it read is remembered at its end."""

    def __init__(self, root: str, root_fd: int, cache: ContentCache, on_read: Callable[[int], None] | None) -> None:
        self._root = root
        self._above = os.path.join(root, "")
        self._root_fd = root_fd
        self._cache = cache
        self._on_read = on_read or (lambda size_bytes: None)
        self._total = sha256()
        self._files = 0
        self._bytes = 0
        self._untold = 0
        """So many bytes of small files were read since that was last told."""
        self._used: set[str] = set()

    def __enter__(self) -> Fingerprint:
        self._cache.begin(self._root, self._root_fd)
        return self

    def __exit__(self, *_: object) -> None:
        self._cache.end(self._root, self._used, self._files, self._bytes)

    def hexdigest(self) -> str:
        """Of all that was taken in."""
        return self._total.hexdigest()

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries in. Raises BuildError for a file that is gone since it was selected."""
        for entry in entries:
            content = self._content(entry.path, entry.stat) if entry.kind == "file" else ""
            fields = (entry.target, entry.kind, f"{entry.mode:o}", str(entry.is_content), entry.link, content)
            _update(self._total, *map(os.fsencode, fields))

    def add_tree(self, top: Entry, ignore: Ignore, state: Matched) -> None:
        """Take in a directory with all in it that is not ignored; no pattern readmits anything.

        `state` is what `ignore` says of the directory. Nothing is made of a file here that did not change.
        """
        _update(self._total, b"tree", f"{top.mode:o}".encode())
        patterns = tuple((each.text, each.readmits) for each in ignore.patterns)
        waiting: list[tuple[str, str, Matched]] = [(top.path, "", state)]
        while waiting:
            path, target, here = waiting.pop()
            found = self._directory(path, ignore, patterns, here)
            _update(self._total, os.fsencode(target), found.digest)
            waiting += [
                (name if path == "." else f"{path}/{name}", f"{target}/{name}", inner)
                for name, inner in reversed(found.below)
            ]

    def _directory(self, path: str, ignore: Ignore, patterns: Patterns, state: Matched) -> _Directory:
        key = os.path.join(self._root, path)
        self._on_read(self._untold)
        self._untold = 0
        started_ns = time.time_ns()
        try:
            with opened_directory(self._root_fd, path) as fd:
                listing = _listing(fd)
                known = self._cache.directory(key)
                if known and known.listing == listing and known.state == state and known.patterns == patterns:
                    return known
                digest, below = self._read(path, fd, listing, ignore, state)
        except OSError as error:
            raise unreadable(path, error) from error
        found = _Directory(listing, patterns, state, digest, below)
        self._cache.put_directory(key, found, started_ns)
        return found

    def _read(
        self, path: str, fd: int, listing: Listing, ignore: Ignore, state: Matched
    ) -> tuple[bytes, tuple[tuple[str, Matched], ...]]:
        """The digest of a directory, and its subdirectories."""
        fields: list[bytes] = []
        below: list[tuple[str, Matched]] = []
        above = "" if path == "." else f"{path}/"
        has_patterns, inner = bool(ignore.patterns), state
        for name, mode, device, inode, size, mtime_ns, ctime_ns in listing:
            place = above + name
            kind = stat.S_IFMT(mode)
            if kind not in _KINDS:
                continue
            if has_patterns:
                ignored, inner = ignore.match(place, state)
                if ignored:
                    continue
            content = ""
            if kind == stat.S_IFREG:
                content = self._content(place, (device, inode, size, mtime_ns, ctime_ns), fd, name)
            elif kind == stat.S_IFDIR:
                below.append((name, inner))
            elif kind == stat.S_IFLNK:
                content = os.readlink(name, dir_fd=fd)
            fields += os.fsencode(name), b"%o" % mode, os.fsencode(content)
        hasher = sha256()
        _update(hasher, *fields)
        return hasher.digest(), tuple(below)

    def _content(self, path: str, seen: Stat, parent: int = -1, name: str = "") -> str:
        """The digest of a file's bytes and attributes. `parent` is its directory, where that is open already."""
        key = self._above + path
        self._used.add(key)
        known = self._cache.get(key, seen)
        if known is not None:
            return known
        try:
            if parent >= 0:
                return self._read_file(path, key, seen, parent, name)
            above, name = os.path.split(path)
            with opened_directory(self._root_fd, above or ".", os.O_PATH) as directory:
                return self._read_file(path, key, seen, directory, name)
        except OSError as error:
            raise unreadable(path, error) from error

    def _read_file(self, path: str, key: str, seen: Stat, parent: int, name: str) -> str:
        """The digest of a file that was looked at a moment ago, in its directory, which is open."""
        started_ns = time.time_ns()
        self._files += 1
        self._bytes += seen[2]
        self._untold += seen[2] if seen[2] < _CHUNK else 0
        if self._files == _MANY:
            import hashlib  # noqa: F401 - `_hasher` takes it where it is loaded
        fd, status = opened_name(parent, name, path)
        try:
            found = content_digest(fd, seen[2], self._on_read)
            if stat_key(os.fstat(fd)) == stat_key(status) == seen:
                self._cache.put(key, seen, found, started_ns)
        finally:
            os.close(fd)
        return found


def content_digest(fd: int, size_bytes: int, on_read: Callable[[int], None] = lambda size_bytes: None) -> str:
    """What an open file's bytes and attributes amount to. `size_bytes` is how many there were a moment ago."""
    hasher = _hasher(size_bytes)
    if size_bytes >= _LARGE_BYTES:
        hasher.update(b"".join(_piece_digests(fd, size_bytes, on_read)))
    else:
        # A byte more than there was: less than that is the end, and no second call has to say so.
        step = min(_CHUNK, size_bytes + 1)
        while chunk := os.read(fd, step):
            hasher.update(chunk)
            if len(chunk) == _CHUNK:
                on_read(_CHUNK)
            elif len(chunk) == size_bytes < step:
                break
    for attribute, value in sorted(kept_xattrs(fd)):
        _update(hasher, b"xattr", attribute, value)
    return hasher.hexdigest() + (_IN_PIECES if size_bytes >= _LARGE_BYTES else "")


def _piece_digests(fd: int, size_bytes: int, on_read: Callable[[int], None]) -> Iterator[bytes]:
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    def digest_at(start: int) -> bytes:
        hasher, room, end = hashlib.sha256(), memoryview(bytearray(_CHUNK)), start + _PIECE_BYTES
        while start < end and (count := os.preadv(fd, [room[: end - start]], start)):
            hasher.update(room[:count])
            start += count
        return hasher.digest()

    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="nbcontain digest")
    try:
        for each in pool.map(digest_at, range(0, size_bytes, _PIECE_BYTES)):
            on_read(_PIECE_BYTES)
            yield each
    finally:
        # Also where a cancellation strikes: the descriptor is closed after this.
        pool.shutdown(cancel_futures=True)


def kept_xattrs(fd: int) -> Iterator[tuple[bytes, bytes]]:
    """The extended attributes of an open file that a layer keeps too."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return
    for name in map(os.fsencode, names):
        if is_kept_xattr(name):
            yield name, os.getxattr(fd, name)


def _listing(fd: int) -> Listing:
    found: Listing = []
    with os.scandir(fd) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            found.append(
                (
                    entry.name, status.st_mode, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
                    status.st_ctime_ns,
                )
            )  # fmt: skip
    found.sort()
    return found


def _hasher(size_bytes: int) -> _Hash:
    """OpenSSL's is several times as fast, and is loaded where that matters; or taken where it is loaded already."""
    if size_bytes < _CHUNK and "hashlib" not in sys.modules:
        return sha256()
    import hashlib

    return hashlib.sha256()


def _update(hasher: _Hash, *fields: bytes) -> None:
    """Lengths make the fields' borders part of what is hashed."""
    hasher.update(b"".join([each for data in fields for each in (len(data).to_bytes(8, "big"), data)]))
