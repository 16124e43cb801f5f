"""What can be set, once for everything: by %config NbContain, a variable of the environment, or pyproject.toml.

The first of these that says something holds. To whoever asks, all of them look like the environment.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nbcontain.errors import UsageError, did_you_mean
from nbcontain.values import dataclass

_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Setting:
    """One of them: its name in a table, its variable, what it is for, and what it can be ("" is anything)."""

    name: str
    variable: str
    help: str
    choices: tuple[str, ...] = ()
    is_changeable: bool = True
    """Whether it means something to an engine that is at work already."""
    withheld: tuple[str, ...] = ()
    """What no project can say, which may have come from anywhere: it would choose what is done to this machine. "*" is
    anything."""


SETTINGS = (
    Setting("root", "NBCONTAIN_ROOT", "the directory of the store", is_changeable=False, withheld=("*",)),
    Setting("display", "NBCONTAIN_DISPLAY", "how things are shown", ("auto", "card", "html", "plain")),
    Setting("pull", "NBCONTAIN_PULL", "when a registry is asked", ("always", "missing", "never", "newer")),
    Setting("network", "NBCONTAIN_NETWORK", "the network of who asks for none", withheld=("host",)),
    Setting("pids_limit", "NBCONTAIN_PIDS_LIMIT", "the --pids-limit of a container that is told none"),
    Setting("host_certificates", "NBCONTAIN_HOST_CERTIFICATES", "containers and RUN trust whom this machine trusts",
            ("true", "false")),
    Setting("isolation", "NBCONTAIN_ISOLATION", "the rung of the ladder: %nbcontain doctor lists them",
            is_changeable=False, withheld=("*",)),
    Setting("storage_driver", "NBCONTAIN_STORAGE_DRIVER", "how file systems are kept", ("overlay", "copy"),
            is_changeable=False),
)  # fmt: skip


class Settings(Mapping[str, str]):
    """An environment, with what else was set below and above it."""

    def __init__(self, environ: Mapping[str, str], directory: Path | None = None) -> None:
        """`directory` is where to look for a pyproject.toml, there and above; where this process is unless given."""
        self._environ, self._directory = environ, directory
        self._own: dict[str, str] = {}
        self._read: tuple[dict[str, str], str] | None = None

    def __getitem__(self, variable: str) -> str:
        if variable in self._own:
            return self._own[variable]
        if variable in self._environ or not variable.startswith("NBCONTAIN_"):
            return self._environ[variable]
        return self._project[0][variable]

    def __contains__(self, variable: object) -> bool:
        """As it is, without an error that is caught: most of what is asked for is not there."""
        if variable in self._own or variable in self._environ:
            return True
        return str(variable).startswith("NBCONTAIN_") and variable in self._project[0]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._project[0], **self._environ, **self._own})

    def __len__(self) -> int:
        return len(list(iter(self)))

    def set(self, name: str, value: str) -> None:
        """Set one for as long as this process lives; "" takes that back. Raises UsageError."""
        found = setting(name)
        if not found.is_changeable:
            raise UsageError(
                f"{name} cannot be changed while an engine is at work",
                hint=f"{found.variable}=… before the kernel starts",
            )
        if value:
            self._own[found.variable] = _checked(found, value)
        else:
            self._own.pop(found.variable, None)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, value, where that is from, and what it is for."""
        return [(each.name, self.get(each.variable, ""), self._source(each.variable), each.help) for each in SETTINGS]

    def _source(self, variable: str) -> str:
        if variable in self._own:
            return "%config NbContain"
        if variable in self._environ:
            return f"${variable}"
        return self._project[1] if variable in self._project[0] else "default"

    @property
    def _project(self) -> tuple[dict[str, str], str]:
        """What [tool.nbcontain] of the nearest pyproject.toml says, and where that is."""
        if self._read is None:
            try:
                self._read = _of_project(self._directory or Path.cwd())
            except FileNotFoundError:
                # The directory that this process is in has been removed.
                self._read = {}, ""
        return self._read


def setting(name: str) -> Setting:
    """The setting of that name. Raises UsageError."""
    for each in SETTINGS:
        if each.name == name:
            return each
    names = [each.name for each in SETTINGS]
    raise UsageError(f"there is no setting {name!r}", hint=did_you_mean(name, names, f"there are {', '.join(names)}"))


def _checked(found: Setting, value: str) -> str:
    if found.choices and value not in found.choices:
        raise UsageError(f"{found.name} = {value!r}", hint=f"It can be {', '.join(found.choices)}.")
    return value


def _written(value: object) -> str:
    """As a variable would have it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_project(directory: Path) -> tuple[dict[str, str], str]:
    for each in (directory, *directory.parents):
        path = each / "pyproject.toml"
        try:
            data = _content(path)
        except OSError:
            continue
        return (_read(path, data), str(path)) if b"tool.nbcontain" in data else ({}, "")
    return {}, ""


def _content(path: Path) -> bytes:
    """Raises OSError, also for what is no file, and for a stranger's."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or is_strangers(path):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        return file.read(_LIMIT_BYTES)


def is_strangers(path: Path) -> bool:
    """Whether somebody else has left it where everybody may write, for whoever looks there. Raises OSError."""
    # Of a symlink its own owner: it can lead elsewhere at any time.
    is_own = path.lstat().st_uid in (0, os.getuid())
    return not is_own and bool(path.parent.stat().st_mode & stat.S_IWOTH)


def _read(path: Path, data: bytes) -> dict[str, str]:
    """Raises UsageError for what cannot be read, and for what is no setting."""
    import tomllib

    try:
        table: Any = tomllib.loads(data.decode())
        for name in ("tool", "nbcontain"):
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise UsageError(f"cannot read {path}", why=f"{name} is no table in it", hint="[tool.nbcontain]")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", why=str(error)) from error
    found = {}
    for name, value in table.items():
        known = setting(name)
        text = _written(value)
        if {"*", text} & set(known.withheld):
            raise UsageError(
                f"{path} cannot say {name} = {text!r}", why="what a project brings may be somebody else's",
                hint=f"take the line out of [tool.nbcontain]; {known.variable}=… says it for yourself",
            )  # fmt: skip
        found[known.variable] = _checked(known, text)
    return found
