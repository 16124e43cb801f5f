"""A handle on a container: reading its directory, asking its supervisor. Everything here runs in the kernel."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from nbcontain.errors import ContainerError, ContainerNotFound, NotRunning, SetupFailed
from nbcontain.events import Record
from nbcontain.journal import Tail, between
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.oci import spec_codec
from nbcontain.runtime import rungs
from nbcontain.runtime.annotations import GROUPS, USER
from nbcontain.runtime.attending import Stream, ask, attend
from nbcontain.runtime.bundle import Bundle, ContainerInfo, State
from nbcontain.runtime.messages import Channel, Message, answer_of, connect, error_of
from nbcontain.runtime.signals import stop_number
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.runtime.launcher import Launcher
    from nbcontain.runtime.leash import Leash

Status = Literal["created", "running", "restarting", "exited", "lost"]
_NOW: Mapping[str, Status] = {"running": "running", "restarting": "restarting", "stopped": "exited"}
"""What is said of a state that still holds."""
_START_S = 60.0


class Container:
    """A container. Equal handles may live in many kernels; all that is known is on disk."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._launched: Channel | None = None

    @property
    def id(self) -> str:
        return self.bundle.path.name

    @property
    def info(self) -> ContainerInfo:
        """What it was asked to be."""
        return self.bundle.info

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def image(self) -> str:
        """The image's name, as people write it."""
        return self.info.image

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and self.bundle.path == other.bundle.path

    def __hash__(self) -> int:
        return hash(self.bundle.path)

    def __repr__(self) -> str:
        try:
            return f"<Container {self.name}  {self.status}  {self.image}  {self.id[:12]}>"
        except (OSError, ValueError):
            return f"<Container {self.id[:12]}  removed>"

    def state(self) -> State:
        """As its supervisor last wrote it."""
        return self.bundle.state()

    @property
    def exists(self) -> bool:
        """Whether nobody has removed it."""
        return self.bundle.is_whole()

    def require(self) -> None:
        """Raises ContainerNotFound for one that somebody has removed."""
        self.bundle.require()

    @property
    def status(self) -> Status:
        """How it is now. *lost* is one whose supervisor was killed, and the container with it."""
        return self.look()[0]

    def look(self) -> tuple[Status, State]:
        """How it is now, and the state that says so."""
        state = self.state()
        if state.status in ("running", "restarting") and not self.bundle.is_alive():
            state = self.state()  # asked again: it may have ended between the two looks
            # One that waits to be started again has ended: without its supervisor nobody starts it.
            return ("lost" if state.status == "running" else "exited"), state
        return _NOW.get(state.status, "created"), state

    @property
    def is_active(self) -> bool:
        """Whether it runs, or is about to again."""
        return self.status in ("running", "restarting")

    @property
    def is_paused(self) -> bool:
        """Whether all its processes are stopped where they are."""
        return self.bundle.is_paused()

    @property
    def pid(self) -> int | None:
        """Its first process, as this machine counts; None if it does not run."""
        return self.state().pid if self.status == "running" else None

    # --- what can be asked of it ---

    def hold(self) -> None:
        """Take its lock, for a start that has something to do first. Raises ContainerError if it is alive."""
        if self.bundle.lock_fd is None:
            if self.state().status == "stopped":
                self.settle()
            self.bundle.lock()
            self.bundle.end_orphan()
            self.bundle.mark_paused(paused=False)

    def abandon(self) -> None:
        """It was created, and is not to be started after all: its first process is killed."""
        channel, self._launched = self._launched, None
        if channel is not None:
            channel.close()
            self.settle()
        self.bundle.unlock()

    def launch(
        self, launcher: Launcher, *, leash: Leash | None = None, stdin: int | None = None, start: bool = False,
        secrets: int | None = None, handed: list[int] | None = None,
    ) -> None:  # fmt: skip
        """Create it: everything but the start, unless that is asked for too. Raises what hindered it.

        `handed` is given its network namespace, for the caller to close, if only its init could open that.
        """
        if self.bundle.lock_fd is None and self.state().status in ("stopped", "restarting"):
            # The supervisor of the run before has said all it has to say, and is about to go.
            self.settle()
        channel = launcher.launch(self.bundle, leash=leash, stdin=stdin, start=start, secrets=secrets, handed=handed)
        if start:
            channel.close()
        else:
            self._launched = channel

    def begin(self) -> None:
        """Have the program executed. Raises CommandNotFound and the like."""
        channel, self._launched = self._launched, None
        if channel is None:
            channel = self._connected()
        try:
            channel.send({"do": "start"})
            answer_of(channel, _START_S, f"starting {self.name}")
        finally:
            channel.close()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code once it has ended; None if not within `timeout_s`. Raises ContainerError if it is lost."""
        try:
            channel = self._connected()
        except NotRunning:
            self.settle()
            return self._exit_code()
        try:
            channel.send({"do": "wait"})
            poll = select.poll()
            poll.register(channel, select.POLLIN)
            if not poll.poll(None if timeout_s is None else timeout_s * 1000):
                return None
            message, _ = channel.receive()
            if message is not None:
                if not message.get("again"):
                    self.settle()
                return int(message["exit_code"])
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            channel.close()
        self.settle()
        return self._exit_code()

    def settle(self, timeout_s: float = 5.0) -> None:
        """Until its supervisor is gone too: then everybody sees it ended, and --rm has removed it."""
        deadline = time.monotonic() + timeout_s
        while self.bundle.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _exit_code(self) -> int:
        if not self.bundle.is_whole():
            raise ContainerNotFound(
                f"{self.name} is gone", why="it was removed when it ended (--rm), or by somebody else"
            )
        code = self.state().exit_code
        if code is None:
            raise ContainerError(f"{self.name} has no exit code", why=f"it is {self.status}")
        return code

    def send_signal(self, number: int, *, final: bool | None = None) -> None:
        """Send its first process a signal. Raises NotRunning.

        A `final` one ends its restart policy too, as SIGKILL and its stop signal do unless told.
        """
        if final is None:
            final = number in (signal.SIGKILL, stop_number(self.info.stop_signal))
        channel = self._connected()
        try:
            channel.send({"do": "kill", "signal": number, "final": final})
            answer_of(channel, 10.0, f"sending {self.name} a signal")
        except (BrokenPipeError, ConnectionResetError, SetupFailed):
            # It ended while we asked.
            self.settle()
        finally:
            channel.close()

    def execute(
        self,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        cwd: str = "",
        user: str = "",
        on_output: Callable[[Stream, bytes], None] = lambda stream, data: None,
        stdin: int | None = None,
        leash: Leash | None = None,
        privileged: bool = False,
        exec_id: str = "",
    ) -> int:
        """Run a further program in it and give its exit code. Raises NotRunning, CommandNotFound and the like.

        `env` is added to the container's; `cwd` and `user` are the container's own unless given. Letting the
        leash go, or an exception in `on_output`, kills the program.
        """
        from nbcontain.runtime.launcher import piped

        self._require_going()
        # First: its supervisor turns to us while we say what we want.
        channel = self._connected()
        streams: dict[int, Stream] = {}
        theirs: list[int] = []
        poll = select.poll()
        end = -1
        try:
            order = self._exec_order(args, env, cwd, user, privileged=privileged) | {"id": exec_id}
            theirs.append(piped(stdin) if stdin is not None else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            end = leash.end() if leash is not None else -1
            for stream in ("stdout", "stderr"):
                reading, writing = os.pipe2(os.O_CLOEXEC)
                streams[reading] = "stdout" if stream == "stdout" else "stderr"
                theirs.append(writing)
                # The program can open its pipe by /proc/self/fd/1 and take away what poll saw.
                os.set_blocking(reading, False)
                poll.register(reading, select.POLLIN)
            ask(channel, self.name, order, theirs)
            while theirs:
                os.close(theirs.pop())
            poll.register(channel, select.POLLIN)
            if end >= 0:
                poll.register(end, select.POLLIN)
            return attend(poll, channel, streams, end, on_output)
        finally:
            # The end of the channel is the end of the program, if it still runs.
            channel.close()
            for fd in (*theirs, *streams, *([end] if end >= 0 else [])):
                os.close(fd)

    def exec_detached(
        self, args: Sequence[str], *, env: Sequence[str] = (), cwd: str = "", user: str = "", privileged: bool = False,
        exec_id: str = "",
    ) -> None:  # fmt: skip
        """Start a further program in it that nobody waits for; what it says is lost. Raises as `execute` does."""
        self._require_going()
        order = self._exec_order(args, env, cwd, user, privileged=privileged) | {"detach": True, "id": exec_id}
        channel = self._connected()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            ask(channel, self.name, order, [null, null, null])
            answer_of(channel, _START_S, f"starting a program in {self.name}")
        finally:
            os.close(null)
            channel.close()

    def _exec_order(
        self, args: Sequence[str], env: Sequence[str], cwd: str, user: str, size: tuple[int, int] | None = None,
        *, privileged: bool = False,
    ) -> Message:  # fmt: skip
        from nbcontain.runtime.generate import merged

        first, annotations = spec_codec.process_from_text(self.bundle.spec_text())
        process = replace(
            first,
            args=tuple(args),
            env=merged(first.env, env),
            cwd=cwd or first.cwd,
            terminal=size is not None,
            console_size=size or (0, 0),
        )
        if privileged:
            if not (rung := rungs.named(self.info.rung)).mounts:
                raise rungs.powerless(rung, "exec --privileged")
            every = tuple(f"CAP_{name}" for name in CAPABILITIES)
            process = replace(process, capabilities=every, permitted=None, effective=None,
                              no_new_privileges=False, apparmor="")  # fmt: skip
        user = user or annotations.get(USER, "")
        groups = annotations.get(GROUPS, "")
        return {"do": "exec", "process": spec_codec.process_to_json(process), "user": user, "groups": groups,
                "privileged": privileged}  # fmt: skip

    def _require_going(self) -> None:
        if self.is_paused:
            raise ContainerError(f"{self.name} is paused", hint=f"%container unpause {self.name}")

    def exec_terminal(
        self, args: Sequence[str], *, env: Sequence[str] = (), cwd: str = "", user: str = "", size: tuple[int, int],
        privileged: bool = False,
    ) -> tuple[Channel, list[int]]:  # fmt: skip
        """Run a further program at a terminal of its own: gives both ends of that, and the channel it hangs on.

        What comes on the channel next is an error, or that it was started, and then its exit code.
        """
        self._require_going()
        channel = self._connected()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            ask(channel, self.name, self._exec_order(args, env, cwd, user, size, privileged=privileged), [null] * 3)
            message, ends = channel.receive()
            if message is None:
                raise NotRunning(f"{self.name} has ended")
            if "error" in message:
                raise error_of(message)
            return channel, ends
        except BaseException:
            channel.close()
            raise
        finally:
            os.close(null)

    def console(self) -> int:
        """A descriptor of its terminal, for what is typed and the size; its output is in its journal.

        Raises NotRunning, also where it has none.
        """
        return self._asked({"do": "console"}, "asking for the terminal")[0]

    def check(self) -> dict[str, object]:
        """Check its health now, and give docker's result, with its Status. Raises ContainerError, NotRunning."""
        channel = self._connected()
        try:
            ask(channel, self.name, {"do": "check"})
            return answer_of(channel, None, f"checking {self.name}")
        finally:
            channel.close()

    def call(
        self, module: str, function: str, arguments: Mapping[str, object], fds: Sequence[int]
    ) -> dict[str, Any]:
        """Run one of our own functions in its mount namespace, with its root as the world. Raises what it raised."""
        channel = self._connected()
        try:
            order = {"do": "call", "module": module, "function": function, "arguments": {**arguments}}
            ask(channel, self.name, order, fds)
            result: dict[str, Any] = answer_of(channel, None, function)["result"]
            return result
        finally:
            channel.close()

    def reread(self) -> None:
        """Have its supervisor, if it has one, see what has been changed in its container.json."""
        with suppress(NotRunning):
            self._asked({"do": "reread"}, "telling of a change")

    def keep(self) -> None:
        """Let it live on although who wanted it goes: its leash is cut. Raises NotRunning."""
        self._asked({"do": "keep"}, "letting go")

    def _asked(self, message: Message, doing: str) -> list[int]:
        """Ask its supervisor something, and give the descriptors that come with the answer."""
        channel = self._connected()
        try:
            channel.send(message)
            answer, fds = channel.receive()
        except (BrokenPipeError, ConnectionResetError):
            answer, fds = None, []
        finally:
            channel.close()
        if answer is None:
            raise NotRunning(f"{self.name} has ended", why=f"while {doing}")
        if "error" in answer:
            raise error_of(answer)
        return fds

    # --- what it says ---

    def follow(
        self, *, from_now: bool = False, enough: Callable[[], bool] = lambda: False, ending: int = -1
    ) -> Generator[Record]:
        """Every record of its journal from the first, or of what comes from now on; waits for more until it ends.

        Who has had `enough` is let go within two seconds. `ending` is a leash's, if it hangs on one that hears.
        """
        return self.bundle.follow(from_now=from_now, enough=enough, ending=ending)

    def batches(self, enough: Callable[[], bool]) -> Generator[list[Record]]:
        """The same from the first, with all that is there at once."""
        return self.bundle.batches(enough=enough)

    def output(
        self, *, follow: bool = False, tail: int | None = None, since: float | None = None, until: float | None = None,
        enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[Record]:  # fmt: skip
        """What it wrote, between two times; with `follow` also what it is going to, over restarts, to its end or until
        there was `enough`. `tail` is how many lines are wanted of what is there already."""
        if follow:
            records: Iterator[Record] = self.bundle.follow(to_the_last=True, tail=tail, until=until, enough=enough)
        else:
            records = self.bundle.journal().records()
            if tail is not None:
                last = Tail(tail)
                for record in between(records, since, until):
                    last.add(record)
                return last.records()
        return between(records, since, until)

    def health(self) -> dict[str, object] | None:
        """docker's State.Health: Status, FailingStreak and Log; None where nobody checks it, or it never ran."""
        if not self.info.health:
            return None
        try:
            said = json.loads((self.bundle.path / "health.json").read_bytes())
            return {name: said[name] for name in ("Status", "FailingStreak", "Log")}
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _connected(self) -> Channel:
        """A channel to its supervisor. Raises NotRunning."""
        try:
            return connect(self.bundle.path)
        except OSError as error:
            raise NotRunning(f"{self.info.name} is not running", hint=f"%container start {self.info.name}") from error
