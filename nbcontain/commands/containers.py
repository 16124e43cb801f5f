"""The commands on containers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from nbcontain import detach_keys as keys
from nbcontain.commands.images import inspected
from nbcontain.commands.rows import CONTAINER_TITLES, condition, container_row
from nbcontain.commands.table import FORMAT_HELP, Names, OneName, command, docker_line, of_each
from nbcontain.display.formats import Format
from nbcontain.display.table import Column, Table, Watched
from nbcontain.display.values import Document, InProgress, Interactive, Lines
from nbcontain.display.words import ago, brief, command_line, count, size
from nbcontain.errors import AmbiguousContainer, ContainerNotFound, UsageError
from nbcontain.events import Emit, scope
from nbcontain.exchange import Exchange
from nbcontain.filters import CONTAINERS
from nbcontain.inspection import container_document
from nbcontain.options import option, with_defaults
from nbcontain.runtime.bundle import State
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import ExecOptions
from nbcontain.runtime.signals import signal_number
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

@dataclass(frozen=True, kw_only=True)
@with_defaults
class PsWords:
    all: bool = option("-a", "--all", help="stopped ones too")
    quiet: bool = option("-q", "--quiet", help="only ids")
    no_trunc: bool = option("--no-trunc", help="ids and commands in full")
    filters: tuple[str, ...] = option("-f", "--filter", help=f"only those: {', '.join(CONTAINERS)}",
                                      metavar="NAME=VALUE")  # fmt: skip
    format: str = option("--format", help=FORMAT_HELP, metavar="table {{.ID}}…|json|TEMPLATE")
    last: int = option("-n", "--last", help="the last so many that were made, stopped ones too")
    latest: bool = option("-l", "--latest", help="the last one that was made")
    size: bool = option("-s", "--size", help="what each has written, and with its image's layers")


@command("container", "ps", "list containers", PsWords, aliases=("ls", "list"), top=("ps",))
def container_ps(engine: Engine, words: PsWords) -> object:
    wanted = Format.parse(words.format)
    last = 1 if words.latest else words.last
    # As with docker: who asks for the stopped ones, or for the last, wants to see them.
    asked = [each.partition("=")[0].strip().lower() for each in words.filters]
    shows_all = words.all or last > 0 or "status" in asked or "exited" in asked
    found = [(each, *each.look()) for each in engine.containers(words.filters)]
    shown = [row for row in found if shows_all or row[1] in ("running", "restarting")]
    shown = shown[:last] if last > 0 else shown
    if words.quiet and wanted.template is None:
        return Lines(tuple(each.id if words.no_trunc else each.id[:12] for each, *_ in shown))
    sizes = _sizes(engine, [each for each, *_ in shown]) if words.size or wanted.asks("Size") else {}
    if wanted.template is not None:
        rows = [container_row(*row, sizes.get(row[0].id), engine.networks.reach(row[0]), full=words.no_trunc)
                for row in shown]
        return wanted.of(rows, CONTAINER_TITLES, "containers")
    reached = [engine.networks.reach(each)[0] if status == "running" else "" for each, status, _ in shown]
    has_ports = any(reached)
    drawn = tuple(
        (*_ps_row(*row, words.no_trunc), *([ports] if has_ports else []), *sizes.get(row[0].id, ())[: words.size])
        for row, ports in zip(shown, reached, strict=True)
    )
    running = sum(status == "running" for _, status, _ in found)
    rest = len(found) - running
    footer = f"{running} running · {rest} stopped" + ("" if shows_all or not rest else "  (-a shows them)")
    code = [Column(title, look="code") for title in ("ID", "COMMAND")]
    columns = (
        code[0], "IMAGE", code[1], Column("CREATED", ago, "words", brief), Column("STATUS", str, "words", brief),
        "NAME",
        *((Column("PORTS", look="code"),) if has_ports else ()),
        *((Column("WROTE", size, "num"),) if words.size else ()),
    )  # fmt: skip
    return Watched(columns, drawn, footer, "containers", command=docker_line("ps", words),
                   again=lambda: cast(Watched, container_ps(engine, words)), kinds=("container",))  # fmt: skip


def _sizes(engine: Engine, shown: Sequence[Container]) -> dict[str, tuple[int, int]]:
    """Per container, what it wrote, and that with its image's layers."""
    images = {str(image.id): image.size_bytes for _, image in engine.images()}
    from nbcontain.store.gc import written_bytes

    wrote = {each.id: written_bytes(engine.store.written_at(each.id)) for each in shown}
    return {each.id: (wrote[each.id], wrote[each.id] + images.get(each.info.image_id, 0)) for each in shown}


