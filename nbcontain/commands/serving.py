"""The commands on the registry of one's own: a server for images, on this machine."""

from __future__ import annotations

import queue
import re
import threading
from typing import TYPE_CHECKING

from nbcontain.commands.table import Nothing, command
from nbcontain.display.table import Column, Table
from nbcontain.display.values import InProgress, Lines
from nbcontain.display.words import count, size
from nbcontain.errors import UsageError
from nbcontain.events import Emit, Output, Started
from nbcontain.options import option, with_defaults
from nbcontain.registry.server import Heard
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.serving import Served


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ServeWords:
    port: str = option("-p", "--port", help="0 is any that is free (default: that of last time, or 5000)",
                       default="any", metavar="PORT")  # fmt: skip

    @property
    def number(self) -> int | None:
        """None: whichever. Raises UsageError."""
        if self.port == "any":
            return None
        if not self.port.isascii() or not self.port.isdigit() or int(self.port) > 65535:
            raise UsageError(f"--port {self.port}: that is no port", hint="--port 5000, or --port 0 for any")
        return int(self.port)


@command("registry", "start", "a registry of your own at localhost, which goes on until stop", ServeWords)
def registry_start(engine: Engine, words: ServeWords) -> Served:
    return engine.serving.start(words.number)


@command("registry", "stop", "end it; the images in it stay", Nothing)
def registry_stop(engine: Engine, words: Nothing) -> Lines:
    return Lines(("the registry has ended",) if engine.serving.stop() else ("no registry runs",))


@command("registry", "serve", "the same in the foreground, with a line for each request, until it is interrupted",
         ServeWords)  # fmt: skip
def registry_serve(engine: Engine, words: ServeWords) -> InProgress[None]:
    told: queue.SimpleQueue[Heard | None] = queue.SimpleQueue()
    server = engine.serving.open(words.number, told.put)

    # Before anybody can end it: shutdown waits for what serve_forever does last.
    threading.Thread(target=server.serve_forever, args=(0.1,), name="nbcontain registry", daemon=True).start()

    def body(emit: Emit) -> None:
        emit(Started("registry", "registry"))
        emit(Output("registry", "stdout", f"a registry at localhost:{server.port}\n".encode()))
        while (heard := told.get()) is not None:
            emit(Output("registry", "stdout", f"{heard}\n".encode()))

    def end() -> None:
        server.shutdown()
        server.server_close()
        told.put(None)

    task = Task("registry", body)
    task.on_cancel(end)
    return InProgress(task, "exec")


@command("registry", "ls", "what is in it", Nothing, aliases=("list",))
def registry_ls(engine: Engine, words: Nothing) -> Table:
    rows = [
        (each.repository, each.tag, str(each.digest), each.size_bytes) for each in engine.serving.repositories.listed()
    ]
    running = engine.serving.served
    where = f"at {running.host}" if running else "it does not run (%nbcontain registry start)"
    columns = ("REPOSITORY", "TAG", Column("DIGEST", look="wide"), Column("SIZE", size, "num"))
    return Table(columns, rows, f"{count(len(rows), 'tag')} · {where}", "images in the registry")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RequestsWords:
    tail: int = option("-n", "--tail", help="only the last so many", default=50, metavar="N")


@command("registry", "logs", "the requests that it answered, as it heard them", RequestsWords)
def registry_logs(engine: Engine, words: RequestsWords) -> Table:
    heard = engine.serving.heard()
    rows = [(each.method, _short(each.path), each.status, each.size_bytes, each.client) for each in heard]
    columns = ("METHOD", Column("PATH", look="wide"), Column("STATUS", look="num"), Column("BYTES", size, "num"),
               "CLIENT")  # fmt: skip
    return Table(columns, rows[-words.tail :], count(len(heard), "request"), "requests to the registry")


def _short(path: str) -> str:
    """Digests and uploads' numbers by their beginnings, as people tell them apart."""
    return re.sub(r"[0-9a-f]{32,}", lambda found: f"{found[0][:12]}…", path)
