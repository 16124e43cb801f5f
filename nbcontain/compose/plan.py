"""What has to be done so that a project is as its file says, by what there is already. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from nbcontain.compose import model
from nbcontain.compose.model import Project, Service, Shared
from nbcontain.runtime.generate import RunOptions
from nbcontain.values import dataclass, replace

Verb = Literal["create", "recreate", "start", "keep", "remove"]
Recreate = Literal["", "always", "never"]


@dataclass(frozen=True, slots=True)
class Existing:
    """A service's container that is there."""

    service: str
    id: str
    digest: str
    """Of the service that it was made for (`Service.digest`)."""
    image: str
    """The id of its image."""
    runs: bool
    number: int = 1
    """Which of the service's."""


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one of a service's containers, and why."""

    verb: Verb
    service: Service
    container: str = ""
    """The id of the one that is there."""
    why: str = ""
    number: int = 1

    @property
    def name(self) -> str:
        """The service's, with the number where it has several."""
        is_alone = self.number == 1 and self.service.replicas <= 1
        return self.service.name if is_alone else f"{self.service.name} {self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it: networks and volumes to be made, then containers in the order of what they depend on."""

    networks: tuple[Shared, ...]
    volumes: tuple[Shared, ...]
    steps: tuple[Step, ...]
    orphans: tuple[Existing, ...]
    """Containers of the project whose services the file does not have any more."""


def planned(
    project: Project, services: Sequence[Service], existing: Sequence[Existing], images: Mapping[str, str],
    networks: Sequence[str], volumes: Sequence[str], *, recreate: Recreate = "",
) -> Plan:  # fmt: skip
    """The plan of `up`. `images` are ids by service; `networks` and `volumes` are the names of those that there are.

    A container is made anew if what its service says has changed, or its image; of those that are too many the last go.
    """
    steps = []
    for service in services:
        there = {each.number: each for each in existing if each.service == service.name}
        for number in range(1, service.replicas + 1):
            found = there.pop(number, None)
            if found is None:
                steps.append(Step("create", service, number=number))
                continue
            why = _outdated(found, service, images, asked=recreate == "always")
            verb: Verb = "recreate" if why and recreate != "never" else "keep" if found.runs else "start"
            steps.append(Step(verb, service, found.id, why, number))
        steps += [Step("remove", service, each.id, "", number) for number, each in sorted(there.items(), reverse=True)]
    used = {each.key for service in services for each in service.networks}
    known = {each.name for each in project.services}
    return Plan(
        tuple(each for each in project.networks if each.key in used and each.name not in networks),
        tuple(each for each in project.volumes if each.name not in volumes),
        tuple(steps),
        tuple(each for each in existing if each.service not in known),
    )


def _outdated(there: Existing, service: Service, images: Mapping[str, str], *, asked: bool) -> str:
    """Why a container has to be made anew; nothing if it has not."""
    if there.digest != service.digest():
        return "its configuration changed"
    if there.image != images.get(service.name, there.image):
        return "its image changed"
    return "that was asked for" if asked else ""


def container_name(project: Project, service: Service, number: int = 1) -> str:
    """What compose calls one of a service's containers."""
    return service.container_name or f"{project.name}-{service.name}-{number}"


def run_options(
    project: Project, service: Service, image: str, *, bridges: bool, number: int = 1, one_off: str = ""
) -> RunOptions:
    """How a service's container of this number is run. One of its own, `one_off`, has not the service's name.

    Without `bridges` it is on this machine's network, and so are all others: their names mean this machine.
    """
    labels = {
        model.PROJECT: project.name, model.SERVICE: service.name, model.NUMBER: str(number),
        model.ONE_OFF: str(bool(one_off)), model.HASH: service.digest(),
        model.DIRECTORY: str(project.directory), model.FILES: project.files,
        model.IMAGE: image,
        model.DEPENDS_ON: ",".join(f"{each.service}:{each.condition}:false" for each in service.depends_on),
    }  # fmt: skip
    run = replace(
        service.run, image=service.image, pull="never",
        name=f"{project.name}-{service.name}-run-{one_off}" if one_off else container_name(project, service, number),
        labels=(*service.run.labels, *(f"{name}={value}" for name, value in labels.items())),
    )  # fmt: skip
    if not service.networks:
        return run
    if not bridges:
        here = tuple(f"{each.name}:127.0.0.1" for each in project.services)
        return replace(run, network=("host",), publish=(), add_hosts=(*run.add_hosts, *here))
    names_of = {each.key: each.name for each in project.networks}
    names = {each.key: f"name={names_of[each.key]}" for each in service.networks}
    if one_off:
        return replace(run, network=tuple(names.values()))
    joined = tuple(",".join((names[each.key], f"alias={service.name}", *each.words)) for each in service.networks)
    return replace(run, network=joined)
