"""Projects of compose files on an engine: brought up, looked at, taken down. `engine.compose`.

What belongs to a project is known by its labels alone, which are docker compose's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nbcontain.compose import model
from nbcontain.compose.document import Node
from nbcontain.compose.interpolation import env_file
from nbcontain.compose.model import Dependency, Project, Service, Shared
from nbcontain.compose.plan import Existing, Plan, Step, planned, run_options
from nbcontain.compose.reading import Reader
from nbcontain.errors import Cancelled, ContainerError, ContainerFailed, ImageNotFound, NbcontainError, UsageError
from nbcontain.events import BUILD, Emit, Finished, Notice, Record, Started, scope
from nbcontain.networks import NetworkRequest
from nbcontain.runtime.generate import RunOptions
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_OVERRIDES = tuple(name.replace(".", ".override.") for name in NAMES)
_ROOT = "compose"
_LOOK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a project is read from: files, or a text and the directory that its paths are seen from."""

    text: str | None = None
    files: tuple[str, ...] = ()
    directory: str = ""
    name: str = ""
    env_files: tuple[str, ...] = ()


class Compose:
    """The projects of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- reading ---

    def read(self, source: Source) -> tuple[Project, Node]:
        """The project that files describe, and these as a tree. Raises UsageError with the line."""
        paths = [] if source.text is not None else self._files(source) or _found(Path.cwd())
        directory = Path(source.directory or (paths[0].parent if paths else ".")).resolve()
        texts = [source.text] if source.text is not None else [*map(_text, paths)]
        environ = self._variables(directory, source.env_files)
        reader = Reader(directory, environ, lambda each: each.read_text(encoding="utf-8"))
        name = source.name or environ.get("COMPOSE_PROJECT_NAME", "")
        return reader.project(texts, name, [str(each.resolve()) for each in paths])

    def _files(self, source: Source) -> list[Path]:
        """Those that were named, here or by COMPOSE_FILE, also in .env."""
        if source.files:
            return [*map(Path, source.files)]
        environ = self._variables(Path(source.directory or "."), source.env_files)
        named = environ.get("COMPOSE_FILE", "")
        return [Path(each) for each in named.split(environ.get("COMPOSE_PATH_SEPARATOR", ":")) if each]

    def _variables(self, directory: Path, files: Sequence[str]) -> dict[str, str]:
        """What can stand behind a $: of .env, or the files that stand for it, and the environment, which wins."""
        found: dict[str, str | None] = {}
        for name in files or (".env",):
            path = Path(name) if files else directory / name
            if files or path.is_file():
                try:
                    found |= env_file(path.read_text(encoding="utf-8"), self._engine.environ)
                except (OSError, UnicodeDecodeError) as error:
                    raise UsageError(f"cannot read {path}", why=str(error)) from error
        return {**{name: value for name, value in found.items() if value is not None}, **self._engine.environ}

    def name(self, source: Source) -> str:
        """The project's name, from its file only where it is not told. Raises UsageError."""
        told = source.name or self._engine.environ.get("COMPOSE_PROJECT_NAME", "")
        if told and source.text is None and not source.files:
            return told
        return self.read(source)[0].name

    # --- what there is ---

    def containers(self, project: str, services: Sequence[str] = ()) -> list[Container]:
        """A project's containers, oldest first; of these services alone. Raises UsageError for one without any."""
        found = self._engine.containers((f"label={model.PROJECT}={project}",))[::-1]
        known = {each.info.labels.get(model.SERVICE, "") for each in found}
        for name in services:
            if name not in known:
                hint = f"there are {', '.join(sorted(known))}" if known else "%compose up"
                raise UsageError(f"no container of the service {name} in the project {project}", hint=hint)
        return [each for each in found if not services or each.info.labels.get(model.SERVICE) in services]

    def container(self, project: str, service: str) -> Container:
        """A service's container. Raises UsageError."""
        return self.containers(project, (service,))[0]

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
                each.info.image_id, each.status in ("running", "restarting"),
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
        recreate: Literal["", "always", "never"] = "", remove_orphans: bool = False, wait: bool = False,
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
                plan = planned(
                    project, services, self._existing(project.name), images,
                    [each.name for each in self._engine.networks.all()],
                    [each.name for each in self._engine.volumes], recreate=recreate,
                )  # fmt: skip
                self._make_shared(project, plan, emit, bridges=bridges)
                self._see_to_orphans(plan, emit, remove=remove_orphans)
                for step in plan.steps:
                    self._take(project, step, images, emit, is_over, bridges=bridges, start=start)
                    done.append(step.service.name)
                for service in _lasting(services) if wait else ():
                    self._await_going(project, service, emit, is_over)
            except NbcontainError as error:
                if done:
                    error.why = "\n".join(filter(None, (error.why, f"up already: {', '.join(done)}")))
                raise
        return self.containers(project.name, [each.name for each in services])

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
        self, project: Project, step: Step, images: Mapping[str, str], emit: Emit, is_over: threading.Event, *,
        bridges: bool, start: bool,
    ) -> None:  # fmt: skip
        """Do one step of the plan."""
        engine, service = self._engine, step.service
        if step.verb == "keep":
            emit(Started(service.name, service.name, _ROOT))
            emit(Finished(service.name, "cached", "runs already"))
            return
        with scope(emit, service.name, f"{step.verb} {service.name}", _ROOT):
            for each in service.depends_on if start else ():
                self._await(project, each, emit, is_over)
            if step.verb == "recreate":
                emit(Notice(service.name, f"made anew: {step.why}"))
                old = engine.container(step.container)
                engine.stop(old)
                engine.remove_container(old, force=True)
            if step.verb in ("create", "recreate"):
                options = run_options(project, service, images[service.name], bridges=bridges)
                container = engine.create(options)
                for given in service.given:
                    container.put(given.text.encode(), given.path)
            else:
                container = engine.container(step.container)
            if start:
                engine.start(container)

    def _await_going(self, project: Project, service: Service, emit: Emit, is_over: threading.Event) -> None:
        """Until a service is healthy, or runs at least. Raises ContainerError where it has ended, Cancelled."""
        container = self.container(project.name, service.name)
        if container.info.health:
            self._await(project, Dependency(service.name, "service_healthy"), emit, is_over)
        elif is_over.wait(_LOOK_S):
            raise Cancelled(f"nobody waits for {service.name} any more")
        elif container.status in ("exited", "lost"):
            code = container.state().exit_code
            raise ContainerError(f"container {container.name} exited ({code})", hint=f"%compose logs {service.name}")

    def _await(self, project: Project, dependency: Dependency, emit: Emit, is_over: threading.Event) -> None:
        """Until a service is as another one wants it. Raises ContainerError if it never will be, Cancelled."""
        try:
            container = self.container(project.name, dependency.service)
        except UsageError:
            if dependency.required:
                raise
            return
        if dependency.condition == "service_started":
            return
        if dependency.condition == "service_healthy" and not container.info.health:
            raise ContainerError(
                f"{dependency.service} has no health check, and another service waits for it to be healthy",
                hint="healthcheck:\n  test: …\nin that service, or condition: service_started",
            )  # fmt: skip
        emit(Started(f"{dependency.service} {dependency.condition}", dependency.service, dependency.service))
        while True:
            ended = container.status in ("exited", "lost")
            if dependency.condition == "service_completed_successfully":
                if ended:
                    code = container.state().exit_code
                    if code != 0:
                        raise ContainerFailed(
                            f"service {dependency.service} didn't complete successfully: exit {code}", code or 1,
                            hint=f"%compose logs {dependency.service}",
                        )  # fmt: skip
                    break
            else:
                health = (container.health() or {}).get("Status")
                if health == "healthy":
                    break
                if health == "unhealthy" or ended:
                    raise ContainerError(
                        f"dependency failed to start: {dependency.service} {'ended' if ended else 'is unhealthy'}",
                        hint=f"%compose logs {dependency.service}",
                    )  # fmt: skip
            if is_over.wait(_LOOK_S):
                raise Cancelled(f"nobody waits for {dependency.service} any more")
        emit(Finished(f"{dependency.service} {dependency.condition}", "done"))

    # --- down ---

    def down(
        self, project: str, emit: Emit, *, volumes: bool = False, timeout_s: float | None = None,
    ) -> list[str]:  # fmt: skip
        """Remove a project's containers and networks, and its volumes if asked. Says what went."""
        engine = self._engine
        gone: list[str] = []
        with scope(emit, _ROOT, f"down {project}"):
            for container in self._dependents_first(self.containers(project)):
                with scope(emit, container.name, f"remove {container.name}", _ROOT):
                    engine.stop(container, timeout_s)
                    engine.remove_container(container, force=True, volumes=volumes)
                gone.append(container.name)
            for network in engine.networks.all():
                if network.labels.get(model.PROJECT) == project:
                    engine.networks.remove(network.name)
                    gone.append(network.name)
            for volume in list(engine.volumes) if volumes else ():
                if volume.labels.get(model.PROJECT) == project:
                    engine.volumes.remove(volume.name)
                    gone.append(volume.name)
        return gone

    def _dependents_first(self, containers: Sequence[Container]) -> list[Container]:
        """In the order in which they can be stopped: whoever depends on another goes before it."""
        by_service = {each.info.labels.get(model.SERVICE, ""): each for each in containers}
        order: list[Container] = []

        def visit(container: Container, above: tuple[str, ...]) -> None:
            if container in order:
                return
            for word in container.info.labels.get(model.DEPENDS_ON, "").split(","):
                name = word.partition(":")[0]
                if name in by_service and name not in above:
                    visit(by_service[name], (*above, name))
            order.append(container)

        for each in containers:
            visit(each, (each.info.labels.get(model.SERVICE, ""),))
        return order[::-1]

    def each(
        self, project: str, services: Sequence[str], act: Callable[[Container], object], *, last_first: bool = False
    ) -> list[str]:
        """Do the same to each container, in the order of what they depend on. Raises UsageError where there is none."""
        found = self._dependents_first(self.containers(project, services))
        if not found:
            raise UsageError(f"the project {project} has no containers", hint="%compose up -d")
        for container in found if last_first else found[::-1]:
            act(container)
        return [each.name for each in found]


def _lasting(services: Sequence[Service]) -> list[Service]:
    """Those of which no other wants that they have ended."""
    ending = {
        each.service for service in services for each in service.depends_on
        if each.condition == "service_completed_successfully"
    }  # fmt: skip
    return [each for each in services if each.name not in ending]


def _refuse_external(what: str, shared: Shared) -> None:
    if shared.external:
        raise UsageError(
            f"{what} {shared.name} declared as external, but could not be found", hint=f"%{what} create {shared.name}"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", why=getattr(error, "strerror", "") or str(error)) from error


def _found(directory: Path) -> list[Path]:
    """The file here or above, and what is to lie over it."""
    for above in (directory, *directory.parents):
        for name in NAMES:
            if (above / name).is_file():
                over = (above / each for each in _OVERRIDES)
                return [above / name, *[each for each in over if each.is_file()][:1]]
    raise UsageError(
        "there is no compose file here", why=f"{', '.join(NAMES)} were looked for, here and above",
        hint="--file PATH, or -p NAME for a project that is up",
    )  # fmt: skip


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
