"""Datagrams as bytes, addresses that a socket is swapped for, and what is read of routes, epolls and records."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nbcontain.linux import routes, swaps
from nbcontain.linux.epolls import add_as, registered
from nbcontain.linux.notify import Call
from nbcontain.network import frames
from nbcontain.network.fragments import Assembly, cut
from nbcontain.network.relay import one_too_many
from nbcontain.runtime.asked import Asked
from nbcontain.runtime.connect_answers import ConnectAnswers, gateways
from nbcontain.values import replace

HERE, FAR = bytes([10, 5, 0, 2]), bytes([192, 0, 2, 9])
HERE6, FAR6 = socket.inet_pton(socket.AF_INET6, "fd00::2"), socket.inet_pton(socket.AF_INET6, "2001:db8::9")
ETHERNET = bytes(12)


def four(protocol: int, body: bytes, *, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, fragment, 64, protocol, 0) + HERE + FAR
    return ETHERNET + b"\x08\x00" + head + body


def six(protocol: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + HERE6 + FAR6
    return ETHERNET + b"\x86\xdd" + head + body


def datagram(payload: bytes) -> bytes:
    return struct.pack("!HHHH", 4000, 53, 8 + len(payload), 0) + payload


def added_up(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_an_answer_goes_back_to_where_the_question_came_from() -> None:
    packet = frames.read(four(frames.UDP, datagram(b"who")) + bytes(7))
    assert packet is not None and (packet.source, packet.source_port) == (HERE, 4000)
    assert (packet.destination, packet.port, packet.payload, packet.passes) == (FAR, 53, b"who", True)
    back = frames.reply(packet, b"me", 7)
    assert added_up(back[:20]) == 0xFFFF and back[12:20] == FAR + HERE
    assert back[20:] == struct.pack("!HHHH", 53, 4000, 10, 0) + b"me"


@pytest.mark.parametrize("payload", [b"me", b"odd"])
def test_an_answer_of_ipv6_has_a_sum(payload: bytes) -> None:
    packet = frames.read(six(frames.UDP, datagram(b"who")))
    assert packet is not None and packet.version == 6
    back = frames.reply(packet, payload, 7)
    pseudo = FAR6 + HERE6 + struct.pack("!II", 8 + len(payload), frames.UDP)
    assert back[8:40] == FAR6 + HERE6 and added_up(pseudo + back[40:] + bytes(len(payload) % 2)) == 0xFFFF


def test_a_ping_is_answered_under_its_own_number() -> None:
    question = struct.pack("!BBHHH", 8, 0, 0, 77, 3) + b"data"
    packet = frames.read(four(frames.ICMP, question))
    assert packet is not None and (packet.source_port, packet.port) == (77, 0)
    answer = frames.reply(packet, struct.pack("!BBHHH", 0, 0, 0, 5, 3) + b"data", 7)[20:]
    assert (answer[0], answer[4:]) == (0, struct.pack("!HH", 77, 3) + b"data") and added_up(answer) == 0xFFFF


def test_what_is_not_passed_on_is_answered_with_why_and_errors_with_nothing() -> None:
    for frame in (four(frames.TCP, bytes(20)), four(frames.UDP, datagram(b"part"), fragment=0x2000)):
        packet = frames.read(frame)
        assert packet is not None and not packet.passes
        told = frames.unreachable(packet, frames.FORBIDDEN, 7)
        assert told[20:22] == b"\x03\x0d" and told[28:48] == frame[14:34] and added_up(told[20:]) == 0xFFFF
    assert frames.read(four(frames.ICMP, b"\x03\x03" + bytes(30))) is None
    assert frames.read(ETHERNET + b"\x08\x06" + bytes(40)) is None


def test_no_frame_is_an_error() -> None:
    chance = random.Random(7)
    whole = [four(frames.UDP, datagram(bytes(30))), six(frames.ICMP6, bytes(40)), four(frames.TCP, bytes(40))]
    whole += [*parts_of(four(frames.UDP, datagram(bytes(60))), 68), *parts_of(six(frames.UDP, bytes(60)), 88)]
    ends = assembly()
    for _ in range(3000):
        frame = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(6)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        cut_off = bytes(frame[: chance.randrange(len(frame) + 1)])
        ends.whole(cut_off, 0)
        packet = frames.read(cut_off)
        if packet is not None:
            frames.unreachable(packet, frames.PORT, 1)
            if packet.passes:
                frames.reply(packet, os.urandom(chance.randrange(20)), 1)


def assembly() -> Assembly:
    return Assembly(one_too_many)


def parts_of(frame: bytes, widest: int, number: int = 7) -> list[bytes]:
    """A frame as it comes over a narrower wire."""
    return [frame[:14] + each for each in cut(frame[14:], widest, number)]


@pytest.mark.parametrize("make", [four, six])
@pytest.mark.parametrize("size", [1, 1465, 1480, 4000, 65_000])
def test_what_is_cut_is_put_together_again_in_whatever_order(make: Callable[..., bytes], size: int) -> None:
    payload = os.urandom(size)
    whole = make(frames.UDP, datagram(payload))
    parts = parts_of(whole, 1500)
    assert max(map(len, parts)) <= 1514 and (len(parts) > 1) == (len(whole) > 1514)
    assert all(added_up(each[14:34]) == 0xFFFF for each in parts[1:] if make is four)
    random.Random(size).shuffle(parts)
    # Twice, as a wire may have it.
    ends = assembly()
    found = [each for part in (*parts[:-1], *parts) if (each := ends.whole(part, 0)) is not None]
    assert len(found) == 1 if len(parts) > 1 else found
    packet = frames.read(found[0])
    assert packet is not None and packet.passes and packet.payload == payload


@pytest.mark.parametrize("make", [four, six])
def test_parts_that_do_not_fit_are_thrown_away_whole(make: Callable[..., bytes]) -> None:
    first, second, third = parts_of(make(frames.UDP, datagram(bytes(3500))), 1500)
    forged = first[:-8] + b"another!"
    for parts in ((first, second, forged, third), (first, third, second[:-3]), (second, third), (third, third)):
        ends = assembly()
        assert [each for part in parts if (each := ends.whole(part, 0)) is not None] == []
    ends = assembly()
    # Another's parts are not its own, and what was long ago is forgotten.
    others = parts_of(make(frames.UDP, datagram(bytes(3500))), 1500, number=8)
    assert [ends.whole(each, 0) for each in (first, others[1], third)] == [None] * 3
    assert ends.whole(second, 31) is None


def test_who_sends_very_many_parts_is_at_its_own_expense() -> None:
    ends = assembly()
    first, last = parts_of(four(frames.UDP, datagram(bytes(2000))), 1500)
    assert ends.whole(first, 0) is None
    for number in range(500):
        part = parts_of(four(frames.UDP, datagram(bytes(2000))), 1500, number)[0]
        ends.whole(part[:26] + bytes([10, 9, 0, number % 200]) + part[30:], 1)
    assert ends.whole(last, 1) is not None


@pytest.mark.parametrize("make", [four, six])
def test_nobody_sends_a_datagram_in_very_many_parts(make: Callable[..., bytes]) -> None:
    """Each would cost the memory of a hundred of its size, and the time of all before it."""
    whole = make(frames.UDP, datagram(bytes(12_000)))
    for widest, comes in ((400, True), (64, False)):
        ends = assembly()
        assert any(ends.whole(each, 0) for each in parts_of(whole, widest)) is comes


def said(address: str, port: int = 80) -> bytes:
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + packed + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::7f00:1"],
)  # fmt: skip
def test_what_is_near_is_never_swapped_for(address: str) -> None:
    assert swaps.peer(said(address)) is None


@pytest.mark.parametrize(("address", "size"), [("192.0.2.1", 4), ("2001:db8::1", 16), ("::ffff:192.0.2.1", 4)])
def test_what_is_far_is_read_as_it_was_said(address: str, size: int) -> None:
    to = swaps.peer(said(address, 8080))
    assert to is not None and len(to.packed) == size and to.name[:2] == (address, 8080)


def test_what_is_no_address_is_none() -> None:
    cut = (said("192.0.2.1")[:15], said("2001:db8::1")[:23])
    for data in (b"", b"\x02", *cut, bytes(16), b"\x01\x00/a-path" + bytes(9)):
        assert swaps.peer(data) is None


def test_a_route_is_read_and_a_refusal_is_its_error() -> None:
    route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    attributes = struct.pack("=HHI", 8, 4, 5) + struct.pack("=HH", 8, 5) + bytes([10, 0, 0, 1])
    whole = struct.pack("=IHHII", 16 + len(route + attributes), 24, 0, 1, 0) + route + attributes
    assert routes.read(whole) == routes.Route(1, 0, bytes([10, 0, 0, 1]), 5)
    with pytest.raises(OSError, match="unreachable"):
        routes.read(struct.pack("=IHHII", 36, 2, 0, 1, 0) + struct.pack("=i", -101) + bytes(16))


def test_what_an_epoll_knows_and_where_a_record_leads() -> None:
    text = b"pos:\t0\nflags:\t02\ntfd:        5 events:       1d data:  123456789abcdef  pos:0 ino:2a sdev:8\n"
    text += b"tfd: 6 ino:2b\n"
    assert registered(text, 0x2A) == [(5, 0x1D, 0x123456789ABCDEF)] and registered(text, 1) == []
    record = {"endpoints": [{"gateway": "10.0.0.1", "gateway6": "fd00::1"}, {"gateway": "", "gateway6": ""}]}
    found = {socket.inet_pton(socket.AF_INET, "10.0.0.1"), socket.inet_pton(socket.AF_INET6, "fd00::1")}
    assert gateways(json.dumps(record).encode()) == found


class OldMultipath(socket.socket):
    """A socket as MPTCP's are before Linux 5.16: what TCP_INFO says is not told of them."""

    @property
    def proto(self) -> int:
        return 262

    def getsockopt(self, level: int, name: int, *size: int) -> bytes | int:  # type: ignore[override]
        if level == socket.IPPROTO_TCP:
            raise OSError(errno.EOPNOTSUPP, "")
        return super().getsockopt(level, name, *size)