def _ps_row(container: Container, status: str, state: State, full: bool) -> tuple[str, ...]:
    info = container.info
    text = command_line(info.command)
    return (
        info.id if full else info.id[:12],
        info.image,
        text if full or len(text) <= 24 else text[:23] + "…",
        info.created,
        describe_status(container, status, state) + ", out of memory" * (status == "exited" and state.oom_killed),
        info.name,
    )


def describe_status(container: Container, status: str, state: State) -> str:
    """docker's STATUS: "Up 3 minutes", "Exited (0) 2 hours ago"."""
    match status:
        case "running":
            return f"Up {ago(state.started_at).removesuffix(' ago')}{condition(container)}"
        case "restarting":
            return f"Restarting ({state.exit_code}) {ago(state.finished_at)}"
        case "exited":
            return f"Exited ({state.exit_code}) {ago(state.finished_at)}"
        case "lost":
            return "Lost (its supervisor was killed)"
        case _:
            return status.capitalize()


@dataclass(frozen=True, kw_only=True)
@with_defaults
class StopWords(Names):
    time: int | None = option("-t", "--time", "--timeout", help="seconds to wait before SIGKILL; -1 waits for ever",
                              default=None, metavar="SECONDS")  # fmt: skip
    signal: str = option("-s", "--signal", help="which signal, in place of its own", metavar="SIGNAL")

    @property
    def number(self) -> int | None:
        """The signal. Raises UsageError."""
        return number_of(self.signal) if self.signal else None


@command("container", "stop", "ask containers to end, kill them when they do not", StopWords, top=("stop",))
def container_stop(engine: Engine, words: StopWords) -> InProgress[Lines | None]:
    number = words.number
    return on_each(engine, words.names, "stop",
                   lambda container: engine.life.stop(container, words.time, number),
                   side_by_side=True)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class StartWords(Names):
    attach: bool = option("-a", "--attach", help="show what it says, to its end")
    interactive: bool = option("-i", "--interactive", help="hand standard input through")
    detach_keys: str = option("--detach-keys", help="what to type to leave it running", default=keys.DEFAULT)


@command("container", "start", "run stopped containers again", StartWords, top=("start",))
def container_start(engine: Engine, words: StartWords) -> InProgress[Lines | None] | Interactive:
    if not words.attach and not words.interactive:
        return on_each(engine, words.names, "start", engine.start)
    if len(words.names) > 1:
        raise UsageError("start -a and -i are for one container", hint="start them without, and attach to one")
    container = engine.container(words.names[0])
    return Interactive(
        lambda size, _: engine.consoles.start(container, size, interactive=words.interactive), words.detach_keys,
        types=words.interactive, is_raw=container.info.terminal,
    )  # fmt: skip


@command("container", "restart", "stop containers and run them again", StopWords, top=("restart",))
def container_restart(engine: Engine, words: StopWords) -> InProgress[Lines | None]:
    number = words.number
    return on_each(engine, words.names, "restart",
                   lambda container: engine.life.restart(container, words.time, number))  # fmt: skip


def number_of(text: str) -> int:
    """A signal by name or number. Raises UsageError."""
    try:
        return signal_number(text)
    except ValueError as error:
        raise UsageError(str(error), hint="TERM, KILL, INT, HUP, USR1 … or a number") from None


@dataclass(frozen=True, kw_only=True)
@with_defaults
class KillWords(Names):
    signal: str = option("-s", "--signal", help="which signal", default="KILL", metavar="SIGNAL")


@command("container", "kill", "send containers a signal, SIGKILL unless told", KillWords, top=("kill",))
def container_kill(engine: Engine, words: KillWords) -> InProgress[Lines | None]:
    number = number_of(words.signal)
    return on_each(engine, words.names, "kill", lambda container: engine.kill(container, number))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RemoveWords(Names):
    force: bool = option("-f", "--force", help="running ones too: they are killed")
    volumes: bool = option("-v", "--volumes", help="with their anonymous volumes")


