"""Services that are what another one is, and more: `extends` (the compose specification, 05-services.md). Pure.

It is done to each file by itself, before the next one lies over it, as docker compose does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbcontain.compose.document import Node
from nbcontain.compose.merging import laid_over

Other = Callable[[Node], Node]
"""The tree of the file that a node names: the same one each time."""
_Place = tuple[int, str]
"""A service: the identity of its file's services, and its name."""
_Known = dict[_Place, Node]
_KEY = "extends"


def extended(root: Node, other: Other) -> Node:
    """The tree without `extends`: each service laid over the one that it names. Raises UsageError."""
    services = _services(root)
    if not any(_told(each) for each in services.values()):
        return root
    known: _Known = {}
    found = {name: _whole(name, services, other, known) for name in services}
    top = root.members()
    return root.holding({**top, "services": top["services"].holding({**found})})


def _services(root: Node) -> Mapping[str, Node]:
    services = root.members().get("services")
    return services.members() if services is not None else {}


def _told(service: Node) -> Node | None:
    return service.value.get(_KEY) if isinstance(service.value, dict) else None


def _whole(name: str, services: Mapping[str, Node], other: Other, known: _Known) -> Node:
    """A service with all that those have which it extends; `known` are those that are whole already."""
    waiting: list[tuple[_Place, Node]] = []
    place = (id(services), name)
    while (found := known.get(place)) is None and (told := _told(services[name])) is not None:
        if place in (each for each, _ in waiting):
            told.wrong(f"{' -> '.join(each for (_, each), _ in (*waiting, (place, told)))} is a circle")
        waiting.append((place, services[name]))
        name, services = _named(told, services, other)
        place = (id(services), name)
    whole = found or services[name]
    for place, service in reversed(waiting):
        own = service.holding({key: each for key, each in service.members().items() if key != _KEY})
        known[place] = whole = laid_over(whole, own, service.place)
    return whole


def _named(told: Node, services: Mapping[str, Node], other: Other) -> tuple[str, Mapping[str, Node]]:
    """The service that is extended, and those of its file."""
    base, file = told, None
    if isinstance(told.value, dict):
        if unknown := set(told.value) - {"service", "file"}:
            told.wrong(f"there is no such key: {', '.join(sorted(unknown))}", "service and file")
        base, file = told.value.get("service", told), told.value.get("file")
    there = services if file is None else _services(other(file))
    if base.text() not in there:
        base.wrong(f"there is no service {base.text()}", f"there are {', '.join(sorted(there))}" if there else "")
    return base.text(), there
