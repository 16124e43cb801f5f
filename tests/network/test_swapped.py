"""The way out of ordinary users' networks where there is no tunnel: connections answered for, datagrams relayed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import loads
import needs
from forging import POWERS, forging, places_on, replies
from machine import Machine, network_processes, said, until
from nbcontain.commands import networks
from nbcontain.diagnosis import diagnosed
from nbcontain.networks import NetworkRequest
from own_networks import own_machine

pytestmark = pytest.mark.of_users(tunnel=False)
WORLD, PORT = "192.0.2.2", 8000
GET = f"(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.3) | timeout 3 nc -w 3 {WORLD} {PORT}"
WAIT = "trap exit TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def shared(busybox_context: Path) -> Iterator[Machine]:
    with own_machine(busybox_context, NBCONTAIN_NETWORK="") as machine:
        with_program(machine, busybox_context)
        yield machine


def with_program(machine: Machine, context: Path) -> None:
    """Have `sockets` in the image."""
    source = Path(__file__).with_name("sockets.c")
    words = [needs.program("cc", "gcc"), "-static", "-O1", "-pthread", "-o", str(context / "sockets"), str(source)]
    subprocess.run(words, check=True)
    machine.build("FROM box\nCOPY sockets /bin/sockets\n", "box", context)


@pytest.fixture
def machine(shared: Machine, profile: str) -> Iterator[Machine]:
    yield shared
    shared.clear()
    shared.engine.networks.prune()


def make(machine: Machine, name: str, **said: object) -> None:
    machine.engine.networks.create(NetworkRequest(name=name, **said))  # type: ignore[arg-type]


def is_all_right(lines: str) -> bool:
    return bool(lines) and all(each.endswith(" ok") for each in lines.splitlines())


def test_who_names_no_network_is_on_the_default_one_and_gets_out(machine: Machine, profile: str) -> None:
    assert machine.engine.networks.default() == "bridge"
    container = machine.start(f"ip -o -4 addr show eth0; nslookup -type=a example.test; {GET}; echo over")
    until(lambda: "over" in said(container))
    assert "10.210.0." in said(container) and "198.51.100.7" in said(container)
    # What comes there comes from this machine.
    assert "hello 192.0.2.1" in said(container)
    out = machine.engine.networks.way_out()
    assert (out.way, out.ipv6) == ("socket swap", True) and "/dev/net/tun" in out.why
    assert set(network_processes(machine.engine.layout.root).values()) == {
        "worker", "outside", "space", "names", "relay"
    }  # fmt: skip


def test_programs_find_their_sockets_as_they_left_them(machine: Machine, profile: str) -> None:
    lines = machine.sh(f"sockets check {WORLD} {PORT} 81 192.0.2.77")
    assert is_all_right(lines) and len(lines.splitlines()) == 24


def test_execs_get_out_too_and_whoever_shares_the_network(machine: Machine, profile: str) -> None:
    first = machine.start(WAIT, name="first")
    assert "hello" in machine.execute(first, "sh", "-c", GET)[1]
    assert "hello" in machine.sh(GET, network="container:first", user="5")


def test_ipv6_and_pings_lead_out(machine: Machine, profile: str) -> None:
    make(machine, "six", ipv6=True)
    six = GET.replace(WORLD, "fd99::2")
    pings = f"ping -c 1 -W 2 {WORLD} && ping -c 1 -W 2 fd99::2"
    shown = machine.sh(f"{six}; {pings}", network="six", cap_add=("NET_RAW",))
    assert "hello fd99::1" in shown and shown.count("1 packets received") == 2


def test_datagrams_that_are_larger_than_a_wire_lead_out_and_back(machine: Machine, profile: str) -> None:
    make(machine, "six", ipv6=True)
    make(machine, "narrow", ipv6=True, options=("mtu=1400",))
    for network in ("six", "narrow"):
        lines = machine.sh(f"sockets large {WORLD} 9007 fd99::2", network=network)
        assert is_all_right(lines) and len(lines.splitlines()) == 12
    shown = machine.sh(f"ping -c 1 -W 2 -s 4000 {WORLD}; ping -c 1 -W 2 -s 4000 fd99::2", network="six",
                       cap_add=("NET_RAW",))  # fmt: skip
    assert shown.count("1 packets received") == 2


def test_nothing_leads_out_of_internal_networks_nor_of_namespaces_of_ones_own(machine: Machine, profile: str) -> None:
    make(machine, "shut", internal=True)
    powers = {"cap_add": ("ALL",), "security_opt": ("seccomp=unconfined",)}
    # Neither by a route that it makes itself.
    route = "ip route add default via $(ip -o -4 addr show eth0 | sed 's/.*inet \\(.*\\)[.][0-9]*[/].*/\\1/').1"
    assert "hello" not in machine.sh(f"{route} && {GET}; :", network="shut", **powers)
    assert "hello" not in machine.sh(f"{GET}; :", network="none", **powers)
    assert is_all_right(machine.sh(f"sockets apart {WORLD} {PORT}", **powers))


def test_what_is_sent_with_anothers_address_is_answered_to_nobody(machine: Machine, profile: str) -> None:
    for name, internal in (("shut", True), ("other", False), ("open", False)):
        make(machine, name, internal=internal, ipv6=True)
    guest = machine.start(WAIT, name="guest", network=("shut", "other"))
    shown = machine.sh(forging(places_on(machine, guest)), network="open", cap_add=POWERS)
    assert shown.endswith("answered\n") and shown.count("1 packets received") == 2
    assert replies(guest) == 0


def test_leaving_a_network_is_leaving_its_way_out(machine: Machine, profile: str) -> None:
    ours = machine.engine.networks
    make(machine, "open")
    make(machine, "shut", internal=True)
    guest = machine.start(WAIT, name="guest", network="shut")
    assert "hello" not in machine.execute(guest, "sh", "-c", GET)[1]
    ours.connect("open", guest)
    assert "hello" in machine.execute(guest, "sh", "-c", GET)[1]
    ours.disconnect("open", guest)
    assert "hello" not in machine.execute(guest, "sh", "-c", GET)[1]


def test_this_machines_loopback_is_not_reached_whatever_a_program_changes_meanwhile(
    machine: Machine, profile: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:
        here.settimeout(0.1)
        aims = ("127.0.0.1", "10.210.0.1", "198.19.211.2", "198.19.211.100", "0.0.0.0")
        port = here.getsockname()[1]
        tries = " & ".join(f"timeout 2 nc -w 1 {each} {port} </dev/null" for each in aims)
        assert machine.sh(f"{tries} & wait; sockets race {port} {WORLD} {PORT}") == "over\n"
        with pytest.raises(TimeoutError):
            here.accept()


def test_a_socket_is_bound_for_good(machine: Machine, profile: str) -> None:
    """bind(2) of a link-local address would set the interface anew, also where it fails."""
    make(machine, "six", ipv6=True)
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as here:
        here.settimeout(0.1)
        port = here.getsockname()[1]
        tries = f"sockets unlock {port} {WORLD} {PORT}; sockets unlock {port} fd99::2 {PORT}"
        lines = machine.sh(tries, network="six")
        with pytest.raises(TimeoutError):
            here.accept()
    assert is_all_right(lines) and len(lines.splitlines()) == 40


def test_epolls_tell_of_it_whatever_their_numbers_and_copies(machine: Machine, profile: str) -> None:
    """Who answers is left with what it had: later connections are answered, too."""
    lines = machine.sh(f"sockets epolls {WORLD} {PORT}")
    assert is_all_right(lines) and len(lines.splitlines()) == 2


def test_threads_connect_as_their_process_does(machine: Machine, profile: str) -> None:
    try:
        os.close(os.pidfd_open(os.getpid(), os.O_EXCL))
    except OSError:
        pytest.skip("Linux 6.9: descriptors of a thread")
    powers = {"cap_add": ("ALL",), "security_opt": ("seccomp=unconfined",)}
    lines = machine.sh(f"sockets threads {WORLD} {PORT}", **powers)
    assert is_all_right(lines) and len(lines.splitlines()) == 2


def test_the_same_where_nothing_can_be_mounted(machine: Machine, profile: str) -> None:
    lower = Machine.on(machine.engine.isolated("userns-chroot"))
    server = "mkdir /web; echo near > /web/index.html; echo ready; exec httpd -f -p 80 -h /web"
    lower.start(server, name="lower", network="bridge", publish=("18090:80",))
    make(lower, "two")
    other = lower.start(server, name="other", network="two")
    lower.start(WAIT, name="guest", network="two")
    near = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 other 80"
    shown = lower.sh(f"{GET}; {near}; id -u", network="two", user="5")
    assert "hello 192.0.2.1" in shown and "near" in shown and shown.endswith("5\n")
    assert "hello" in lower.execute(other, "sh", "-c", GET)[1]
    fetched = subprocess.run(["curl", "-sS", "--max-time", "5", "http://127.0.0.1:18090/"],
                             capture_output=True, text=True, check=True)  # fmt: skip
    assert fetched.stdout == "near\n"


def test_the_relay_is_replaced_and_connections_do_without(machine: Machine, profile: str) -> None:
    container = machine.start(WAIT, name="lasting")
    for victims in ("relay", "all"):
        killed = {pid for pid, role in network_processes(machine.engine.layout.root).items()
                  if victims in (role, "all")}  # fmt: skip
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        if victims == "all":
            machine.engine.networks.settle()
        assert "hello" in machine.execute(container, "sh", "-c", GET)[1]
        ask = ("sh", "-c", f"timeout 2 nslookup -type=a example.test {WORLD}")
        until(lambda: "198.51.100.7" in machine.execute(container, *ask)[1])  # noqa: B023


def test_what_leads_out_is_shown(machine: Machine, profile: str) -> None:
    listed = networks.network_ls(machine.engine, networks.ListWords())
    assert "the way out: socket swap, IPv4 and IPv6" in listed.footer  # type: ignore[attr-defined]
    found = {each.what: each for each in diagnosed(machine.engine)}
    out = found["the way out of networks: socket swap"]
    assert out.state == "partly" and "/dev/net/tun" in out.why
    assert found["the way out by IPv6"].state == "yes"


def swapped_to(port: int) -> int:
    """How many connections to a port of this machine's address are of this very network, where no client runs."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    there = f":{port:04X}"
    return len([row for row in rows if row[2].endswith(there) and not row[2].startswith("0100007F") and row[3] == "01"])


