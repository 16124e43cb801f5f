"""What a compose file asks for, as values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbcontain.errors import UsageError
from nbcontain.runtime.generate import RunOptions
from nbcontain.values import dataclass, fields, replace

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONE_OFF = "com.docker.compose.oneoff"
HASH = "com.docker.compose.config-hash"
DIRECTORY = "com.docker.compose.project.working_dir"
FILES = "com.docker.compose.project.config_files"
DEPENDS_ON = "com.docker.compose.depends_on"
IMAGE = "com.docker.compose.image"
NETWORK = "com.docker.compose.network"
VOLUME = "com.docker.compose.volume"

CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


@dataclass(frozen=True, slots=True)
class Build:
    """How a service's image is built."""

    context: Path
    dockerfile: str = "Dockerfile"
    inline: str = ""
    """The Dockerfile itself, in the compose file."""
    args: tuple[str, ...] = ()
    target: str = ""
    labels: tuple[str, ...] = ()
    no_cache: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dependency:
    """A service that has to be there before."""

    service: str
    condition: str = "service_started"
    required: bool = True


@dataclass(frozen=True, slots=True)
class Joined:
    """A network that a service is on; `words` are those of --network besides its name."""

    key: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """A secret or config that is written into a container before it starts."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Service:
    """One service, and what its containers are made of."""

    name: str
    image: str
    run: RunOptions
    """How its container is run: all but its name, its networks and the labels of compose."""
    build: Build | None = None
    container_name: str = ""
    networks: tuple[Joined, ...] = ()
    """On none of the project's where `run` has a network of its own."""
    depends_on: tuple[Dependency, ...] = ()
    profiles: tuple[str, ...] = ()
    given: tuple[Given, ...] = ()
    replicas: int = 1
    """How many containers it has."""
    after_entrypoint: tuple[str, ...] = ()
    """What the command of `run` begins with, since it belongs to the entrypoint."""

    def digest(self) -> str:
        """What its containers are made of, as one number: others have to be made when that changes."""
        said = {
            "run": {each.name: getattr(self.run, each.name) for each in fields(RunOptions)},
            "image": self.image, "name": self.container_name,
            "networks": [[each.key, *each.words] for each in self.networks],
            "given": [[each.path, each.text] for each in self.given],
        }  # fmt: skip
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=list).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Shared:
    """A network or volume of the project."""

    key: str
    name: str
    external: bool = False
    labels: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = None
    """What it is made with, in the words of NetworkRequest, or a volume's options."""


@dataclass(frozen=True, slots=True)
class Project:
    """All of a compose file."""

    name: str
    directory: Path
    services: tuple[Service, ...]
    networks: tuple[Shared, ...] = ()
    volumes: tuple[Shared, ...] = ()
    warnings: tuple[str, ...] = ()
    files: str = ""
    """Where it was read from, for its containers' labels."""

    def service(self, name: str) -> Service:
        """Raises UsageError where there is none of that name."""
        found = next((each for each in self.services if each.name == name), None)
        if found is None:
            known = ", ".join(each.name for each in self.services)
            raise UsageError(f"no such service: {name}", hint=f"there are {known}")
        return found

    def scaled(self, numbers: Mapping[str, int]) -> Project:
        """The same with so many containers of these services. Raises UsageError."""
        for name, number in numbers.items():
            service = self.service(name)
            if number > 1 and service.container_name:
                raise UsageError(
                    f"{name} cannot have {number} containers", why=f"its container_name is {service.container_name}",
                    hint="leave container_name out",
                )  # fmt: skip
        services = tuple(replace(each, replicas=numbers.get(each.name, each.replicas)) for each in self.services)
        return replace(self, services=services)

    def chosen(self, names: Sequence[str], profiles: Iterable[str]) -> tuple[Service, ...]:
        """Those that are meant, and what they depend on, in the order in which they are started.

        Without names, all that have no profile or one of these. Raises UsageError.
        """
        active = set(profiles)
        meant = names or [
            each.name for each in self.services if not each.profiles or active & {*each.profiles} or "*" in active
        ]
        order: list[Service] = []
        path: list[str] = []

        def visit(name: str) -> None:
            if any(each.name == name for each in order):
                return
            if name in path:
                raise UsageError(f"dependency cycle detected: {' -> '.join([*path[path.index(name):], name])}")
            path.append(name)
            service = self.service(name)
            for each in service.depends_on:
                if each.required or any(other.name == each.service for other in self.services):
                    visit(each.service)
            path.pop()
            order.append(service)

        for name in meant:
            visit(name)
        return tuple(order)
