"""What `import nbcontain as nb` gives to Python: `nb.run`, `nb.build`, `nb.containers["web"]`.

Names and meanings are docker-py's where it has them. In a notebook everything happens in the same engine as its
magics; elsewhere in one that is made when it is first needed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from nbcontain import keywords
from nbcontain.commands.builds import BuildWords
from nbcontain.commands.inputs import BuildInputs, inputs_of
from nbcontain.engine import Engine
from nbcontain.errors import UsageError
from nbcontain.handles import Container
from nbcontain.images import Image
from nbcontain.outcomes import RunResult, waited
from nbcontain.runtime.generate import RunOptions
from nbcontain.task import Task
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.display.table import Table
    from nbcontain.display.values import Kind
    from nbcontain.display.xrayed import Xrayed
    from nbcontain.housekeeping import Usage
    from nbcontain.lessons.pictures import Judged
    from nbcontain.oci.digest import Digest
    from nbcontain.oci.reference import Reference

T = TypeVar("T")
_MAKING = threading.Lock()


# --- the engine, and how things are shown ---------------------------------------------------------


def engine() -> Engine:
    """The engine that everything here happens in: the notebook's, or this process's own."""
    extension = getattr(_shell(), "nbcontain", None)
    return extension.session.engine if extension is not None else _own_engine()


def _shell() -> Any:
    """The IPython shell that this runs in, if any; IPython is not imported for it."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def _own_engine() -> Engine:
    # Two threads that ask at once get one and the same: `cache` alone would make two.
    with _MAKING:
        return _made_engine()


@cache
def _made_engine() -> Engine:
    made = Engine()
    if (shell := _shell()) is not None:
        from nbcontain.commands.cards import Cards
        from nbcontain.display import formatters
        from nbcontain.display.following import Following
        from nbcontain.display.present import mode

        following = Following(lambda: made.events.between())
        shell.events.register("pre_run_cell", following.rest)
        formatters.register(shell, mode(os.environ, shell), Cards(made).around, lambda value: False, following.show)
    return made


def shown(task: Task[T], kind: Kind) -> T:
    """Wait for a task; in a notebook that has our magics, under its card."""
    result: T = engine().waits(task, kind)
    return result


# --- images ---------------------------------------------------------------------------------------


def build(
    path: str | os.PathLike[str] | None = None, *, dockerfile: str | os.PathLike[str] | None = None,
    context: Mapping[str, Any] | str | os.PathLike[str] | None = None, tag: str | Sequence[str] = (), **options: Any,
) -> Image:  # fmt: skip
    """Make an image: `build("web/", tag="web")`, or `build(dockerfile="FROM alpine\\nCOPY app.py /", context={…})`.

    `path` is the directory that COPY takes files from, and that the Dockerfile is in. Without it `dockerfile` is the
    Dockerfile's text, or its Path; with it the file's name there, as docker-py has it. `context` is a directory, or
    names and what is in them: text, bytes, Paths, DataFrames. `options` are the flags of %image build.
    """
    task = build_task(path, dockerfile=dockerfile, context=context, tag=tag, **options)
    return shown(task, "build")


def build_task(
    path: str | os.PathLike[str] | None = None, *, dockerfile: str | os.PathLike[str] | None = None,
    context: Mapping[str, Any] | str | os.PathLike[str] | None = None, tag: str | Sequence[str] = (), **options: Any,
) -> Task[Image]:  # fmt: skip
    """The same without waiting: a task, which can be awaited."""
    tags = [tag] if isinstance(tag, str) else [*tag]
    words = keywords.options_of(BuildWords, "image build", {**options, **({"tags": tags} if tags else {})})
    given = _inputs(path, dockerfile, context)
    chosen = engine()
    made = chosen.isolated(words.isolation).build(given.dockerfile, words.build_options(given))
    return made.then(lambda image: Image.held(image, chosen))


