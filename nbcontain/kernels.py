"""Jupyter kernels that run inside of images: known to Jupyter, started, ended. `engine.kernels`.

A kernel and whoever talks to it meet at sockets in a directory that both see, so that the container needs no network.
Jupyter starts it by `nbcontain.provisioner`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain.errors import ContainerFailed, NameTaken, NbcontainError, NotRunning, StoreError, Unavailable, UsageError
from nbcontain.events import Notice
from nbcontain.kernel_places import SOCKETS, KernelPlace
from nbcontain.kernelspecs import PROVISIONER, chosen, kernelspec, logo, searched
from nbcontain.options import option, parse, with_defaults, words_of
from nbcontain.runtime.confinement import ConfinementOptions
from nbcontain.runtime.generate import ProgramOptions, RunOptions
from nbcontain.runtime.grants import GrantOptions
from nbcontain.runtime.kernel_work import NAME as WORK
from nbcontain.runtime.leash import Leash
from nbcontain.runtime.mounts import MountOptions
from nbcontain.runtime.networking import NetworkOptions
from nbcontain.runtime.resources import LimitOptions, ThrottleOptions
from nbcontain.store import files, removal
from nbcontain.task import Task
from nbcontain.values import dataclass, fields, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.events import Emit, Event, Record
    from nbcontain.outcomes import RunResult
    from nbcontain.runtime.container import Container

LABEL = "org.nbcontain.kernel"
"""The label of a kernel's container; its value is what Jupyter calls the kernel."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE)
_DOCUMENT_BYTES = 1 << 20
_HERE = re.compile(r"(?P<before>^|,)(?P<key>source|src)=(?P<path>\.{1,2}(?:/[^,]*)?)(?=,|$)")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class KernelOptions(
    ProgramOptions, NetworkOptions, MountOptions, LimitOptions, ConfinementOptions, GrantOptions, ThrottleOptions
):
    """How a kernel's container is run: what `run` can be told, less what makes no sense for a kernel."""

    kernel: str = option("--kernel", help="which of the image's kernels, where it has several", metavar="NAME")


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """A kernel that Jupyter knows: what its kernel.json says."""

    name: str
    display_name: str
    image: str
    options: tuple[str, ...]
    """How its container is run, in `run`'s words."""
    argv: tuple[str, ...]
    root: str
    """The store that has the image."""
    directory: Path

    def __repr__(self) -> str:
        words = f"  {' '.join(self.options)}" if self.options else ""
        return f"<Kernel {self.name}  {self.display_name!r}  {self.image}{words}>"


