"""A compose file as a tree that knows its lines: YAML 1.2's core types, with `<<` merged and variables filled in. Pure.

What is read is text; whoever asks for a number or a truth says so, as compose does after it has filled in variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import yaml

from nbcontain.dockerfile.nearest import nearest
from nbcontain.errors import UsageError
from nbcontain.truth import truth
from nbcontain.values import dataclass

_DEEPEST = 64
_MOST = 50_000
"""Values in one file: a few lines of anchors can mean billions."""
_MOST_MERGED = 256
"""Mappings that one << names."""
LONGEST = 1 << 20
_MERGE = "tag:yaml.org,2002:merge"
_CORE = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     "-+.0123456789"),
    ("merge", r"<<", "<"),
)  # fmt: skip
"""YAML 1.2's core schema (10.3.2), which compose reads: in it `on` is a word, and 22:22 is no number."""


_TAGS = ("str", "map", "seq", *(name for name, _, _ in _CORE))
RESET, OVERRIDE = "!reset", "!override"
"""Tags of compose's: what several files say of a value is forgotten, or replaced (`compose.merging`)."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what << names, and keep one of each name, the last: else merges of merges grow without end, and an
        anchor's own mapping, merged once, would seem to have names twice where an alias brings it again.
        """
        merged = [value for key, value in node.value if key.tag == _MERGE]
        count = sum(len(each.value) if isinstance(each, yaml.SequenceNode) else 1 for each in merged)
        if count > _MOST_MERGED:
            line = node.start_mark.line + 1
            raise UsageError(f"compose file, line {line}: it means more than can be read", why=f"{count} merges")
        super().flatten_mapping(node)
        node.value = list({str(key.value): (key, value) for key, value in node.value}.values())


for _name, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), ["" if each == "\0" else each for each in _first]
    )


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands: text, a list of nodes, or nodes by name. `is_null` is a text that says nothing."""

    value: str | list[Node] | dict[str, Node]
    line: int
    place: str
    """Its names from the top, with dots between: services.web.image."""
    kind: str = "str"
    source: str = "compose file"
    """How errors call the file it is from."""

    # --- reading ---

    def wrong(self, why: str, hint: str = "") -> NoReturn:
        """Raise UsageError for it."""
        raise UsageError(f"{self.source}, line {self.line}: {self.place}: {why}", hint=hint)

    def holding(self, value: str | list[Node] | dict[str, Node], kind: str = "") -> Node:
        """Another value at the same place."""
        return Node(value, self.line, self.place, kind or self.kind, self.source)

    @property
    def is_null(self) -> bool:
        return self.kind == "null"

    def text(self) -> str:
        """A scalar as it is written."""
        if not isinstance(self.value, str):
            self.wrong("must be text", "write one value here")
        return "" if self.is_null else self.value

    def integer(self) -> int:
        text = self.text()
        if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            self.wrong(f"must be a whole number, and is {text!r}")
        return int(text)

    def boolean(self) -> bool:
        told = truth(self.text())
        if told is None:
            self.wrong(f"must be true or false, and is {self.value!r}")
        return told

    def members(self) -> dict[str, Node]:
        """Nodes by name; none where nothing is written."""
        if self.is_null:
            return {}
        if not isinstance(self.value, dict):
            self.wrong("must be names and values", "NAME: VALUE, a line each")
        return self.value

    def only(self, keys: Collection[str], refused: Mapping[str, str] = MappingProxyType({})) -> None:
        """Raise UsageError for a name that is none of these; `refused` is what to do without those that exist."""
        for key, each in self.members().items():
            if key.startswith("x-"):
                continue
            if key in refused:
                each.wrong("is not here", refused[key])
            if key not in keys:
                near = nearest(key, keys)
                each.wrong("there is no such key", f"did you mean {near}?" if near else "")

    def items(self) -> list[Node]:
        """A list; none where nothing is written."""
        if self.is_null:
            return []
        if not isinstance(self.value, list):
            self.wrong("must be a list", "- VALUE, a line each")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """A list of texts, or a text alone."""
        return (self.text(),) if isinstance(self.value, str) and not self.is_null else tuple(
            each.text() for each in self.items()
        )  # fmt: skip

    def pairs(self) -> dict[str, str | None]:
        """NAME: value, or a list of NAME=value; None for a name without a value."""
        if isinstance(self.value, dict):
            return {name: None if each.is_null else each.text() for name, each in self.value.items()}
        found: dict[str, str | None] = {}
        for each in self.items():
            name, sign, value = each.text().partition("=")
            found[name] = value if sign else None
        return found

    def plain(self, *, again: bool = False) -> Any:
        """The same as Python's values; `again` as a file that compose reads once more, which has $$ for a $."""
        if isinstance(self.value, dict):
            return {name: each.plain(again=again) for name, each in self.value.items()}
        if isinstance(self.value, list):
            return [each.plain(again=again) for each in self.value]
        match self.kind:
            case "null":
                return None
            case "bool":
                return truth(self.value)
            case "int" if re.fullmatch(r"[-+]?[0-9]+", self.value):
                return int(self.value)
            case _:
                return self.value.replace("$", "$$") if again else self.value