def _inputs(
    path: str | os.PathLike[str] | None, dockerfile: str | os.PathLike[str] | None,
    context: Mapping[str, Any] | str | os.PathLike[str] | None,
) -> BuildInputs:  # fmt: skip
    """What to build from. Raises UsageError."""
    if path is not None and context is not None:
        raise UsageError("build: a path or a context", why="the path is the context")
    if path is not None:
        if isinstance(dockerfile, str) and "\n" in dockerfile:
            return BuildInputs(dockerfile, Path(path))
        return inputs_of(os.fspath(path), os.fspath(dockerfile) if dockerfile is not None else "")
    files = context if isinstance(context, Mapping) or context is None else Path(context)
    if dockerfile is None:
        if isinstance(files, Mapping) and "Dockerfile" in files:
            return BuildInputs(_text(files["Dockerfile"]), files)
        if isinstance(files, Path):
            return inputs_of(str(files), "")
        raise UsageError("build: of what?", hint='build("directory/"), or build(dockerfile="FROM …")')
    return BuildInputs(dockerfile if isinstance(dockerfile, str) else _text(Path(dockerfile)), files)


def _text(given: Any) -> str:
    from nbcontain.standard_input import bytes_of

    return bytes_of(given).decode("utf-8-sig", "surrogateescape")


def pull(name: str, *, platform: str = "") -> Image:
    """Fetch an image from its registry. Raises RegistryError."""
    return shown(pull_task(name, platform=platform), "pull")


def pull_task(name: str, *, platform: str = "") -> Task[Image]:
    """The same without waiting: a task, which can be awaited."""
    chosen = engine()
    return chosen.registry.pull(name, platform=platform).then(lambda found: Image.held(found[0], chosen))


def push(name: str) -> tuple[tuple[Reference, Digest], ...]:
    """Send an image to its registry, under its name. Gives names and digests. Raises RegistryError."""
    return shown(engine().registry.push(name), "push")


def login(username: str, password: str | None = None, *, registry: str = "docker.io") -> str:
    """Be somebody to a registry from now on. Says where that is kept. Raises Unauthorized.

    Without a password it is asked for: what stands in a cell is saved with the notebook.
    """
    if password is None:
        from nbcontain.standard_input import asked

        password = asked(f"password for {registry}: ", secret=True, otherwise="password=… of a file or a vault")
    if not username or not password:
        raise UsageError("login needs a name and a password")
    return engine().registry.login(registry, username, password)


def logout(registry: str = "docker.io") -> bool:
    """Forget who one is to a registry; False if nobody was logged in."""
    return engine().registry.logout(registry)


def df() -> Usage:
    """What is on the disk, as docker-py calls it: `nb.system.df()`."""
    return shown(engine().housekeeping.usage(), "work")


# --- containers -----------------------------------------------------------------------------------


@overload
def run(image: str | Image, command: Any = None, *, detach: Literal[False] = False, input: Any = None,
        check: bool = True, put: Mapping[str, Any] | None = None, get: str | Sequence[str] = (),
        **options: Any) -> RunResult: ...  # fmt: skip
@overload
def run(image: str | Image, command: Any = None, *, detach: Literal[True], input: Any = None,
        check: bool = True, put: Mapping[str, Any] | None = None, get: str | Sequence[str] = (),
        **options: Any) -> Container: ...  # fmt: skip
def run(
    image: str | Image, command: Any = None, *, detach: bool = False, input: Any = None, check: bool = True,
    put: Mapping[str, Any] | None = None, get: str | Sequence[str] = (), **options: Any,
) -> RunResult | Container:  # fmt: skip
    """Run a program in a container of an image: `run("alpine", ["sh", "-c", "echo $X"], environment={"X": 1}).stdout`.

    A command that is one text is split by the shell's rules. `input` is what the program reads: text, bytes or a Path.
    `put` are paths inside and what is to be there: text, bytes, Paths, DataFrames; `get` are paths that are read when
    it has ended, into the result's `files`. With `detach` it is left running and the Container comes back. `options`
    are the flags of %container run, with docker-py's names and values too. Raises
    ContainerFailed, with `check`, unless the program ends with 0.
    """
    result: RunResult | Container = waited(
        run_task(image, command, detach=detach, input=input, check=check, put=put, get=get, **options)
    )
    return result


