"""A compose file's tree as another file means it: with whole paths, and with what its own variables say. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from nbcontain.compose.document import Node

_Change = Callable[[Node], Node]


def place_of(text: str, directory: Path) -> Path:
    """Where a path of a file is that is seen from this directory."""
    # Not pathlib's, which raises where ~NAME is nobody.
    return directory / os.path.expanduser(text)


def relocated(root: Node, directory: Path) -> Node:
    """The tree with the paths that its services, configs and secrets are seen from this directory."""

    def path(node: Node) -> Node:
        if not isinstance(node.value, str) or not node.value:
            return node
        return node.holding(os.path.normpath(place_of(node.value, directory)))

    def mount(node: Node) -> Node:
        if isinstance(node.value, dict):
            kind = node.value.get("type")
            return _with(node, {"source": path}) if kind is not None and kind.value == "bind" else node
        source, colon, rest = node.text().partition(":")
        if not colon or not re.match(r"[./~]", source):
            return node
        return node.holding(f"{path(node.holding(source)).text()}:{rest}")

    def file(node: Node) -> Node:
        return _with(node, {"path": path}) if isinstance(node.value, dict) else path(node)

    service = {
        "build": lambda node: _with(node, {"context": path}) if isinstance(node.value, dict) else path(node),
        "env_file": lambda node: _all(node, file) if isinstance(node.value, list) else path(node),
        "extends": lambda node: _with(node, {"file": path}) if isinstance(node.value, dict) else node,
        "volumes": lambda node: _all(node, mount),
    }  # fmt: skip
    return _with(root, {
        "services": lambda node: _all(node, lambda each: _with(each, service)),
        **dict.fromkeys(("configs", "secrets"), lambda node: _all(node, lambda each: _with(each, {"file": path}))),
    })  # fmt: skip


def told(root: Node, environ: Mapping[str, str]) -> Node:
    """The tree with what these variables say of those that its services only name."""

    def environment(node: Node) -> Node:
        if isinstance(node.value, list):
            return _all(node, lambda each: (
                each.holding(f"{each.text()}={environ[each.text()]}") if each.text() in environ else each
            ))  # fmt: skip
        return node.holding({
            name: each.holding(environ[name], "str") if each.is_null and name in environ else each
            for name, each in node.members().items()
        })  # fmt: skip

    return _with(root, {"services": lambda node: _all(node, lambda each: _with(each, {"environment": environment}))})


def _with(node: Node, changes: Mapping[str, _Change]) -> Node:
    """A mapping with these of its members changed, where it has them."""
    return node.holding({
        name: changes[name](each) if name in changes and each.value != "" else each
        for name, each in node.members().items()
    })  # fmt: skip


def _all(node: Node, change: _Change) -> Node:
    """A mapping or list with each member changed that says something."""
    if isinstance(node.value, dict):
        return node.holding({name: change(each) if each.value != "" else each for name, each in node.value.items()})
    return node.holding([change(each) for each in node.items()])
