"""Files in and out of containers: docker's cp, with docker's rules of what goes where. `engine.transfers`."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain.errors import ContainerError, NbcontainError, SetupFailed, UsageError
from nbcontain.events import Emit, Notice, scope
from nbcontain.host import is_root
from nbcontain.oci.spec import Mount
from nbcontain.runtime import rungs
from nbcontain.runtime.rungs import FURNITURE
from nbcontain.store import files, tar
from nbcontain.store.pipes import piped
from nbcontain.store.tar_writing import header_of
from nbcontain.store.tree_tar import write_tree
from nbcontain.store.unpack import Applied, Target, add_tar
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.runtime.container import Container

_MODULE = "nbcontain.runtime.paths_inside"
_CHUNK_BYTES = 1 << 18
_DEVICES = "out of a container they would open this machine's devices"
_KERNELS = ("/proc", "/sys", "/dev")
"""What is in there is nobody's files: docker, which copies from outside, does not see it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something goes: into this directory, under this name ("." is: what is in it)."""

    directory: str
    name: str
    make: bool = False
    """The directory is to be made."""


def placed(source: str, source_kind: str, dest: str, looked: Mapping[str, Any]) -> Place:
    """docker's rules (docs: docker container cp). `looked` is what is at `dest`. Raises UsageError."""
    base = os.path.basename(os.path.normpath(source)) if not source.endswith("/.") else "."
    is_directory = source_kind == "directory"
    content = is_directory and (source.endswith("/.") or source == ".")
    match looked["kind"]:
        case "directory":
            return Place(dest, "." if content else base)
        case "":
            if not looked["parent"]:
                raise UsageError(f"cp: {os.path.dirname(dest.rstrip('/')) or '/'} is not there", hint="make it first")
            if is_directory:
                return Place(str(looked["path"]), ".", make=True)
            if dest.endswith("/"):
                raise UsageError(f"cp: destination directory must exist: {dest}")
        case kind:
            if kind == "other":
                raise UsageError(f"cp: {dest} is a device, a pipe or a socket", why="a file would take its place")
            if is_directory:
                raise UsageError(f"cp: cannot copy a directory to a file: {dest}")
            if dest.endswith("/"):
                raise UsageError(f"cp: {dest} is no directory", why="not a directory")
    parent, name = os.path.split(str(looked["path"]))
    return Place(parent or "/", name)


