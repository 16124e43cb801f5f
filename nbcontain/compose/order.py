"""Which of a project's containers can be stopped before which others. Known by their labels alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbcontain.compose import model

if TYPE_CHECKING:
    from nbcontain.handles import Container


def waves(containers: Sequence[Container]) -> list[list[Container]]:
    """Whoever depends on others is in a wave before theirs. None of a wave needs another of it: all can go at once."""
    depth: dict[str, int] = {}
    found: list[list[Container]] = []
    for each in _dependents_first(containers):
        own = depth.get(service_of(each), 0)
        for name in _dependencies(each):
            depth[name] = max(depth.get(name, 0), own + 1)
        found += [[] for _ in range(own + 1 - len(found))]
        found[own].append(each)
    return [each for each in found if each]


def _dependents_first(containers: Sequence[Container]) -> list[Container]:
    by_service: dict[str, list[Container]] = {}
    for each in containers:
        by_service.setdefault(service_of(each), []).append(each)
    order: list[Container] = []

    def visit(container: Container, above: tuple[str, ...]) -> None:
        if container in order:
            return
        for name in _dependencies(container):
            for needed in by_service.get(name, ()) if name not in above else ():
                visit(needed, (*above, name))
        order.append(container)

    for each in containers:
        visit(each, (service_of(each),))
    return order[::-1]


def _dependencies(container: Container) -> list[str]:
    """The services that it depends on."""
    words = container.info.labels.get(model.DEPENDS_ON, "").split(",")
    return [name for name in (word.partition(":")[0] for word in words) if name]


def service_of(container: Container) -> str:
    """The service that it is of."""
    return container.info.labels.get(model.SERVICE, "")


def number_of(container: Container) -> int:
    """Which of its service's it is."""
    text = container.info.labels.get(model.NUMBER, "")
    return int(text) if text.isdecimal() else 1
