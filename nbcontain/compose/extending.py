"""Services that are what another one is, and more: `extends` (the compose specification, 05-services.md). Pure.

It is done to each file by itself, before the next one lies over it, as docker compose does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbcontain.compose.document import Node
from nbcontain.compose.merging import laid_over

Other = Callable[[Node], Node]
"""The tree of the file that a node names."""
_KEY = "extends"


def extended(root: Node, other: Other) -> Node:
    """The tree without `extends`: each service laid over the one that it names. Raises UsageError."""
    services = _services(root)
    if not any(isinstance(each.value, dict) and _KEY in each.value for each in services.values()):
        return root
    found = {name: _whole(name, services, other, ()) for name in services}
    top = root.members()
    return root.holding({**top, "services": top["services"].holding({**found})})


def _services(root: Node) -> Mapping[str, Node]:
    services = root.members().get("services")
    return services.members() if services is not None else {}


def _whole(name: str, services: Mapping[str, Node], other: Other, above: tuple[tuple[int, str], ...]) -> Node:
    """A service with all that those have which it extends; `above` are those that led here, by their file's tree."""
    service = services[name]
    if not isinstance(service.value, dict) or _KEY not in service.value:
        return service
    told = service.value[_KEY]
    if (id(services), name) in above:
        told.wrong(f"{' -> '.join(each for _, each in (*above, (0, name)))} is a circle")
    base, file = told, None
    if isinstance(told.value, dict):
        if unknown := set(told.value) - {"service", "file"}:
            told.wrong(f"there is no such key: {', '.join(sorted(unknown))}", "service and file")
        base, file = told.value.get("service", told), told.value.get("file")
    there = services if file is None else _services(other(file))
    if base.text() not in there:
        base.wrong(f"there is no service {base.text()}", f"there are {', '.join(sorted(there))}" if there else "")
    below = _whole(base.text(), there, other, (*above, (id(services), name)))
    own = service.holding({key: each for key, each in service.value.items() if key != _KEY})
    return laid_over(below, own, service.place)
