"""What the card of a container knows and can do: its buttons, each with docker's words for it.

Another button is one more entry of `buttons`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.display.buttons import ALWAYS, RUNNING, STOPPED, Button
from nbcontain.display.live import Surroundings
from nbcontain.display.lookout import Lookout
from nbcontain.display.pictures import Port
from nbcontain.display.words import command_line
from nbcontain.errors import NbcontainError
from nbcontain.linux import limits
from nbcontain.runtime.container import Container

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_NAMESPACES = ("user", "pid", "mount", "network", "uts", "ipc", "cgroup")


class Cards:
    """What an engine's cards are made of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.lookout = Lookout(lambda containers: engine.resources.sample(containers))

    def around(self, container: Container) -> Surroundings:
        """For one container."""
        return surroundings(self._engine, container, self.lookout)


def surroundings(engine: Engine, container: Container, lookout: Lookout) -> Surroundings:
    """All that one container's card knows and can do."""
    info = container.info
    facts = {
        "network": info.options.get("network", ""),
        "command": command_line(info.command),
        "isolation": isolation(container),
    }
    keeps_log = info.log.get("driver") != "none"
    return Surroundings(
        buttons(engine, container), facts, lambda: ports(engine, container),
        (lambda: container.output()) if keeps_log else None, lookout, lambda: memory_limit(container),
    )  # fmt: skip


def buttons(engine: Engine, container: Container) -> tuple[Button, ...]:
    """In the order in which they stand."""
    resources = engine.resources
    return (
        Button("start", "Start", lambda: engine.start(container), "docker start {name}", STOPPED, "Starting…"),
        Button("stop", "Stop", lambda: engine.stop(container), "docker stop {name}", RUNNING, "Stopping…"),
        Button("pause", "Pause", lambda: resources.pause(container), "docker pause {name}", ("running",), "Pausing…"),
        Button("unpause", "Go on", lambda: resources.unpause(container), "docker unpause {name}", ("paused",)),
        Button("restart", "Restart", lambda: engine.restart(container), "docker restart {name}", (*RUNNING, *STOPPED),
               "Restarting…"),
        Button("terminal", "Terminal", lambda: terminal(engine, container), "docker exec -it {name} sh", ("running",),
               "Opening…"),
        Button("diff", "Changes", lambda: changes(engine, container), "docker diff {name}", ALWAYS, "Looking…"),
        Button("remove", "Remove", lambda: engine.remove_container(container, force=True), "docker rm -f {name}",
               ALWAYS, "Removing…", "Stop and remove?"),
    )  # fmt: skip


def terminal(engine: Engine, container: Container) -> object:
    """A shell in it, at a terminal."""
    from nbcontain.commands.terminals import SHELL
    from nbcontain.detach_keys import DEFAULT
    from nbcontain.display.terminals import Terminal
    from nbcontain.runtime.generate import ExecOptions

    options = ExecOptions(name=container.name, command=SHELL, interactive=True, tty=True)
    return Terminal(engine.consoles.exec(options, (18, 80)), "sh", DEFAULT, detaches=False)


def changes(engine: Engine, container: Container) -> object:
    """What it has written, added and removed beside its image."""
    from nbcontain.commands.containers import container_diff
    from nbcontain.commands.table import OneName

    return container_diff(engine, OneName(name=container.name))


def ports(engine: Engine, container: Container) -> tuple[Port, ...]:
    """The ports of this machine that lead into it just now."""
    try:
        found = engine.networks.ports(container)
    except (NbcontainError, OSError):
        return ()
    return tuple(Port(each.host_address, each.host_port, f"{each.container_port}/{each.protocol}") for each in found)


def memory_limit(container: Container) -> int | None:
    """Bytes that it may have, if that was said."""
    return limits.from_json(container.bundle.spec.linux.resources).memory or None if container.info.limited else None


def isolation(container: Container) -> str:
    """Which namespaces are its own, and which it shares with this machine."""
    own = container.bundle.spec.linux.namespaces
    if not own:
        return "none: it shares everything with this machine"
    shared = [name for name in _NAMESPACES if name not in own]
    return f"own {' '.join(each for each in _NAMESPACES if each in own)}" + (
        f"; shared {' '.join(shared)}" if shared else ""
    )
