"""The kernel's way to containers' processes: a client of the zygote. Everything here runs in the kernel."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain.errors import SetupFailed
from nbcontain.linux.boot import boot_id
from nbcontain.linux.idmap import IdMap
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Mount
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.leash import Leash
from nbcontain.runtime.messages import ROOTFS, Channel, Message, answer_of
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.spares import Foretell, Spare, spare_of
from nbcontain.runtime.zygotes import PUMP_BYTES, Zygote, interpreter
from nbcontain.store import files

if TYPE_CHECKING:
    from nbcontain.host import Host
    from nbcontain.store.rooted_links import RootedLinks

_READY_S = 20.0
_CREATED_S = 60.0


class Launcher:
    """Makes containers' processes. Starts a zygote on first use, and again if it is gone. Any thread may use it."""

    def __init__(
        self, host: Host, functions: Sequence[str] = (), rung: Rung | None = None, begun: Zygote | None = None
    ) -> None:
        """`functions` names further modules whose functions `call` can run: those of the floors above.

        `rung` is how containers are shut in; `begun` is the first zygote, if somebody has begun with one already.
        """
        self._host = host
        self._functions = (ROOTFS, *functions)
        self._rung = rung or Rung()
        self._lock = threading.Lock()
        self._begun = begun
        self._expects_more = begun is None
        """Who has begun with one beforehand is a command, which runs what it was told and ends."""
        self._zygote: Zygote | None = None
        self._orders: Channel | None = None
        self._is_ready = False
        self._expecting: list[Spare] = []
        """Those that wait for an order of ours already."""
        self._told: dict[str, tuple[Spare, str]] = {}
        """Those that have been told which container they are going to be, by its id; and as which spec."""

    def warm(self) -> None:
        """Have a zygote started; returns at once, and the first launch waits until it is ready."""
        with self._lock:
            if self._orders is None:
                # What is wrong is told by the first launch that needs it.
                with suppress(OSError):
                    self._execute(sealed=True)

    @contextmanager
    def expecting(self, *, untouched: bool = False) -> Iterator[Foretell]:
        """An order is about to come: have a spare awake for it. Does not wait, and is no harm if none comes.

        Gives what tells the spare which container it is going to be, so that its first process begins with what it can
        do before that is written. `untouched`: nobody but that process writes to its layer until then.
        """
        self.warm()
        self._expect()
        foretell = Foretell(self._take_expecting, self._told, untouched=untouched)
        try:
            yield foretell
        finally:
            foretell.close()

    def expect_more(self) -> None:
        """An order like the last one may come: then it need not ask for a spare. Never raises, and does not wait."""
        if self._expects_more:
            with suppress(OSError):
                self._expect(is_ahead=True)

    def _expect(self, *, is_ahead: bool = False) -> None:
        """Have a spare that waits for our order, unless there is one."""
        with self._lock:
            if self._is_ready and self._orders is not None and not self._expecting:
                self._expecting.append(spare_of(self._orders, is_ahead=is_ahead))

    def _take_expecting(self) -> Spare | None:
        with self._lock:
            return self._expecting.pop() if self._expecting else None

    def close(self) -> None:
        """End the zygote; containers go on."""
        with self._lock:
            self._end()
            if self._begun is not None:
                self._begun.orders.close()
                self._begun.end()

    # --- containers ---

    def launch(
        self,
        bundle: Bundle,
        *,
        leash: Leash | None = None,
        stdin: int | None = None,
        start: bool = False,
        secrets: int | None = None,
        handed: list[int] | None = None,
    ) -> Channel:
        """Have a container created: its first process waits for the start. Gives the channel to ask for that.

        With `start` it is started at once, and nothing more is to be asked. `secrets` is memory that `runtime.secrets`
        wrote; `handed` is as in `Container.launch`. The bundle's lock goes to the supervisor. Raises what hindered it,
        typed: CommandNotFound, SetupFailed …
        """
        if bundle.lock_fd is None:
            bundle.lock()
            bundle.end_orphan()
            bundle.mark_paused(paused=False)
        ends = [bundle.lock_fd]
        telling = -1
        if leash is not None:
            ends.append(leash.end())
            if (telling := leash.telling()) >= 0:
                ends.append(telling)
        if stdin is not None:
            ends.append(piped(stdin))
        if secrets is not None:
            ends.append(os.dup(secrets))
        message = {
            "do": "launch",
            "bundle": str(bundle.path),
            "leash": leash is not None,
            "telling": telling >= 0,
            "stdin": stdin is not None,
            "secrets": secrets is not None,
            "start": start,
            "terminal": bundle.info.terminal,
            "volatile": bundle.info.remove or bundle.info.build_step,
            "plain": bundle.is_plain,
        }
        try:
            channel = self._ordered(message, [fd for fd in ends if fd is not None], self._told_of(bundle))
        finally:
            for fd in ends[1:]:
                if fd is not None:
                    os.close(fd)
            bundle.unlock()
        try:
            answer_of(channel, _CREATED_S, "creating the container", handed)
        except BaseException:
            channel.close()
            raise
        return channel

    def call(
        self,
        function: str,
        rootfs: Sequence[Mount],
        arguments: Mapping[str, Any],
        fds: Sequence[int] = (),
        *,
        source: Sequence[Mount] = (),
        imports: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Run one of `runtime.rootfs`' functions with `rootfs` as its whole world, and give its answer.

        `source` is a second root file system, whose directory the function gets as a further descriptor.
        `imports` names modules that it needs besides. Its process ends with this one. Raises what it raised, typed.
        """
        message = {
            "do": "call",
            "modules": (*self._functions, *imports),
            "function": function,
            "rootfs": spec_codec.mounts_to_json(rootfs),
            "source": spec_codec.mounts_to_json(source) if source else None,
            "arguments": dict(arguments),
        }
        channel = self._ordered(message, fds)
        try:
            answer = answer_of(channel, None, function)
        finally:
            channel.close()
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    def remove_tree(self, path: Path) -> None:
        """Remove a tree whose files may belong to ids that only exist inside."""
        self.call("remove_tree", (Mount("/", "bind", str(path.parent), ("bind",)),), {"name": path.name})

    def copy_tree(
        self, root: Path, source: Path, target: Path, index: Path | None, *, linked: bool,
        links: RootedLinks | None = None,
    ) -> bool:  # fmt: skip
        """Copy a tree of the store at `root` into an empty directory of it; see `store.copying.CopyTree`."""
        arguments = {
            "source": str(source.relative_to(root)), "target": str(target.relative_to(root)), "linked": linked,
            "boot": boot_id(), **(links.words() if links is not None else {}),
        }  # fmt: skip
        fds = [files.open_to_append(index)] if index is not None else []
        try:
            done = self.call("copy_tree", (Mount("/", "bind", str(root), ("bind",)),), arguments, fds)
            return done["is_plain"] is True
        finally:
            for fd in fds:
                os.close(fd)

    # --- the zygote ---

    def _told_of(self, bundle: Bundle) -> Spare | None:
        """The spare that has been told of this container; not of what that was to be before somebody changed it."""
        spare, spec = self._told.get(bundle.path.name, (None, ""))
        if spare is None:
            return None
        is_so = bundle.spec_text() == spec
        del self._told[bundle.path.name]
        if is_so:
            return spare
        spare.close()
        return None

    def _ordered(self, message: Message, fds: Sequence[int], told: Spare | None = None) -> Channel:
        """Send an order, and again if whoever it was for is dead, also because a zygote was ended from outside.

        Gives the channel that its answers come on. `told` expects this very order.
        """
        for orders, spare in self._spares(told):
            try:
                if spare.order(message, fds):
                    return spare.report
            except BaseException:
                spare.close()
                raise
            spare.close()
            with self._lock:
                if orders is not None and self._orders is orders:
                    self._end()
        raise SetupFailed("the process that starts containers ends at once")

    def _spares(self, told: Spare | None) -> Iterator[tuple[Channel | None, Spare]]:
        """Whom to give an order to, one after the other: the zygote's channel, and a spare of that zygote."""
        if told is None:
            told = self._take_expecting()
        if told is not None:
            # Should it be dead, that says nothing of its zygote.
            yield None, told
        for _ in range(2):
            orders = self._connected()
            yield orders, spare_of(orders)

    def _connected(self) -> Channel:
        with self._lock:
            if not self._is_ready:
                self._start()
            assert self._orders is not None
            return self._orders

    def _start(self) -> None:
        """Execute a zygote from a sealed copy of the interpreter; from the interpreter itself where that cannot be."""
        why = ""
        for sealed in (True, False):
            if not sealed and self._is_writable_from_inside(interpreter()):
                break
            try:
                if self._orders is None:
                    self._execute(sealed=sealed)
                self._wait_until_ready()
                return
            except (OSError, SetupFailed) as error:
                why = getattr(error, "why", "") or str(error)
        raise SetupFailed("cannot start the process that starts containers", why=why)

    def _execute(self, *, sealed: bool) -> None:
        """Begin with one, unless that was done already; it is ready some time later."""
        zygote, self._begun = self._begun or Zygote(sealed=sealed), None
        self._zygote, self._orders = zygote, zygote.orders
        with suppress(BrokenPipeError):
            # Without a user namespace they are this machine's, whoever one is.
            ids = self._host.ids if "user" in self._rung.namespaces else IdMap.identity()
            told = {"functions": self._functions, "rung": self._rung.numbers(), "expects_more": self._expects_more}
            zygote.orders.send({**ids.numbers(), **told})

    def _wait_until_ready(self) -> None:
        zygote, orders = self._zygote, self._orders
        assert zygote is not None
        assert orders is not None
        try:
            answer_of(orders, _READY_S, "starting a zygote")
            self._is_ready = True
            zygote.listen_no_more()
        except BaseException as error:
            told = self._end().strip()[-500:]
            raise SetupFailed("the process that starts containers did not start", why=told or str(error)) from error

    def _is_writable_from_inside(self, executable: Path) -> bool:
        """Whether root of a container could overwrite this file: as root of the host, or as its owner."""
        status = executable.stat()
        return self._host.is_root or status.st_uid == self._host.uid or bool(status.st_mode & stat.S_IWOTH)

    def _end(self) -> str:
        """End the zygote, and give what it complained of."""
        zygote, orders = self._zygote, self._orders
        self._zygote = self._orders = None
        self._is_ready = False
        while self._expecting:
            self._expecting.pop().close()
        if orders is not None:
            orders.close()
        return zygote.end() if zygote is not None else ""


def piped(stdin: int) -> int:
    """A new descriptor that reads what `stdin` reads: never a file or terminal itself.

    By /proc/self/fd/0 a program can open what it was given to read for writing too, and change its mode.
    """
    if stat.S_ISFIFO(os.fstat(stdin).st_mode):
        return os.dup(stdin)
    source = os.dup(stdin)
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def pump() -> None:
        try:
            while data := os.read(source, PUMP_BYTES):
                while data:
                    data = data[os.write(writing, data) :]
        except OSError:
            # Nobody reads any more, or there is nothing that could be read.
            return
        finally:
            os.close(source)
            os.close(writing)

    threading.Thread(target=pump, name="nbcontain stdin", daemon=True).start()
    return reading
