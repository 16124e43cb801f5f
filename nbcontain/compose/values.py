"""What single values of a compose file mean, in the words of `run`. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from nbcontain.compose.document import Node
from nbcontain.errors import UsageError
from nbcontain.runtime.lifetimes import nanoseconds
from nbcontain.runtime.limits import ulimit as rlimit
from nbcontain.runtime.resources import size_of


def project_name(text: str) -> str:
    """The name that compose makes of a directory's: lower-case letters, digits, - and _, none of the last two first."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def words(node: Node) -> tuple[str, ...]:
    """A program and its arguments: a list, or a text that is split as a shell does."""
    if not isinstance(node.value, str):
        return node.texts()
    try:
        return tuple(shlex.split(node.text()))
    except ValueError as error:
        node.wrong(str(error), "or a list of words")


def labels(node: Node | None) -> tuple[str, ...]:
    """NAME=value each."""
    return tuple(f"{name}={value or ''}" for name, value in node.pairs().items()) if node is not None else ()


def options(node: Node | None) -> dict[str, str]:
    """Values by name."""
    return {name: value or "" for name, value in node.pairs().items()} if node is not None else {}


def checked(node: Node, text: str, check: Callable[[str], object]) -> str:
    """A word of `run`, which has to mean something there. Raises UsageError with the line."""
    try:
        check(text)
    except UsageError as error:
        node.wrong(error.message + (f": {error.why}" if error.why else ""), error.hint)
    return text


def number(node: Node, least: int, most: int) -> int:
    """A whole number within these."""
    found = node.integer()
    if not least <= found <= most:
        node.wrong(f"{found} is not between {least} and {most}")
    return found


def size(node: Node) -> str:
    """512m, 1g or bytes; -1 is no limit."""
    return checked(node, node.text(), lambda text: size_of(text, node.place.rpartition(".")[2]))


def processors(node: Node) -> str:
    """1.5: of how many processors. How many there are is the machine's matter, not the file's."""
    text = node.text()
    if not re.fullmatch(r"[0-9]*\.?[0-9]+|[0-9]+\.", text):
        node.wrong(f"{text!r} is no number of processors", "0.5")
    return text


def duration(node: Node) -> int:
    """Nanoseconds."""
    try:
        return nanoseconds(node.text(), node.place)
    except UsageError:
        node.wrong(f"{node.text()!r} is no duration", "30s, 1m30s or 500ms")


def ulimit(name: str, node: Node) -> str:
    """--ulimit's word."""
    if isinstance(node.value, str):
        return checked(node, f"{name}={node.integer()}", rlimit)
    told = node.members()
    if set(told) != {"soft", "hard"}:
        node.wrong("must be a number, or soft and hard")
    return checked(node, f"{name}={told['soft'].integer()}:{told['hard'].integer()}", rlimit)


def device(node: Node) -> str:
    """--device's word."""
    if isinstance(node.value, str):
        return node.text()
    told = {name: each.text() for name, each in node.members().items()}
    if "source" not in told or set(told) - {"source", "target", "permissions"}:
        node.wrong("must be source:target:permissions, or these three by name")
    return ":".join((told["source"], told.get("target", told["source"]), told.get("permissions", "rwm")))


def hosts(node: Node) -> tuple[str, ...]:
    """--add-host's words."""
    if isinstance(node.value, dict):
        return tuple(f"{name}:{address}" for name, each in node.members().items() for address in each.texts())
    # As in run, or with = in place of the first colon.
    return tuple(re.sub(r"^([^=:]+)=", r"\1:", each) for each in node.texts())


def env_files(node: Node) -> list[tuple[str, bool, Node]]:
    """Each file, whether it has to be there, and where it is named."""
    if isinstance(node.value, str):
        return [(node.text(), True, node)]
    found = []
    for each in node.items():
        if isinstance(each.value, str):
            found.append((each.text(), True, each))
            continue
        told = each.members()
        if "path" not in told:
            each.wrong("path is missing")
        found.append((told["path"].text(), told["required"].boolean() if "required" in told else True, each))
    return found


def network(said: Mapping[str, Node]) -> dict[str, Any]:
    """What a network's own keys say, in the words of a request for one."""
    found: dict[str, Any] = {
        "internal": "internal" in said and said["internal"].boolean(),
        "ipv6": "enable_ipv6" in said and said["enable_ipv6"].boolean(),
        "options": tuple(f"{name}={value}" for name, value in options(said.get("driver_opts")).items()),
    }
    if (ipam := said.get("ipam")) is not None:
        ipam.only(("driver", "config", "options"))
        config = ipam.members().get("config")
        for each in config.items() if config else ():
            each.only(("subnet", "gateway", "ip_range", "aux_addresses"))
            for key, name in (("subnet", "subnets"), ("gateway", "gateways"), ("ip_range", "ranges")):
                if (value := each.members().get(key)) is not None:
                    found[name] = (*found.get(name, ()), value.text())
    return found
