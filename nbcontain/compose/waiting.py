"""Until a service is as another one, or whoever brought it up, wants it to be."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nbcontain.compose.model import Dependency, Service
from nbcontain.errors import Cancelled, ContainerError, ContainerFailed
from nbcontain.events import Emit, scope

if TYPE_CHECKING:
    from nbcontain.handles import Container

_LOOK_S = 0.1


def await_condition(
    dependency: Dependency, containers: Sequence[Container], emit: Emit, is_over: threading.Event
) -> None:
    """Until all containers of a service are as another one wants them.

    Raises ContainerError if they never will be, Cancelled.
    """
    name = dependency.service
    if not containers or dependency.condition == "service_started":
        return
    if dependency.condition == "service_healthy" and not all(each.info.health for each in containers):
        raise ContainerError(
            f"{name} has no health check, and another service waits for it to be healthy",
            hint="healthcheck:\n  test: …\nin that service, or condition: service_started",
        )
    with scope(emit, f"{name} {dependency.condition}", name, name):
        # All of them are asked each time: one that will never be so is heard of, whatever the others are.
        while sum(_is_as_wanted(each, dependency) for each in containers) < len(containers):
            _wait(name, is_over)


def await_going(service: Service, containers: Sequence[Container], emit: Emit, is_over: threading.Event) -> None:
    """Until those of a service that have a health check are healthy, and the others run at least.

    Raises ContainerError where one has ended, Cancelled.
    """
    checked = [each for each in containers if each.info.health]
    await_condition(Dependency(service.name, "service_healthy"), checked, emit, is_over)
    others = [each for each in containers if not each.info.health]
    if others:
        _wait(service.name, is_over)
    for each in others:
        if each.status in ("exited", "lost"):
            code = each.state().exit_code
            raise ContainerError(f"container {each.name} exited ({code})", hint=f"%compose logs {service.name}")


def endings(containers: Sequence[Container], is_over: threading.Event) -> Iterator[tuple[Container, int]]:
    """Each as it ends, with its exit code; 255 for one that is lost or was removed. Raises Cancelled."""
    left = list(containers)
    while left:
        for each in list(left):
            try:
                code = each.state().exit_code if each.status in ("exited", "lost") else -1
            except FileNotFoundError:
                code = None
            if code != -1:
                left.remove(each)
                yield each, 255 if code is None else code
        if left:
            _wait("them", is_over)


def lasting(services: Sequence[Service]) -> list[Service]:
    """Those of which no other wants that they have ended."""
    ending = {
        each.service for service in services for each in service.depends_on
        if each.condition == "service_completed_successfully"
    }  # fmt: skip
    return [each for each in services if each.name not in ending]


def _wait(name: str, is_over: threading.Event) -> None:
    if is_over.wait(_LOOK_S):
        raise Cancelled(f"nobody waits for {name} any more")


def _is_as_wanted(container: Container, dependency: Dependency) -> bool:
    """Whether a service is as another one waits for it to be. Raises ContainerError if it never will be."""
    hint = f"%compose logs {dependency.service}"
    ended = container.status in ("exited", "lost")
    if dependency.condition == "service_completed_successfully":
        code = container.state().exit_code if ended else 0
        if code != 0:
            raise ContainerFailed(
                f"service {dependency.service} didn't complete successfully: exit {code}", code or 1, hint=hint
            )
        return ended
    health = (container.health() or {}).get("Status")
    if health != "healthy" and (health == "unhealthy" or ended):
        said = "ended" if ended else "is unhealthy"
        raise ContainerError(f"dependency failed to start: {dependency.service} {said}", hint=hint)
    return health == "healthy"