def run_task(
    image: str | Image, command: Any = None, *, detach: bool = False, input: Any = None, check: bool = True,
    put: Mapping[str, Any] | None = None, get: str | Sequence[str] = (), **options: Any,
) -> Task[Any]:  # fmt: skip
    """The same without waiting: a task, which can be awaited."""
    return run_later(image, command, detach=detach, input=input, check=check, put=put, get=get, **options)()


def run_later(
    image: str | Image, command: Any = None, *, detach: bool = False, input: Any = None, check: bool = True,
    put: Mapping[str, Any] | None = None, get: str | Sequence[str] = (), **options: Any,
) -> Callable[[], Task[Any]]:  # fmt: skip
    """What begins such a task, on any thread. Raises UsageError, Unavailable now."""
    from nbcontain import objects

    chosen = run_options(image, command, {**options, "detach": detach, "no_raise": not check})
    paths = (get,) if isinstance(get, str) else tuple(get)
    for each in paths:
        if not each.startswith("/"):
            raise UsageError(f"run: get={each!r}", hint="a path inside, as in get='/data/out.csv'")
        objects.require(each)
    if paths and detach:
        raise UsageError("run: get takes files when the program has ended, and detach does not wait for that",
                         hint="container['/data/out.csv'].value, later")  # fmt: skip
    return partial(_begun, engine().isolated(chosen.isolation), chosen, input, put or {}, paths)


def _begun(engine: Engine, options: RunOptions, input: Any, put: Mapping[str, Any], paths: Sequence[str]) -> Task[Any]:
    from nbcontain import objects
    from nbcontain.exchange import Exchange

    files: dict[str, Any] = {}

    def fill(container: Container) -> None:
        for path, value in put.items():
            container.put(value, path)

    def give(_: str, path: str, data: bytes) -> None:
        files[path] = objects.read(path, data)

    exchange = Exchange(gets=tuple((each, each) for each in paths), stdin=input, give=give,
                        prepare=fill if put else None)
    task = exchange.run(engine, options)
    return task.then(lambda result: replace(cast(RunResult, result), files=files)) if paths else task


def run_options(image: str | Image, command: Any, options: Mapping[str, Any]) -> RunOptions:
    """The options that these keywords say. Raises UsageError."""
    name = str(image.id) if isinstance(image, Image) and not image.tags else getattr(image, "name", image)
    words = {"image": name, "command": keywords.command_of(command)}
    return keywords.options_of(RunOptions, "container run", {**options, **words})


def container(image: str | Image, command: Any = None, *, detach: bool = True, **options: Any) -> Container:
    """A container for a `with` statement, at whose end it is stopped and removed; it runs from the beginning.

    With detach=False it is made and not started.
    """
    if not detach:
        return create(image, command, **options)
    return run(image, command, detach=True, **options)


def create(image: str | Image, command: Any = None, **options: Any) -> Container:
    """A container that is made and not started."""
    chosen = run_options(image, command, options)
    return engine().isolated(chosen.isolation).create(replace(chosen, detach=True))


# --- looking --------------------------------------------------------------------------------------


def explain(container: Container | str) -> Xrayed:
    """The same process from this machine's side and from the container's. Raises ContainerNotFound, NotRunning."""
    from nbcontain.display.xrayed import Xrayed

    handle = engine().container(container) if isinstance(container, str) else container
    return Xrayed(handle.engine.sides.of(handle), handle.engine.sides)


def doctor() -> Table:
    """What this machine allows, why not, and what to try: a table whose rows are dictionaries."""
    from nbcontain.commands.doctor import findings_table

    return findings_table(engine())


def check(exercise: str) -> Judged:
    """What holds of an exercise of the lessons, `nb.check("01-2").ok`, by what is here and the notebook's variables.

    Raises UsageError for what is none.
    """
    from nbcontain.lessons.teacher import Teacher

    return Teacher(engine()).check(exercise, getattr(_shell(), "user_ns", {}))
