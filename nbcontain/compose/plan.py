"""What has to be done so that a project is as its file says, by what there is already. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from nbcontain.compose import model
from nbcontain.compose.model import Project, Service, Shared
from nbcontain.runtime.generate import RunOptions
from nbcontain.values import dataclass, replace

Verb = Literal["create", "recreate", "start", "keep"]


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


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one service's container, and why."""

    verb: Verb
    service: Service
    container: str = ""
    """The id of the one that is there."""
    why: str = ""


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
    networks: Sequence[str], volumes: Sequence[str], *, recreate: Literal["", "always", "never"] = "",
) -> Plan:  # fmt: skip
    """The plan of `up`. `images` are ids by service; `networks` and `volumes` are the names of those that there are.

    A container is made anew if what its service says has changed, or its image.
    """
    by_service = {each.service: each for each in existing}
    steps = []
    for service in services:
        there = by_service.get(service.name)
        if there is None:
            steps.append(Step("create", service))
            continue
        why = ""
        if there.digest != service.digest():
            why = "its configuration changed"
        elif there.image != images.get(service.name, there.image):
            why = "its image changed"
        elif recreate == "always":
            why = "that was asked for"
        if why and recreate != "never":
            steps.append(Step("recreate", service, there.id, why))
        else:
            steps.append(Step("keep" if there.runs else "start", service, there.id))
    used = {each.key for service in services for each in service.networks}
    known = {each.name for each in project.services}
    return Plan(
        tuple(each for each in project.networks if each.key in used and each.name not in networks),
        tuple(each for each in project.volumes if each.name not in volumes),
        tuple(steps),
        tuple(each for each in existing if each.service not in known),
    )


def container_name(project: Project, service: Service) -> str:
    """What compose calls a service's container."""
    return service.container_name or f"{project.name}-{service.name}-1"


def run_options(project: Project, service: Service, image: str, *, bridges: bool) -> RunOptions:
    """How the service's container is run. Without `bridges` it is on this machine's network, and so are all others:
    their names mean this machine.
    """
    labels = {
        model.PROJECT: project.name, model.SERVICE: service.name, model.NUMBER: "1", model.ONE_OFF: "False",
        model.HASH: service.digest(), model.DIRECTORY: str(project.directory), model.FILES: project.files,
        model.IMAGE: image,
        model.DEPENDS_ON: ",".join(f"{each.service}:{each.condition}:false" for each in service.depends_on),
    }  # fmt: skip
    run = replace(
        service.run, image=service.image, name=container_name(project, service), pull="never",
        labels=(*service.run.labels, *(f"{name}={value}" for name, value in labels.items())),
    )  # fmt: skip
    if not service.networks:
        return run
    if not bridges:
        names = tuple(f"{each.name}:127.0.0.1" for each in project.services)
        return replace(run, network=("host",), publish=(), add_hosts=(*run.add_hosts, *names))
    names_of = {each.key: each.name for each in project.networks}
    own = (f"alias={service.name}",)
    joined = tuple(",".join((f"name={names_of[each.key]}", *own, *each.words)) for each in service.networks)
    return replace(run, network=joined)
