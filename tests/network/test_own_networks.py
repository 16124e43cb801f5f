"""Networks of ordinary users: in namespaces of their own, behind an uplink, and everything of it gone again."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import places
from machine import Machine, assert_on_this_machines_network, murderous, said, until
from nbcontain import joining
from nbcontain.errors import NetworkError, PortTaken
from nbcontain.linux.starts import start_of
from nbcontain.network import tunnels
from nbcontain.network.records import place
from nbcontain.networks import NetworkRequest
from nbcontain.runtime.container import Container
from own_networks import own_machine, processes
from rounds import rounds

pytestmark = pytest.mark.of_users
WAIT = "trap exit TERM; echo ready; while :; do sleep 0.1; done"
WEB = "mkdir /web; echo hello from $HOSTNAME > /web/index.html; echo ready; exec httpd -f -p 80 -h /web"
WORLD = "192.0.2.2"


@pytest.fixture(scope="module")
def shared(busybox_context: Path) -> Iterator[Machine]:
    with own_machine(busybox_context, NBCONTAIN_NETWORK="") as machine:
        yield machine


@pytest.fixture(scope="module")
def web(shared: Machine) -> Container:
    """A server on the network `one` that all tests share, and behind ports of this machine."""
    make(shared, "one", subnets=("10.99.0.0/24",))
    return web_on(shared, "one", "18080:80", "0.0.0.0:18081:80", name="web")


@pytest.fixture(scope="module")
def other(shared: Machine, web: Container) -> Container:
    """Beside it."""
    return shared.start(WAIT, name="other", network="one")


@pytest.fixture
def machine(shared: Machine, profile: str) -> Iterator[Machine]:
    yield shared
    for container in shared.engine.containers():
        if container.name not in ("web", "other"):
            shared.engine.remove_container(container, force=True)
    shared.engine.networks.prune()


def make(machine: Machine, name: str, **said: object) -> None:
    machine.engine.networks.create(NetworkRequest(name=name, **said))  # type: ignore[arg-type]


def get(address: str, port: int, wait_s: int = 3) -> str:
    return f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w {wait_s} {address} {port}"


def ask_outside(address: str = WORLD, port: int = 8000) -> str:
    """The same of the other machine, or of this one by its address.

    It does not close its half at once: of such connections Debian 12's pasta never tells the end.
    """
    return f"(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.3) | timeout 3 nc -w 3 {address} {port}"


def fetch(port: int) -> str:
    done = subprocess.run(["curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{port}/"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout


def address(machine: Machine, container: Container, network: str) -> str:
    sandbox = machine.engine.networks.sandbox(container)
    assert sandbox is not None
    return next(each.address for each in sandbox.endpoints if each.network_name == network)


def web_on(machine: Machine, network: str, *ports: str, name: str = "") -> Container:
    server = machine.start(WEB, name=name or f"{network}s", network=network, publish=ports)
    until(lambda: "ready" in said(server) and "hello" in machine.execute(server, "sh", "-c", get("127.0.0.1", 80))[1])
    return server


def test_who_names_no_network_is_on_the_default_one_and_gets_out(machine: Machine, profile: str) -> None:
    assert machine.engine.networks.default() == "bridge"
    shown = machine.sh(f"ip -o -4 addr show eth0; nslookup -type=a example.test; {ask_outside()}")
    assert "10.210.0." in shown and "198.51.100.7" in shown
    # What comes there comes from this machine.
    assert "hello 192.0.2.1" in shown
    program = "pasta" if profile == "rootless-range" else "slirp4netns"
    uplink = next(pid for pid, role in processes(machine).items() if role == "uplink")
    assert program in Path(f"/proc/{uplink}/cmdline").read_text()


def test_whoever_it_runs_as_and_whatever_it_shares_it_is_on_its_network(
    machine: Machine, web: Container, profile: str
) -> None:
    look = "id -u; grep -c eth0 /proc/net/dev"
    assert machine.sh(look, user="5").split() == ["5", "1"]
    assert machine.sh(look, user="6", pid="host").split() == ["6", "1"]
    assert machine.sh(look, pid=f"container:{web.name}").split() == ["0", "1"]
    again = machine.start("grep -c eth0 /proc/net/dev; exit 1", user="5", restart="on-failure:2")
    assert again.wait(30) == 1
    until(lambda: said(again).split() == ["1", "1", "1"])


def test_containers_find_each_other_by_name_and_networks_are_apart(
    machine: Machine, web: Container, profile: str
) -> None:
    make(machine, "two")
    assert "hello" in machine.sh(get("web", 80), network="one")
    inside = address(machine, web, "one")
    result = machine.run("sh", "-c", f"nslookup web.one; {get(inside, 80, 1)}; :", network="two")
    assert "NXDOMAIN" in result.stdout + result.stderr and "hello" not in result.stdout
    assert "hello" in machine.sh(get("127.0.0.1", 80), network="container:web")


def test_nothing_leads_out_of_an_internal_network(machine: Machine, profile: str) -> None:
    make(machine, "shut", internal=True)
    web_on(machine, "shut")
    assert "hello" in machine.sh(get("shuts", 80), network="shut")
    result = machine.run("sh", "-c", f"nslookup -type=a example.test; {ask_outside()}; :", network="shut")
    assert "198.51.100.7" not in result.stdout and "hello" not in result.stdout


def test_ipv6_leads_out_where_this_machine_has_a_way_out_for_it(machine: Machine, profile: str) -> None:
    make(machine, "six", ipv6=True)
    # slirp4netns tells of itself as a router, a moment later.
    until(lambda: "hello fd99::1" in machine.sh(f"{ask_outside('fd99::2')}; :", network="six"))
    assert "hello 192.0.2.1" in machine.sh(ask_outside(), network="six")


def test_a_container_does_not_reach_this_machines_loopback(machine: Machine, profile: str) -> None:
    make(machine, "six", ipv6=True, subnets=("fd42:7::/64",))
    gateways = ("10.210.0.1", "198.19.211.2", "198.19.211.100", "127.0.0.1", "10.0.2.2")
    gateways6 = ("fd42:7::1", "fd6e:6263:6f6e::2", "fd6e:6263:6f6e::100", "fd00::2", "fd00::3", "::1")
    with socket.socket() as here, socket.socket(socket.AF_INET6) as here6:
        for end, address in ((here, "127.0.0.1"), (here6, "::1")):
            end.bind((address, 0))
            end.listen()
            end.settimeout(0.1)
        for network, addresses, end in (("bridge", gateways, here), ("six", gateways6, here6)):
            tries = " & ".join(f"timeout 3 nc -w 1 {each} {end.getsockname()[1]} </dev/null" for each in addresses)
            machine.run("sh", "-c", f"{tries} & wait; :", network=network)
        for end in (here, here6):
            with pytest.raises(TimeoutError):
                end.accept()


def test_published_ports_lead_in_and_what_cannot_be_had_is_told(
    machine: Machine, web: Container, profile: str
) -> None:
    assert "hello" in fetch(18080)
    assert "hello" in machine.sh(ask_outside("192.0.2.1", 18081), network="bridge")
    with pytest.raises(PortTaken) as told:
        machine.run("true", publish=("18080:80",))
    assert "the container web has it" in told.value.why
    with pytest.raises(NetworkError, match="cannot publish at 127.0.0.1:80") as low:
        machine.run("true", publish=("80:80",))
    assert "below 1024" in low.value.why and "8080" in low.value.hint
    assert {each.name for each in machine.engine.containers()} <= {"web", "other"}


def test_joining_and_leaving_while_it_runs(machine: Machine, web: Container, profile: str) -> None:
    networks = machine.engine.networks
    make(machine, "two")
    guest = machine.start(WAIT, name="guest", network="two")
    asks = ("sh", "-c", get("web", 80))
    assert "hello" not in machine.execute(guest, *asks)[1]
    networks.connect("one", guest)
    assert "hello" in machine.execute(guest, *asks)[1]
    networks.disconnect("one", guest)
    assert "hello" not in machine.execute(guest, *asks)[1]
    alone = machine.start(WAIT, name="alone", network="none")
    with pytest.raises(NetworkError, match="while it runs") as told:
        networks.connect("one", alone)
    assert "stop alone" in told.value.hint
    machine.engine.stop(alone, 0)
    networks.connect("one", alone)
    machine.engine.start(alone)
    assert "hello" in machine.execute(alone, *asks)[1]


def test_a_container_that_is_started_again_by_itself_is_on_its_network_still(
    machine: Machine, web: Container, profile: str
) -> None:
    script = "echo ready; test -e /again && exec sleep 600; touch /again; exit 1"
    dying = machine.start(script, name="dying", network="one", restart="on-failure:2")
    until(lambda: dying.state().restart_count >= 1 and dying.status == "running")
    assert "hello" in machine.execute(dying, "sh", "-c", get("web", 80))[1]


def test_without_a_way_out_who_names_no_network_has_this_machines(
    machine: Machine, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "TUN", "/nowhere")
    assert machine.engine.networks.default() == "bridge" and machine.engine.networks.no_way_out() == ""
    # Nor can anybody answer for connections.
    monkeypatch.setattr(joining, "can_swap", lambda host: False)
    assert_on_this_machines_network(machine, "/nowhere")


def test_networks_are_the_same_where_nothing_can_be_mounted(machine: Machine, web: Container, profile: str) -> None:
    lower = Machine.on(machine.engine.isolated("userns-chroot"))
    server = web_on(lower, "one", "18082:80", name="lower")
    assert server.info.rung == "userns-chroot"
    assert "hello" in fetch(18082)
    assert "hello" in lower.sh(get("lower", 80), network="one") and "hello" in lower.sh(get("web", 80), network="one")
    assert "hello" in machine.sh(get("lower", 80), network="one")
    make(lower, "two")
    lower.engine.networks.connect("two", server)
    # What is served in place of a mount follows, too.
    assert address(lower, server, "two") in lower.execute(server, "cat", "/etc/hosts")[1]
    assert "hello" in lower.sh(get("lower", 80), network="two")


def test_who_has_one_id_may_be_the_first_on_networks_of_those_with_a_range(
    profile: str, busybox_context: Path
) -> None:
    with own_machine(busybox_context, NBCONTAIN_NETWORK="") as machine:
        first = Machine.on(machine.engine.isolated("rootless-single"))
        server = web_on(first, "bridge", name="first")
        ids = "awk '{print $1, $3}' /proc/self/uid_map"
        assert "hello" in machine.sh(get(address(first, server, "bridge"), 80))
        assert machine.sh(ids) == machine.sh(ids, network="none")
        assert first.sh(ids) == "0 1\n"


def test_whatever_is_killed_is_there_again_and_containers_keep_their_network(
    machine: Machine, web: Container, other: Container, profile: str
) -> None:
    space = space_of(machine)
    for victims in ("space", "uplink", "outside", "names", "forwarder", "worker", "all"):
        killed = {pid for pid, role in processes(machine).items() if victims in (role, "all")}
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        def is_whole(asks: bool = victims != "uplink") -> bool:
            if asks:
                # The end of the uplink is heard of without anybody's asking.
                machine.engine.networks.settle()
            now = {*processes(machine).values()}
            return all_work(machine, other) and now == {"space", "uplink", "outside", "names", "forwarder", "worker"}

        until(is_whole, what=lambda: f"after the end of {victims}: {processes(machine)}, {seen_from(machine, other)}")  # noqa: B023
        assert web.status == "running" and not killed & processes(machine).keys()
    # The very user namespace that containers' own were made in; not one that a container made.
    assert space_of(machine) == space


def all_work(machine: Machine, other: Container) -> bool:
    """Names, the way out, and the way in."""
    with suppress(subprocess.CalledProcessError):
        inside = seen_from(machine, other)
        return "hello from" in inside and "hello 192" in inside and "hello" in fetch(18080)
    return False


def seen_from(machine: Machine, other: Container) -> str:
    """What the neighbour and the world answer to a container."""
    return machine.execute(other, "sh", "-c", f"{get('web', 80)}; {ask_outside()}")[1]


def space_of(machine: Machine) -> str:
    """The user namespace that a user's networks are in."""
    return os.readlink(f"/proc/{holder_of(machine)}/ns/user")


