"""Who asks something of a supervisor by its control socket, and what. Everything here runs in the supervisor."""

from __future__ import annotations

import os
import select
import signal

from nbcontain.errors import ContainerError, NotRunning
from nbcontain.runtime.messages import Channel, Listener, Message, describe
from nbcontain.store import files

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.runtime.supervisor import Supervisor


class Clients:
    """Those that are connected."""

    def __init__(self, supervisor: Supervisor, listener: Listener) -> None:
        self.listener = listener
        self.waiting: list[Channel] = []
        """Those who want to hear of the end of this run."""
        self.listening: list[Channel] = []
        """Those who want output that is not kept."""
        self._of = supervisor
        self._channels: dict[int, Channel] = {}

    def open(self) -> None:
        """Listen, in the container's directory."""
        files.unlink(self._of.bundle.path / "control.sock")
        self.listener.open(self._of.bundle.path)
        self._of.poll.register(self.listener, select.POLLIN)

    def __len__(self) -> int:
        return len(self._channels)

    def serve(self, fd: int) -> bool:
        """Serve who `fd` is, or whoever connects; False if it is nobody here."""
        if fd == self.listener.fileno():
            self._accept()
        elif fd in self._channels:
            self._serve(self._channels[fd])
        else:
            return False
        return True

    def tell_end(self, code: int, *, again: bool = False) -> None:
        """A run has ended; `again` is whether there is going to be another one."""
        waiting, self.waiting = self.waiting, []
        for client in waiting:
            client.tell({"exit_code": code, "again": again})

    def _accept(self) -> None:
        client = self.listener.accept()
        if client.peer_uid() not in (0, self._of.bundle.path.stat().st_uid):
            client.close()
            return
        self._channels[client.fileno()] = client
        self._of.poll.register(client, select.POLLIN)

    def _forget(self, client: Channel) -> None:
        fd = client.fileno()
        self._channels.pop(fd, None)
        if client in self.waiting:
            self.waiting.remove(client)
        if client in self.listening:
            self.listening.remove(client)
            self._of.choose_sink()
        self._of.execs.abandon(client)
        self._of.poll.unregister(fd)
        client.close()

    def _serve(self, client: Channel) -> None:
        try:
            message, fds = client.receive()
        except (ValueError, LookupError, OSError, RecursionError, MemoryError):
            # Whoever sends what is no message is not worth the container's life.
            message, fds = None, []
        if message is None:
            self._forget(client)
            return
        try:
            self._answer(client, message, fds)
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            client.tell(describe(error))
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, client: Channel, message: Message, fds: list[int]) -> None:
        run = self._of
        match message.get("do"):
            case "start":
                run.start()
                client.tell({"started": True})
            case "kill":
                run.kill(int(message["signal"]), final=bool(message.get("final")))
                client.tell({"done": True})
            case "wait":
                self.waiting.append(client)
            case "listen":
                self.listening.append(client)
                run.choose_sink()
                client.tell({"done": True})
            case "console":
                if run.outputs.master < 0:
                    raise NotRunning(f"{run.info.name} has no terminal")
                client.tell({"console": True}, (run.outputs.master,))
            case "keep" if fds:
                run.execs.keep(client, fds)
            case "keep":
                run.cut_leash()
                client.tell({"done": True})
            case "reread":
                run.reread()
                client.tell({"done": True})
            case "check":
                if run.health is None:
                    hint = "--health-cmd of run, or HEALTHCHECK of a Dockerfile"
                    raise ContainerError(f"{run.info.name} has no health check", hint=hint)
                run.health.check_now(client.tell)
            case "call":
                if not run.is_started or run.pidfd < 0:
                    raise NotRunning(f"{run.info.name} is not running")
                run.execs.call(client, message, fds)
            case "exec":
                if not run.is_started or run.pidfd < 0:
                    raise NotRunning(f"{run.info.name} is not running")
                run.execs.start(client, message, fds, run.told_exec(message))


# --- the launcher ---------------------------------------------------------------------------------


def serve_report(run: Supervisor) -> None:
    """The launcher: a request to start, or its end."""
    assert run.report is not None
    message, _ = run.report.receive()
    if message is not None and message.get("do") == "start":
        start_for_launcher(run)
    elif message is None:
        hang_up(run, None)
        if not run.is_started:
            run.signal(signal.SIGKILL)


def start_for_launcher(run: Supervisor) -> None:
    """Start it, and tell the launcher how that went."""
    try:
        run.start()
    except BaseException as error:  # noqa: BLE001 - raised where the start was asked for
        hang_up(run, describe(error))
    else:
        hang_up(run, {"started": True})


def hang_up(run: Supervisor, message: Message | None) -> None:
    """The launcher's last word."""
    if run.report is None:
        return
    if message is not None:
        run.report.tell(message)
    if run.is_started or message is None:
        try:
            run.poll.unregister(run.report)
        except KeyError:
            pass
    run.report.close()
    run.report = None