def test_a_multipath_socket_of_an_older_kernel_is_swapped_unless_it_listens_or_is_connected() -> None:
    with OldMultipath() as end, socket.create_server(("127.0.0.1", 0)) as here, OldMultipath() as other:
        assert swaps.can_be_swapped(end)
        other.connect(here.getsockname())
        end.listen()
        assert not swaps.can_be_swapped(end) and not swaps.can_be_swapped(other)


def test_sockets_that_keep_their_port_share_it_with_those_that_lead_elsewhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as here, socket.socket(socket.AF_INET6) as end:
        to = swaps.peer(said("::ffff:192.0.2.1"))
        assert to is not None
        to = replace(to, name=("::ffff:127.0.0.1", here.getsockname()[1], 0, 0))
        made = [swaps.connected_like(end, routes.LOOPBACK, to, (47301, 47304)) for _ in range(3)]
        assert {error for _, error in made} <= {0, errno.EINPROGRESS}
        assert len({each.getsockname()[1] for each, _ in made}) == 3
        for each, _ in made:
            each.close()


def test_what_has_the_number_here_is_there_again_or_nothing_is_added() -> None:
    with select.epoll() as epoll, socket.socket() as end, open(__file__, "rb") as own:
        before = os.fstat(own.fileno())
        add_as(epoll.fileno(), end.fileno(), own.fileno(), select.EPOLLOUT, 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(OSError, match="Invalid argument|Too many open files"):
                add_as(epoll.fileno(), end.fileno(), own.fileno(), select.EPOLLOUT, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert os.path.samestat(os.fstat(own.fileno()), before)
        assert [number for number, _ in epoll.poll(0)] == [1]


class Hidden(Asked):
    """Of processes that nobody may look into."""

    def read(self, call: Call, address: int, size_bytes: int) -> bytes:
        raise PermissionError(errno.EACCES, "")

    def let_through(self, call: Call) -> None:
        raise StopIteration


@pytest.mark.parametrize("gateway", ["10.0.0.1", ""])
def test_who_may_not_be_looked_into_has_the_kernels_answer_as_long_as_something_leads_out(
    tmp_path: Path, gateway: str
) -> None:
    (tmp_path / "record").write_text(json.dumps({"endpoints": [{"gateway": gateway}]}))
    directory, proc = os.open(tmp_path, os.O_RDONLY), os.open("/proc", os.O_RDONLY)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as route:
            answers = ConnectAnswers(Hidden(-1, proc), select.poll(), route, (directory, "record"))
            with pytest.raises(StopIteration if gateway else PermissionError):
                answers.connect(Call(1, 1, 42, 0, (3, 0, 16, 0, 0, 0)))
    finally:
        os.close(directory)
        os.close(proc)
