"""Who sends with addresses that are not its own, or to more than its share: what comes of it, and for whom."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from forging import POWERS, forging, places_on, replies
from lan import Lan
from machine import Machine
from nbcontain.network import frames
from nbcontain.network.helper import Poll
from nbcontain.network.relay import Relay
from nbcontain.networks import NetworkRequest

WAIT = "trap exit TERM; echo ready; while :; do sleep 0.1; done"
GREEDY, MODEST = bytes([10, 5, 0, 2]), bytes([10, 5, 1, 2])


def test_what_is_sent_with_anothers_address_is_answered_to_nobody(machine: Machine, lan: Lan) -> None:
    for name, internal in (("shut", True), ("other", False), ("open", False)):
        machine.engine.networks.create(NetworkRequest(name=name, internal=internal, ipv6=True))
    guest = machine.start(WAIT, name="guest", network=("shut", "other"))
    for each in places_on(machine, guest):
        lan.there("ip", "route", "replace", f"{each.address}/32", "via", "192.0.2.1")
        lan.there("ip", "route", "replace", f"{each.address6}/128", "via", "fd99::1")
    shown = machine.sh(forging(places_on(machine, guest)), network="open", cap_add=POWERS)
    assert shown.endswith("answered\n") and shown.count("1 packets received") == 2
    assert replies(guest) == 0


class Wired:
    """A relay, and the wire that it holds."""

    def __init__(self) -> None:
        self.wire, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wire.settimeout(1)
        self._poll = Poll()
        self._relay = Relay(self._poll)
        self._relay.hold("key", {"mac": "02" * 6, "own_mac": "04" * 6}, [far.detach()])

    def send(self, source: bytes, address: str, port: int) -> None:
        """A datagram from a container."""
        body = struct.pack("!HHHH", 4000, port, 12, 0) + b"data"
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, frames.UDP, 0)
        self.wire.send(bytes(12) + b"\x08\x00" + head + source + socket.inet_aton(address) + body)
        self.turn()

    def turn(self) -> None:
        for fd, events in self._poll.epoll.poll(0.2):
            self._relay.serve(fd, events)

    def heard(self) -> tuple[int, bytes, bytes]:
        """What comes back: its protocol, for whom, and what is in it."""
        packet = self.wire.recv(2048)[14:]
        return packet[9], packet[16:20], packet[28:]

    def close(self) -> None:
        self._relay.drop("key")
        self.wire.close()


@pytest.fixture
def wired(lan: Lan) -> Iterator[Wired]:
    made = Wired()
    yield made
    made.close()


def server(address: str) -> socket.socket:
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.bind((address, 0))
    end.settimeout(1)
    return end


def test_who_sends_to_very_many_places_ends_nobody_elses_exchange(wired: Wired) -> None:
    with server("192.0.2.1") as end:
        wired.send(MODEST, *end.getsockname())
        _, asking = end.recvfrom(100)
        for number in range(600):
            # Also with all addresses of its network.
            wired.send(GREEDY[:3] + bytes([number % 200]), "192.0.2.1", end.getsockname()[1])
            wired.send(GREEDY, "192.0.2.2", 10_000 + number)
        end.sendto(b"answer", asking)
        wired.wire.setblocking(False)
        heard = []
        while (frames.UDP, MODEST, b"answer") not in heard:
            wired.turn()
            try:
                heard.append(wired.heard())
            except BlockingIOError:
                break
        assert (frames.UDP, MODEST, b"answer") in heard


def test_an_address_that_is_this_machines_own_alone_is_reached_by_no_datagram(wired: Wired) -> None:
    subprocess.run(["ip", "addr", "add", "198.51.100.1/32", "dev", "lo"], check=True)
    with server("198.51.100.1") as own, server("192.0.2.1") as end:
        wired.send(MODEST, *own.getsockname())
        assert wired.heard()[:2] == (frames.ICMP, MODEST)
        own.setblocking(False)
        with pytest.raises(BlockingIOError):
            own.recv(100)
        wired.send(MODEST, *end.getsockname())
        assert end.recv(100) == b"data"
    subprocess.run(["ip", "addr", "del", "198.51.100.1/32", "dev", "lo"], check=True)
