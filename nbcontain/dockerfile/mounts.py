"""RUN --mount=…: its notation, and what it says once variables are filled in, as BuildKit reads it; and --automount."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nbcontain.dockerfile.ast import MountFlag, RunMount
from nbcontain.dockerfile.nearest import nearest
from nbcontain.errors import DockerfileError, UsageError
from nbcontain.truth import truth

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARINGS = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = [
    "type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid", "env",
    "src", "dst", "destination", "ro", "rw", "readwrite",
]  # fmt: skip
_OWNED = ("secret", "ssh", "cache")
"""Types whose file or directory can have a mode and an owner."""
_ONLY_OF = {"size": ("tmpfs",), "required": ("secret", "ssh"), "env": ("secret",)}
_CSV = re.compile(r'(?:"(?:[^"]|"")*"|[^",]*)(?:,(?:"(?:[^"]|"")*"|[^",]*))*')
"""A quote inside of a field that does not begin with one is a mistake to Go's reader, and none to Python's."""
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([kKmMgGtTpP]?)(?:i?[bB])?")
_UNITS = {unit: 1 << 10 * power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


def mount_flag(text: str) -> MountFlag:
    """The fields of key=value,… (CSV with quotes). Raises DockerfileError, without a span."""
    if not _CSV.fullmatch(text):
        raise DockerfileError(f"--mount={text} cannot be read", why="a quote in it stands alone")
    import csv

    try:
        rows = list(csv.reader([text]))
    except csv.Error as error:
        raise DockerfileError("a --mount that is too long", why=str(error)) from error
    if not rows or not rows[0]:
        raise DockerfileError("--mount has no value", hint="--mount=type=cache,target=/root/.cache")
    fields: list[tuple[str, str | None]] = []
    for field in rows[0]:
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "from" and re.search(r"\$.", value):
            raise DockerfileError(
                "'from' doesn't support variable expansion, define alias stage instead",
                hint="FROM image-with-variables AS name, and --mount=from=name",
            )
        fields.append((key, value if equals else None))
    return MountFlag(tuple(fields))


def run_mount(flag: MountFlag, expand: Callable[[str], str]) -> RunMount:
    """What the mount is. Raises DockerfileError, without a span."""
    found: dict[str, Any] = {"type": "bind"}
    for written, raw in flag.fields:
        key = _ALIASES.get(written, written)
        kind = str(found["type"])
        if written not in _KEYS:
            near = nearest(written, _KEYS)
            raise DockerfileError(
                f"unexpected key '{written}' in --mount"
                if raw is not None
                else f"'{written}' must be a key=value pair",
                hint=f"did you mean {near}?" if near else f"--mount takes {', '.join(_KEYS[:13])}.",
            )
        if key in _ONLY_OF and kind not in _ONLY_OF[key]:
            raise DockerfileError(
                f"unexpected key '{written}' for mount type '{kind}'", hint="The type comes first: --mount=type=…"
            )
        if raw is None and key not in ("readonly", "readwrite", "required"):
            raise DockerfileError(f"'{written}' must be a key=value pair", hint=f"--mount=…,{written}=…")
        found |= _read(key, written, "true" if raw is None else expand(raw))
    _check(found)
    kind = found["type"]
    found.setdefault("read_only", kind not in ("cache", "tmpfs"))
    return RunMount(**found)


def automount(text: str) -> RunMount:
    """A mount that every RUN gets; what it says is meant as it is said. Raises UsageError."""
    hint = "--automount type=secret,id=NAME, or cache, tmpfs, ssh, or bind of the context's files"
    try:
        mount = run_mount(mount_flag(text), lambda value: value)
    except DockerfileError as error:
        raise UsageError(f"--automount {text} cannot be read", why=error.message, hint=error.hint or hint) from error
    if mount.from_:
        raise UsageError(f"--automount {text}: there is no from here", why="stages are the Dockerfile's own", hint=hint)
    return mount


def _read(key: str, written: str, value: str) -> dict[str, Any]:
    match key:
        case "type" if value.lower() not in TYPES:
            raise _unsupported("mount type", value, TYPES)
        case "sharing" if value.lower() not in SHARINGS:
            raise _unsupported("sharing value", value, SHARINGS)
        case "type" | "sharing":
            return {key: value.lower()}
        case "from":
            return {"from_": value}
        case "readonly":
            return {"read_only": _bool(written, value)}
        case "readwrite":
            return {"read_only": not _bool(written, value)}
        case "required":
            return {"required": _bool(written, value)}
        case "size":
            return {"size_bytes": _size(value)}
        case "mode":
            return {"mode": _number(key, value, r"[0-7]{1,11}", 8)}
        case "uid" | "gid":
            return {key: _number(key, value, r"[0-9]{1,10}", 10)}
        case _:
            return {key: value}


def _check(found: dict[str, Any]) -> None:
    kind = found["type"]
    for name in ("mode", "uid", "gid"):
        if name in found and kind not in _OWNED:
            raise DockerfileError(f'{name} not allowed for "{kind}" type mounts')
    if kind == "secret":
        if found.get("from_"):
            raise DockerfileError("secret mount should not have a from")
        if found.get("sharing"):
            raise DockerfileError("secret mount should not define sharing")
        if not any(found.get(name) for name in ("source", "target", "id")):
            raise DockerfileError(
                "invalid secret mount. one of source, target required", hint="--mount=type=secret,id=…"
            )
        if found.get("source") and found.get("id"):
            raise DockerfileError("both source and id can't be set")
    if found.get("sharing") and kind != "cache":
        raise DockerfileError(f"invalid cache sharing set for {kind} mount")


def _unsupported(what: str, value: str, known: tuple[str, ...]) -> DockerfileError:
    near = nearest(value, known)
    return DockerfileError(
        f'unsupported {what} "{value}"', hint=f"did you mean {near}?" if near else f"One of {', '.join(known)}."
    )


def _bool(key: str, value: str) -> bool:
    if (found := truth(value)) is None:
        raise DockerfileError(f"invalid value for {key}: {value}", hint=f"{key}=true or {key}=false")
    return found


def _number(key: str, value: str, form: str, base: int) -> int:
    if not re.fullmatch(form, value) or int(value, base) >= 1 << 32:
        raise DockerfileError(f"invalid value {value} for {key}")
    return int(value, base)


def _size(value: str) -> int:
    match = _SIZE.fullmatch(value) if len(value) < 40 else None
    if match is None:
        raise DockerfileError(f"invalid value for size: {value}", hint="size=64m, or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])