class Transfers:
    """Copies between an engine's containers and this machine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def out(self, container: Container, path: str, dest: str, *, archive: bool = False, follow: bool = False) -> Task[
        None
    ]:
        """Copy a path of a container to this machine, or as a tar to standard output ("-"). Runs or not.

        All of it belongs to whoever asks, without set-id bits; with `archive` to whom it belongs inside, where that can
        be.
        """
        path = _absolute(path)

        def body(emit: Emit) -> None:
            with scope(emit, "cp", f"cp {container.name}:{path}"):
                found = self._call(container, "look_at", {"path": path, "follow": follow})
                if not found["kind"]:
                    raise ContainerError(f"there is no {path} in {container.name}")
                order = {"path": path, "follow": follow or path.endswith(("/", "/."))}
                if dest == "-":
                    name = os.path.basename(os.path.normpath(path)) or "."
                    self._received(container, order | {"name": name}, _to_stdout)
                else:
                    place = placed(path, found["kind"], dest, _looked(dest))
                    if place.make:
                        _make(place.directory)
                    owner = None if archive and is_root() else (self._engine.host.uid, os.getegid())

                    def take(fd: int) -> None:
                        if left := _unpack(fd, place, owner):
                            emit(Notice("cp", f"device nodes ({left}) are left out: {_DEVICES}", kind="warning"))

                    self._received(container, order | {"name": place.name}, take)
                self._engine.events.container(container, "archive-path", path=path)

        return Task("cp", body)

    def into(
        self, source: str, container: Container, path: str, *, archive: bool = False, follow: bool = False
    ) -> Task[None]:
        """Copy a path of this machine, or a tar from standard input ("-"), into a container. Runs or not.

        All of it belongs to root inside; with `archive`, as all of a tar's, to whom it belongs here.
        """
        return self.into_all(source, (container,), path, archive=archive, follow=follow)

    def into_all(
        self, source: str, containers: Sequence[Container], path: str, *, archive: bool = False, follow: bool = False
    ) -> Task[None]:
        """The same into several containers, one after the other. Raises UsageError: standard input is read once."""
        path = _absolute(path)
        if source == "-" and len(containers) > 1:
            raise UsageError("cp -: standard input can be read once, and there are several containers",
                             hint="--index says which")  # fmt: skip

        def body(emit: Emit) -> None:
            for container in containers:
                with scope(emit, f"cp {container.id}", f"cp {container.name}:{path}"):
                    self._into(source, container, path, archive=archive, follow=follow)

        return Task("cp", body)

    def _into(self, source: str, container: Container, path: str, *, archive: bool, follow: bool) -> None:
        looked = self._call(container, "look_at", {"path": path, "follow": True})
        if source == "-":
            if looked["kind"] != "directory":
                raise UsageError(f"cp -: {path} is no directory of {container.name}",
                                 why="a tar is unpacked into a directory")  # fmt: skip
            place = Place(path, ".")
            self._sent(container, place, None, _from_stdin)
        else:
            place = placed(source, _kind(source, follow=follow), path, looked)
            owner = None if archive else (0, 0)
            self._sent(container, place, owner, lambda fd: _pack(fd, source, place.name, follow=follow))
        self._engine.events.container(container, "extract-to-dir", path=place.directory)

    # --- single files, from and to memory ---

    def read(self, container: Container, path: str, limit: int | None = None) -> bytes:
        """What is in a file of a container, which runs or not, at most `limit` bytes of it. Raises ContainerError."""
        received = bytearray()

        def take(fd: int) -> None:
            while data := os.read(fd, _CHUNK_BYTES):
                received.extend(data)

        path = _absolute(path)
        try:
            self._received(container, {"path": path, "limit": limit}, take, "send_file")
        except SetupFailed as error:
            raise ContainerError(f"cannot read {path} of {container.name}", why=_reason(error)) from error
        return bytes(received)

    def write(self, container: Container, path: str, data: bytes, mode: int = 0o644) -> None:
        """Put a file into a container, which runs or not; directories above it are made. It belongs to root inside."""
        directory, name = os.path.split(_absolute(path))
        if not name or name == ".":
            raise UsageError(f"{path} names no file", hint="/data/in.csv")
        entry = tar.Entry(os.fsencode(name), b"0", mode, 0, 0, len(data), time.time_ns())

        def send(fd: int) -> None:
            for part in (header_of(entry), data, bytes(-len(data) % tar.BLOCK + 2 * tar.BLOCK)):
                files.write(fd, part)

        self._sent(container, Place(directory, name, make=True), (0, 0), send)

    def names(self, container: Container, path: str, limit: int = 10_000) -> list[tuple[str, str]]:
        """What is in a directory of a container: names and kinds ("file", "directory", "other"). Raises as `read`."""
        path = _absolute(path)
        try:
            found = self._call(container, "list_directory", {"path": path, "limit": limit})["entries"]
        except SetupFailed as error:
            raise ContainerError(f"cannot list {path} of {container.name}", why=_reason(error)) from error
        return [(name, kind) for name, kind in found]

    def kind(self, container: Container, path: str) -> str:
        """What a path of a container leads to: "file", "directory", "other", or "" for nothing."""
        return str(self._call(container, "look_at", {"path": _absolute(path), "follow": True})["kind"])

    def first_there(self, container: Container, paths: Sequence[str]) -> str:
        """The first of these programs that a container has; "" if none."""
        return str(self._call(container, "first_there", {"path": "/", "paths": list(paths)})["path"])

    def remove(self, container: Container, path: str) -> None:
        """Remove a file of a container, if it is there."""
        self._call(container, "remove_file", {"path": _absolute(path)})

    # --- both ends of a pipe ---

    def _received(
        self, container: Container, order: Mapping[str, Any], take: Callable[[int], None], how: str = "send_tree"
    ) -> None:
        """Have a tree sent, or a file, and taken here at the same time."""
        piped(lambda sink: self._call(container, how, order, [sink]), take)

    def _sent(
        self, container: Container, place: Place, owner: tuple[int, int] | None, send: Callable[[int], None]
    ) -> None:
        """Have a tree taken inside, and sent from here at the same time."""
        guarded = is_root() and not rungs.named(container.info.rung).mounts
        order = {"path": place.directory, "make": place.make, "owner": owner, "guarded": guarded}

        def write(sink: int) -> Mapping[str, Any]:
            # Who takes it may have all that it wants before the end.
            with suppress(BrokenPipeError):
                send(sink)
            return {}

        piped(write, lambda source: self._call(container, "take_tree", order, [source]))

    def _call(
        self, container: Container, name: str, arguments: Mapping[str, Any], fds: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Run one of `runtime.paths_inside`' functions where the container's files are."""
        spec = container.bundle.spec
        if container.status == "running" and "mount" in spec.linux.namespaces:
            return container.call(_MODULE, name, {**arguments, "empty": _KERNELS}, fds)
        root: Sequence[Mount] = container.bundle.rootfs
        path = str(arguments["path"])
        for mount in sorted(spec.mounts, key=lambda each: -len(each.destination)):
            # A volume of a container that does not run, whose mounts nobody has made.
            inside = mount.destination.rstrip("/")
            if mount.type == "bind" and mount.destination not in FURNITURE and (path + "/").startswith(inside + "/"):
                if os.path.isdir(mount.source):
                    root = (Mount("/", "bind", mount.source, ("bind",)),)
                    arguments = {**arguments, "path": path[len(inside) :] or "/"}
                break
        with self._engine.store.shared():
            return self._engine.of(container).launcher.call(name, root, arguments, fds, imports=(_MODULE,))


