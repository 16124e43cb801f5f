"""What COPY and WORKDIR change on a file system that is nothing but its layers: decided here, in values. Pure.

The rules are those of `copier`, which does it where the root can be entered. Symbolic links are followed as they are
in the image, in memory: there is no file that they could lead to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from nbcontain.build import modes
from nbcontain.errors import BuildError
from nbcontain.store import tar
from nbcontain.store.contents import File
from nbcontain.store.file_trees import Node
from nbcontain.values import dataclass, field, replace

Kind = Literal["", "file", "directory", "link"]
"""What is at a path: nothing; a file, or a device or pipe; a directory; a symbolic link."""
_KINDS = {
    "file": tar.REGULAR, "empty": tar.REGULAR, "directory": tar.DIRECTORY, "symlink": tar.SYMLINK, "pipe": tar.FIFO,
    "character device": tar.CHARACTER, "block device": tar.BLOCK_DEVICE,
}  # fmt: skip
_LINKS = 40
_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})
Source = tuple[int, str] | File
"""Where a file's bytes are: a path below an open directory, or a file of a layer."""


@dataclass(slots=True)
class Item:
    """One file of whatever kind that is copied; `target` and `is_content` as in `walk.Entry`.

    Not frozen, for speed: one is made per file.
    """

    target: str
    kind: str
    mode: int
    is_content: bool
    owner: tuple[int, int]
    mtime_ns: int
    size_bytes: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    twin: object = None
    """What it shares with its other names; None if it has none."""
    xattrs: Mapping[bytes, bytes] = _NOTHING
    source: Source | None = None


