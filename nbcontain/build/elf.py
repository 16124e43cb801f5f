"""ELF files and where the dynamic loader finds what they need (gABI chapters 4 and 5, ld.so(8)).

Only program headers are read, never sections: they are what the loader itself goes by, and a stripped
file may have nothing else. A file of a few hundred needs a fraction of a millisecond each, which is why
this is a small reader of its own.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nbcontain.errors import BuildError
from nbcontain.values import dataclass

_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"


@dataclass(frozen=True, slots=True)
class Elf:
    """What the dynamic loader would read of a file.

    `kind` is the class, byte order and machine: a library serves a program of the same kind only.
    `loaded_size` is where the last segment ends, in bytes: what lies behind it are sections nothing runs.
    """

    kind: tuple[int, int, int]
    interpreter: str
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    loaded_size: int


def read_elf(path: str) -> Elf | None:
    """The ELF file at `path`; None if it is a file of another sort. Raises BuildError on a damaged one."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        start = os.pread(fd, 64, 0)
        if start[:4] != b"\x7fELF":
            return None
        return _read(fd, start)
    except (struct.error, IndexError, OverflowError) as error:
        raise BuildError(f"{path} is a damaged ELF file", why=str(error)) from error
    finally:
        os.close(fd)


def without_sections(data: bytes, elf: Elf) -> bytes:
    """The file cut behind its last segment, with no section headers: what strip(1) leaves, and a bit less."""
    cut = bytearray(data[: elf.loaded_size])
    order = "<>"[elf.kind[1] - 1]
    if elf.kind[0] == 2:
        struct.pack_into(f"{order}Q", cut, 40, 0)
        struct.pack_into(f"{order}HH", cut, 60, 0, 0)
    else:
        struct.pack_into(f"{order}I", cut, 32, 0)
        struct.pack_into(f"{order}HH", cut, 48, 0, 0)
    return bytes(cut)


