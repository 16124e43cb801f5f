"""All files of a compose project as one tree, with those that they extend and include (14-include.md).

An included file is read as a project of its own, with the variables and the directory of its own; then its services,
networks, volumes, configs and secrets are the project's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from nbcontain.compose.document import Node, parse
from nbcontain.compose.extending import extended
from nbcontain.compose.interpolation import env_file, filled
from nbcontain.compose.merging import merged
from nbcontain.compose.relocating import place_of, relocated, told
from nbcontain.errors import UsageError
from nbcontain.settings import is_strangers
from nbcontain.values import dataclass

_RESOURCES = ("services", "networks", "volumes", "configs", "secrets")
_KEYS = ("name", "version", "include", *_RESOURCES)
_MOST = 100
"""Files that are included: a few that include each other's can mean billions."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a file's relative paths and its variables are seen from."""

    directory: Path
    environ: Mapping[str, str]


def is_there(path: Path) -> bool:
    """Whether there is such a file that nobody has to name: in /tmp one may be a stranger's, who waits for that."""
    return os.path.isfile(path) and not is_strangers(path)


def variables(
    directory: Path, files: Sequence[Path], environ: Mapping[str, str], read: Callable[[Path], str]
) -> dict[str, str]:
    """What can stand behind a $: of .env, or the files that stand for it, and the environment, which wins."""
    found: dict[str, str | None] = {}
    usual = directory / ".env"
    for path in files or ((usual,) if is_there(usual) else ()):
        found |= env_file(read(path), environ)
    return {**{name: value for name, value in found.items() if value is not None}, **environ}


@dataclass(frozen=True, slots=True)
class Text:
    """What a file says, and where it is unless it is a notebook's cell. Errors call it by `name`."""

    text: str
    name: str = "compose file"
    path: Path | None = None


class Files:
    """Reads a project's files, and those that they name. `read` raises OSError, UnicodeDecodeError and UsageError."""

    def __init__(self, read: Callable[[Path], str], *, interpolate: bool = True) -> None:
        self._read, self._interpolate = read, interpolate
        self._left = _MOST
        self.unset: dict[str, None] = {}
        """The variables that have no value."""

    def tree(self, files: Sequence[Text], place: Place, chain: tuple[Path, ...] = ()) -> Node:
        """The tree of these files, the later over the earlier; each of `chain` includes the next, and the last these.

        Raises UsageError.
        """
        fill = partial(self._fill, place.environ)
        beside: dict[Path, Node] = {}

        def other(node: Node) -> Node:
            """A file that a service of another extends: the same tree each time."""
            path = place_of(node.text(), place.directory)
            if path not in beside:
                root = parse(self._text(path, node), fill, path.name)
                is_here = path.parent.resolve() == place.directory
                beside[path] = root if is_here else relocated(root, path.parent)
            return beside[path]

        roots = []
        for file in files:
            root = parse(file.text, fill, file.name)
            root.only(_KEYS, {"models": ""})
            inner = (*chain, file.path) if file.path is not None else chain
            roots.append(self._with_included(extended(root, other), place, inner))
        return merged(*roots)

    def _fill(self, environ: Mapping[str, str], text: str, node: Node) -> str:
        if not self._interpolate:
            return text
        try:
            return filled(text, environ, lambda name: self.unset.setdefault(name))
        except UsageError as error:
            node.wrong(error.message + (f": {error.why}" if error.why else ""), error.hint)

    def _text(self, path: Path, node: Node) -> str:  # noqa: RET503 - `wrong` raises
        try:
            return self._read(path)
        except (OSError, UnicodeDecodeError) as error:
            node.wrong(f"cannot read {path}", str(error))

    def _with_included(self, root: Node, place: Place, chain: tuple[Path, ...]) -> Node:
        top = dict(root.members())
        entries = top.pop("include", None)
        for entry in entries.items() if entries is not None else ():
            theirs = self._included(entry, place, chain).members()
            for kind in _RESOURCES:
                if kind not in theirs:
                    continue
                ours = dict(top[kind].members()) if kind in top else {}
                for name, each in theirs[kind].members().items():
                    if name in ours and ours[name].plain() != each.plain():
                        ours[name].wrong(
                            f"conflicts with line {each.line} of {each.source}, which is included",
                            "a file that lies over this one (-f, compose.override.yaml) may change what is included",
                        )
                    ours[name] = each
                top[kind] = theirs[kind].holding(ours)
        return root.holding(top)

    def _included(self, entry: Node, place: Place, chain: tuple[Path, ...]) -> Node:
        """What one entry of `include` names, as the file that it stands in means it."""
        said = {"path": entry} if isinstance(entry.value, str) else entry.members()
        if not isinstance(entry.value, str):
            entry.only(("path", "project_directory", "env_file"))
        paths = [place_of(each, place.directory).resolve() for each in said["path"].texts()] if "path" in said else []
        if not paths:
            entry.wrong("path is missing", "path: FILE, or a list of files")
        if again := next((each for each in paths if each in chain), None):
            circle = (*chain[chain.index(again):], again)
            entry.wrong(f"{' -> '.join(each.name for each in circle)} is a circle")
        self._left -= len(paths)
        if self._left < 0:
            entry.wrong("includes more than can be read", f"{_MOST} files at most")
        told_directory = said["project_directory"].text() if "project_directory" in said else ""
        directory = place_of(told_directory, place.directory).resolve() if told_directory else paths[0].parent
        named = said["env_file"].texts() if "env_file" in said else ()
        environ = variables(
            directory, [place_of(each, place.directory) for each in named], place.environ,
            lambda path: self._text(path, said.get("env_file", entry)),
        )  # fmt: skip
        files = [Text(self._text(each, entry), each.name, each) for each in paths]
        return told(relocated(self.tree(files, Place(directory, environ), chain), directory), environ)