def holder_of(machine: Machine) -> int:
    return next(pid for pid, role in processes(machine).items() if role == "space")


def test_whatever_is_killed_whenever_one_settling_leaves_nothing(
    machine: Machine, web: Container, profile: str
) -> None:
    make(machine, "lab")
    machine.engine.networks.settle()
    before, chance = there(machine), random.Random(7)
    roles = ("space", "uplink", "outside", "names", "forwarder", "worker")
    for number in rounds(300, 4):
        told = murderous(machine, chance, number, roles, lambda: processes(machine))
        for container in machine.engine.containers():
            if container.name not in ("web", "other"):
                machine.engine.remove_container(container, force=True)
        machine.engine.networks.settle()
        assert there(machine) == before, (number, told)
    until(lambda: "hello" in fetch(18080))


def there(machine: Machine) -> tuple[list[str], str, list[str], list[str]]:
    """What a user's networks are in the kernel and on disk: links, the packet filter, ports, containers on networks."""
    into = ["nsenter", "--target", str(holder_of(machine)), "--user", "--net", "--preserve-credentials"]
    links, filtered = (
        subprocess.run([*into, *words.split()], capture_output=True, text=True, check=True).stdout
        for words in ("ip -j addr", "nft list ruleset")
    )
    # The uplink's is made by pasta or slirp4netns, and again when that was killed.
    seen = [(each["ifname"], *(at["local"] for at in each["addr_info"] if at["scope"] == "global"))
            for each in json.loads(links) if each["ifname"] != "outside"]  # fmt: skip
    held = [line.split()[1] for line in Path("/proc/self/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    return sorted(map(str, seen)), filtered, sorted(held), os.listdir(machine.engine.layout.network_sandboxes)


def test_two_stores_of_a_user_do_not_touch_each_others(
    machine: Machine, web: Container, profile: str, busybox_context: Path
) -> None:
    with own_machine(busybox_context) as another:
        make(another, "one", subnets=("10.99.0.0/24",))
        assert "hello" not in another.sh(f"{get('10.99.0.2', 80, 1)}; :", network="one", ip="10.99.0.9")
    assert "hello" in machine.sh(get("web", 80), network="one")


def test_when_nobody_needs_networks_any_more_no_process_and_no_namespace_is_left(
    machine: Machine, profile: str, tmp_path: Path
) -> None:
    begun = begin_worker(machine, tmp_path, idle_s=0.2)
    record = json.loads((tmp_path / "networks" / "run" / place() / "space" / "holder.json").read_bytes())
    namespace = os.readlink(f"/proc/{record['pid']}/ns/net")
    begun.wait()
    until(lambda: start_of(record["pid"]) == 0, timeout_s=10)
    time.sleep(0.05)
    left = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _network_of(pid) == namespace]
    assert left == []


def test_when_a_store_is_removed_that_has_no_worker_no_process_of_its_networks_stays(
    machine: Machine, profile: str, busybox_context: Path
) -> None:
    with own_machine(busybox_context, NBCONTAIN_NETWORK="") as another:
        begin_worker(machine, another.engine.layout.root, idle_s=60, look_s=0.2)
        make(another, "one")
        web_on(another, "one", "18093:80", name="web")
        time.sleep(0.5)
        there = {role: pid for pid, role in processes(another).items()}
        assert {*there} == {"space", "uplink", "outside", "names", "forwarder", "worker"}
        os.kill(there.pop("worker"), signal.SIGKILL)
        places.remove(another.engine.layout.networks)
        until(lambda: not [role for role, pid in there.items() if start_of(pid)], timeout_s=10)


def begin_worker(machine: Machine, root: Path, idle_s: float, look_s: float = 15) -> subprocess.Popen[bytes]:
    """A store's, which ends sooner than others; so do those that outlive it when their store has been removed."""
    ids = json.dumps(machine.engine.host.ids.numbers())
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        f"from nbcontain.network import process; process.LOOK_S = {look_s}\n"
        f"process.main({str(root)!r}, 1, {ids!r}, {idle_s})"
    )
    begun = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert begun.stdout is not None and begun.stdout.read(1) == b"."
    return begun


def _network_of(pid: str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return ""