def test_a_server_and_its_client_are_killed_under_load(machine: Machine, profile: str, busybox_context: Path) -> None:
    """The client goes out by swapped sockets, and comes back by this machine's address and the forwarder."""
    loads.with_wrk(machine, busybox_context)
    victim = loads.server(machine, name="loaded", publish=("0.0.0.0:18099:80",))
    address = "http://192.0.2.1:18099/"
    assert machine.engine.networks.way_out().way == "socket swap"
    client = loads.loading(machine, address, name="client", network="bridge")
    until(lambda: swapped_to(18099) > 0)
    assert loads.killed_under_load_from(client, victim, address) > 50
    # It is killed before that is over; the server may still be beginning again.
    second = loads.loading(machine, address, for_s=100, name="second", network="bridge")
    until(lambda: swapped_to(18099) > 0)
    machine.engine.kill(second)
    second.wait(10)
    # Who answered for it goes with it, and so do its connections.
    until(lambda: not second.bundle.is_alive() and swapped_to(18099) == 0)
    get = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 3 nc -w 3 192.0.2.1 18099"
    until(lambda: "loaded" in machine.sh(f"{get}; :"))


NO_PACKETS = """
import sys
from nbcontain.linux import confine, filter_bytes, seccomp, syscalls
from nbcontain.oci.seccomp import Argument, Rule, Seccomp
import os
machine = os.uname().machine
own, others = seccomp.MACHINES[machine]
refused = Rule(("socket",), "SCMP_ACT_ERRNO", 1, (Argument(0, 17),))
profile = Seccomp("SCMP_ACT_ALLOW", None, (own, *others), (), (refused,))
syscalls.prctl(38, 1)
confine.install(filter_bytes.packed(seccomp.program(profile, machine), 0))
os.execv(sys.executable, [sys.executable, "-m", "nbcontain", *sys.argv[1:]])
"""