class Kernels:
    """The kernels of one engine's images."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- what Jupyter knows ---

    def add(
        self, image: str, options: KernelOptions, emit: Emit, *, name: str = "", display_name: str = "",
        directory: Path | None = None,
    ) -> KernelEntry:  # fmt: skip
        """Make a kernel of an image known to Jupyter; one of ours that has the name is replaced.

        The image is asked which kernel it has. Kernelspecs go into the user's own `directory` unless told. Raises
        ImageNotFound, UsageError where the image has no kernel, NameTaken for a kernel of somebody else's.
        """
        engine = self._engine.isolated(options.isolation)
        _require(engine)
        kernel = name or _name_of(image)
        if not _NAME.fullmatch(kernel):
            raise UsageError(f"--name {kernel}: a kernel's name has letters, digits, - . and _ alone")
        engine.bases.to_run(RunOptions(image=image, pull=options.pull, platform=options.platform), emit)
        found = chosen(self._search(engine, image, emit), options.kernel, image)
        place = (directory or kernels_directory()) / kernel
        if place.exists() and _entry(place) is None:
            raise NameTaken(
                f"Jupyter has a kernel {kernel} already, which is none of nbcontain's", why=str(place),
                hint="choose another --name",
            )  # fmt: skip
        words = words_of(replace(options, kernel="", environment=(*found.environment, *options.environment)))
        is_alone = "none" in ((options.network,) if isinstance(options.network, str) else options.network)
        shown = display_name or f"{found.display_name} in {image}" + (", no network" if is_alone else "")
        document = kernelspec(found, shown, image, words, str(engine.layout.root))
        files.make_directory(place, 0o755, durable=False)
        files.replace(place / "logo-svg.svg", logo(found.language).encode(), 0o644, durable=False)
        files.replace(place / "kernel.json", json.dumps(document, indent=1).encode(), 0o644, durable=False)
        entry = _entry(place)
        assert entry is not None
        if not _is_startable():
            emit(Notice(
                "", f"this Python's Jupyter does not know how to start {kernel}: its nbcontain is missing or old",
                "pip install nbcontain again where Jupyter runs, and restart Jupyter", kind="warning",
            ))  # fmt: skip
        return entry

    def _search(self, engine: Engine, image: str, emit: Emit) -> Mapping[str, Any]:
        """What a look into the image finds."""
        found = engine.image(image)
        if not found.layers:
            return {"specs": [], "pythons": []}
        with engine.store.shared():
            if not engine.store.snapshots.has_all(found.layers):
                engine.stacks.unpack(found.layers)
            view = engine.store.snapshots.view(found.chain_id)
            return engine.launcher.call("find_kernels", view, searched(found.config.env), imports=(WORK,))

    def all(self, directory: Path | None = None) -> list[KernelEntry]:
        """Those of ours that Jupyter knows, by name; `directory` is one more place to look in."""
        found: dict[str, KernelEntry] = {}
        for place in (*([directory] if directory else []), *_kernel_directories()):
            for name in files.names(place):
                if name not in found and (entry := _entry(place / name)) is not None:
                    found[name] = entry
        return [found[name] for name in sorted(found)]

    def remove(self, name: str) -> None:
        """Make Jupyter forget a kernel of ours; what runs goes on. Raises UsageError for any other."""
        entry = next((each for each in self.all() if each.name == name), None)
        if entry is None:
            raise UsageError(f"Jupyter has no kernel {name} of nbcontain's", hint="%kernel ls lists those there are")
        removal.remove_tree(entry.directory)

    def running(self) -> dict[str, int]:
        """How many of each run now."""
        counts: dict[str, int] = {}
        for each in self._engine.containers(("status=running", f"label={LABEL}")):
            name = each.info.labels[LABEL]
            counts[name] = counts.get(name, 0) + 1
        return counts

    # --- starting one ---

    def place(self) -> KernelPlace:
        """A new directory for a kernel's sockets. What kernels left whose Jupyter was killed goes on the way."""
        return KernelPlace.make(self._engine.environ, self._engine.launcher.remove_tree)

    def start(
        self, image: str, argv: Sequence[str], options: KernelOptions, place: KernelPlace, *, name: str, cwd: Path,
    ) -> RunningKernel:  # fmt: skip
        """Run a kernel in a container of its own that goes with this process. Raises what hindered it."""
        engine = self._engine.isolated(options.isolation)
        _require(engine)
        run = run_options(image, argv, options, place, name=name, cwd=cwd, one_owner=engine.host.ids.is_single)
        return RunningKernel.start(engine, run, place)


def kernel_options(words: Sequence[str]) -> KernelOptions:
    """The options that these words say, which `words_of` gave. Raises UsageError."""
    return parse(KernelOptions, "kernel", "", words, {})


def run_options(
    image: str, argv: Sequence[str], options: KernelOptions, place: KernelPlace, *, name: str, cwd: Path,
    one_owner: bool = False,
) -> RunOptions:  # fmt: skip
    """How a kernel's container is run. What begins with a dot is seen from `cwd`, the notebook's directory. Pure.

    Where that directory itself is mounted, the kernel begins in it, as it would outside. With `one_owner` all ids of a
    container are this user's, and nothing needs to be given away to them.
    """
    workdir, volumes = options.workdir, []
    for text in options.volumes:
        source, colon, rest = text.partition(":")
        if colon and re.match(r"\.{1,2}(/|$)", source):
            if os.path.normpath(source) == "." and not workdir:
                workdir = rest.partition(":")[0]
            source = os.path.normpath(cwd / source)
        volumes.append(f"{source}{colon}{rest}")
    mount = tuple(
        _HERE.sub(lambda m: f"{m['before']}{m['key']}={os.path.normpath(cwd / m['path'])}", text)
        for text in options.mount
    )
    same = {
        each.name: getattr(options, each.name)
        for each in fields(RunOptions) if each.metadata and hasattr(options, each.name)
    }  # fmt: skip
    told = {
        **same, "image": image, "entrypoint": "", "command": tuple(argv), "remove": True, "init": True, "mount": mount,
        "volumes": (*volumes, f"{place.sockets}:{SOCKETS}{'' if one_owner else ':U'}"), "workdir": workdir,
        "labels": (*options.labels, f"{LABEL}={name}"),
    }  # fmt: skip
    return RunOptions(**told)


