"""RUN --mount: what a step sees besides its file system, and what of it lasts."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from contextlib import ExitStack
from functools import singledispatchmethod
from pathlib import Path
from types import TracebackType

from nbcontain.build.graph import (
    BindMount,
    CacheMount,
    DocumentMount,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from nbcontain.build.operations.workshop import Filesystem, Workshop, key_of, stack_of
from nbcontain.build.ssh_agent import forwarded
from nbcontain.errors import BuildError
from nbcontain.events import Progress
from nbcontain.oci.spec import Mount
from nbcontain.runtime.annotations import PART
from nbcontain.runtime.furniture import DETACHED
from nbcontain.runtime.secrets import Hidden, SecretFile, write
from nbcontain.values import dataclass, field, replace

_QUIET = ("nosuid", "nodev")


@dataclass(slots=True)
class Mounting:
    """The mounts of one step. Entered, it holds what they need until the step is over."""

    workshop: Workshop
    inputs: Sequence[Filesystem]
    directory: Path
    """The step's own, removed afterwards."""
    mounts: tuple[Mount, ...] = ()
    env: tuple[str, ...] = ()
    _files: list[SecretFile] = field(default_factory=list, repr=False)
    _hidden_env: dict[str, str] = field(default_factory=dict, repr=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Mounting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def take(self, wanted: Sequence[RunMount]) -> None:
        """Prepare what is wanted. Raises BuildError; waits for caches that another step has."""
        for each in wanted:
            self._take(each)
        # What is mounted inside of another mount comes after it.
        self.mounts = tuple(sorted(self.mounts, key=lambda mount: mount.destination.count("/")))

    def secrets_fd(self) -> int | None:
        """Memory with the secrets, open until the end; None if there are none."""
        if not self._files and not self._hidden_env:
            return None
        fd = write(Hidden(tuple(self._files), self._hidden_env))
        self._stack.callback(os.close, fd)
        return fd

    @singledispatchmethod
    def _take(self, wanted: RunMount) -> None:
        raise TypeError(f"cannot mount {wanted!r}")

    @_take.register
    def _(self, wanted: BindMount) -> None:
        self._add(self._tree(wanted.at, wanted.source, wanted.target, is_writable=wanted.is_writable))

    def _tree(self, at: int, source: str, target: str, *, is_writable: bool) -> Mount:
        """Part of an input's file system, its symlinks resolved in there; writes end in a directory of the step's."""
        view = self.workshop.view(self.inputs[at])
        part = f"{PART}{source}"
        if not view:
            empty = self._scratch("empty")
            return Mount(target, "bind", str(empty), ("bind", part, *_QUIET, *([] if is_writable else ["ro"])))
        (root,) = view
        if not is_writable:
            return replace(root, destination=target, options=(*root.options, part, *_QUIET, "ro"))
        chain = self.inputs[at].chain_id
        assert chain is not None
        made = self.workshop.store.snapshots.scratch(chain, self._scratch("written"))
        return replace(made, destination=target, options=(*made.options, part, *_QUIET))

    def _scratch(self, name: str) -> Path:
        path = self.directory / f"{name}-{os.urandom(4).hex()}"
        path.mkdir()
        os.chmod(path, 0o755)
        return path

    @_take.register
    def _(self, wanted: CacheMount) -> None:
        base = stack_of(self.inputs[wanted.at]) if wanted.at else ""
        name = key_of("cache mount", wanted.id, base, wanted.source, wanted.mode, wanted.uid, wanted.gid)

        def prepare(place: Path) -> None:
            rootfs = (Mount("/", "bind", str(place), ("bind",)),)
            source = self.workshop.view(self.inputs[wanted.at]) if wanted.at else ()
            arguments = {
                "source": wanted.source if source else "", "mode": wanted.mode, "uid": wanted.uid, "gid": wanted.gid,
            }  # fmt: skip
            self.workshop.launcher.call("furnish_cache", rootfs, arguments, (), source=source)

        held = self.workshop.store.cache_mounts.held(
            name, wanted.sharing, prepare, lambda: self.workshop.emit(Progress("", 0))
        )
        place = self._stack.enter_context(held)
        # Without something to begin as, `source` is a directory of the cache's own.
        part = [] if wanted.at or wanted.source == "/" else [f"{PART}{wanted.source}"]
        access = ["ro"] if wanted.is_readonly else []
        self._add(Mount(wanted.target, "bind", str(place), ("bind", "nodev", *part, *access)))

    @_take.register
    def _(self, wanted: TmpfsMount) -> None:
        size = (f"size={wanted.size_bytes}",) if wanted.size_bytes else ()
        self._add(Mount(wanted.target, "tmpfs", "tmpfs", (*_QUIET, "mode=1777", *size)))

    @_take.register
    def _(self, wanted: SecretMount) -> None:
        secret = self.workshop.secrets.get(wanted.id)
        if secret is None:
            if wanted.is_required:
                raise BuildError(
                    f"the secret {wanted.id} is required, and this build was not given it",
                    hint=f"--secret id={wanted.id},src=FILE",
                )
            return
        data = secret.read()
        if wanted.env:
            if b"\0" in data:
                raise BuildError(f"the secret {wanted.id} has a zero byte, and cannot be a variable")
            self._hidden_env[wanted.env] = os.fsdecode(data)
        if wanted.target:
            self._file(SecretFile(data, wanted.mode, wanted.uid, wanted.gid), wanted.target)

    @_take.register
    def _(self, wanted: DocumentMount) -> None:
        self._file(SecretFile(wanted.text.encode(), 0o755), wanted.target)

    def _file(self, file: SecretFile, target: str) -> None:
        self._add(Mount(target, DETACHED, str(len(self._files))))
        self._files.append(file)

    @_take.register
    def _(self, wanted: SshMount) -> None:
        paths = self.workshop.ssh.get(wanted.id)
        if paths is None:
            if wanted.is_required:
                raise BuildError(
                    f"the ssh agent {wanted.id} is required, and this build was not given one",
                    hint=f"--ssh {wanted.id}" + ("" if wanted.id == "default" else "=PATH"),
                )
            return
        mode, owner = wanted.mode, (wanted.uid, wanted.gid)
        if owner != (0, 0) and not self.workshop.host.ids.is_identity:
            # Nobody can give it away here. Only the step's own directory leads to it, and only we come into that.
            mode, owner = mode | 0o666, (0, 0)
        path = self._stack.enter_context(forwarded(paths, self.directory, mode, None if owner == (0, 0) else owner))
        self._add(Mount(wanted.target, "bind", str(path), ("bind", *_QUIET)))
        if not any(entry.startswith("SSH_AUTH_SOCK=") for entry in self.env):
            self.env = (*self.env, f"SSH_AUTH_SOCK={wanted.target}")

    def _add(self, mount: Mount) -> None:
        self.mounts = (
            *self.mounts,
            replace(mount, destination="/" + posixpath.normpath(mount.destination).lstrip("/")),
        )
