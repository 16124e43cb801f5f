"""A file tree made of this machine's files: what lies where in the image, and the tree as a tar.

Files keep their path and their symbolic links. What does not lie in the system's own directories is moved
below /usr/local, as nobody but its owner may look into a home, and as its path is nobody else's business.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable

from nbcontain.build.elf import Elf, without_sections
from nbcontain.errors import BuildError
from nbcontain.values import dataclass, replace

MTIME_S = 315532800
"""1980-01-01, the first date that a zip file can hold: the same for every entry, so that the same files give
the same image."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu", "/etc")
_LOCAL = "/usr/local"
_CHUNK_BYTES = 1 << 20
_LINKS_AT_MOST = 40
_WORTH_STRIPPING_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory made here."""

    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, the machine's own or one made here."""

    target: str


@dataclass(frozen=True, slots=True)
class Text:
    """A file made here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of the machine. `inode` is its device and number if it has several names.

    With `strip`, only what that ELF loads goes in.
    """

    source: str
    mode: int
    inode: tuple[int, int] | None = None
    strip: Elf | None = None


Entry = Directory | Link | Text | HostFile


class HostTree:
    """What goes into the image, by absolute path there; `add` decides, `write` does."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.sources: dict[str, str] = {}
        """Host path to image path of every file added, links resolved."""
        self.notices: list[str] = []
        self._moved: list[tuple[str, str]] = []
        self._directories: dict[str, str] = {"/": "/"}

    def move(self, prefix: str, to: str = _LOCAL) -> None:
        """Have all below the directory `prefix` lie below `to` in the image; the first word on a path counts."""
        prefix = os.path.realpath(prefix)
        if prefix not in ("/", "/usr", to):
            self._moved.append((prefix, to))

    def place(self, path: str) -> str:
        """Where the host's `path`, its directory's links resolved, lies in the image."""
        moved = self._moved_to(path)
        if moved:
            return moved
        if _below(path, _SYSTEM):
            return path
        return f"{_LOCAL}/lib/{os.path.basename(path)}"

    def is_foreign(self, path: str) -> bool:
        """Whether `path` is neither the system's nor below a moved directory."""
        path = self._resolved(path)
        return not (self._moved_to(path) or _below(path, _SYSTEM))

    def add(self, path: str, place: str = "") -> str:
        """Put the file at `path` in, with the links on the way to it; gives its place in the image.

        That is as for all files, or `place`.
        Raises OSError if it is not there, BuildError if it is no regular file or cannot be read.
        """
        first = path
        for _ in range(_LINKS_AT_MOST):
            path = self._resolved(path)
            info = os.lstat(path)
            if not stat.S_ISLNK(info.st_mode):
                break
            path = self._add_link(path)
        if not stat.S_ISREG(info.st_mode):
            raise BuildError(f"{first} is no regular file")
        if path in self.sources:
            return self.sources[path]
        if not os.access(path, os.R_OK):
            raise BuildError(f"{first} cannot be read", why="only its owner may", hint="Name another program.")
        # No set-user-ID bits, and nothing that only the owner on the host could read.
        mode = 0o755 if info.st_mode & 0o111 else 0o644
        inode = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None
        place = place or self.place(path)
        self.sources[path] = place
        self._put(place, HostFile(path, mode, inode))
        return place

    def add_directory(self, path: str) -> None:
        """Put the directory `path` in and the links that lead there, such as /bin to /usr/bin; not what it holds."""
        if os.path.isdir(path):
            self.put(self.place(self._directory(path)), Directory())

    def strip(self, path: str, elf: Elf) -> None:
        """Have only what the ELF file at the resolved host `path` loads go in."""
        entry = self.entries[self.sources[path]]
        if isinstance(entry, HostFile) and os.path.getsize(path) - elf.loaded_size > _WORTH_STRIPPING_BYTES:
            self.entries[self.sources[path]] = replace(entry, inode=None, strip=elf)

    def put(self, place: str, entry: Entry) -> None:
        """Put in what is made here, with the directories above it; a path that is taken stays as it is."""
        if place not in self.entries:
            self._parents(place)
            self.entries[place] = entry

    def resolve(self, place: str) -> str:
        """The path of the entry that a program in the image gets at `place`; "" if there is none."""
        for _ in range(_LINKS_AT_MOST):
            done, names = "", [name for name in place.split("/") if name not in ("", ".")]
            for number, name in enumerate(names, 1):
                done = done.rpartition("/")[0] if name == ".." else f"{done}/{name}"
                entry = self.entries.get(done)
                if isinstance(entry, Link):
                    place = "/".join((os.path.join(os.path.dirname(done), entry.target), *names[number:]))
                    break
            else:
                return done if done in self.entries else ""
        return ""

    def write(self, write: Callable[[bytes], object]) -> int:
        """Write the tree as a tar: sorted, one time, one owner; gives its size in bytes.

        Raises BuildError if a file of the machine changes meanwhile.
        """
        size = 0
        written: dict[tuple[int, int], str] = {}
        for place in sorted(self.entries, key=lambda path: path.split("/")):
            entry = self.entries[place]
            header = tarfile.TarInfo(place[1:])
            header.mtime = MTIME_S
            match entry:
                case Directory():
                    header.type, header.mode = tarfile.DIRTYPE, entry.mode
                    header.uid = header.gid = entry.owner
                case Link():
                    header.type, header.mode, header.linkname = tarfile.SYMTYPE, 0o777, entry.target
                case Text():
                    header.mode = 0o644
                    size += _write_file(write, header, entry.data)
                    continue
                case HostFile(inode=inode) if inode in written:
                    header.type, header.mode = tarfile.LNKTYPE, entry.mode
                    header.linkname = written[inode]
                case HostFile():
                    header.mode = entry.mode
                    if entry.inode:
                        written[entry.inode] = place[1:]
                    size += _copy_file(write, header, entry)
                    continue
            size += _write_file(write, header, b"")
        write(bytes(1024))
        return size + 1024

    def _resolved(self, path: str) -> str:
        return os.path.join(self._directory(os.path.dirname(path) or "/"), os.path.basename(path))

    def _directory(self, path: str) -> str:
        """The directory `path` with no link in it; the links of the system's that lead there are put in."""
        if path not in self._directories:
            above = self._directory(os.path.dirname(path.rstrip("/")))
            name = os.path.basename(path.rstrip("/"))
            here = os.path.dirname(above) if name == ".." else above if name == "." else os.path.join(above, name)
            if os.path.islink(here):
                here = self._directory(self._add_link(here))
            self._directories[path] = here
        return self._directories[path]

    def _add_link(self, path: str) -> str:
        """Put the link at `path` in, unless it lies in a directory that stays behind; gives where it leads."""
        text = os.readlink(path)
        # Not normalised: with "a/../b", a may be a link itself.
        target = os.path.join(os.path.dirname(path), text)
        if self._moved_to(path) or _below(path, _SYSTEM):
            place, leads_to = self.place(path), self.place(os.path.normpath(target))
            if place != path or leads_to != os.path.normpath(target):
                text = os.path.relpath(leads_to, os.path.dirname(place))
            if text != os.path.basename(place):
                self._put(place, Link(text))
        return target

    def _moved_to(self, path: str) -> str:
        for prefix, to in self._moved:
            if path == prefix or path.startswith(f"{prefix}/"):
                return to + path[len(prefix) :]
        return ""

    def _put(self, place: str, entry: Entry) -> None:
        there = self.entries.get(place)
        if there is not None and there != entry:
            self.notices.append(f"{place} exists twice on this machine; the image has the first one met")
            return
        self._parents(place)
        self.entries[place] = entry

    def _parents(self, place: str) -> None:
        above = os.path.dirname(place)
        while above != "/" and above not in self.entries:
            self.entries[above] = Directory()
            above = os.path.dirname(above)


def _below(path: str, directories: tuple[str, ...]) -> bool:
    return path.startswith(tuple(f"{directory}/" for directory in directories)) or path in directories


def _write_file(write: Callable[[bytes], object], header: tarfile.TarInfo, data: bytes) -> int:
    header.size = len(data)
    block = header.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
    write(block)
    return len(block)


def _copy_file(write: Callable[[bytes], object], header: tarfile.TarInfo, file: HostFile) -> int:
    """Write one of the machine's files; one that is larger than a chunk is not held in memory whole."""
    with open(file.source, "rb", buffering=0) as opened:
        expected = os.fstat(opened.fileno()).st_size
        if file.strip:
            return _write_file(write, header, without_sections(opened.read(), file.strip))
        if expected <= _CHUNK_BYTES:
            return _write_file(write, header, opened.read())
        header.size = expected
        start = header.tobuf(tarfile.PAX_FORMAT)
        write(start)
        left = expected
        while left:
            chunk = opened.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise BuildError(f"{file.source} changed while it was read", hint="Run it again.")
            write(chunk)
            left -= len(chunk)
    padding = bytes(-expected % tarfile.BLOCKSIZE)
    write(padding)
    return len(start) + expected + len(padding)
