"""Who forwards published ports, where very many connections come to one of them: in this process, turn by turn."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from nbcontain.network import forwarder
from network.turns import LOCAL, Turns


class Ports(Turns[forwarder.Forwarder]):
    """A forwarder with room for 40 connections, and two ports, `one` and `two`, that lead to a server each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forwarder.resource, "getrlimit", lambda which: (240, 240))
        super().__init__(forwarder.Forwarder)
        self.servers = {name: socket.create_server((LOCAL, 0), backlog=128) for name in ("one", "two")}
        self.places: dict[str, tuple[str, int]] = {}
        for name, server in self.servers.items():
            listener = socket.create_server((LOCAL, 0), backlog=128)
            self.places[name] = listener.getsockname()
            told = dict(zip(("address", "port"), server.getsockname(), strict=True))
            self.serving.hold(name, told, [listener.detach()])

    def comes(self, name: str) -> socket.socket:
        end = socket.create_connection(self.places[name], timeout=5)
        self.turn(2)
        return end

    def echoes(self, name: str) -> bool:
        """Whether who comes now gets to the server."""
        with self.comes(name) as end:
            end.sendall(b"x")
            self.turn(4)
            self.servers[name].settimeout(0.2)
            with contextlib.suppress(OSError):
                served, _ = self.servers[name].accept()
                with served:
                    served.settimeout(1)
                    return served.recv(1) == b"x"
        return False


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ports]:
    made = Ports(monkeypatch)
    yield made
    made.close()
    for server in made.servers.values():
        server.close()


def test_very_many_connections_to_one_port_leave_room_for_those_to_another(ports: Ports) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(ports.comes("one"))
        assert len(ports.serving._pairs) // 2 <= 22
        assert all(ports.echoes("two") for _ in range(5))
    ports.turn(20)
    for server in ports.servers.values():
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.accept()[0].close()
    ports.turn(20)
    # Who has gone has left the room to others.
    assert ports.echoes("one")
