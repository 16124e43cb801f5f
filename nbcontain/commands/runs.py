"""`run` and `create`, apart from the other commands on containers: whoever runs one waits for no table's drawing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from nbcontain import detach_keys as keys
from nbcontain.commands.table import command
from nbcontain.display.values import InProgress, Interactive, Lines
from nbcontain.exchange import Exchange
from nbcontain.runtime.generate import RunOptions
from nbcontain.sig_proxy import SignalProxy
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine

PRIVILEGED = "nothing protects this machine from what runs inside"


def _begins(options: RunOptions) -> tuple[str, str] | None:
    return _named(options) if options.detach else None


def _named(options: RunOptions) -> tuple[str, str]:
    """What its card says before anything is known of it."""
    return (options.name, options.image) if options.name else (f"run {options.image}", "")


@command("container", "run", "make a container of an image and run it", RunOptions, top=("run",), begins=_begins)
def container_run(engine: Engine, options: RunOptions) -> InProgress[Any] | Interactive:
    said = (options.network,) if isinstance(options.network, str) else options.network
    network = " ".join(said) or engine.networks.default()
    facts = (("network", network), ("privileged", PRIVILEGED if options.privileged else ""))
    log = "" if options.remove else "%container logs shows all of it"
    keys.parse(options.detach_keys)

    exchange = options.exchange or Exchange.of(options)

    def in_progress() -> InProgress[Any]:
        signals = None if options.detach else SignalProxy(passes=options.sig_proxy)
        around = signals.around if signals is not None else nullcontext
        task = exchange.run(engine.isolated(options.isolation), options, around)
        return InProgress(task, "run", facts=facts, whole_log=log, signals=signals,
                          becomes="container" if options.detach else "", begins=_named(options))  # fmt: skip

    if options.detach or not options.tty:
        return in_progress()
    exchange.refuse("a terminal (-t)")
    return Interactive(
        lambda size, emit: engine.isolated(options.isolation).consoles.run(options, size, emit), options.detach_keys,
        types=options.interactive, is_raw=True, elsewhere=None if options.interactive else in_progress,
    )  # fmt: skip


@command("container", "create", "make a container of an image, to be started later", RunOptions, top=("create",))
def container_create(engine: Engine, options: RunOptions) -> Lines:
    exchange = options.exchange or Exchange.of(options)
    exchange.refuse("a container that is only made", puts=True)
    container = engine.isolated(options.isolation).create(replace(options, detach=True))
    exchange.fill(container)
    return Lines((container.id,))
