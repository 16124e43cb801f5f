"""Everything a user can ask, each in a few lines of the floors below.

What only some requests need is imported by them: `ps` on a terminal should not wait for the builder's modules.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nbcontain.containers import Containers
from nbcontain.errors import NotRunning
from nbcontain.events import Emit
from nbcontain.filters import CONTAINERS, IMAGES, Filters, chosen_containers, chosen_images
from nbcontain.handles import Container
from nbcontain.host import Host, is_root, user
from nbcontain.nouns import Noun
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.outcomes import RunResult, waited
from nbcontain.profiles import ISOLATION, Profile, choose, ids_of, storage_driver
from nbcontain.runtime.container import Container as Handle
from nbcontain.settings import Settings
from nbcontain.store import Store, files
from nbcontain.store.layout import Layout
from nbcontain.store.place import Place, place, refuse_anothers
from nbcontain.task import Task
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.anatomy import Anatomy
    from nbcontain.archives import Archives
    from nbcontain.bases import Bases
    from nbcontain.build.inputs import DockerfileSource
    from nbcontain.build.named import NamedSource
    from nbcontain.build.operations import Workshop
    from nbcontain.build.plan import BuildOptions
    from nbcontain.build.sources import Source
    from nbcontain.builder import Builder, BuildTask
    from nbcontain.compose.projects import Compose
    from nbcontain.consoles import Consoles
    from nbcontain.explorer import Explorer
    from nbcontain.happenings import Events
    from nbcontain.housekeeping import Housekeeping
    from nbcontain.kernels import Kernels
    from nbcontain.life import Life
    from nbcontain.manifests import Manifests
    from nbcontain.mounting import Mounter
    from nbcontain.networks import Networks
    from nbcontain.pages import Pages
    from nbcontain.processes import Processes
    from nbcontain.registry.registries import Registries
    from nbcontain.resources import Resources
    from nbcontain.runtime.generate import ExecOptions, RunOptions
    from nbcontain.runtime.launcher import Launcher
    from nbcontain.runtime.spares import Foretell
    from nbcontain.runtime.zygotes import Zygote
    from nbcontain.serving import Serving
    from nbcontain.soundness import Soundness
    from nbcontain.store.rooted_links import RootedLinks
    from nbcontain.store.stacks import Stacks
    from nbcontain.transfers import Transfers
    from nbcontain.volumes import Volumes
    from nbcontain.xray import Sides

_NONE: Mapping[str, NamedSource] = {}


class Engine:
    """Everything a user can ask. Long work comes back as a `Task`; the rest answers at once.

    Opening one costs nothing; the store is opened and the host is probed when something needs them.
    Any number of engines, in any number of processes, may share a root directory.
    """

    anatomy: Noun[Anatomy] = Noun("nbcontain.anatomy")
    archives: Noun[Archives] = Noun("nbcontain.archives")
    bases: Noun[Bases] = Noun("nbcontain.bases")
    builder: Noun[Builder] = Noun("nbcontain.builder")
    compose: Noun[Compose] = Noun("nbcontain.compose.projects")
    consoles: Noun[Consoles] = Noun("nbcontain.consoles")
    events: Noun[Events] = Noun("nbcontain.happenings")
    explorer: Noun[Explorer] = Noun("nbcontain.explorer")
    housekeeping: Noun[Housekeeping] = Noun("nbcontain.housekeeping")
    kernels: Noun[Kernels] = Noun("nbcontain.kernels")
    life: Noun[Life] = Noun("nbcontain.life")
    manifests: Noun[Manifests] = Noun("nbcontain.manifests")
    mounter: Noun[Mounter] = Noun("nbcontain.mounting")
    networks: Noun[Networks] = Noun("nbcontain.networks")
    pages: Noun[Pages] = Noun("nbcontain.pages")
    processes: Noun[Processes] = Noun("nbcontain.processes")
    resources: Noun[Resources] = Noun("nbcontain.resources")
    serving: Noun[Serving] = Noun("nbcontain.serving")
    sides: Noun[Sides] = Noun("nbcontain.xray")
    transfers: Noun[Transfers] = Noun("nbcontain.transfers")
    volumes: Noun[Volumes] = Noun("nbcontain.volumes")

    def __init__(
        self, root: Path | str | None = None, environ: Mapping[str, str] | None = None, zygote: Zygote | None = None,
        *, keeps: str = "",
    ) -> None:  # fmt: skip
        """`zygote` is one that was begun with beforehand; `keeps` is --userns keep-id, as for all its containers."""
        self.environ: Mapping[str, str] = Settings(os.environ) if environ is None else environ
        self._root = Path(root).absolute() if root else None
        self._zygote = zygote
        self._others: dict[str, Engine] = {}
        self.keeps = keeps
        self.waits: Callable[[Task[Any], Any], Any] = lambda task, kind: waited(task)
        """How a task that Python asked for is waited for; `kind` says under which card, where there are cards."""
        self.ordinary = self
        """The one that layers are unpacked by, also where `keeps` says that the user keeps its own id."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the helper processes, and what is written in the background. Detached containers go on."""
        if "launcher" in self.__dict__:
            self.launcher.close()
        if "networks" in self.__dict__:
            self.networks.close()
        if "store" in self.__dict__:
            self.store.close()
        for other in self._others.values():
            other.close()

    # --- what there is to work with ---

    @cached_property
    def place(self) -> Place:
        """Where the store is, and why not where one would look for it. Raises StoreError."""
        found = Place(Layout(self._root)) if self._root else place(self.environ, user())
        refuse_anothers(found.layout)
        return found

    @cached_property
    def layout(self) -> Layout:
        return self.place.layout

    @cached_property
    def host(self) -> Host:
        """What this machine allows, found by trying, remembered until the next boot."""
        # In the store's own directory, since that is where overlays will have to work.
        found = Host.detect(self.store.layout.root, cache=self.layout.host_facts)
        ids = ids_of(choose(found, self.environ.get(ISOLATION, "")), found)
        if self.keeps:
            from nbcontain.id_ranges import kept

            ids = kept(self.keeps, replace(found, ids=ids))
        return replace(found, ids=ids)

    def fresh_host(self) -> Host:
        """The same, tried again now."""
        files.unlink(self.layout.host_facts)
        for name in ("host", "profile"):
            self.__dict__.pop(name, None)
        return self.host

    @cached_property
    def profile(self) -> Profile:
        return choose(self.host, self.environ.get(ISOLATION, ""))

    def isolated(self, rung: str) -> Engine:
        """An engine on the same store whose containers are shut in by that rung of the ladder; "" is this one itself.

        What is wrong with the rung is raised by the first thing that needs to know.
        """
        if not rung or rung == self.profile.name:
            return self
        if rung not in self._others:
            # Two threads may make one at the same time; both are given the one that `close` knows.
            self._others.setdefault(rung, Engine(self._root, {**self.environ, ISOLATION: rung}))
        return self._others[rung]

    def keeping(self, userns: str) -> Engine:
        """An engine on the same store in whose containers the user keeps its id; "" is this one itself."""
        if not userns.startswith("keep-id") or userns == self.keeps:
            return self
        if userns not in self._others:
            other = Engine(self._root or self.layout.root, self.environ, keeps=userns)
            other.ordinary = self
            self._others.setdefault(userns, other)
        return self._others[userns]

    def of(self, container: Handle) -> Engine:
        """The engine for what is of this container's ids, and shut in as it is."""
        return self.isolated(container.info.rung).keeping(str(container.info.options.get("userns", "")))

    @cached_property
    def store(self) -> Store:
        return Store.open(
            self.layout.root, self._remove_tree, userxattr=not is_root(), copy_tree=self._copy_tree,
            driver=lambda: storage_driver(self.host, self.environ, self.profile)[0],
            shown=self._shown,
        )  # fmt: skip

    @cached_property
    def soundness(self) -> Soundness:
        from nbcontain.soundness import Soundness

        return Soundness(self.store, lambda layers, _: self.stacks.unpack(layers), lambda: self.networks.settle())

    @cached_property
    def launcher(self) -> Launcher:
        from nbcontain.runtime.launcher import Launcher

        functions = ("nbcontain.build.copier", "nbcontain.build.survey")
        return Launcher(self.host, functions, self.profile.rung, self._zygote)

    @cached_property
    def stacks(self) -> Stacks:
        from nbcontain.store.stacks import Stacks

        return Stacks(self.store, self.launcher, self.host.ids, self.profile.runs)

    @cached_property
    def registry(self) -> Registries:
        from nbcontain.registry.registries import Registries

        return Registries(lambda: self.stacks, self.environ, settled=lambda: self.housekeeping.collect(wait=False))

    def _remove_tree(self, path: Path) -> None:
        """Remove a directory whose files may belong to ids that only a container can name."""
        self.launcher.remove_tree(path)

    def _shown(self) -> tuple[bytes, ...] | None:
        """What of this machine is seen in trees that are a root to their programs alone; None where they are one."""
        if self.profile.rung.root != "preload":
            return None
        from nbcontain.runtime.preloaded import SHOWN

        return SHOWN

    def _copy_tree(
        self, root: Path, source: Path, target: Path, index: Path | None, *, linked: bool,
        links: RootedLinks | None = None,
    ) -> bool:  # fmt: skip
        """Copy a snapshot, whose files may belong to such ids too."""
        return self.launcher.copy_tree(root, source, target, index, linked=linked, links=links)

    def warm(self) -> None:
        """Start what the first build or run would otherwise wait for. Returns at once."""
        if self.profile.runs:
            self.launcher.warm()
            self.networks.warm()

    # --- images ---

    def images(self, filters: Sequence[str] = ()) -> list[tuple[Reference | None, Image]]:
        """Every name and its image; None for an image without a name. Newest first.

        `filters` are docker's, as in "label=team" and "dangling=true".
        """
        found = sorted(self.store.images.list(), key=lambda each: each[1].config.created, reverse=True)
        return chosen_images(self, found, Filters.parse(filters, IMAGES)) if filters else found

    def image(self, name: str) -> Image:
        """An image by name, digest or the beginning of its id, or NAME@step3 of a build. Raises ImageNotFound."""
        return self.bases.state(name) or self.store.images.find(name)

    def tag(self, source: str, target: str) -> Reference:
        """Give an image a further name; a name that pointed elsewhere moves."""
        reference = Reference.new(target)
        if (index := self.store.images.find_index(source)) is not None:
            self.store.images.put_index(index, reference)
            tagged = index.digest
        else:
            self.store.images.tag(image := self.image(source), reference)
            tagged = image.id
        self.events.record("image", "tag", str(tagged), {"name": reference.familiar})
        return reference

    def remove_image(self, name: str, *, force: bool = False) -> list[str]:
        """Take a name away, and the image with its last name. Says what went, as docker does. Raises InUse."""
        return self.housekeeping.remove_image(name, force=force)

    def from_host(
        self, tag: str = "host", programs: Sequence[str] = (), packages: Sequence[str] = ()
    ) -> Task[Image]:
        """Make a small image out of this machine's own shell, coreutils and Python, of `programs` and `packages`."""
        return self.bases.from_host(tag, programs, packages)

    def build(
        self, dockerfile: DockerfileSource, options: BuildOptions | None = None, *, context: Source | None = None,
        contexts: Mapping[str, NamedSource] = _NONE,
    ) -> BuildTask:  # fmt: skip
        """Make an image from the text of a Dockerfile. Raises DockerfileError at once for what cannot be read.

        `context` is a directory, a tar archive, or names and what is in them: text, bytes, paths, DataFrames. So are
        `contexts` by name, or images.
        """
        from nbcontain.build.plan import BuildOptions

        return self.builder.build(dockerfile, (options or BuildOptions()).with_contexts(context, contexts))

    def workshop(self, emit: Emit) -> Workshop:
        """What a build's operations work with."""
        from nbcontain.build.operations import Workshop

        return Workshop(self, emit=emit)

    def prune(self) -> int:
        """Remove what no name, container or recent build needs. Gives the bytes that became free."""
        from nbcontain.store import gc

        return gc.collect(self.store, self.owners).size_bytes

    def owners(self) -> list[str]:
        """The keys of active snapshots that belong to a container, for gc, which holds the store's lock meanwhile."""
        self.resources.sweep()
        self._containers.sweep(self.store.overlays.remove_tree)
        self.volumes.sweep()
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
            shown = container.name
            raise NotRunning(f"{shown} is not running", why=f"it is {status}", hint=f"%container start {shown}")
        return container

    @cached_property
    def _containers(self) -> Containers[Container]:
        return Containers(self.layout, lambda bundle: Container(bundle, self))

    def create(self, options: RunOptions) -> Container:
        """A container that is not started: its bundle and its writable layer. Raises ImageNotFound, NameTaken."""
        container = self.create_held(options, lambda event: None)
        # Whoever starts it takes the lock again; until then nobody is in its way, nor in that of who removes it.
        container.bundle.unlock()
        return container

    def create_held(self, options: RunOptions, emit: Emit, foretell: Foretell | None = None) -> Container:
        """The same, with its lock held until it is launched; `foretell` is of the launcher that is going to do that."""
        from nbcontain.making import made

        return made(self, self._containers, options, emit, foretell)

    def run(
        self, options: RunOptions, *, stdin: Any = None,
        around: Callable[[Container], AbstractContextManager[object]] = nullcontext, fills: bool | None = None,
    ) -> Task[RunResult | Container]:  # fmt: skip
        """Make a container and run it. Detached, the task ends when it runs and gives the Container.

        Otherwise it ends with the container and gives a RunResult; it raises ContainerFailed unless the
        exit code is 0, or that is no error. Cancelling it ends the container. `stdin` is text, bytes or a Path.
        `around` is entered when the container is made and has not been started, and left when the task ends; `fills`
        says whether it may put files into it.
        """
        from nbcontain import standard_input
        from nbcontain.runtime.generate import streams
        from nbcontain.runtime.leash import Leash

        leash = None if options.detach else Leash(hears=True)
        seen = streams(options)
        fills = around is not nullcontext if fills is None else fills
        launchers: list[Launcher] = []

        def expecting() -> AbstractContextManager[Foretell | None]:
            # Only now: who begins with a task does not wait until it is known what this machine can.
            if not self.profile.runs:
                return nullcontext()
            launchers.append(self.launcher)
            return self.launcher.expecting(untouched=not fills)

        def expect_more() -> None:
            for each in launchers:
                each.expect_more()

        def body(emit: Emit) -> RunResult | Container:
            reads = options.interactive and not (options.tty or options.detach) and "stdin" in seen
            with (
                leash or nullcontext(),
                expecting() as foretell,
                # Opened first: for what cannot be read no container is made.
                standard_input.opened(stdin, interactive=reads) as fd,
                self.life.entered(around, container := self.create_held(options, emit, foretell)),
            ):
                if leash is None:
                    self.life.launch(container, None, fd, emit)
                    return container
                # Followed before it is started: with --rm it may be forgotten a moment later.
                with closing(container.follow(ending=leash.ending)) as records:
                    self.life.launch(container, leash, fd, emit)
                    return self.life.attend(container, records, emit, check=not options.no_raise, seen=seen)

        task = Task(f"run {options.image}", body)
        if leash is not None:
            task.on_cancel(leash.let_go)
        # Once it has ended: to ask for a spare keeps us, and whoever has spares, from other things for a moment.
        task.on_done(expect_more)
        return task

    def start(self, container: Handle, *, stdin: int | None = None) -> None:
        """Run a stopped container again, in its own layer as it was left. Nothing if it runs."""
        self.life.start(container, stdin=stdin)

    def stop(self, container: Handle, timeout_s: float | None = None) -> None:
        """Send the stop signal, and SIGKILL after `timeout_s`, which is the container's own unless given."""
        self.life.stop(container, timeout_s)

    def restart(self, container: Handle, timeout_s: float | None = None) -> None:
        """Stop a container, if it runs, and run it again."""
        self.life.restart(container, timeout_s)

    def kill(self, container: Handle, number: int = signal.SIGKILL) -> None:
        """Send the container's first process a signal. Raises NotRunning."""
        self.life.kill(container, number)

    def remove_container(self, container: Handle, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container and its layer. Raises InUse for a running one unless forced: then it is killed."""
        self.life.remove(container, force=force, volumes=volumes)

    def exec(
        self, options: ExecOptions, *, stdin: Any = None,
        around: Callable[[Container], AbstractContextManager[object]] = nullcontext,
    ) -> Task[RunResult]:  # fmt: skip
        """Run a further program in a running container. Raises NotRunning, CommandNotFound, ContainerFailed.

        `stdin` is text, bytes or a Path; `around` is entered before the program begins, and left when it has ended.
        """
        return self.consoles.exec_task(options, stdin, around)

    def diff(self, container: Handle) -> list[tuple[str, str]]:
        """What a container changed in its own layer: (A, C or D, path), sorted by path."""
        return self.store.changes(container.id, self.launcher, skip=container.bundle.stubs())
