"""Networks as root: who reaches whom, by which name, through which port; and what is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import needs
from lan import HOME, Lan, picture
from machine import Machine, assert_on_this_machines_network, murderous, network_processes, said, until
from nbcontain.commands.table import parse_words
from nbcontain.engine import Engine
from nbcontain.errors import (
    AddressesExhausted,
    AddressTaken,
    NetworkError,
    NetworkInUse,
    NetworkNotFound,
    PortTaken,
    Unavailable,
    UsageError,
)
from nbcontain.handles import Container as Handle
from nbcontain.listing import Networks
from nbcontain.network import tunnels
from nbcontain.network.records import place
from nbcontain.networks import NetworkRequest
from nbcontain.runtime.container import Container
from rounds import SOAK, rounds

WAIT = "trap exit TERM; echo ready; while :; do sleep 0.1; done"
WEB = "mkdir /web; echo hello from $HOSTNAME > /web/index.html; echo ready; exec httpd -f -p 80 -h /web"


def fetch(url: str) -> str:
    """What an address of this namespace answers over http."""
    done = subprocess.run(["curl", "-gsS", "--max-time", "5", url], capture_output=True, text=True, check=True)
    return done.stdout


ECHO = """
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
int main(void) {
    struct sockaddr_in at = {AF_INET, htons(7)}, from;
    int end = socket(AF_INET, SOCK_DGRAM, 0);
    bind(end, (void *)&at, sizeof at);
    puts("ready"), fflush(stdout);
    for (char data[2048];;) {
        socklen_t size = sizeof from;
        ssize_t came = recvfrom(end, data, sizeof data, 0, (void *)&from, &size);
        sendto(end, data, came, 0, (void *)&from, size);
    }
}
"""


def get(address: str, port: int) -> str:
    """A script that asks a web server: the tests' busybox has a wget that dies where there is no nsswitch.conf."""
    return f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port}"


def pings(machine: Machine, container: Container, target: str) -> bool:
    """Whether a container gets an answer."""
    return machine.execute(container, "ping", "-c", "1", "-W", "1", target)[0] == 0


def address(machine: Machine, container: Container, network: str) -> str:
    sandbox = machine.engine.networks.sandbox(container)
    assert sandbox is not None
    return next(each.address for each in sandbox.endpoints if each.network_name == network)


def make(machine: Machine, name: str, **said: object) -> None:
    machine.engine.networks.create(NetworkRequest(name=name, **said))  # type: ignore[arg-type]


def wait_for_web(container: Container) -> None:
    until(lambda: "ready" in said(container))
    until(lambda: b":0050 " in Path(f"/proc/{container.pid}/net/tcp6").read_bytes())


def test_who_names_no_network_is_on_the_default_one_with_its_own_address_and_a_way_out(
    machine: Machine, lan: Lan
) -> None:
    shown = machine.sh("ip -o -4 addr show eth0; ip route; cat /etc/hosts; hostname; ping -c 1 -W 2 192.0.2.2")
    assert "10.210.0." in shown and "default via 10.210.0.1" in shown
    lines = shown.splitlines()
    assert any(line.startswith("10.210.0.") and line.split()[-1] in lines for line in lines)
    assert "1 packets received" in shown


def test_where_no_proc_can_be_mounted_networks_are_the_same(machine: Machine, lan: Lan) -> None:
    lower = Machine.on(machine.engine.isolated("root-noproc"))
    make(lower, "lab")
    wait_for_web(lower.start(WEB, name="web", network="lab"))
    shown = lower.sh(f"{get('web', 80)}; ip -o -4 addr show eth0", network="lab")
    assert "hello" in shown and "10.211.0." in shown
    with pytest.raises(Unavailable, match="root-noproc"):
        lower.sh("true", network="lab", sysctl=("net.ipv4.ip_default_ttl=9",))


def test_where_nothing_is_forwarded_who_names_no_network_has_this_machines(
    machine: Machine, lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "FORWARDING", "/nowhere")
    assert_on_this_machines_network(machine, "forwards nothing")


