"""What a service's `volumes` say, in the words of `run`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from nbcontain.compose.document import Node

_KEYS = {
    "bind": ("type", "source", "target", "read_only", "bind", "consistency"),
    "volume": ("type", "source", "target", "read_only", "volume", "consistency"),
    "tmpfs": ("type", "target", "read_only", "tmpfs", "consistency"),
    "image": ("type", "source", "target", "read_only", "image", "consistency"),
}
_OF_KIND = {
    "bind": ("propagation", "create_host_path", "selinux", "recursive"), "volume": ("nocopy", "subpath", "labels"),
    "tmpfs": ("size", "mode"), "image": ("subpath",),
}  # fmt: skip


def volume(
    node: Node, path: Callable[[str], Path], named: Callable[[str, Node], str]
) -> tuple[Literal["volumes", "mount"], str]:
    """-v's or --mount's word for it. `path` is where a path of the file is, `named` the name of a volume of it.

    Raises UsageError with the line.
    """
    if isinstance(node.value, str):
        return "volumes", _short(node, path, named)
    said = node.members()
    kind = said["type"].text() if "type" in said else node.wrong("type is missing", "bind, volume, tmpfs or image")
    if kind not in _KEYS:
        said["type"].wrong(f"there is no type {kind}", "bind, volume, tmpfs or image")
    for key, each in said.items():
        if key not in _KEYS[kind] and not key.startswith("x-"):
            each.wrong(f"a {kind} has no such key", ", ".join(_KEYS[kind]))
    own = said[kind].members() if kind in said else {}
    for key, each in own.items():
        if key not in _OF_KIND[kind]:
            each.wrong("there is no such key", ", ".join(_OF_KIND[kind]))
    if "target" not in said:
        node.wrong("target is missing", "target: /path, inside the container")
    target, words = said["target"].text(), [f"type={kind}"]
    source = said["source"].text() if "source" in said else ""
    is_readonly = "read_only" in said and said["read_only"].boolean()
    if kind == "bind":
        if not source:
            node.wrong("source is missing", "source: ./directory, outside the container")
        place = str(path(source))
        if "create_host_path" not in own or own["create_host_path"].boolean():
            more = [*(["ro"] if is_readonly else []), *([own["propagation"].text()] if "propagation" in own else [])]
            return "volumes", ":".join([place, target, *([",".join(more)] if more else [])])
        source = place
    elif kind == "volume" and source:
        source = named(source, node)
    words += [f"source={source}"] * bool(source) + [f"target={target}"] + ["readonly"] * is_readonly
    for key in ("propagation", "subpath", "size", "mode"):
        if key in own:
            words.append(f"{kind}-{key}={own[key].text()}")
    if kind == "volume" and "nocopy" in own and own["nocopy"].boolean():
        words.append("volume-nocopy")
    return "mount", ",".join(words)


def _short(node: Node, path: Callable[[str], Path], named: Callable[[str, Node], str]) -> str:
    source, colon, rest = node.text().partition(":")
    if not colon:
        return source
    if not source:
        node.wrong("has no source", "NAME:/path or ./directory:/path")
    if re.match(r"[./~]", source):
        return f"{path(source)}:{rest}"
    return f"{named(source, node)}:{rest}"
