"""Volumes: directories that have names and outlive the containers that use them (docker's driver `local`).

A volume appears whole, by one rename, and goes by one. Whoever is about to use one, to fill it or to remove it holds
its lock, so that it is not removed between being looked up and being named in a container's bundle.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from nbcontain.errors import BadDocument, InUse, StoreError, UsageError, VolumeNotFound, did_you_mean
from nbcontain.oci.strict_json import Fields
from nbcontain.store import files, removal
from nbcontain.store.layout import Layout
from nbcontain.store.removal import set_aside
from nbcontain.values import dataclass, field

ANONYMOUS = "com.docker.volume.anonymous"
"""docker's label of a volume that nobody gave a name."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LIMIT_BYTES = 1 << 20
_RECORD = "volume.json"
DATA = "_data"
FILLING = "filling"
"""A finished copy of what is to be in an empty volume, until it has taken the place of that."""
_OPTIONS = ("type", "device", "o")
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume as its record says."""

    name: str
    directory: Path
    created: str = ""
    """RFC 3339."""
    driver: str = "local"
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    options: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    """docker's `type`, `device` and `o`: what is mounted instead of the volume's own directory."""
    container: str = ""
    """The id of the container that takes it along when it ends (--rm)."""

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self.directory / DATA

    @property
    def is_anonymous(self) -> bool:
        return ANONYMOUS in self.labels

    @property
    def mountpoint(self) -> str:
        """docker's word for where its files are on this machine."""
        return str(self.data)


def checked_name(name: str) -> str:
    """A name that a volume may have, as docker has it. Raises UsageError."""
    if _NAME.fullmatch(name) and len(name) <= 200:
        return name
    if len(name) == 1 and name.isascii() and name.isalnum():
        raise UsageError(f"{name}: volume name is too short", why="it has at least two characters")
    raise UsageError(
        f"{name!r} is no name for a volume",
        why="letters, digits and _ . - are allowed, and the first one is a letter or digit",
        hint=_meant(name),
    )


def _meant(name: str) -> str:
    if "$" in name or "`" in name:
        return "no shell reads this line: . is the directory that it runs in, as in -v .:/work"
    return f"a directory of this machine: ./{name}" if "/" in name else "as in pgdata, or web-cache.1"


def checked_options(options: Mapping[str, str]) -> dict[str, str]:
    """The options of docker's driver `local`. Raises UsageError."""
    for name in options:
        if name == "size":
            raise UsageError(
                "a volume cannot be given a size here", why="it takes a file system with project quotas",
                hint="type=tmpfs, device=tmpfs, o=size=100m makes one in memory",
            )  # fmt: skip
        if name not in _OPTIONS:
            raise UsageError(f"invalid option: {name!r}", hint="type, device and o, as mount(8) knows them")
    for name, needed in (("device", "type"), ("type", "device"), ("o", "device")):
        if name in options and not options.get(needed):
            raise UsageError(f"missing required option: {needed!r}", why=f"{name} makes no sense without")
    return dict(options)


def options_shown(options: Mapping[str, str]) -> str:
    """The same for people."""
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "none"