def test_a_container_is_reached_by_its_name_its_alias_and_the_beginning_of_its_id(machine: Machine, lan: Lan) -> None:
    make(machine, "lab")
    db = machine.start(WAIT, name="db", network="lab", network_alias=("store", "cache.local"))
    for name in ("db", "store", "cache.local", db.id[:12], "db.lab", "DB"):
        assert f"Address: {address(machine, db, 'lab')}" in machine.sh(f"nslookup {name}", network="lab"), name
    assert "ping" in machine.sh("ping -c 1 db", network="lab").lower()


def test_names_are_told_backwards_and_by_search_domains_and_unknown_ones_are_not_there(
    machine: Machine, lan: Lan
) -> None:
    make(machine, "lab", internal=True)
    db = machine.start(WAIT, name="db", network="lab")
    assert "name = db.lab" in machine.sh(f"nslookup {address(machine, db, 'lab')}", network="lab")
    assert "search lab" in machine.sh("cat /etc/resolv.conf", network="lab", dns_search=("lab",))
    result = machine.run("sh", "-c", "nslookup nowhere; :", network="lab")
    assert "NXDOMAIN" in result.stdout + result.stderr


def test_names_of_a_network_are_told_on_that_network_alone(machine: Machine, lan: Lan) -> None:
    make(machine, "lab", subnets=("10.88.3.0/24",))
    make(machine, "other")
    machine.start(WAIT, name="db", network="lab")
    ask = "timeout 1 nslookup -type=a db.lab 10.88.3.1"
    assert "10.88.3.2" in machine.sh(ask, network="lab")
    # The gateway is an address of this machine's, which the other network and the other machine have a way to.
    assert "10.88.3.2" not in machine.sh(f"ping -c 1 -W 1 10.88.3.1 >&2 && {ask}; :", network="other")
    lan.there("ip", "route", "replace", "10.88.3.1/32", "via", "192.0.2.1")
    busybox = needs.program("busybox", "busybox-static")
    assert lan.reaches(busybox, "ping", "-c", "1", "-W", "1", "10.88.3.1")
    assert not lan.reaches(*f"timeout 1 {busybox} nslookup -type=a db.lab 10.88.3.1".split())


def test_the_world_is_asked_for_other_names_but_never_from_an_internal_network(machine: Machine, lan: Lan) -> None:
    with server_of_names() as (asked, port53):
        make(machine, "open")
        make(machine, "shut", internal=True)
        out = machine.sh("nslookup -type=a example.test; :", network="open", dns=(port53,))
        assert "198.51.100.7" in out and asked
        del asked[:]
        out = machine.sh("nslookup -type=a example.test; :", network="shut", dns=(port53,))
        assert "198.51.100.7" not in out and asked == []