@command("container", "rm", "remove containers, and what they wrote", RemoveWords, aliases=("remove",), top=("rm",))
def container_rm(engine: Engine, words: RemoveWords) -> InProgress[Lines | None]:
    def remove(container: Container) -> None:
        engine.remove_container(container, force=words.force, volumes=words.volumes)

    return on_each(engine, words.names, "rm", remove, passes_over_missing=words.force)


def on_each(
    engine: Engine, names: Sequence[str], verb: str, act: Callable[[Container], object], *,
    passes_over_missing: bool = False, side_by_side: bool = False,
) -> InProgress[Lines | None]:  # fmt: skip
    """Do the same to each. What is not there is no error where it is passed over, as by docker's rm -f.

    Gives the names of those to which it was done, if there are any.
    """

    def one(name: str) -> list[str]:
        try:
            act(engine.container(name))
        except ContainerNotFound as error:
            if passes_over_missing and not isinstance(error, AmbiguousContainer):
                return []
            raise
        return [name]

    def body(emit: Emit) -> Lines | None:
        with scope(emit, verb, f"{verb} {' '.join(names)}"):
            done = of_each(names, one, side_by_side=side_by_side)
        return Lines(done) if done else None

    return InProgress(Task(verb, body), "work", goes_on=True)


@command("container", "exec", "run a further program in a running container", ExecOptions, top=("exec",))
def container_exec(engine: Engine, options: ExecOptions) -> InProgress[Any] | Interactive | None:
    keys.parse(options.detach_keys)
    exchange = options.exchange or Exchange.of(options)
    if not options.detach and not options.tty:
        return InProgress(engine.exec(options, stdin=exchange.stdin, around=exchange.around), "exec")
    exchange.refuse("a program that is left alone (-d)" if options.detach else "a terminal (-t)")
    if options.detach:
        engine.consoles.exec_detached(options)
        return None
    return Interactive(
        lambda size, _: engine.consoles.exec(options, size), options.detach_keys,
        types=options.interactive, is_raw=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ContainerInspectWords(Names):
    format: str = option("-f", "--format", help="json, or a template for each", metavar="json|TEMPLATE")
    size: bool = option("-s", "--size", help="with SizeRw and SizeRootFs")


@command("container", "inspect", "everything that is known of containers, as JSON", ContainerInspectWords)
def container_inspect(engine: Engine, words: ContainerInspectWords) -> Document | Lines:
    def describe(name: str) -> tuple[str, dict[str, object]]:
        return "container", container_document(engine, engine.container(name), size=words.size)

    return inspected(words.names, describe, words.format)


_KINDS = {"A": "A added", "C": "C changed", "D": "D deleted"}


@command(
    "container", "diff", "what a container changed of its image: A added, C changed, D deleted", OneName, (), ("diff",)
)
def container_diff(engine: Engine, words: OneName) -> Table:
    rows = tuple(engine.diff(engine.container(words.name)))
    said = [text for letter, text in _KINDS.items() if any(letter == each[0] for each in rows)]
    footer = f"{count(len(rows), 'change')} in the layer of {words.name}{': ' * bool(said)}{', '.join(said)}"
    columns = (Column("KIND", look="mark"), Column("PATH", look="code"))
    return Table(columns, rows, footer, f"changes of {words.name}", is_plain=True)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Attaching:
    """How one looks on, and leaves."""

    detach_keys: str = option("--detach-keys", help="what to type to leave it running", default=keys.DEFAULT)
    no_stdin: bool = option("--no-stdin", help="only look on")
    sig_proxy: bool = option(
        "--sig-proxy", help="signals that a terminal's command gets go to the program", default=True
    )


@dataclass(frozen=True, kw_only=True)
@with_defaults
class AttachWords(OneName, Attaching):
    """What `attach` can be told."""


@command(
    "container", "attach", "a running container's card again; on a terminal: what it says, and what you type",
    AttachWords, aliases=("show",), top=("attach",),
)  # fmt: skip
def container_attach(engine: Engine, words: AttachWords) -> Interactive:
    container = engine.container(words.name)
    has_terminal = container.info.terminal
    return Interactive(
        lambda size, _: engine.consoles.attach(container, size), words.detach_keys,
        types=not words.no_stdin, is_raw=has_terminal, passes_signals=words.sig_proxy,
        elsewhere=lambda: container,
    )  # fmt: skip