@dataclass(frozen=True, slots=True)
class _Reading:
    """One file's: what its nodes become ours with."""

    loader: _Loader
    fill: Callable[[str, Node], str]
    source: str
    counter: Iterator[int]


def parse(
    text: str, fill: Callable[[str, Node], str] = lambda text, node: text, source: str = "compose file"
) -> Node:  # fmt: skip
    """The tree of a file's text; `fill` puts variables into each scalar. Raises UsageError with the line."""
    if len(text) > LONGEST:
        raise UsageError("a compose file of more than 1 MiB is not read")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise UsageError("the compose file is empty", hint="services:\n  web:\n    image: NAME")
        return _node(_Reading(loader, fill, source, iter(range(_MOST))), root, "", 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{source}{line}: {error.problem or error.context}", hint="it is no YAML there") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError("the compose file cannot be read", why=str(error).splitlines()[0]) from error
    finally:
        loader.dispose()


def _node(reading: _Reading, node: yaml.Node, place: str, depth: int) -> Node:
    line, source, loader = node.start_mark.line + 1, reading.source, reading.loader
    if next(reading.counter, None) is None or depth > _DEEPEST:
        raise UsageError(f"{source}, line {line}: it means more than can be read", why="anchors in anchors")
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if tag == RESET:
        return Node("", line, place, RESET, source)
    if tag not in (*_TAGS, OVERRIDE):
        raise UsageError(f"{source}, line {line}: {place}: {tag} is not here", hint="write the whole value")
    kind = OVERRIDE if tag == OVERRIDE else "str"
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(node, place, source)
        loader.flatten_mapping(node)
        members: dict[str, Node] = {}
        for key, value in node.value:
            name = str(key.value)
            # What was merged comes first, and what is written here wins.
            members[name] = _node(reading, value, f"{place}.{name}".lstrip("."), depth + 1)
        return Node(members, line, place, kind, source)
    if isinstance(node, yaml.SequenceNode):
        found = [_node(reading, each, f"{place}[{number}]", depth + 1) for number, each in enumerate(node.value)]
        return Node(found, line, place, kind, source)
    written = Node(str(node.value), line, place, tag, source)
    filled = reading.fill(str(node.value), written)
    if filled == node.value and tag != OVERRIDE:
        return written
    kind = loader.resolve(yaml.ScalarNode, filled, (True, False)).removeprefix("tag:yaml.org,2002:")
    return Node(filled, line, place, kind if filled else "str", source)


def _refuse_twice(node: yaml.MappingNode, place: str, source: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{source}, line {key.start_mark.line + 1}: {place}: a name must be text")
        if key.value in seen and key.value != "<<":
            raise UsageError(f"{source}, line {key.start_mark.line + 1}: {place}: {key.value} is there twice")
        seen.add(key.value)


def written(value: Any) -> str:
    """Python's values as YAML."""
    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=False, allow_unicode=True))