class Volumes:
    """The volumes of one store. `remove_tree` removes what belongs to ids that only a container has."""

    def __init__(self, layout: Layout, remove_tree: Callable[[Path], None]) -> None:
        self._layout = layout
        self._remove_tree = remove_tree

    # --- looking ---

    def all(self) -> list[Volume]:
        """Every volume that can be read, by name."""
        found = []
        for name in self.names():
            with suppress(VolumeNotFound, StoreError):
                found.append(self.get(name))
        return found

    def names(self) -> list[str]:
        """Of all there are, damaged or not."""
        return [name for name in files.names(self._layout.volumes) if _NAME.fullmatch(name)]

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises VolumeNotFound, StoreError for one that is damaged."""
        directory = self._layout.volume(checked_name(name))
        try:
            fields = Fields(json.loads(files.read(directory / _RECORD, _LIMIT_BYTES)), _RECORD)
            return Volume(
                name, directory, fields.text("created"), fields.text("driver"), dict(fields.texts_by_name("labels")),
                dict(fields.texts_by_name("options")), fields.text("container"),
            )  # fmt: skip
        except (FileNotFoundError, NotADirectoryError):
            if directory.is_dir():
                raise StoreError(f"the volume {name} has lost its record", why=f"{directory / _RECORD}") from None
        except (OSError, ValueError, RecursionError, BadDocument) as error:
            raise StoreError(f"the record of the volume {name} cannot be read", why=str(error)) from error
        raise self._missing(name)

    def _missing(self, name: str) -> VolumeNotFound:
        hint = did_you_mean(name, self.names(), "%volume ls lists all there are")
        return VolumeNotFound(f"there is no volume {name!r}", hint=hint)

    def exists(self, name: str) -> bool:
        return (self._layout.volume(name) / _RECORD).exists()

    # --- making ---

    def create(
        self, name: str = "", *, created: str, driver: str = "local", labels: Mapping[str, str] = _NOTHING,
        options: Mapping[str, str] = _NOTHING, container: str = "",
    ) -> Volume:  # fmt: skip
        """A volume of that name, or the one that is there. Without a name it is anonymous, and gets a random one.

        Durable unless it goes with a `container`. Raises UsageError for a bad name.
        """
        if name and self.exists(checked_name(name)):
            return self.get(name)
        if not name:
            name, labels = os.urandom(32).hex(), {**labels, ANONYMOUS: ""}
        record = {
            "name": name, "created": created, "driver": driver, "labels": dict(labels), "options": dict(options),
            "container": container,
        }  # fmt: skip
        durable = not container
        layout = self._layout
        files.make_directory(layout.volumes)
        with files.disk(layout.root), files.temporary_directory(layout.tmp) as directory:
            try:
                files.make_new_directory(directory / DATA, 0o755)
                files.write_new(directory / "lock", b"")
                files.write_new(directory / _RECORD, json.dumps(record).encode(), durable=durable)
                if durable:
                    files.sync_directory(directory)
                    # A twin that made it a moment ago is as good.
                    files.publish(directory, layout.volume(name))
                else:
                    files.move(directory, layout.volume(name))
            finally:
                removal.remove_tree(directory)
        return self.get(name)

    # --- using ---

    @contextmanager
    def held(self, names: Collection[str]) -> Iterator[None]:
        """Hold these volumes: nobody else fills, removes or begins to use them. Raises VolumeNotFound."""
        with ExitStack() as stack:
            # In one order for everybody, so that no two wait for each other.
            for name in sorted(set(names)):
                self._hold(name, stack)
            yield

    def _hold(self, name: str, stack: ExitStack) -> None:
        path = self._layout.volume(checked_name(name)) / "lock"
        while True:
            inner = ExitStack()
            try:
                fd = inner.enter_context(files.lock(path, exclusive=True))
                same = os.path.samestat(os.fstat(fd), os.stat(path))
            except (FileNotFoundError, NotADirectoryError):
                inner.close()
                raise self._missing(name) from None
            if same:
                stack.push(inner)
                return
            # While we waited it was removed, and another one of its name was made.
            inner.close()

    def remove(self, name: str, users: Callable[[], Collection[str]]) -> None:
        """Take a volume away with all its files. Raises VolumeNotFound, and InUse with what `users` says.

        `users` is asked while nobody can begin to use it.
        """
        with self.held((name,)):
            if used_by := users():
                raise InUse(
                    f"the volume {name} is in use", why="by " + ", ".join(used_by),
                    hint="%container rm removes a container; its volume can go then",
                )  # fmt: skip
            aside = set_aside(self._layout.volume(name), self._layout.tmp)
            files.sync_directory(self._layout.volumes)
        aside.remove(self._remove_tree)
