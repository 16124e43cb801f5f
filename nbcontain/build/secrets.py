"""What a build is told that must not be kept: --secret id=…,src=|env=|var=, and --ssh id=….

A secret's content is read only when a step asks for it, is part of no value that is written anywhere, and is shown
by no repr.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nbcontain.errors import BuildError, UsageError
from nbcontain.values import dataclass, field

_MAX_BYTES = 500 << 10
"""As many as BuildKit takes."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret: the path of a file, or the content itself."""

    id: str
    path: Path | None = None
    content: bytes = field(default=b"", repr=False, compare=False)

    def read(self) -> bytes:
        """Raises BuildError, which does not quote it."""
        if self.path is None:
            return self.content
        try:
            with open(self.path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            why = f"{self.path}: {error.strerror}"
            raise BuildError(f"the secret {self.id} cannot be read", why=why) from error
        if len(data) > _MAX_BYTES:
            raise BuildError(f"the secret {self.id} is larger than {_MAX_BYTES >> 10} KiB")
        return data


def secrets_of(
    words: tuple[str, ...], environ: Mapping[str, str], variables: Mapping[str, object] | None = None
) -> dict[str, Secret]:
    """The secrets of --secret's values, by id. `variables` are the notebook's. Raises UsageError."""
    found: dict[str, Secret] = {}
    for word in words:
        secret = _secret(word, environ, variables)
        if secret.id in found:
            raise UsageError(f"--secret id={secret.id} is given twice")
        found[secret.id] = secret
    return found


def _secret(word: str, environ: Mapping[str, str], variables: Mapping[str, object] | None) -> Secret:
    pairs = dict(part.partition("=")[::2] for part in word.split(","))
    given = {name.lower(): value for name, value in pairs.items()}
    source = given.pop("source", "") or given.pop("src", "")
    name, kind, env, var = (given.pop(key, "") for key in ("id", "type", "env", "var"))
    hint = "--secret id=NAME,src=FILE   or env=VARIABLE   or, in a notebook, var=PYTHON_VARIABLE"
    if given or kind not in ("", "file", "env") or sum(map(bool, (source, env, var))) > 1:
        raise UsageError(f"--secret {next(iter(given), kind or 'src, env and var')} makes no sense here", hint=hint)
    if not name:
        raise UsageError("--secret has no id", hint=hint)
    if var:
        return Secret(name, content=_variable(name, var, variables))
    if source and kind != "env":
        return Secret(name, _file(name, Path(source).expanduser().absolute()))
    env = env or source or (name if kind == "env" or name in environ else "")
    if not env and os.path.isfile(name):
        return Secret(name, Path(name).absolute())
    if env not in environ:
        raise UsageError(f"--secret id={name}: there is no environment variable {env or name}", hint=hint)
    return Secret(name, content=environ[env].encode("utf-8", "surrogateescape"))


def _file(name: str, path: Path) -> Path:
    """The file of a secret, which must be there before anything is built, as for buildx. Raises UsageError."""
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise UsageError(f"--secret id={name}: {path} cannot be read", why=error.strerror or "") from error
    if os.path.isdir(path):
        raise UsageError(f"--secret id={name}: {path} is a directory", hint="src=FILE")
    if size_bytes > _MAX_BYTES:
        raise UsageError(f"--secret id={name}: {path} is larger than {_MAX_BYTES >> 10} KiB")
    return path


def _variable(name: str, var: str, variables: Mapping[str, object] | None) -> bytes:
    if variables is None:
        raise UsageError(f"--secret id={name},var={var}: there are no Python variables here", hint="use env= or src=")
    if var not in variables:
        raise UsageError(f"--secret id={name}: there is no variable {var} in this notebook")
    value = variables[var]
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Path):
        return Secret(name, value).read()
    raise UsageError(f"--secret id={name}: {var} is a {type(value).__name__}", hint="str, bytes or a Path")


def agents_of(words: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The sockets or key files of --ssh's values (default | id=path[,path]), by id. Raises UsageError."""
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, _, paths = word.partition("=")
        if not paths:
            paths = environ.get("SSH_AUTH_SOCK", "")
            if not paths:
                raise UsageError(
                    f"--ssh {word}: there is no ssh agent here",
                    why="SSH_AUTH_SOCK is not set",
                    hint="start one:  eval $(ssh-agent); ssh-add   or name a key:  --ssh default=~/.ssh/id_ed25519",
                )
        given = tuple(str(Path(path).expanduser()) for path in paths.split(","))
        if missing := [path for path in given if not os.path.exists(path)]:
            raise UsageError(f"--ssh {word}: there is no {missing[0]}")
        found[name or "default"] = given
    return found