def end_all(machine: Machine) -> None:
    for pid in network_processes(machine.engine.layout.root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not network_processes(machine.engine.layout.root))


def test_where_no_relay_can_be_connections_leave_and_that_datagrams_do_not_is_told(
    machine: Machine, profile: str
) -> None:
    """As where an outer sandbox lets nobody have packet sockets."""
    if profile == "rootless-range":
        pytest.skip("whoever filters itself has no newuidmap, and so no range")
    machine.clear()
    end_all(machine)
    environ = {**os.environ, "NBCONTAIN_ROOT": str(machine.engine.layout.root), "NBCONTAIN_NETWORK": ""}

    def filtered(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", NO_PACKETS, *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)

    udp = f"echo x | timeout 2 nc -u -w 1 {WORLD} 9007"
    done = filtered("run", "--rm", "box", "sh", "-c", f"{GET}; {udp}; nslookup -type=a example.test; echo over")
    assert "hello 192.0.2.1" in done.stdout and "over" in done.stdout, done
    # Names are asked for outside, with or without it.
    assert "198.51.100.7" in done.stdout and "\nx\n" not in done.stdout
    assert "datagrams do not (" in done.stderr and "the relay cannot hold its link" in done.stderr
    assert "datagrams do not leave" in filtered("network", "inspect", "bridge").stdout
    end_all(machine)