class RunningKernel:
    """A kernel in its container: on a leash, so that it ends with whoever started it, however that ends."""

    def __init__(self, container: Container, task: Task[RunResult], leash: Leash) -> None:
        self.container = container
        self._task = task
        self._leash = leash

    @classmethod
    def start(cls, engine: Engine, options: RunOptions, place: KernelPlace) -> RunningKernel:
        """Blocks until the program was executed. Raises what hindered it."""
        told: list[Event] = []
        leash = Leash()
        records: Generator[Record] | None = None
        try:
            engine.launcher.warm()
            container = engine.create_held(options, told.append)
            records = container.follow()
            engine.life.launch(container, leash, None, told.append)
        except BaseException:
            leash.let_go()
            if records is not None:
                records.close()
            raise

        def body(emit: Emit) -> RunResult:
            with leash, closing(records):
                place.open(engine.launcher, lambda: container.bundle.is_alive())
                return engine.life.attend(container, records, emit)

        return cls(container, Task(f"kernel {container.name}", body), leash)

    def poll(self) -> int | None:
        """Its exit code once it and its container are gone; never waits."""
        if not self._task.is_done:
            return None
        try:
            return self._task.result().exit_code
        except ContainerFailed as error:
            return error.exit_code
        except NbcontainError:
            return -1

    def last_words(self) -> str:
        """Why it ended, as far as that is known: what was said about it, or what it wrote last."""
        if not self._task.is_done:
            return ""
        try:
            return str(self._task.result()).strip()
        except ContainerFailed as error:
            wrote = str(error.result).strip().splitlines()[-12:]
            return "\n".join([*error.lines(), *wrote])
        except NbcontainError as error:
            return "\n".join(error.lines())

    def signal(self, number: int) -> None:
        """Send the kernel, and nobody else, a signal. Nothing if it is gone."""
        with suppress(NotRunning):
            self.container.send_signal(number)

    def end(self) -> None:
        """Let it go: its container is killed if it still runs, and removed."""
        self._leash.let_go()
        self._task.wait(10)


# --- kernelspecs on the disk ---


def kernels_directory() -> Path:
    """Where Jupyter looks for this user's own kernels."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "kernels"


def _kernel_directories() -> Iterator[Path]:
    from jupyter_core.paths import jupyter_path

    return map(Path, jupyter_path("kernels"))


def _is_startable() -> bool:
    """Whether jupyter_client finds our provisioner in this environment; Jupyter itself may run in another one."""
    from importlib.metadata import entry_points

    return bool(entry_points(group="jupyter_client.kernel_provisioners", name=PROVISIONER))


def _entry(directory: Path) -> KernelEntry | None:
    """What the kernel.json there says; None for a kernel that is not ours."""
    try:
        said = json.loads(files.read(directory / "kernel.json", _DOCUMENT_BYTES))
        given = said["metadata"]["kernel_provisioner"]
        if given["provisioner_name"] != PROVISIONER:
            return None
        config = given["config"]
        return KernelEntry(
            directory.name, str(said["display_name"]), str(config["image"]), tuple(map(str, config["options"])),
            tuple(map(str, config["argv"])), str(config["root"]), directory,
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, StoreError, RecursionError):
        return None


def _name_of(image: str) -> str:
    last = image.partition("@")[0].rpartition("/")[2].removesuffix(":latest")
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-.") or "container"


def _require(engine: Engine) -> None:
    """Raise Unavailable where no kernel can run in a container."""
    engine.profile.require(engine.host, "a kernel in an image")
    if not engine.profile.rung.mounts:
        raise Unavailable(
            f"a kernel in an image cannot be had with isolation {engine.profile.name}",
            why="it is talked to through sockets in a directory that is mounted into its container, and nothing can be "
            "mounted here",
            hint="%nbcontain doctor says what this machine lacks",
        )  # fmt: skip