def _reason(error: SetupFailed) -> str:
    return os.strerror(error.errno) if error.errno else error.why or error.message


def _absolute(path: str) -> str:
    """A container's paths begin at its root, as docker's; a trailing / or /. keeps its meaning."""
    ending = "/." if path.endswith("/.") or path == "." else "/" if path.endswith("/") and path.strip("/") else ""
    found = "/" + os.path.normpath("/" + path).lstrip("/")
    return found.rstrip("/") + ending if ending else found


def _kind(path: str, *, follow: bool) -> str:
    try:
        mode = (os.stat if follow or path.endswith(("/", "/.")) else os.lstat)(path).st_mode
    except OSError as error:
        raise UsageError(f"cp: cannot read {path}", why=error.strerror or "") from error
    return "directory" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file"


def _looked(path: str) -> dict[str, Any]:
    """What is at a path of this machine, as `look_at` says it."""
    real = os.path.realpath(path)
    kinds = (("directory", os.path.isdir), ("file", os.path.isfile), ("other", os.path.exists))
    kind = next((kind for kind, is_one in kinds if is_one(real)), "")
    return {"kind": kind, "parent": os.path.isdir(os.path.dirname(real)), "path": real}


def _make(path: str) -> None:
    try:
        files.make_directory(Path(path), 0o755, durable=False)
    except OSError as error:
        raise UsageError(f"cp: cannot make {path}", why=error.strerror or "") from error


def _pack(fd: int, source: str, name: str, *, follow: bool) -> None:
    path = os.path.realpath(source) if follow or source.endswith(("/", "/.")) else os.path.join(
        os.path.realpath(os.path.dirname(source) or "."), os.path.basename(source)
    )  # fmt: skip
    parent, leaf = os.path.split(path)
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_tree(directory, os.fsencode(leaf or "."), os.fsencode(name), lambda data: files.write(fd, data))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"cp: cannot read {error.filename or source}", why=error.strerror or "") from error
    finally:
        os.close(directory)


class _WithoutDevices(Target):
    """A directory of this machine's: a device node in it would open to whom the image says."""

    def device(self, parent: int, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        self.skipped += 1


class _Bare(_WithoutDevices):
    """Where all becomes one user's: programs whose set-id bits speak of their owner would speak of that one."""

    def unpack(
        self, stream: tar.Readable | tar.Pieces, limits: tar.Limits, each: Callable[[tar.Entry], None], *, hashes: bool
    ) -> Applied:  # fmt: skip
        def bare(entry: tar.Entry) -> None:
            each(entry)
            if entry.kind == tar.REGULAR:
                entry.mode &= ~tar.SET_IDS

        return super().unpack(stream, limits, bare, hashes=hashes)


def _unpack(fd: int, place: Place, owner: tuple[int, int] | None) -> int:
    """Take a tree that a container sends; gives how many devices of it are left out."""
    try:
        with os.fdopen(os.dup(fd), "rb", buffering=0) as raw:
            target_type = _WithoutDevices if owner is None else _Bare
            applied = add_tar(raw, place.directory, owner=owner, whole=True, target_type=target_type)
            return applied.skipped
    except NbcontainError:
        raise
    except OSError as error:
        raise SetupFailed(f"cp: cannot write to {place.directory}", why=error.strerror or "") from error


def _to_stdout(fd: int) -> None:
    sys.stdout.flush()
    while data := os.read(fd, _CHUNK_BYTES):
        files.write(1, data)


def _from_stdin(fd: int) -> None:
    while data := os.read(0, _CHUNK_BYTES):
        files.write(fd, data)