@dataclass(slots=True)
class Laying:
    """A file system, and what is laid on it: headers of a layer's tar by their paths, each with where its bytes are."""

    below: Node
    owner: tuple[int, int]
    """Whose the directories are that have to be made."""
    now_ns: int
    laid: dict[bytes, tuple[tar.Entry, Source | None]] = field(default_factory=dict)
    further: dict[bytes, list[bytes]] = field(default_factory=dict)
    """The names that were made hard links to each path."""

    def entries(self) -> list[tuple[tar.Entry, Source | None]]:
        """All of it, those directories of the image among them that something is put into.

        In the packer's order: a directory, its files by name, then its directories, one after the other.
        """
        found = dict(self.laid)
        inside: dict[bytes, tuple[list[bytes], list[bytes]]] = {b"": ([], [])}
        for path in self.laid:
            self._have_above(path, found)
        for path, (entry, _) in found.items():
            above = path.rpartition(b"/")[0]
            inside.setdefault(above, ([], []))[entry.kind == tar.DIRECTORY].append(path)
        ordered, waiting = list[tuple[tar.Entry, Source | None]](), [b""]
        while waiting:
            path = waiting.pop()
            if path:
                ordered.append(found[path])
            others, directories = inside.get(path, ((), ()))
            ordered += [found[other] for other in sorted(others)]
            waiting += sorted(directories, reverse=True)
        return ordered

    def _have_above(self, path: bytes, found: dict[bytes, tuple[tar.Entry, Source | None]]) -> None:
        """Add the directories above that are the image's: changed now, if a name in it was made or replaced."""
        parent = above = path.rpartition(b"/")[0]
        while above and above not in found:
            node = self._node(above)
            if node is not None and node.file is not None:
                found[above] = (_as_it_was(above, node.file), None)
            above = above.rpartition(b"/")[0]
        is_new_name = found[path][0].kind != tar.DIRECTORY or not self._is_directory_below(path)
        if is_new_name and parent in found and parent not in self.laid:
            found[parent][0].mtime_ns = self.now_ns

    def _is_directory_below(self, path: bytes) -> bool:
        node = self._node(path)
        return node is not None and node.is_directory

    def make_directories(self, path: bytes) -> list[bytes]:
        """`mkdir -p`, as COPY and WORKDIR do it: 0755, through the image's links; gives what was made.

        Raises BuildError.
        """
        path = self._real(path)
        above = b""
        made: list[bytes] = []
        for part in path.split(b"/") if path else ():
            above = above + b"/" + part if above else part
            match self._kind(above):
                case "":
                    self._make_directory(above)
                    made.append(above)
                case "file":
                    shown = f"/{os.fsdecode(above)}"
                    raise BuildError(f"{shown} cannot be made a directory", why="a file of the image has that name")
        return made

    def _make_directory(self, path: bytes) -> None:
        """As mkdir(2): in a directory with the set-group-id bit it has that too, and its group unless one is given."""
        above = path.rpartition(b"/")[0]
        node = self._node(above)
        parent = self.laid[above][0] if above in self.laid else node.file if node is not None else None
        mode, owner = 0o755, self.owner
        if parent is not None and parent.mode & stat.S_ISGID:
            mode, owner = mode | stat.S_ISGID, owner if owner != (0, 0) else (0, parent.gid)
        self._put(path, tar.DIRECTORY, mode, owner, self.now_ns)

    def copy(self, items: Sequence[Item], destination: str, chmod: str, *, into_directory: bool) -> None:
        """Lay these on the destination, as one source after the other. Raises BuildError for what is in the way."""
        wants_directory = into_directory or any(item.is_content for item in items[:1])
        place = self._real(os.fsencode(destination).strip(b"/"))
        made = b""
        if wants_directory and items and self._kind(place) != "directory":
            made = place
            on_the_way = self.make_directories(place)
        else:
            on_the_way = self.make_directories(place.rpartition(b"/")[0])
        if (told := modes.octal(chmod)) is not None:
            # As in BuildKit of 2025; 20.10's left them as they were made.
            for each in on_the_way:
                self.laid[each][0].mode = told
        first: dict[object, bytes] = {}
        for item in items:
            if item.target == "." or not item.is_content:
                first.clear()
            path = place
            if item.target != "." and (item.is_content or into_directory or self._kind(place) == "directory"):
                path = (place + b"/" if place else b"") + os.fsencode(item.target)
            mode = modes.changed(chmod, item.mode, is_directory=item.kind == "directory") if chmod else item.mode
            if item.kind == "directory":
                self._directory(path, item, mode, is_made=bool(made) and path == made)
                continue
            if self._kind(path) == "directory":
                shown = f"/{os.fsdecode(path)}"
                raise BuildError(f"cannot copy a file to {shown}", why="a directory of the image is in the way")
            twin = first.setdefault(item.twin, path) if item.twin is not None else path
            self._file(path, item, 0o777 if item.kind == "symlink" else mode, twin)

    def _directory(self, path: bytes, item: Item, mode: int, *, is_made: bool) -> None:
        kind = self._kind(path)
        if item.target == "." and kind == "directory":
            if is_made:
                self.laid[path][0].mtime_ns = item.mtime_ns
            return
        if kind not in ("", "directory"):
            what = "a symlink" if kind == "link" else "a file"
            shown = f"/{os.fsdecode(path)}"
            raise BuildError(f"cannot copy a directory to {shown}", why=f"{what} of the image is in the way")
        entry = self._put(path, tar.DIRECTORY, mode, item.owner, item.mtime_ns)
        node = self._node(path)
        if node is not None and node.file is not None:
            # It stays the same directory.
            entry.xattrs = dict(node.file.xattrs)

    def _file(self, path: bytes, item: Item, mode: int, twin: bytes) -> None:
        self._pass_on(path)
        kind = tar.LINK if twin != path else _KINDS[item.kind]
        entry = self._put(path, kind, mode, item.owner, item.mtime_ns, item)
        if twin != path:
            entry.link = twin
            self.further.setdefault(twin, []).append(path)
            return
        if kind == tar.REGULAR and item.kind == "file":
            entry.size = item.size_bytes
            self.laid[path] = (entry, item.source)
        entry.link = os.fsencode(item.link)
        entry.major, entry.minor = item.device

    def _pass_on(self, path: bytes) -> None:
        """What is replaced at a path stays under the names that were linked to it."""
        names = [name for name in self.further.pop(path, ()) if self.laid[name][0].link == path]
        if not names:
            return
        first, *others = names
        entry, source = self.laid[path]
        self.laid[first] = (replace(entry, name=first), source)
        for name in others:
            self.laid[name][0].link = first
        self.further[first] = others

    def _put(
        self, path: bytes, kind: bytes, mode: int, owner: tuple[int, int], mtime_ns: int, item: Item | None = None
    ) -> tar.Entry:  # fmt: skip
        if not path:
            raise BuildError("/ of the image is in the way", hint="name a file or a directory in it")
        name = path + b"/" if kind == tar.DIRECTORY else path
        xattrs = dict(item.xattrs) if item is not None and kind != tar.LINK else {}
        entry = tar.Entry(name, kind, mode, *owner, 0, mtime_ns, xattrs=xattrs)
        self.laid[path] = (entry, None)
        return entry

    def _node(self, path: bytes) -> Node | None:
        node: Node | None = self.below
        for part in path.split(b"/") if path else ():
            node = node.children.get(part) if node is not None else None
        return node

    def _kind(self, path: bytes) -> Kind:
        if not path:
            return "directory"
        if path in self.laid:
            kind = self.laid[path][0].kind
            return "directory" if kind == tar.DIRECTORY else "link" if kind == tar.SYMLINK else "file"
        node = self._node(path)
        if node is None:
            return ""
        if node.is_directory:
            return "directory"
        return "link" if node.file is not None and node.file.kind == "link" else "file"

    def _real(self, path: bytes) -> bytes:
        """A path with its links followed, inside of the image; what is not there stays as it is said."""
        waiting, trail, links = path.split(b"/")[::-1], list[bytes](), 0
        while waiting:
            part = waiting.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                trail = trail[:-1]
                continue
            here = b"/".join([*trail, part])
            if self._kind(here) != "link":
                trail.append(part)
                continue
            links += 1
            if links > _LINKS:
                raise BuildError(f"/{os.fsdecode(path)} goes through more than {_LINKS} symbolic links")
            target = self._target(here)
            trail = [] if target.startswith(b"/") else trail
            waiting += target.split(b"/")[::-1]
        return b"/".join(trail)

    def _target(self, path: bytes) -> bytes:
        if path in self.laid:
            return self.laid[path][0].link
        node = self._node(path)
        return os.fsencode(node.file.target) if node is not None and node.file is not None else b""


def _as_it_was(path: bytes, file: File) -> tar.Entry:
    entry = tar.Entry(path + b"/", tar.DIRECTORY, file.mode, file.uid, file.gid, 0, file.mtime_ns)
    entry.xattrs = dict(file.xattrs)
    return entry
