"""Which files a project is read from: those that are named, or compose.yaml here or above, with what lies over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nbcontain.compose.document import LONGEST, Node
from nbcontain.compose.including import Files, Place, Text, is_there, variables
from nbcontain.compose.model import Project
from nbcontain.compose.reading import Reader
from nbcontain.errors import UsageError
from nbcontain.values import dataclass

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_OVERRIDES = tuple(name.replace(".", ".override.") for name in NAMES)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a project is read from: files, or a text and the directory that its paths are seen from."""

    text: str | None = None
    files: tuple[str, ...] = ()
    directory: str = ""
    name: str = ""
    env_files: tuple[str, ...] = ()


def read(source: Source, environ: Mapping[str, str]) -> tuple[Project, Node]:
    """The project that files describe, and these as a tree. Raises UsageError with the line."""
    files, place = _files(source, environ)
    name = source.name or place.environ.get("COMPOSE_PROJECT_NAME", "")
    return Reader(place.directory, place.environ, _read).project(files, name)


def tree(source: Source, environ: Mapping[str, str]) -> Node:
    """The tree of files as they are written, with their variables. Raises UsageError with the line."""
    files, place = _files(source, environ)
    return Files(_read, interpolate=False).tree(files, place)


def _files(source: Source, environ: Mapping[str, str]) -> tuple[list[Text], Place]:
    paths = [] if source.text is not None else _named(source, environ) or _found(Path.cwd())
    directory = Path(source.directory or (paths[0].parent if paths else ".")).resolve()
    place = Place(directory, variables(directory, [*map(Path, source.env_files)], environ, _text))
    if source.text is not None:
        return [Text(source.text)], place
    names = [each.name for each in paths] if len(paths) > 1 else ["compose file"]
    return [Text(_text(path), name, path.resolve()) for name, path in zip(names, paths, strict=True)], place


def _named(source: Source, environ: Mapping[str, str]) -> list[Path]:
    """Those that were named, here or by COMPOSE_FILE, also in .env."""
    if source.files:
        return [*map(Path, source.files)]
    known = variables(Path(source.directory or "."), [*map(Path, source.env_files)], environ, _text)
    named = known.get("COMPOSE_FILE", "")
    return [Path(each) for each in named.split(known.get("COMPOSE_PATH_SEPARATOR", ":")) if each]


def _found(directory: Path) -> list[Path]:
    """The file here or above, and what is to lie over it."""
    for above in (directory, *directory.parents):
        for name in NAMES:
            if is_there(above / name):
                over = (above / each for each in _OVERRIDES)
                return [above / name, *filter(is_there, over)][:2]
    raise UsageError(
        "there is no compose file here", why=f"{', '.join(NAMES)} were looked for, here and above",
        hint="--file PATH; ps, logs, exec, stop and down take -p NAME of a project that is up",
    )  # fmt: skip


def _read(path: Path) -> str:
    """What a file says. Raises OSError, UnicodeDecodeError, and UsageError for one without an end, or hardly any."""
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise UsageError(f"{path} is not read", why="it is larger than 1 MiB")
    return text


def _text(path: Path) -> str:
    """The same. Raises UsageError alone."""
    try:
        return _read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", why=getattr(error, "strerror", "") or str(error)) from error