@contextlib.contextmanager
def server_of_names():  # type: ignore[no-untyped-def]
    """A resolver on this machine that knows one address for everything."""
    import threading

    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.bind(("192.0.2.1", 53))
    asked: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = end.recvfrom(4096)
                if not data:
                    return
                asked.append(data)
                answer = data[:2] + b"\x81\x80" + data[4:6] + b"\0\1\0\0\0\0" + data[12:]
                end.sendto(answer + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + bytes([198, 51, 100, 7]), client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked, "192.0.2.1"
    finally:
        end.close()


def test_who_reaches_whom(machine: Machine, lan: Lan) -> None:
    """Nine containers on two networks, and a tenth on both: within a network everybody, across nobody."""
    make(machine, "one")
    make(machine, "two")
    on = {f"c{n}": (("one", "two")[n % 2],) for n in range(9)} | {"both": ("one", "two")}
    containers = {name: machine.start(WAIT, name=name, network=networks) for name, networks in on.items()}
    places = [(name, each, address(machine, containers[name], each)) for name, there in on.items() for each in there]
    # By address too, since a name that cannot be known cannot be reached either.
    tries = "".join(
        f"(ping -c 1 -W 1 {at} && echo REACHES {at}; nslookup -type=a {name}.{there} && echo KNOWS {at}) & "
        for name, there, at in places
    )

    def reached(name: str) -> set[str]:
        said = machine.execute(containers[name], "sh", "-c", f"({tries} wait) 2>/dev/null")[1]
        return {line for line in said.splitlines() if line.startswith(("REACHES", "KNOWS"))}

    with ThreadPoolExecutor(len(on)) as pool:
        matrix = dict(zip(on, pool.map(reached, on), strict=True))
    for name, networks in on.items():
        expected = {f"{word} {at}" for _, there, at in places if there in networks for word in ("REACHES", "KNOWS")}
        assert matrix[name] == expected, name


def test_nothing_leads_into_or_out_of_an_internal_network(machine: Machine, lan: Lan) -> None:
    make(machine, "shut", internal=True)
    one = machine.start(WAIT, name="one", network="shut")
    two = machine.start(WAIT, name="two", network="shut")
    assert pings(machine, one, "two")
    assert not pings(machine, one, "192.0.2.2")
    assert "default" not in machine.execute(one, "ip", "route")[1]
    lan.there("ip", "route", "add", f"{address(machine, two, 'shut')}/32", "via", "192.0.2.1")
    assert not lan.reaches("ping", "-c", "1", "-W", "1", address(machine, two, "shut"))


def test_who_is_outside_reaches_published_ports_only(machine: Machine, lan: Lan) -> None:
    make(machine, "lab")
    web = machine.start(WEB, name="web", network="lab", publish=("0.0.0.0:8080:80", "8081:80"))
    wait_for_web(web)
    inside = address(machine, web, "lab")
    assert "hello" in fetch("http://127.0.0.1:8080/") == fetch("http://192.0.2.1:8080/")
    assert "hello" in fetch("http://127.0.0.1:8081/")
    assert "hello" in lan.there("curl", "-sS", "--max-time", "3", "http://192.0.2.1:8080/")
    # 127.0.0.1 is this machine's alone, even for who claims to have a way there.
    lan.there("ip", "route", "replace", f"{inside}/32", "via", "192.0.2.1")
    assert not lan.reaches("curl", "-sS", "--max-time", "1", "http://192.0.2.1:8081/")
    assert not lan.reaches("curl", "-sS", "--max-time", "1", f"http://{inside}/")
    lan.there("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    lan.reaches("ip", "route", "add", "127.0.0.2/32", "via", "192.0.2.1")
    assert not lan.reaches("curl", "-sS", "--max-time", "1", "http://127.0.0.2:8081/")
    assert machine.engine.networks.ports(web)[0].host_port == 8080


def test_a_container_reaches_a_published_port_by_this_machine_and_even_its_own(machine: Machine, lan: Lan) -> None:
    make(machine, "one")
    make(machine, "two")
    web = machine.start(WEB, name="web", network="one", publish=("0.0.0.0:8080:80",))
    wait_for_web(web)
    for network in ("two", "one", "container:web"):
        assert "hello" in machine.sh(get("192.0.2.1", 8080), network=network)


def test_udp_goes_through_the_filter_and_through_the_forwarder(machine: Machine, lan: Lan, tmp_path: Path) -> None:
    (tmp_path / "echo.c").write_text(ECHO)
    subprocess.run([needs.program("cc", "gcc"), "-static", "-o", tmp_path / "echo", tmp_path / "echo.c"], check=True)
    machine.build("FROM box\nCOPY echo /bin/echod\n", "echo", tmp_path)
    machine.start("exec echod", image="echo", name="echo", publish=("0.0.0.0:9007:7/udp",))
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.settimeout(3)
    end.sendto(b"by the forwarder", ("127.0.0.1", 9007))
    assert end.recv(100) == b"by the forwarder"
    end.close()
    program = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
        "s.connect(('192.0.2.1', 9007))\n"
        "for n in range(8):\n"
        "    s.send(b'by the filter')\n"
        "    try: print(s.recv(100)); break\n"
        "    except TimeoutError: pass"
    )
    assert "by the filter" in lan.there("python3", "-c", program, timeout=20)


def answers(ask: Callable[[], str]) -> bool:
    """Whether a server answers whoever asks."""
    with contextlib.suppress(subprocess.CalledProcessError):
        return "hello" in ask()
    return False


def test_a_server_that_is_killed_under_load_ends_its_connections_and_nothing_else(machine: Machine, lan: Lan) -> None:
    """Through the filter from the other machine, and through the forwarder from this one."""
    wrk = needs.program("wrk")
    make(machine, "lab")
    web = machine.start(WEB, name="web", network="lab", publish=("0.0.0.0:8080:80",))
    staying = machine.start(WEB, name="staying", network="lab", publish=("8081:80",))
    for each in (web, staying):
        wait_for_web(each)
    forwarder, seconds = processes_of(machine)["forwarder"], 20 if SOAK else 3
    descriptors = len(os.listdir(f"/proc/{forwarder}/fd"))
    load = (wrk, "-t1", "-c32", f"-d{seconds}s", "--timeout", "1s")
    here = subprocess.Popen([*load, "http://127.0.0.1:8080/"], stdout=subprocess.PIPE, text=True)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(lan.there, *load, "http://192.0.2.1:8080/", timeout=seconds + 10)
        time.sleep(seconds / 2)
        # However slow the machine is: both loads are being answered. A server with so much to do resets some.
        until(lambda: answers(lambda: fetch("http://127.0.0.1:8080/")), timeout_s=5)
        until(lambda: answers(lambda: lan.there("curl", "-sS", "http://192.0.2.1:8080/")), timeout_s=5)
        machine.engine.remove_container(web, force=True)
        for text in (here.communicate(timeout=seconds + 10)[0], there.result()):
            assert int(re.findall(r"(\d+) requests in", text)[0]) > 0, text
    assert processes_of(machine)["forwarder"] == forwarder
    assert "hello" in fetch("http://127.0.0.1:8081/")
    # Those of the port that is gone, and of all connections.
    until(lambda: len(os.listdir(f"/proc/{forwarder}/fd")) == descriptors - 1)


def test_ipv6_within_a_network_and_through_a_published_port(machine: Machine, lan: Lan) -> None:
    make(machine, "six", ipv6=True, subnets=("fd42:1::/64",))
    web = machine.start(WEB, name="web", network="six", ip6="fd42:1::99", publish=("[::]:8086:80", "[::1]:8087:80"))
    wait_for_web(web)
    shown = machine.sh(
        "ip -6 route; cat /proc/sys/net/ipv6/conf/eth0/accept_ra; ping6 -c 1 -W 2 fd42:1::99", network="six"
    )
    assert "default via fd42:1::1" in shown and "1 packets received" in shown and "\n0\n" in shown
    assert "fd42:1::99" in machine.sh("nslookup -type=aaaa web", network="six")
    assert "hello" in fetch("http://[::1]:8087/") == fetch("http://[::1]:8086/")
    assert "hello" in lan.there("curl", "-gsS", "--max-time", "3", "http://[fd99::1]:8086/")


def test_an_address_a_mac_and_what_cannot_be_had(machine: Machine, lan: Lan) -> None:
    make(machine, "lab", subnets=("10.77.0.0/24",), ranges=("10.77.0.128/25",), gateways=("10.77.0.254",))
    words = {"network": "lab", "ip": "10.77.0.9", "mac_address": "92:d0:c6:0a:29:33"}
    shown = machine.sh("ip addr show eth0; ip route", **words)
    assert "10.77.0.9/24" in shown and "92:d0:c6:0a:29:33" in shown and "default via 10.77.0.254" in shown
    assert "10.77.0.12" in machine.sh("ip addr show eth0", network="lab")
    machine.start(WAIT, name="nine", **words)
    with pytest.raises(AddressTaken, match="10.77.0.9 is taken"):
        machine.run("true", network="lab", ip="10.77.0.9")
    with pytest.raises(AddressTaken):
        machine.run("true", network="lab", mac_address="92:d0:c6:0a:29:33")
    with pytest.raises(NetworkError, match="no address of the network lab"):
        machine.run("true", network="lab", ip="10.78.0.9")
    with pytest.raises(UsageError, match="user defined networks only"):
        machine.run("true", ip="10.77.0.9")
    with pytest.raises(NetworkNotFound, match="network lap not found"):
        machine.run("true", network="lap")
    assert [each.name for each in machine.engine.containers()] == ["nine"]


def test_addresses_run_out_and_come_back(machine: Machine, lan: Lan) -> None:
    make(machine, "tiny", subnets=("10.77.1.0/29",))
    on = [machine.start(WAIT, network="tiny") for _ in range(5)]
    with pytest.raises(AddressesExhausted, match="no address is left in 10.77.1.0/29"):
        machine.run("true", network="tiny")
    machine.engine.remove_container(on[2], force=True)
    machine.run("true", network="tiny")


def test_a_taken_port_is_told_with_its_owner(machine: Machine, lan: Lan) -> None:
    machine.start(WAIT, name="first", publish=("8085:80",))
    with pytest.raises(PortTaken) as told:
        machine.run("true", publish=("8085:80",))
    assert "the container first has it" in told.value.why
    with socket.socket() as other:
        other.bind(("127.0.0.1", 8086))
        other.listen()
        with pytest.raises(PortTaken) as told:
            machine.run("true", publish=("8086:80",))
        assert f"process {os.getpid()}" in told.value.why
        container = machine.start(WAIT, publish=("8085-8088:80",))
        assert [each.host_port for each in machine.engine.networks.ports(container)] == [8087]
    assert len(machine.engine.containers()) == 2


def test_ports_of_an_image_are_published_where_there_is_room(machine: Machine, lan: Lan) -> None:
    machine.build("FROM box\nEXPOSE 80 53/udp\n", "exposing")
    container = machine.start(WAIT, image="exposing", publish_all=True, expose=("90-91",))
    ports = machine.engine.networks.ports(container)
    assert {(each.container_port, each.protocol) for each in ports} == {
        (80, "tcp"),
        (53, "udp"),
        (90, "tcp"),
        (91, "tcp"),
    }
    assert all(each.host_port for each in ports)


def test_a_huge_file_of_names_is_left_alone_and_costs_no_memory(machine: Machine, lan: Lan) -> None:
    make(machine, "one")
    make(machine, "two")
    a = machine.start(WAIT, name="a", network="one")
    assert machine.execute(a, "truncate", "-s", "400M", "/etc/hosts")[0] == 0
    machine.engine.networks.connect("two", a)
    [worker] = [pid for pid, role in network_processes(machine.engine.layout.root).items() if role == "worker"]
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
    assert int(peak) < 200 << 10
    assert machine.execute(a, "stat", "-c", "%s", "/etc/hosts")[1].strip() == str(400 << 20)
    machine.engine.networks.disconnect("two", a)


def test_joining_and_leaving_while_it_runs(machine: Machine, lan: Lan) -> None:
    engine, began = machine.engine, f"{time.time():.6f}"
    make(machine, "one")
    make(machine, "two")
    a, b = machine.start(WAIT, name="a", network="one"), machine.start(WAIT, name="b", network="two")
    assert not pings(machine, a, "b")
    engine.networks.connect("two", a)
    assert pings(machine, a, "b") and pings(machine, b, "a")
    assert machine.execute(a, "cat", "/etc/hosts")[1].count(a.id[:12]) == 2
    with pytest.raises(NetworkError, match="on two already"):
        engine.networks.connect("two", a)
    with pytest.raises(NetworkInUse):
        engine.networks.remove("two")
    engine.networks.disconnect("one", a)
    assert pings(machine, a, "b")
    assert machine.execute(a, "cat", "/etc/hosts")[1].count(a.id[:12]) == 1
    assert "default" in machine.execute(a, "ip", "route")[1]
    engine.networks.disconnect("two", a)
    assert not pings(machine, a, address(machine, b, "two"))
    # What it is on is what it will be on.
    engine.networks.connect("two", a)
    engine.stop(a, 0)
    engine.start(a)
    until(lambda: pings(machine, a, "b"))
    engine.stop(b, 0)
    engine.stop(a, 0)
    engine.networks.remove("two")
    # And whoever listens has heard of all of it.
    heard = [each for each in engine.events.between(began, filters=["type=network"], follow=False) if each]
    told = [(e["Action"], e["Actor"]["Attributes"]["name"], e["Actor"]["Attributes"].get("container")) for e in heard]
    assert told == [
        ("create", "one", None), ("create", "two", None), ("connect", "two", a.id), ("disconnect", "one", a.id),
        ("disconnect", "two", a.id), ("connect", "two", a.id), ("destroy", "two", None),
    ]  # fmt: skip


def test_the_network_of_another_container_and_none_and_the_hosts(machine: Machine, lan: Lan) -> None:
    web = machine.start(WEB, name="web")
    wait_for_web(web)
    assert "hello" in machine.sh(get("127.0.0.1", 80), network="container:web")
    assert machine.sh("cat /etc/hosts", network="container:web") == machine.execute(web, "cat", "/etc/hosts")[1]
    assert "eth0" not in machine.sh("ip addr", network="none")
    assert "192.0.2.1" in machine.sh("ip addr", network="host")


def test_what_ends_by_itself_leaves_nothing(machine: Machine, lan: Lan) -> None:
    before = picture()
    machine.run("true", publish=("8090:80",))
    machine.run("true", publish=("8090:80",))
    machine.engine.networks.settle()
    assert picture() == before


def test_many_starts_and_ends_leave_the_machine_as_it_was(machine: Machine, lan: Lan) -> None:
    before = picture()
    make(machine, "lab")
    for n in rounds(1000, 12):
        machine.run("true", network="lab", publish=(f"{9100 + n % 50}:80",))
    machine.engine.networks.remove("lab")
    machine.engine.networks.settle()
    assert picture() == before


def living(machine: Machine) -> dict[int, str]:
    """The networks' processes, and what they do."""
    return network_processes(machine.engine.layout.root)


def processes_of(machine: Machine) -> dict[str, int]:
    """The same by what they do."""
    return {role: pid for pid, role in living(machine).items()}


@pytest.mark.parametrize("victim", ["names", "forwarder", "worker"])
def test_a_killed_process_is_replaced_and_containers_keep_their_network(
    machine: Machine, lan: Lan, victim: str
) -> None:
    make(machine, "lab")
    web = machine.start(WEB, name="web", network="lab", publish=("8080:80",))
    other = machine.start(WAIT, name="other", network="lab")
    wait_for_web(web)
    killed = processes_of(machine)[victim]
    os.kill(killed, signal.SIGKILL)
    until(lambda: processes_of(machine).get(victim) != killed)
    if victim == "worker":
        # The others go on without it.
        assert "hello" in fetch("http://127.0.0.1:8080/") and pings(machine, other, "web")
        machine.engine.networks.settle()
    until(lambda: set(processes_of(machine)) == {"worker", "names", "forwarder"})
    until(lambda: pings(machine, other, "web"))
    assert "hello" in fetch("http://127.0.0.1:8080/")


def test_a_flushed_packet_filter_is_filled_again(machine: Machine, lan: Lan) -> None:
    make(machine, "lab")
    machine.start(WAIT, network="lab")
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    machine.run("true", network="lab")
    assert "masquerade" in picture()


def test_what_a_killed_container_left_is_taken_away(machine: Machine, lan: Lan) -> None:
    make(machine, "lab")
    web = machine.start(WEB, name="web", network="lab", publish=("0.0.0.0:8080:80",))
    wait_for_web(web)
    assert "8080" in picture()
    channel_pid = processes_of(machine)["worker"]
    os.kill(channel_pid, signal.SIGKILL)
    os.kill(web.state().pid, signal.SIGKILL)
    web.settle()
    machine.engine.networks.settle()
    assert "8080" not in picture() and "master" not in picture()


def test_joining_and_leaving_again_and_again_leaves_the_machine_as_it_was(machine: Machine, lan: Lan) -> None:
    make(machine, "lab", ipv6=True)
    make(machine, "side")
    there = machine.start(WAIT, name="there", network="lab", publish=("0.0.0.0:8080:80",))
    before = picture()
    for _ in rounds(1000, 5):
        machine.engine.networks.connect("side", there)
        machine.engine.networks.disconnect("side", there)
    assert picture() == before


def test_the_verbs(machine: Machine, lan: Lan) -> None:
    engine = machine.engine

    def do(*words: str) -> object:
        command, options = parse_words("", words)
        value = command.function(engine, options)
        task = getattr(value, "task", None)
        return task.result() if task is not None else value

    made = do("network", "create", "--subnet", "10.88.9.0/24", "--label", "team=a", "-o", "mtu=1400", "lab")
    assert len(str(made)) == 64
    assert (
        "lab" in repr(do("network", "ls"))
        and str(do("network", "ls", "-q", "--filter", "label=team=a"))[:12] == str(made)[:12]
    )
    web = machine.start(WAIT, name="web", network="lab", network_alias=("www",), publish=("8080:80", "8081:81/udp"))
    (document,) = do("network", "inspect", "lab").value  # type: ignore[attr-defined]
    assert document["IPAM"]["Config"] == [{"Subnet": "10.88.9.0/24", "Gateway": "10.88.9.1"}]
    assert document["Containers"][web.id]["IPv4Address"] == "10.88.9.2/24"
    assert document["Options"] == {"mtu": "1400"} and document["Labels"] == {"team": "a"}
    assert "mtu 1400" in machine.execute(web, "ip", "addr", "show", "eth0")[1]
    (inspected,) = do("container", "inspect", "web").value  # type: ignore[attr-defined]
    settings = inspected["NetworkSettings"]
    assert settings["Networks"]["lab"]["Aliases"] == ["www"] and settings["IPAddress"] == "10.88.9.2"
    assert settings["Ports"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "81/udp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}],
    }  # fmt: skip
    assert str(do("port", "web")).splitlines() == ["80/tcp -> 127.0.0.1:8080", "81/udp -> 127.0.0.1:8081"]
    assert str(do("port", "web", "80")) == "127.0.0.1:8080"
    assert "127.0.0.1:8080->80/tcp" in repr(do("ps")) and "127.0.0.1:8081->81/udp" in repr(do("ps"))
    assert (
        str(do("ps", "-q", "--filter", "network=lab")) == web.id[:12] == str(do("ps", "-q", "--filter", "publish=80"))
    )
    drawn = do("network", "draw")
    assert "lab  10.88.9.0/24" in repr(drawn) and "127.0.0.1:8080 → 80/tcp" in repr(drawn)
    assert "nbc-net" in drawn._repr_html_()  # type: ignore[attr-defined]
    with pytest.raises(NetworkInUse):
        do("network", "rm", "lab")
    do("network", "disconnect", "lab", "web")
    do("network", "connect", "--ip", "10.88.9.77", "--alias", "again", "lab", "web")
    assert "10.88.9.77" in json.dumps(do("network", "inspect", "lab").value)  # type: ignore[attr-defined]
    assert "lab" not in repr(do("network", "ls", "-q", "--filter", "dangling=true"))
    do("network", "prune", "-f")
    engine.remove_container(web, force=True)
    assert str(do("network", "ls", "-q", "--filter", "dangling=true", "--filter", "label=team")) == str(made)[:12]
    assert str(do("network", "rm", "lab")) == "lab"
    for words, told in (
        (("network", "create", "-d", "overlay", "x"), "overlay"),
        (("network", "create", "-o", "nothing=1", "x"), "nothing"),
        (("network", "create", "bridge"), "predefined"), (("network", "rm", "host"), "pre-defined"),
        (("network", "create", "--subnet", "10.1.0.1/24", "x"), "invalid subnet"),
        (("network", "create", "a b"), "no name"),
        (("network", "create", "--subnet", "192.0.2.0/25", "x"), "overlaps"),
        (("network", "inspect", "x"), "not found"),
        (("network", "ls", "--filter", "dangeling=1"), "no filter"),
        (("network", "prune", "-f", "--filter", "name=lab"), "no filter"),
    ):  # fmt: skip
        with pytest.raises(Exception, match=told):
            do(*words)


def test_python_has_docker_pys_verbs_for_networks(machine: Machine) -> None:
    networks = Networks(lambda: machine.engine)
    made = networks.create("lab", subnet="10.88.9.0/24", labels={"a": "b"}, enable_ipv6=False)
    assert networks.list(names=["lab"]) == networks.list(filters={"label": "a=b"}) == [made]
    web = machine.start(WAIT, name="web", network="bridge")
    assert isinstance(web, Handle)
    networks.connect(made, web, aliases=["db"], ipv4_address="10.88.9.77")
    assert web.attrs["NetworkSettings"]["Networks"]["lab"]["IPAddress"] == "10.88.9.77"
    assert networks.prune() == []
    networks.disconnect("lab", "web")
    assert "lab" not in web.attrs["NetworkSettings"]["Networks"]
    networks.connect("lab", "web")
    networks.disconnect(made, web, force=True)
    assert networks.prune(filters={"label": "c"}) == [] and networks.prune() == ["lab"]
    networks.remove(networks.create("other"))


def test_two_stores_do_not_touch_each_others(machine: Machine, lan: Lan, tmp_path: Path) -> None:
    machine.start(WAIT, name="mine")
    with Engine(tmp_path / "other") as other:
        other.networks.create(NetworkRequest(name="lab"))
        other.networks.settle()
    assert machine.sh("ping -c 1 -W 1 10.210.0.1")
    assert "nbcontain_" in picture()


def test_a_store_that_is_used_from_two_network_namespaces_has_a_worker_in_each(machine: Machine, lan: Lan) -> None:
    make(machine, "lab")
    web = machine.start(WEB, name="web", network="lab", publish=("8080:80",))
    wait_for_web(web)
    before = picture()
    root = str(machine.engine.layout.root)
    script = f"ip -o -4 addr show eth0; {get(address(machine, web, 'lab'), 80)}; :"
    asked = ["--rm", "-p", "8080:80", "--network", "lab", "box", "sh", "-c", script]
    words = [sys.executable, "-m", "nbcontain", "run", *asked]
    elsewhere = subprocess.run(["unshare", "--net", *words], env={**os.environ, "NBCONTAIN_ROOT": root},
                               capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    # It has the same network there, and nobody of this one.
    assert "inet 10.211." in elsewhere.stdout and "hello" not in elsewhere.stdout
    others = [pid for pid, role in network_processes(machine.engine.layout.root).items()
              if os.readlink(f"/proc/{pid}/ns/net") != os.readlink(HOME)]  # fmt: skip
    assert others
    worker = next(pid for pid, role in network_processes(machine.engine.layout.root).items()
                  if pid in others and role == "worker")  # fmt: skip
    os.kill(worker, signal.SIGKILL)

    def is_alone() -> bool:
        """Nobody goes back there: who served that namespace is told to end, and its directory goes with them."""
        machine.engine.networks.settle()
        return not [name for name in os.listdir(machine.engine.layout.network_places) if name not in (place(), "lock")]

    until(is_alone)
    until(lambda: not {*others} & network_processes(machine.engine.layout.root).keys())
    assert picture() == before and "hello" in fetch("http://127.0.0.1:8080/")


def test_a_store_has_networks_whatever_bytes_its_path_is_of(lan: Lan, tmp_path: Path) -> None:
    with Engine(tmp_path / os.fsdecode(b"h\xe4us")) as other:
        other.networks.create(NetworkRequest(name="lab"))
        assert "lab" in [each.name for each in other.networks.all()]
        other.networks.remove("lab")


def test_whatever_is_killed_whenever_one_settling_leaves_nothing(machine: Machine, lan: Lan) -> None:
    """A process of the networks', the kernel that starts a container, its supervisor, or its program, at any moment."""
    make(machine, "lab")
    machine.engine.networks.settle()
    before, chance = picture(), random.Random(7)
    for number in rounds(300, 6):
        told = murderous(machine, chance, number, ("worker", "names", "forwarder"), partial(living, machine))
        machine.clear()
        machine.engine.networks.settle()
        assert picture() == before and not os.listdir(machine.engine.layout.network_sandboxes), (number, told)


@pytest.mark.skipif(os.geteuid() != 0, reason="a rung of root's")
def test_only_that_is_advised_which_the_rung_has(tmp_path: Path) -> None:
    with Engine(tmp_path / "store", {**os.environ, "NBCONTAIN_ISOLATION": "chroot"}) as engine:
        with pytest.raises(Unavailable, match="bridges cannot be had") as told:
            engine.networks.create(NetworkRequest(name="lab"))
        assert told.value.hint == "--network host"
