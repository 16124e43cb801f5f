"""Several compose files as one tree, as compose lays a later one over an earlier one (13-merge.md). Pure.

Mappings are merged name by name, lists go on, anything else is replaced; _RULES has what is merged otherwise.
`!override` replaces what was there, `!reset` takes it away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce

from nbcontain.compose.document import OVERRIDE, RESET, Node

_Shape = Callable[[Node], Node]


def merged(first: Node, *others: Node) -> Node:
    """All of them as one, the last on top. Raises UsageError where they are not of one kind."""
    return _without_resets(reduce(lambda below, above: _merged(below, above, ""), others, first))


def laid_over(below: Node, above: Node, place: str) -> Node:
    """One value of that place over another; `services.NAME` is a service's. What is taken away is still told."""
    return _merged(below, above, place)


def _merged(below: Node, above: Node, place: str) -> Node:  # noqa: RET503 - `wrong` raises
    if above.kind in (RESET, OVERRIDE) or below.kind == RESET:
        return above
    rule = next((rule for pattern, rule in _RULES if re.fullmatch(pattern, place)), None)
    if above.is_null and rule is not _replaced:
        return below
    if below.is_null or rule is _replaced:
        return above
    if rule is not None:
        below, above = rule(below), rule(above)
    match below.value, above.value:
        case dict(), dict():
            return _members(below, above, place)
        case list() as earlier, list() as later:
            key = _target if re.fullmatch(_MOUNTED, place) else _as_written
            return above.holding(list({key(each): each for each in (*earlier, *later)}.values()))
        case str(), str():
            return above
        case _:
            above.wrong(f"is of another kind than at line {below.line} of {below.source}", "!override before it")


def _members(below: Node, above: Node, place: str) -> Node:
    if place.endswith(".logging") and _driver(above) not in ("", _driver(below)):
        # The options of another driver mean nothing to it.
        return above
    members = dict(below.members())
    for name, each in above.members().items():
        inner = f"{place}.{name}".lstrip(".")
        members[name] = _merged(members[name], each, inner) if name in members else each
    return above.holding(members)


def _without_resets(node: Node) -> Node:
    if isinstance(node.value, dict):
        kept = {name: _without_resets(each) for name, each in node.value.items() if each.kind != RESET}
        return node.holding(kept)
    if isinstance(node.value, list):
        return node.holding([_without_resets(each) for each in node.value if each.kind != RESET])
    return node


# --- one shape for what can be written in several --------------------------------------------------


def _replaced(node: Node) -> Node:
    return node


def _pairs(node: Node) -> Node:
    """A list of NAME=VALUE as names and values."""
    if not isinstance(node.value, list):
        return node
    found: dict[str, Node] = {}
    for each in node.value:
        name, sign, value = each.text().partition("=")
        found[name] = each.holding(value, "str" if sign else "null")
    return node.holding(found)


def _hosts(node: Node) -> Node:
    """A list of NAME:ADDRESS or NAME=ADDRESS, each address of a name."""
    if not isinstance(node.value, dict):
        return node
    pairs = [(name, each, address) for name, each in node.value.items() for address in each.texts()]
    return node.holding([each.holding(f"{name}={address}") for name, each, address in pairs])


def _listed(node: Node) -> Node:
    """A text alone as a list of it."""
    return node.holding([node]) if isinstance(node.value, str) and not node.is_null else node


def _named(node: Node) -> Node:
    """A list of names as a mapping of them to nothing."""
    if not isinstance(node.value, list):
        return node
    return node.holding({each.text(): each.holding("", "null") for each in node.value})


def _build(node: Node) -> Node:
    """A directory alone as its `context`."""
    return node.holding({"context": node}) if isinstance(node.value, str) and not node.is_null else node


_SERVICE = r"services\.[^.]+"
_RULES: tuple[tuple[str, _Shape], ...] = (
    # A variable without a value is the one of who asks, whatever was said below.
    (rf"{_SERVICE}\.(command|entrypoint|healthcheck\.test|ulimits\.[^.]+|environment\.[^.]+)", _replaced),
    (r"networks\.[^.]+\.ipam\.config", _replaced),
    (rf"{_SERVICE}\.(environment|labels|annotations|sysctls|build\.args|build\.labels|deploy\.labels)", _pairs),
    (r"(networks|volumes|configs|secrets)\.[^.]+\.labels", _pairs),
    (rf"{_SERVICE}\.extra_hosts", _hosts),
    (rf"{_SERVICE}\.(env_file|dns|dns_opt|dns_search|tmpfs)", _listed),
    (rf"{_SERVICE}\.(depends_on|networks)", _named),
    (rf"{_SERVICE}\.build", _build),
)


# --- what stands for the same in a list ------------------------------------------------------------


def _as_written(node: Node) -> object:
    """Values of one text are one."""
    return repr(node.plain())


def _target(node: Node) -> object:
    """The place inside that a mount, secret, config or device is for."""
    if isinstance(node.value, dict):
        known = node.value.get("target") or node.value.get("source")
        return known.text() if known is not None else _as_written(node)
    _, *rest = node.text().split(":")
    return rest[0] if rest else node.text()


def _driver(node: Node) -> str:
    known = node.members().get("driver")
    return known.text() if known is not None else ""


_MOUNTED = rf"{_SERVICE}\.(volumes|secrets|configs|devices)"
