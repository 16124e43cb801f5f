"""Projects of compose files on an engine: brought up, looked at, taken down. `engine.compose`.

What belongs to a project is known by its labels alone, which are docker compose's.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nbcontain.compose import model, sources, waiting
from nbcontain.compose.document import Node
from nbcontain.compose.model import Dependency, Project, Service, Shared
from nbcontain.compose.order import number_of, waves
from nbcontain.compose.plan import Existing, Plan, Recreate, Step, planned, run_options
from nbcontain.compose.sources import Source
from nbcontain.errors import Cancelled, ImageNotFound, InUse, NbcontainError, UsageError
from nbcontain.events import BUILD, Emit, Finished, Notice, Record, Started, scope
from nbcontain.networks import NetworkRequest
from nbcontain.runtime.generate import RunOptions
from nbcontain.task import at_once
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container

_ROOT = "compose"


class Compose:
    """The projects of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- reading ---

    def read(self, source: Source) -> tuple[Project, Node]:
        """The project that files describe, and these as a tree. Raises UsageError with the line."""
        return sources.read(source, self._engine.environ)

    def tree(self, source: Source) -> Node:
        """The tree of files as they are written, with their variables. Raises UsageError with the line."""
        return sources.tree(source, self._engine.environ)

    def name(self, source: Source) -> str:
        """The project's name, from its file only where it is not told. Raises UsageError."""
        return self._told(source) or self.read(source)[0].name

    def _told(self, source: Source) -> str:
        """The name of a project that is told without a file."""
        told = source.name or self._engine.environ.get("COMPOSE_PROJECT_NAME", "")
        return told if source.text is None and not source.files else ""

    def image_names(self, source: Source, *, is_local: bool) -> tuple[str, ...]:
        """The images that services are made of, of the file or else of the containers; `is_local` those alone that
        are built and have no name of their own. Raises UsageError.
        """
        if name := self._told(source):
            found = [(each.info.labels.get(model.SERVICE, ""), each.info.image) for each in self.containers(name)]
        else:
            project = self.read(source)[0]
            name, found = project.name, [(each.name, each.image) for each in project.services]
        return tuple(dict.fromkeys(image for service, image in found if not is_local or image == f"{name}-{service}"))

    # --- what there is ---

    def containers(
        self, project: str, services: Sequence[str] = (), *, one_offs: bool = False
    ) -> list[Container]:
        """A project's containers, oldest first; of these services alone. Raises UsageError for one without any."""
        found = [
            each for each in self._engine.containers((f"label={model.PROJECT}={project}",))[::-1]
            if one_offs or each.info.labels.get(model.ONE_OFF) != "True"
        ]  # fmt: skip
        known = {each.info.labels.get(model.SERVICE, "") for each in found}
        for name in services:
            if name not in known:
                hint = f"there are {', '.join(sorted(known))}" if known else "%compose up"
                raise UsageError(f"no container of the service {name} in the project {project}", hint=hint)
        return [each for each in found if not services or each.info.labels.get(model.SERVICE) in services]

    def container(self, project: str, service: str, number: int = 1) -> Container:
        """A service's container of that number; the first that there is for 1. Raises UsageError."""
        found = sorted(self.containers(project, (service,)), key=number_of)
        meant = found[:1] if number == 1 else [each for each in found if number_of(each) == number]
        if not meant:
            raise UsageError(f"the service {service} has no container {number}", hint=f"there are {len(found)}")
        return meant[0]

    def all(self) -> dict[str, list[Container]]:
        """Every project that has containers, by name."""
        found: dict[str, list[Container]] = {}
        for each in self._engine.containers((f"label={model.PROJECT}",)):
            found.setdefault(each.info.labels[model.PROJECT], []).append(each)
        return dict(sorted(found.items()))

    def _existing(self, project: str) -> list[Existing]:
        return [
            Existing(
                each.info.labels.get(model.SERVICE, ""), each.id, each.info.labels.get(model.HASH, ""),
                each.info.image_id, each.status in ("running", "restarting"), number_of(each),
            )
            for each in self.containers(project)
        ]  # fmt: skip

    # --- up ---

    def build(self, project: Project, services: Sequence[Service], emit: Emit, *, no_cache: bool = False) -> None:
        """Build the images of those services that are built."""
        for service in services:
            if service.build is not None:
                self._build(project, service, emit, no_cache=no_cache)

    def _build(self, project: Project, service: Service, emit: Emit, *, no_cache: bool = False) -> None:
        from nbcontain.build.plan import BuildOptions

        what = service.build
        assert what is not None
        path = what.context / what.dockerfile
        try:
            text = what.inline or path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", "") or str(error)
            raise UsageError(f"{service.name}: cannot read the Dockerfile {path}", why=why) from error
        labels = (*what.labels, f"{model.PROJECT}={project.name}", f"{model.SERVICE}={service.name}")
        options = BuildOptions(
            tags=(service.image, *what.tags), context=what.context, build_args=what.args, target=what.target,
            labels=labels, no_cache=no_cache or what.no_cache, dockerfile_name=what.dockerfile,
        )  # fmt: skip
        with scope(emit, f"build {service.name}", f"build {service.name}", _ROOT):
            task = self._engine.build(text, options)
            _passed_on(task.journal.follow(), f"build {service.name}", emit, task.cancel)
            task.result()

    def pull(self, services: Sequence[Service], emit: Emit) -> None:
        """Pull the images of those services that are not built."""
        for service in services:
            if service.build is None:
                asked = RunOptions(image=service.image, pull="always", platform=service.run.platform)
                self._engine.bases.to_run(asked, emit)

    def push(self, services: Sequence[Service], emit: Emit) -> None:
        """Send the images of these services to their registries."""
        for service in services:
            with scope(emit, f"push {service.name}", f"push {service.image}", _ROOT):
                task = self._engine.registry.push(service.image)
                _passed_on(task.journal.follow(), f"push {service.name}", emit, task.cancel)
                task.result()

    def _images(self, project: Project, services: Sequence[Service], emit: Emit, *, build: bool) -> dict[str, str]:
        """Have each service's image here; gives their ids."""
        found = {}
        for service in services:
            is_here = True
            try:
                self._engine.image(service.image)
            except ImageNotFound:
                is_here = False
            if service.build is not None and (build or not is_here):
                self._build(project, service, emit)
            elif not is_here or service.run.pull != "missing":
                asked = RunOptions(image=service.image, pull=service.run.pull, platform=service.run.platform)
                self._engine.bases.to_run(asked, emit)
            found[service.name] = str(self._engine.image(service.image).id)
        return found

    def up(
        self, project: Project, services: Sequence[Service], emit: Emit, *, build: bool = False,
        recreate: Recreate = "", remove_orphans: bool = False, wait: bool = False,
        start: bool = True, is_over: threading.Event | None = None,
    ) -> list[Container]:  # fmt: skip
        """Have these services run, in this order, as the file says; what is so already is left alone.

        What fails stops the rest; what was made until then stays, and the error says so. `is_over` ends the waiting
        for a service with Cancelled, at once.
        """
        done: list[str] = []
        is_over = is_over or threading.Event()
        with scope(emit, _ROOT, f"up {project.name}"):
            for text in project.warnings:
                emit(Notice(_ROOT, text, kind="warning"))
            try:
                bridges = self._bridges(services, emit)
                images = self._images(project, services, emit, build=build)
                plan = self._planned(project, services, self._existing(project.name), images, recreate)
                self._make_shared(project, plan, emit, bridges=bridges)
                self._see_to_orphans(plan, emit, remove=remove_orphans)
                take = partial(self._take, project, images, emit, is_over, bridges=bridges, start=start)
                too_many = [each for each in plan.steps if each.verb == "remove"]
                for step in (each for each in plan.steps if each not in too_many):
                    take(step)
                    done.append(step.name)
                at_once(too_many, take, "compose")
                for service in waiting.lasting(services) if wait else ():
                    waiting.await_going(service, self._of(project, service.name), emit, is_over)
            except NbcontainError as error:
                if done:
                    error.why = "\n".join(filter(None, (error.why, f"started before: {', '.join(done)}")))
                raise
        return self.containers(project.name, [each.name for each in services if each.replicas])

    def one_off(
        self, project: Project, service: Service, emit: Emit, is_over: threading.Event, *, needs: bool = True
    ) -> RunOptions:
        """How a container of its own is run that is made as a service's are; what it `needs` runs then."""
        others = [each for each in project.chosen((service.name,), ()) if each.name != service.name]
        if needs and others:
            self.up(project, others, emit, is_over=is_over)
        with scope(emit, _ROOT, f"run {service.name}"):
            for text in () if needs and others else project.warnings:
                emit(Notice(_ROOT, text, kind="warning"))
            bridges, images = self._bridges((service,), emit), self._images(project, (service,), emit, build=False)
            self._make_shared(project, self._planned(project, (service,), (), images), emit, bridges=bridges)
            for each in service.depends_on if needs else ():
                self._await(project, each, emit, is_over)
        word = secrets.token_hex(6)
        return run_options(project, service, images[service.name], bridges=bridges, one_off=word)

    def _planned(
        self, project: Project, services: Sequence[Service], existing: Sequence[Existing], images: Mapping[str, str],
        recreate: Recreate = "",
    ) -> Plan:  # fmt: skip
        networks = [each.name for each in self._engine.networks.all()]
        volumes = [each.name for each in self._engine.volumes]
        return planned(project, services, existing, images, networks, volumes, recreate=recreate)

    def _of(self, project: Project, service: str) -> list[Container]:
        """A service's containers; none where it has none."""
        return [each for each in self.containers(project.name) if each.info.labels.get(model.SERVICE) == service]

    def _bridges(self, services: Sequence[Service], emit: Emit) -> bool:
        """Whether networks can be made; where they cannot, that is said."""
        if not any(each.networks for each in services):
            return True
        is_able = self._engine.networks.default() != "host"
        if not is_able:
            ports = "; published ports are left out" if any(each.run.publish for each in services) else ""
            emit(Notice(
                _ROOT, f"no networks can be made here: services are on this machine's own, and reach each other by "
                f"name at its ports{ports}", "%nbcontain doctor says why", kind="warning",
            ))  # fmt: skip
        return is_able

    def _make_shared(self, project: Project, plan: Plan, emit: Emit, *, bridges: bool) -> None:
        for each in plan.networks if bridges else ():
            _refuse_external("network", each)
            with scope(emit, f"network {each.name}", f"network {each.name}", _ROOT):
                labels = (*each.labels, f"{model.PROJECT}={project.name}", f"{model.NETWORK}={each.key}")
                self._engine.networks.create(NetworkRequest(name=each.name, labels=labels, **(each.settings or {})))
        for each in plan.volumes:
            _refuse_external("volume", each)
            with scope(emit, f"volume {each.name}", f"volume {each.name}", _ROOT):
                given = dict(label.partition("=")[::2] for label in each.labels)
                labels_of = {**given, model.PROJECT: project.name, model.VOLUME: each.key}
                self._engine.volumes.create(each.name, labels=labels_of, options=dict(each.settings or {}))

    def _see_to_orphans(self, plan: Plan, emit: Emit, *, remove: bool) -> None:
        if not plan.orphans:
            return
        if remove:
            for each in plan.orphans:
                self._engine.remove_container(self._engine.container(each.id), force=True)
            return
        names = ", ".join(sorted({each.service for each in plan.orphans}))
        emit(Notice(_ROOT, f"containers of services that the file does not have: {names}",
                    "--remove-orphans removes them", kind="warning"))  # fmt: skip

    def _take(
        self, project: Project, images: Mapping[str, str], emit: Emit, is_over: threading.Event, step: Step, *,
        bridges: bool, start: bool,
    ) -> None:  # fmt: skip
        """Do one step of the plan."""
        engine, service = self._engine, step.service
        if step.verb == "keep":
            emit(Started(step.name, f"{step.name} runs already", _ROOT))
            emit(Finished(step.name, "done"))
            return
        with scope(emit, step.name, f"{step.verb} {step.name}", _ROOT):
            if step.verb == "remove":
                self._forget(step.container)
                return
            for each in service.depends_on if start else ():
                self._await(project, each, emit, is_over)
            if step.verb == "recreate":
                emit(Notice(step.name, f"made anew: {step.why}"))
                self._forget(step.container)
            if is_over.is_set():
                raise Cancelled(f"nobody waits for {step.name} any more")
            if step.verb in ("create", "recreate"):
                options = run_options(
                    project, service, images[service.name], bridges=bridges, number=step.number
                )
                container = engine.create(options)
                for given in service.given:
                    container.put(given.text.encode(), given.path)
            else:
                container = engine.container(step.container)
            if start:
                engine.start(container)

    def _forget(self, name: str) -> None:
        old = self._engine.container(name)
        self._engine.stop(old)
        self._engine.remove_container(old, force=True)

    def _await(self, project: Project, dependency: Dependency, emit: Emit, is_over: threading.Event) -> None:
        """Until a service is as another one wants it. Raises ContainerError if it never will be, Cancelled."""
        name, containers = dependency.service, self._of(project, dependency.service)
        if not containers and dependency.required and project.service(name).replicas:
            raise UsageError(f"no container of the service {name} in the project {project.name}", hint="%compose up")
        waiting.await_condition(dependency, containers, emit, is_over)

    # --- down ---

    def down(
        self, project: str, emit: Emit, *, volumes: bool = False, timeout_s: float | None = None,
        images: Sequence[str] = (),
    ) -> list[str]:  # fmt: skip
        """Remove a project's containers and networks, its volumes if asked, and these images. Says what went."""
        engine = self._engine
        gone: list[str] = []

        def remove(container: Container) -> None:
            with scope(emit, container.name, f"remove {container.name}", _ROOT):
                engine.stop(container, timeout_s)
                engine.remove_container(container, force=True, volumes=volumes)

        with scope(emit, _ROOT, f"down {project}"):
            for wave in waves(self.containers(project, one_offs=True)):
                at_once(wave, remove, "down")
                gone += [each.name for each in wave]
            for network in engine.networks.all():
                if network.labels.get(model.PROJECT) == project:
                    engine.networks.remove(network.name)
                    gone.append(network.name)
            for volume in list(engine.volumes) if volumes else ():
                if volume.labels.get(model.PROJECT) == project:
                    engine.volumes.remove(volume.name)
                    gone.append(volume.name)
            for image in images:
                try:
                    engine.remove_image(image)
                    gone.append(image)
                except ImageNotFound:
                    continue
                except InUse as error:
                    emit(Notice(_ROOT, f"the image {image} stays: {error.message}", kind="warning"))
        return gone

    def remove(self, project: str, services: Sequence[str], *, stop: bool = False, volumes: bool = False) -> list[str]:
        """Remove those containers of a project that do not run, or with `stop` all. Says which."""
        engine = self._engine

        def stopped(container: Container) -> bool:
            if stop:
                engine.stop(container)
            return not container.is_active

        gone = []
        for wave in waves(self.containers(project, services)):
            for container, is_over in zip(wave, at_once(wave, stopped, "compose"), strict=True):
                if is_over:
                    engine.remove_container(container, volumes=volumes)
                    gone.append(container.name)
        return gone

    def each(
        self, project: str, services: Sequence[str], act: Callable[[Container], object], *, last_first: bool = False
    ) -> list[str]:
        """Do the same to each container, in the order of what they depend on, to several at once where it allows.

        Raises UsageError where there is none.
        """
        order = waves(self.containers(project, services))
        if not order:
            raise UsageError(f"the project {project} has no containers", hint="%compose up -d")
        for wave in order if last_first else order[::-1]:
            at_once(wave, act, "compose")
        return [each.name for wave in order for each in wave]


def _refuse_external(what: str, shared: Shared) -> None:
    if shared.external:
        raise UsageError(
            f"{what} {shared.name} declared as external, but could not be found", hint=f"%{what} create {shared.name}"
        )


def _passed_on(records: Iterable[Record], parent: str, emit: Emit, cancel: Callable[[], None]) -> None:
    """Tell of another task's steps as steps of this one."""
    try:
        for record in records:
            event = record.event
            if event.task == BUILD:
                continue
            task = f"{parent} {event.task}"
            if isinstance(event, Started):
                emit(replace(event, task=task, parent=parent, span=None))
            else:
                emit(replace(event, task=task))
    except BaseException:
        cancel()
        raise
