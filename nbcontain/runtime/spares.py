"""Spares: supervisors that wait for an order, as those see them who give one. Everything here runs in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from nbcontain.errors import SetupFailed
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Mount
from nbcontain.runtime.messages import Channel, Message, is_readable

_TAKEN_S = 60.0
_ENDED_S = 5.0


class Spare:
    """A supervisor that waits for an order of ours, with its first process."""

    def __init__(self, report: Channel) -> None:
        self.report = report
        """To the supervisor."""
        self._first: Channel | None = None
        """To its first process, once it has said how."""
        self._has_begun = False

    def begin(self, message: Message) -> None:
        """Tell its first process what is known of what it is going to be. Straight, if that can be by now; else by the
        supervisor, which would have to be awakened for it."""
        # Should it be dead, another one takes the order.
        with suppress(BrokenPipeError, ConnectionResetError):
            if not self._has_begun and is_readable(self.report, 0):
                self._heard()
            self._has_begun = True
            (self._first or self.report).send({"do": "begin", **message})

    def order(self, message: Message, fds: Sequence[int]) -> bool:
        """Give it an order; False if it is dead. It says at once that it has taken one: without that word nothing has
        been done. Raises SetupFailed if that takes very long."""
        # From here on its first process hears only its supervisor, whose end is told it by the channel's.
        self._leave()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.report.send(message, fds)
        while said := self._heard():
            if "taken" in said:
                return True
        return False

    def _heard(self) -> Message | None:
        if not is_readable(self.report, _TAKEN_S):
            raise SetupFailed(f"nobody takes an order for {_TAKEN_S:.0f} s", why="the machine is very busy")
        message, fds = self.report.receive()
        self._leave()
        if fds:
            self._first = Channel.of(fds.pop())
        return message

    def _leave(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            first.close()

    def close(self) -> None:
        """It is not wanted. If it has been told of a container, nobody of it is there any more afterwards: who becomes
        that in its place mounts what it may just have mounted."""
        self._leave()
        if self._has_begun:
            with suppress(OSError):
                self.report.say_no_more()
                while is_readable(self.report, _ENDED_S) and self._heard() is not None:
                    pass
        self._leave()
        self.report.close()


class Foretell:
    """Tells a spare which container it is going to be: by its layer and by its spec, what is known first."""

    def __init__(
        self, take: Callable[[], Spare | None], told: dict[str, tuple[Spare, str]], *, untouched: bool
    ) -> None:  # fmt: skip
        self._take = take
        self._told = told
        self._untouched = untouched
        self._ids: list[str] = []

    def begin(self, container_id: str) -> None:
        """By nothing but that it comes at once."""
        if (spare := self._spare(container_id)) is not None:
            spare.begin({})

    def spec(self, container_id: str, spec: str) -> None:
        """By its id and the text of its spec."""
        if (spare := self._spare(container_id)) is not None:
            self._told[container_id] = spare, spec
            # The filter that was made of its profile is read from the bundle.
            spare.begin({"spec": spec_codec.without_profile(spec)})

    def root(self, container_id: str, rootfs: Sequence[Mount], *, volatile: bool) -> None:
        """By its layers, which are there now."""
        if self._untouched and (spare := self._spare(container_id)) is not None:
            spare.begin({"rootfs": spec_codec.mounts_to_json(rootfs), "volatile": volatile})

    def _spare(self, container_id: str) -> Spare | None:
        """Who is going to be it; None if nobody is."""
        if container_id not in self._ids:
            if (spare := self._take()) is None:
                return None
            # Until it has heard of the spec it is none that may be started.
            self._told[container_id] = spare, ""
            self._ids.append(container_id)
        known = self._told.get(container_id)
        return known[0] if known else None

    def close(self) -> None:
        """No order comes any more: those that have been told are not wanted."""
        for each in self._ids:
            if unused := self._told.pop(each, None):
                unused[0].close()


def spare_of(orders: Channel, *, is_ahead: bool = False) -> Spare:
    """Have the zygote turn a spare to us; if it is dead, so is that. One that `is_ahead` of an order is one of those
    that wait."""
    ours, theirs = Channel.pair()
    with suppress(BrokenPipeError, ConnectionResetError):
        orders.send({"ahead": is_ahead}, [theirs.fileno()])
    theirs.close()
    return Spare(ours)
