"""Our own registry: a process of its own, which goes on when the notebook's kernel ends, as containers do."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import NbcontainError, PortTaken, RegistryError, StoreError
from nbcontain.registry.repositories import Repositories
from nbcontain.registry.server import Heard, Server
from nbcontain.store import files
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

PORT = 5000
"""Where people expect a registry of their own."""
_PACKAGE = Path(__file__).resolve().parent.parent
_PROGRAM = "import sys; sys.path[:0] = sys.argv[3:]; from nbcontain.serving import serve; serve(*sys.argv[1:3])"
_WAIT_S = 15.0
_TAKING_S = 1.0
_END = "%nbcontain registry stop ends it"
_LOG_BYTES = 16 << 20
"""Of the log; what is heard after so much is not written down."""


@dataclass(frozen=True, slots=True)
class Served:
    """A registry that runs: `host` is how images' names begin that are pushed there."""

    port: int
    pid: int

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        """For whoever speaks to it without us."""
        return f"http://127.0.0.1:{self.port}/v2/"

    def __repr__(self) -> str:
        return f"a registry at {self.host}: %image push {self.host}/NAME"


class Serving:
    """engine.serving: the registry of this store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.root = engine.layout.registry
        self.repositories = Repositories(self.root)
        """What it keeps; to look at."""

    @property
    def served(self) -> Served | None:
        """The registry that runs now: whoever holds the lock wrote where it is."""
        if not self._lock.exists():
            return None
        # Not exclusively: whoever else looks is no registry.
        if (fd := files.try_lock(self._lock, exclusive=False)) is not None:
            os.close(fd)
            return None
        last = self._last()
        return last if last is not None and last.pid else None

    def open(self, port: int | None, log: Callable[[Heard], None]) -> Server:
        """Become the registry, until it is closed. Raises PortTaken, RegistryError if there is one already.

        Without a port it is the one of last time or 5000, or any that is free.
        """
        files.make_directory(self.root)
        with ExitStack() as undo:
            lock = self._taken()
            undo.callback(os.close, lock)
            last = self._last()
            if last is not None:
                # From here on the lock is held: nobody may take the last one's number for ours.
                self._write(last.port, 0)
            wanted = [port] if port is not None else [*([last.port] if last else []), PORT, 0]
            for each in wanted:
                try:
                    server = Server(self.root, each, log, lock)
                    break
                except OSError as error:
                    failed = error
            else:
                raise PortTaken(
                    f"nothing can listen at port {port}", why=failed.strerror or "",
                    hint="--port 0 takes any that is free",
                ) from failed  # fmt: skip
            undo.pop_all()
            undo.callback(server.server_close)
            server.repositories.sweep()
            self._write(server.port, os.getpid())
            undo.pop_all()
        return server

    def start(self, port: int | None = None) -> Served:
        """Have one run, if none does. Raises RegistryError with what it complained of, or if one is at another port."""
        if (running := self.served) is not None:
            if port in (None, 0, running.port):
                return running
            raise RegistryError(f"a registry runs already, at {running.host}", hint=_END)
        files.make_directory(self.root)
        files.unlink(self._log)
        log = files.open_to_append(self._log)
        paths = dict.fromkeys([str(_PACKAGE), *(path for path in sys.path if path)])
        asked = "" if port is None else str(port)
        words = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(self._engine.layout.root), asked, *paths]
        try:
            pid = os.posix_spawn(
                sys.executable, words, self._engine.environ, setsid=True,
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                              (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
            )  # fmt: skip
        finally:
            os.close(log)
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            if (last := self._last()) is not None and last.pid == pid and (found := self.served) is not None:
                return found
            if _has_ended(pid):
                break
            time.sleep(0.02)
        said = self._said().strip()
        raise RegistryError("the registry did not start", why=said[-500:] or "it said nothing")

    def stop(self) -> bool:
        """End it; what it keeps stays. False if none runs."""
        running = self.served
        if running is None:
            return False
        try:
            process = os.pidfd_open(running.pid)
        except ProcessLookupError:
            return False
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            # Older releases of gVisor. It answered a moment ago.
            os.kill(running.pid, signal.SIGTERM)
        else:
            try:
                # Only if it is still the one that holds the lock, now that its number cannot become another's.
                if self.served == running:
                    signal.pidfd_send_signal(process, signal.SIGTERM)
            finally:
                os.close(process)
        end = time.monotonic() + _WAIT_S
        while self.served is not None and time.monotonic() < end:
            _has_ended(running.pid)
            time.sleep(0.01)
        return True

    def heard(self) -> list[Heard]:
        """The requests that the running registry answered, or the last one that ran, oldest first."""
        return [found for line in self._said().splitlines() if (found := Heard.parse(line)) is not None]

    # --- below ---

    def _taken(self) -> int:
        """The lock. Raises RegistryError if it is another's."""
        end = time.monotonic() + _TAKING_S
        while (lock := files.try_lock(self._lock)) is None:
            # Whoever looks whether there is a registry is in the way for a moment.
            if time.monotonic() > end:
                raise RegistryError("a registry runs already", hint=_END)
            time.sleep(0.01)
        return lock

    @property
    def _lock(self) -> Path:
        return self.root / "lock"

    @property
    def _record(self) -> Path:
        return self.root / "serving.json"

    @property
    def _log(self) -> Path:
        return self.root / "log"

    def _last(self) -> Served | None:
        try:
            record = json.loads(files.read(self._record, 1 << 10))
            return Served(int(record["port"]), int(record["pid"]))
        except (FileNotFoundError, StoreError, ValueError, KeyError, TypeError):
            return None

    def _write(self, port: int, pid: int) -> None:
        """0 is nobody: a registry that does not listen yet."""
        files.replace(self._record, json.dumps({"port": port, "pid": pid}).encode(), durable=False)

    def _said(self) -> str:
        try:
            return files.read(self._log, 2 * _LOG_BYTES).decode(errors="replace")
        except (FileNotFoundError, StoreError):
            return ""


def _has_ended(pid: int) -> bool:
    """Whether a child of ours has, and so that none stays a zombie."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def serve(root: str, port: str) -> None:
    """Be the registry of a store, with its log on standard output, until somebody ends this process, which is ours."""
    from nbcontain.engine import Engine

    def log(heard: Heard) -> None:
        if os.fstat(1).st_size < _LOG_BYTES:
            files.write(1, f"{heard}\n".encode())

    with Engine(root) as engine:
        try:
            engine.serving.open(int(port) if port else None, log).serve_forever()
        except NbcontainError as error:
            sys.exit("\n".join(error.lines()))