def _read(fd: int, start: bytes) -> Elf:
    bits, endian = start[4], start[5]
    if bits not in (1, 2) or endian not in (1, 2):
        raise IndexError(f"class {bits}, byte order {endian}")
    order = "<>"[endian - 1]
    machine = struct.unpack_from(f"{order}H", start, 18)[0]
    if bits == 2:
        (table_at,) = struct.unpack_from(f"{order}Q", start, 32)
        size, count = struct.unpack_from(f"{order}HH", start, 54)
        segment, pair = struct.Struct(f"{order}IIQQQQ"), struct.Struct(f"{order}qQ")
    else:
        (table_at,) = struct.unpack_from(f"{order}I", start, 28)
        size, count = struct.unpack_from(f"{order}HH", start, 42)
        segment, pair = struct.Struct(f"{order}IIIIII"), struct.Struct(f"{order}iI")
    if size < segment.size or size * count > 1 << 20:
        raise IndexError(f"{count} program headers of {size} bytes")
    table = os.pread(fd, size * count, table_at)
    loads: list[tuple[int, int, int]] = []
    interpreter, dynamic, end = "", b"", table_at + size * count
    for number in range(count):
        fields = segment.unpack_from(table, number * size)
        if bits == 2:
            kind, _, offset, address, _, length = fields
        else:
            kind, offset, address, _, length, _ = fields
        end = max(end, offset + length)
        if kind == _LOAD:
            loads.append((address, offset, length))
        elif kind == _INTERP:
            interpreter = _text(fd, offset)
        elif kind == _DYNAMIC:
            dynamic = os.pread(fd, min(length, 1 << 16), offset)
    strings: list[tuple[int, int]] = []
    strings_at = 0
    for tag, value in pair.iter_unpack(dynamic[: len(dynamic) // pair.size * pair.size]):
        if tag == 0:
            break
        if tag == _STRTAB:
            strings_at = _offset_of(value, loads)
        elif tag in (_NEEDED, _RPATH, _RUNPATH):
            strings.append((tag, value))

    def texts(wanted: int) -> list[str]:
        return [_text(fd, strings_at + value) for tag, value in strings if tag == wanted]

    return Elf(
        kind=(bits, endian, machine),
        interpreter=interpreter,
        needed=tuple(texts(_NEEDED)),
        rpath=tuple(part for text in texts(_RPATH) for part in text.split(":") if part),
        runpath=tuple(part for text in texts(_RUNPATH) for part in text.split(":") if part),
        loaded_size=end,
    )


def _offset_of(address: int, loads: Iterable[tuple[int, int, int]]) -> int:
    """Where in the file the byte at this address comes from."""
    for first, offset, length in loads:
        if first <= address < first + length:
            return address - first + offset
    raise IndexError(f"address {address:#x} is in no segment")


def _text(fd: int, offset: int) -> str:
    """The string that ends with a NUL at `offset`; at most 64 KiB."""
    for size in (256, 65536):
        text, found, _ = os.pread(fd, size, offset).partition(b"\0")
        if found:
            return os.fsdecode(text)
    raise IndexError(f"no end of the string at {offset}")


@dataclass(frozen=True, slots=True)
class Need:
    """One library a file asks for, and how it was found.

    `directories` are those the file names itself or has from its loader, as written: `$ORIGIN` still in
    them, each with the directory it counts from. `found` is "" for a library this machine does not have.
    """

    path: str
    name: str
    directories: tuple[tuple[str, str], ...]
    found: str


class Loader:
    """Looks for libraries as the dynamic loader of this machine does, for programs of one interpreter.

    It asks in this order: DT_RPATH of the file and of whoever loaded it, DT_RUNPATH, ld.so.cache, the
    default directories. The variants for better processors (glibc-hwcaps) are left alone: an image may run
    on another processor. LD_LIBRARY_PATH comes last instead of second, as what belongs to the session.
    """

    def __init__(self, interpreter: str, cache: Mapping[str, Sequence[str]], session: Sequence[str] = ()) -> None:
        self.interpreter = interpreter
        self.home = os.path.dirname(os.path.realpath(interpreter))
        """The C library's own directory, which the loader searches whatever the configuration says."""
        self.defaults = _default_directories(interpreter, self.home)
        self._cache = cache
        self._session = tuple(directory for directory in session if directory)
        self._read: dict[str, Elf | None] = {}
        self._seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        self.needs: list[Need] = []
        self.loaded: dict[str, str] = {}
        """Name to path of what was found so far; a loaded library serves all that ask for its name."""

    def read(self, path: str) -> Elf | None:
        """`read_elf`, once for each path."""
        if path not in self._read:
            self._read[path] = read_elf(path)
        return self._read[path]

    def follow(self, path: str, inherited: tuple[tuple[str, str], ...] = ()) -> list[str]:
        """The libraries that `path` needs, and those that they need; what was followed before is left out.

        Each find, good or bad, is added to `needs`. `inherited` is DT_RPATH of the files that load this one.
        """
        new = list(self._walk(path, inherited, self._seen))
        self.needs += new
        for need in new:
            if need.found:
                self.loaded.setdefault(need.name, need.found)
        return [need.found for need in new if need.found]

    def lacking(self, path: str, inherited: tuple[tuple[str, str], ...] = ()) -> list[str]:
        """The names of the libraries that `path` cannot do without and this machine does not have."""
        return [need.name for need in self._walk(path, inherited, set()) if not need.found]

    def _walk(
        self,
        path: str,
        inherited: tuple[tuple[str, str], ...],
        seen: set[tuple[str, tuple[tuple[str, str], ...]]],
    ) -> Iterator[Need]:
        waiting = [(path, inherited)]
        for path, inherited in waiting:  # noqa: B007 - the list grows while it is walked: breadth first, as ld.so
            if (path, inherited) in seen:
                continue
            seen.add((path, inherited))
            elf = self.read(path)
            if elf is None:
                continue
            own, passed_on = self._directories(path, elf, inherited)
            for name in elf.needed:
                library = self._find(name, own, elf.kind)
                yield Need(path, name, own, library)
                if library:
                    waiting.append((library, passed_on))

    def passed_on(self, path: str) -> tuple[tuple[str, str], ...]:
        """The directories a program hands down to what it loads later, such as Python's extension modules."""
        elf = self.read(path)
        return self._directories(path, elf, ())[1] if elf else ()

    def find(self, name: str, kind: tuple[int, int, int]) -> str:
        """A library that a program opens by its name; "" if this machine has none."""
        return self._find(name, (), kind)

    def _directories(
        self, path: str, elf: Elf, inherited: tuple[tuple[str, str], ...]
    ) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        """Where to look first for what `path` needs, and what of it holds for the libraries below."""
        origin = os.path.dirname(os.path.realpath(path))
        if elf.runpath:
            # ld.so(8): a file with DT_RUNPATH ignores all DT_RPATH, and its own directories bind nobody else.
            return tuple((directory, origin) for directory in elf.runpath), inherited
        passed_on = tuple((directory, origin) for directory in elf.rpath) + inherited
        return passed_on, passed_on

    def _find(self, name: str, directories: tuple[tuple[str, str], ...], kind: tuple[int, int, int]) -> str:
        if "/" in name:
            return name if self._serves(name, kind) else ""
        for directory in (expand(text, origin) for text, origin in directories):
            if self._serves(os.path.join(directory, name), kind):
                return os.path.join(directory, name)
        elsewhere = [*self._cache.get(name, ()), *(os.path.join(directory, name) for directory in self.defaults)]
        if name in self.loaded:
            elsewhere.append(self.loaded[name])
        elsewhere += [os.path.join(directory, name) for directory in self._session]
        return next((path for path in elsewhere if self._serves(path, kind)), "")

    def _serves(self, path: str, kind: tuple[int, int, int]) -> bool:
        """Whether there is a library at `path` that a program of this kind can load."""
        try:
            elf = self.read(path)
        except (OSError, BuildError):
            return False
        return elf is not None and elf.kind == kind


def expand(directory: str, origin: str) -> str:
    """A directory of DT_RPATH or DT_RUNPATH with its $ORIGIN filled in."""
    return directory.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)


def _default_directories(interpreter: str, home: str) -> tuple[str, ...]:
    """Where the loader looks last, without being told. musl has no cache and a list of its own."""
    name = os.path.basename(interpreter)
    if not name.startswith("ld-musl-"):
        return tuple(dict.fromkeys((home, "/lib64", "/usr/lib64", "/lib", "/usr/lib")))
    try:
        with open(f"/etc/{name.removesuffix('.so.1')}.path") as file:
            return tuple(file.read().replace(":", "\n").split())
    except FileNotFoundError:
        return "/lib", "/usr/local/lib", "/usr/lib"


def parse_cache(data: bytes) -> dict[str, list[str]]:
    """Library name to paths of an ld.so.cache in glibc's format 1.1 (sysdeps/generic/dl-cache.h).

    Entries for certain processors only are left out. A cache of another format counts as empty, and one
    that is damaged as well: it only spares a search, and the loader ignores such a file too.
    """
    start = data.find(_CACHE_MAGIC)
    if start < 0 or len(data) < start + 48:
        return {}
    count = int.from_bytes(data[start + 20 : start + 24], sys.byteorder)
    entry = struct.Struct("=iIIIQ")
    if start + 48 + count * entry.size > len(data):
        return {}
    found: dict[str, list[str]] = {}
    for number in range(count):
        _, name_at, path_at, _, hardware = entry.unpack_from(data, start + 48 + number * entry.size)
        if not hardware:
            name, path = _until_nul(data, start + name_at), _until_nul(data, start + path_at)
            if path.startswith("/"):
                found.setdefault(name, []).append(path)
    return found


def _until_nul(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    return os.fsdecode(data[start:end]) if end >= 0 else ""
