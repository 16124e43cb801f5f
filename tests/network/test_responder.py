"""Who answers for names, asked by containers that mean harm to others: in this process, turn by turn."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from nbcontain.network import names
from nbcontain.network.etc import Resolver
from nbcontain.network.model import Network, network_to_json
from network.turns import LOCAL, Turns


def question(name: str, number: int = 7) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return struct.pack("!HHHHHH", number, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


class Served(Turns[names.Responder]):
    """A responder for two networks, `one` and `two`, which asks a server that says nothing by itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(names.Responder)
        self.world = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.world.bind((LOCAL, 0))
        self.world.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.world.settimeout(5)
        monkeypatch.setattr(names, "of_machine", lambda: Resolver((LOCAL,)))
        monkeypatch.setattr(names, "_PORT", self.world.getsockname()[1])
        networks = [Network(name, name * 20, "") for name in ("one", "two")]
        self.serving.learn(
            {"networks": [network_to_json(each) for each in networks], "sandboxes": [], "servers": {}}
        )
        self.places: dict[str, tuple[tuple[str, int], tuple[str, int]]] = {}
        for each in networks:
            ends = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
            for end in ends:
                end.bind((LOCAL, 0))
            ends[1].listen(16)
            self.places[each.name] = ends[0].getsockname(), ends[1].getsockname()
            self.serving.hold(each.name, {"network": each.id}, [end.detach() for end in ends])

    def datagrams(self, network: str) -> socket.socket:
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        end.connect(self.places[network][0])
        end.settimeout(5)
        return end

    def stream(self, network: str) -> socket.socket:
        end = socket.create_connection(self.places[network][1])
        end.settimeout(5)
        self.turn()
        return end


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    made = Served(monkeypatch)
    yield made
    made.close()
    made.world.close()


def test_very_many_questions_to_the_world_end_none_of_another_network(served: Served) -> None:
    other, hostile = served.datagrams("two"), served.datagrams("one")
    other.send(question("somewhere.example"))
    served.turn()
    asked, responder = served.world.recvfrom(4096)
    for number in range(1200):
        hostile.send(question(f"x{number}.example"))
        served.turn()
    served.world.sendto(asked[:2] + b"\x81\x80" + asked[4:], responder)
    served.turn(4)
    assert other.recv(4096)[:2] == b"\0\x07"
    hostile.close()
    other.close()


def test_very_many_questions_on_one_connection_keep_nobody_waiting(served: Served) -> None:
    hostile, other = served.stream("one"), served.stream("two")
    asked = [struct.pack("!H", len(each)) + each for each in (question("none.one"), question("none.two"))]
    hostile.sendall(asked[0] * 2000)
    served.turn(2)
    other.sendall(asked[1])
    served.turn(4)
    assert other.recv(4096)[2:4] == b"\0\x07"
    assert len(hostile.recv(1 << 20)) < 10 * len(asked[0])
    hostile.close()
    other.close()


def test_who_asks_and_takes_no_answers_is_hung_up_on(served: Served) -> None:
    hostile = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    hostile.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    hostile.connect(served.places["one"][1])
    hostile.setblocking(False)
    ask = question("none.one")
    asked = (struct.pack("!H", len(ask)) + ask) * 200
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(500_000):
            try:
                hostile.send(asked)
            except BlockingIOError:
                pass
            served.turn()
    assert not served.serving._connections
    hostile.close()
