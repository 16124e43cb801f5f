"""Which files a project is read from: those that are named, or compose.yaml here or above, with what lies over it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nbcontain.compose.document import LONGEST, Node
from nbcontain.compose.interpolation import env_file
from nbcontain.compose.model import Project
from nbcontain.compose.reading import Reader
from nbcontain.errors import UsageError
from nbcontain.settings import is_strangers
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
    paths = [] if source.text is not None else _named(source, environ) or _found(Path.cwd())
    directory = Path(source.directory or (paths[0].parent if paths else ".")).resolve()
    texts = [source.text] if source.text is not None else [*map(_text, paths)]
    variables = _variables(directory, source.env_files, environ)
    reader = Reader(directory, variables, _read)
    name = source.name or variables.get("COMPOSE_PROJECT_NAME", "")
    return reader.project(texts, name, [str(each.resolve()) for each in paths])


def _named(source: Source, environ: Mapping[str, str]) -> list[Path]:
    """Those that were named, here or by COMPOSE_FILE, also in .env."""
    if source.files:
        return [*map(Path, source.files)]
    variables = _variables(Path(source.directory or "."), source.env_files, environ)
    named = variables.get("COMPOSE_FILE", "")
    return [Path(each) for each in named.split(variables.get("COMPOSE_PATH_SEPARATOR", ":")) if each]


def _found(directory: Path) -> list[Path]:
    """The file here or above, and what is to lie over it."""
    for above in (directory, *directory.parents):
        for name in NAMES:
            if _is_there(above / name):
                over = (above / each for each in _OVERRIDES)
                return [above / name, *filter(_is_there, over)][:2]
    raise UsageError(
        "there is no compose file here", why=f"{', '.join(NAMES)} were looked for, here and above",
        hint="--file PATH; ps, logs, exec, stop and down take -p NAME of a project that is up",
    )  # fmt: skip


def _is_there(path: Path) -> bool:
    """Whether there is such a file that nobody has to name: in /tmp one may be a stranger's, who waits for that."""
    return os.path.isfile(path) and not is_strangers(path)


def _variables(directory: Path, files: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """What can stand behind a $: of .env, or the files that stand for it, and the environment, which wins."""
    found: dict[str, str | None] = {}
    for name in files or (".env",):
        path = Path(name) if files else directory / name
        if files or _is_there(path):
            found |= env_file(_text(path), environ)
    return {**{name: value for name, value in found.items() if value is not None}, **environ}


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
