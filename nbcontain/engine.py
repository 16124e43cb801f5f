"""Everything a user can ask, each in a few lines of the floors below."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from nbcontain import names
from nbcontain.anatomy import Anatomy
from nbcontain.archives import Archives
from nbcontain.bases import HOST_IMAGE, Bases
from nbcontain.build.context import ContentCache
from nbcontain.build.inputs import DockerfileSource
from nbcontain.build.named import NamedSource
from nbcontain.build.operations import Workshop, timestamp
from nbcontain.build.plan import BuildOptions
from nbcontain.build.sources import Source
from nbcontain.builder import Builder, BuildTask
from nbcontain.consoles import Consoles
from nbcontain.containers import Containers
from nbcontain.errors import Cancelled, ContainerError, InUse, NotRunning, SetupFailed, UsageError
from nbcontain.events import Emit, Finished, Notice, Output, Record, Started
from nbcontain.filters import CONTAINERS, IMAGES, Filters, chosen_containers, chosen_images
from nbcontain.host import Host, is_root
from nbcontain.housekeeping import Housekeeping
from nbcontain.manifests import Manifests
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.outcomes import RunResult, Tail, result_of
from nbcontain.profiles import Profile, choose, storage_driver
from nbcontain.registry.registries import Registries
from nbcontain.resources import Resources
from nbcontain.runtime.bundle import Bundle, ContainerInfo
from nbcontain.runtime.container import Container, Launcher, Leash
from nbcontain.runtime.emulation import explained
from nbcontain.runtime.generate import ExecOptions, RunOptions, generate, passed_on
from nbcontain.soundness import Soundness
from nbcontain.store import Store, files, gc
from nbcontain.store.layout import Layout
from nbcontain.store.stacks import Stacks
from nbcontain.task import Task

T = TypeVar("T")
_NONE: Mapping[str, NamedSource] = {}


class Engine:
    """Everything a user can ask. Long work comes back as a `Task`; the rest answers at once.

    Opening one costs nothing; the store is opened and the host is probed when something needs them.
    Any number of engines, in any number of processes, may share a root directory.
    """

    def __init__(self, root: Path | str | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.environ = os.environ if environ is None else environ
        self._root = Path(root).absolute() if root else None
        self.contents = ContentCache()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the helper processes. Detached containers go on."""
        if "launcher" in self.__dict__:
            self.launcher.close()

    # --- what there is to work with ---

    @cached_property
    def layout(self) -> Layout:
        return Layout(self._root) if self._root else Layout.default(self.environ, is_root=is_root())

    @cached_property
    def host(self) -> Host:
        """What this machine allows, found by trying, remembered until the next boot."""
        # In the store's own directory, since that is where overlays will have to work.
        return Host.detect(self.store.layout.root, cache=self.layout.host_facts)

    def fresh_host(self) -> Host:
        """The same, tried again now."""
        files.unlink(self.layout.host_facts)
        for name in ("host", "profile"):
            self.__dict__.pop(name, None)
        return self.host

    @cached_property
    def profile(self) -> Profile:
        return choose(self.host)

    @cached_property
    def store(self) -> Store:
        return Store.open(
            self.layout.root, self._remove_tree, userxattr=not is_root(), copy_tree=self._copy_tree,
            driver=lambda: storage_driver(self.host, self.environ)[0],
        )  # fmt: skip

    @cached_property
    def soundness(self) -> Soundness:
        return Soundness(self.store, lambda layers, emit: self.workshop(emit).unpack(layers))

    @cached_property
    def anatomy(self) -> Anatomy:
        return Anatomy(self)

    @cached_property
    def housekeeping(self) -> Housekeeping:
        return Housekeeping(self)

    @cached_property
    def bases(self) -> Bases:
        return Bases(self)

    @cached_property
    def archives(self) -> Archives:
        return Archives(self)

    @cached_property
    def resources(self) -> Resources:
        return Resources(self)

    @cached_property
    def manifests(self) -> Manifests:
        return Manifests(self)

    @cached_property
    def launcher(self) -> Launcher:
        return Launcher(self.host, functions=("nbcontain.build.copier",))

    @cached_property
    def registry(self) -> Registries:
        return Registries(lambda: Stacks(self.store, self.launcher, self.host.ids, self.profile.runs), self.environ)

    def _remove_tree(self, path: Path) -> None:
        """Remove a directory whose files may belong to ids that only a container can name."""
        self.launcher.remove_tree(path)

    def _copy_tree(self, root: Path, source: Path, target: Path, index: Path | None, *, linked: bool) -> None:
        """Copy a snapshot, whose files may belong to such ids too."""
        self.launcher.copy_tree(root, source, target, index, linked=linked)

    def warm(self) -> None:
        """Start what the first build or run would otherwise wait for. Returns at once."""
        if self.profile.runs:
            self.launcher.warm()

    # --- images ---

    def images(self, filters: Sequence[str] = ()) -> list[tuple[Reference | None, Image]]:
        """Every name and its image; None for an image without a name. Newest first.

        `filters` are docker's, as in "label=team" and "dangling=true".
        """
        found = sorted(self.store.images.list(), key=lambda each: each[1].config.created, reverse=True)
        return chosen_images(self, found, Filters.parse(filters, IMAGES)) if filters else found

    def image(self, name: str) -> Image:
        """An image by name, digest or the beginning of its id, or NAME@step3 of a build. Raises ImageNotFound."""
        return self.builder.state(name) or self.store.images.find(name)

    def tag(self, source: str, target: str) -> Reference:
        """Give an image a further name; a name that pointed elsewhere moves."""
        reference = Reference.parse(target)
        if (index := self.store.images.find_index(source)) is not None:
            self.store.images.put_index(index, reference)
        else:
            self.store.images.tag(self.image(source), reference)
        return reference

    def remove_image(self, name: str, *, force: bool = False) -> list[str]:
        """Take a name away, and the image with its last name. Says what went, as docker does. Raises InUse."""
        return self.housekeeping.remove_image(name, force=force)

    def from_host(self, tag: str = "host", programs: Sequence[str] = ()) -> Task[Image]:
        """Make a small image out of this machine's own shell, coreutils and Python, and of `programs`."""
        return self.bases.from_host(tag, programs)

    def build(
        self, dockerfile: DockerfileSource, options: BuildOptions | None = None, *, context: Source | None = None,
        contexts: Mapping[str, NamedSource] = _NONE,
    ) -> BuildTask:  # fmt: skip
        """Make an image from the text of a Dockerfile. Raises DockerfileError at once for what cannot be read.

        `context` is a directory, a tar archive, or names and what is in them: text, bytes, paths, DataFrames. So are
        `contexts` by name, or images.
        """
        options = options or BuildOptions()
        return self.builder.build(dockerfile, options.with_contexts(context, contexts))

    @cached_property
    def builder(self) -> Builder:
        return Builder(self)

    def workshop(self, emit: Emit) -> Workshop:
        return Workshop(
            store=self.store, launcher=self.launcher, host=self.host, emit=emit,
            require=lambda what: self.profile.require(self.host, what), can_run=self.profile.runs,
        )  # fmt: skip

    def prune(self) -> int:
        """Remove what no name, container or recent build needs. Gives the bytes that became free."""
        return gc.collect(self.store, self.owners).size_bytes

    def owners(self) -> list[str]:
        """The keys of active snapshots that belong to a container, for gc, which holds the store's lock meanwhile."""
        self.resources.sweep()
        self._containers.sweep(self.store.overlays.remove_tree)
        return [each.id for each in self.containers()]

    # --- containers ---

    def containers(self, filters: Sequence[str] = ()) -> list[Container]:
        """Every container that is whole, newest first. `filters` are docker's: "status=exited"."""
        found = self._containers.all()
        return chosen_containers(self, found, Filters.parse(filters, CONTAINERS)) if filters else found

    def container(self, name: str) -> Container:
        """A container by name, id or the beginning of its id. Raises ContainerNotFound."""
        return self._containers.get(name)

    def running(self, name: str) -> Container:
        """A container of that name that runs. Raises ContainerNotFound, NotRunning."""
        container = self.container(name)
        if (status := container.status) != "running":
            hint = f"%container start {container.name}"
            raise NotRunning(f"{container.name} is not running", why=f"it is {status}", hint=hint)
        return container

    @cached_property
    def consoles(self) -> Consoles:
        return Consoles(self)

    @cached_property
    def _containers(self) -> Containers:
        return Containers(self.layout)

    def create(self, options: RunOptions) -> Container:
        """A container that is not started: its bundle and its writable layer. Raises ImageNotFound, NameTaken."""
        container = self.create_held(options, lambda event: None)
        # Whoever starts it takes the lock again; until then nobody is in its way, nor in that of who removes it.
        container.bundle.unlock()
        return container

    def create_held(self, options: RunOptions, emit: Emit) -> Container:
        """The same, with its lock held until it is launched."""
        self.profile.require(self.host, "run")
        reference = self._run_image(options.image, emit)
        state = None if reference else self.builder.state(options.image)
        image = state or (self.store.images.get(reference) if reference else self.registry.to_run(options, emit))
        container_id = secrets.token_hex(32)
        path = self.layout.container(container_id)
        spec = generate(image.config, options, self.host, files=path, hostname=container_id[:12], environ=self.environ)
        info = ContainerInfo(
            id=container_id,
            name=options.name and names.checked(options.name),
            image=self._shown_name(options.image, image),
            image_id=str(image.id),
            command=spec.process.args,
            created=timestamp(),
            remove=options.remove,
            limited=bool(spec.linux.resources),
            terminal=options.tty,
            labels={**image.config.labels, **_pairs(options.labels)},
            stop_timeout_s=float(options.stop_timeout),
            options={"network": options.network, "platform": str(image.config.platform)},
            stop_signal=options.stop_signal or image.config.stop_signal or "SIGTERM",
        )
        with self.store.shared():
            self.workshop(emit).unpack(image.layers)
            active = self.store.snapshots.prepare(container_id, image.chain_id, durable=not options.remove)
            try:
                with self._containers.naming(info) as named:
                    bundle = Bundle.write(path, spec, active.mounts, named)
            except BaseException:
                self.store.snapshots.discard(active)
                raise
        return Container(bundle)

    def _run_image(self, name: str, emit: Emit) -> Reference | None:
        """The image `host` is made when it is first asked for."""
        return HOST_IMAGE if name in ("host", "host:latest") and self.bases.image(HOST_IMAGE, emit) else None

    def _shown_name(self, asked: str, image: Image) -> str:
        """The name as it was asked for, as with docker."""
        return asked if any(_means(asked, each) for each, _ in self.store.images.list() if each) else image.id.short

    def run(self, options: RunOptions) -> Task[RunResult | Container]:
        """Make a container and run it. Detached, the task ends when it runs and gives the Container.

        Otherwise it ends with the container and gives a RunResult; it raises ContainerFailed unless the
        exit code is 0. Cancelling it ends the container.
        """
        leash = None if options.detach else Leash()

        def body(emit: Emit) -> RunResult | Container:
            container = self.create_held(options, emit)
            stdin = 0 if options.interactive and not options.tty else None
            if leash is None:
                self.launch(container, None, stdin)
                return container
            # Followed before it is started: with --rm it may be forgotten a moment later.
            with leash, closing(container.follow()) as records:
                self.launch(container, leash, stdin)
                return self._attend(container, records, emit)

        task = Task(f"run {options.image}", body)
        if leash is not None:
            task.on_cancel(leash.let_go)
        return task

    def launch(self, container: Container, leash: Leash | None, stdin: int | None) -> None:
        """Run a container for the first time; one that cannot be started is forgotten."""
        try:
            container.launch(self.launcher, leash=leash, stdin=stdin, start=True)
        except BaseException as error:
            self.remove_container(container, force=True)
            if isinstance(error, SetupFailed):
                raise explained(error, str(container.info.options.get("platform", ""))) from error
            raise

    def _attend(self, container: Container, records: Iterable[Record], emit: Emit) -> RunResult:
        """Pass on what a container writes until it ends, which a cancellation brings about."""
        output = Tail()
        code: int | None = None
        told = Notice("", "")
        try:
            for record in records:
                emit(record.event)
                match record.event:
                    case Output():
                        output.add(record.event)
                    case Notice() as told:
                        pass
                    case Finished(exit_code=exit_code):
                        code = exit_code
        except Cancelled:
            container.settle()
            raise
        return result_of(container.info.id, container.info.name, code, output, told)

    def start(self, container: Container, *, stdin: int | None = None) -> None:
        """Run a stopped container again, in its own layer as it was left. Nothing if it runs."""
        if container.status == "running":
            return
        self.profile.require(self.host, "start")
        container.launch(self.launcher, start=True, stdin=stdin)

    def stop(self, container: Container, timeout_s: float | None = None) -> None:
        """Send the stop signal, and SIGKILL after `timeout_s`, which is the container's own unless given."""
        if container.status == "running":
            self.resources.thaw(container)
            container.stop(timeout_s)

    def restart(self, container: Container, timeout_s: float | None = None) -> None:
        self.stop(container, timeout_s)
        self.start(container)

    def kill(self, container: Container, number: int = signal.SIGKILL) -> None:
        """Send the container's first process a signal. Raises NotRunning."""
        self.resources.thaw(container, number)
        container.kill(number)

    def wait_all(self, containers: Sequence[Container], wrap: Callable[[tuple[str, ...]], T]) -> Task[T]:
        """Wait for all of them to end; the task gives their exit codes, wrapped."""

        def body(emit: Emit) -> T:
            codes = []
            for each in containers:
                while (code := each.wait(0.2)) is None:
                    emit(Started(each.id, each.name))  # strikes when nobody waits any more
                codes.append(str(code))
            return wrap(tuple(codes))

        return Task("wait", body)

    def remove_container(self, container: Container, *, force: bool = False) -> None:
        """Remove a container and its layer. Raises InUse for a running one unless forced: then it is killed."""
        if container.status in ("running", "created") and container.bundle.is_alive():
            if not force:
                raise InUse(
                    f"{container.name} is running",
                    hint=f"%container stop {container.name} first, or rm -f, which kills it",
                )
            self.resources.thaw(container)
            with suppress(ContainerError):
                # It may end, and with --rm be forgotten, while we ask.
                container.kill(signal.SIGKILL)
                container.wait(5)
        container.bundle.end_orphan()
        self.resources.group(container).remove(timeout_s=0.2)
        with self.store.shared():
            container.bundle.remove(self.store.overlays.remove_tree)
            self.store.snapshots_of(container.id).discard(container.id)

    def exec(self, options: ExecOptions) -> Task[RunResult]:
        """Run a further program in a running container. Raises NotRunning, CommandNotFound, ContainerFailed."""
        container = self.running(options.name)
        if not options.command:
            raise UsageError(f"exec {options.name}: which program?", hint=f"%container exec {options.name} ls /")

        def body(emit: Emit) -> RunResult:
            output = Tail()
            task = f"exec-{secrets.token_hex(4)}"

            def on_output(stream: Any, data: bytes) -> None:
                event = Output(task, stream, data)
                output.add(event)
                emit(event)

            emit(Started(task, " ".join(options.command)))
            code = container.exec(
                options.command, env=passed_on(options.environment, self.environ), cwd=options.workdir,
                user=options.user, on_output=on_output, stdin=0 if options.interactive else None, leash=leash,
            )  # fmt: skip
            emit(Finished(task, "done" if code == 0 else "failed", exit_code=code))
            return result_of(container.id, container.name, code, output)

        leash = Leash()
        task = Task(f"exec {options.name}", body)
        task.on_cancel(leash.let_go)
        return task

    def diff(self, container: Container) -> list[tuple[str, str]]:
        """What a container changed in its own layer: (A, C or D, path), sorted by path."""
        return self.store.changes(container.id, self.launcher, skip=container.bundle.stubs())


def _means(name: str, reference: Reference) -> bool:
    try:
        return Reference.parse(name) == reference
    except Exception:  # noqa: BLE001 - an id, then
        return False


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts)
