"""Networks: what a bridge and a published port add to a start, and how fast bytes go, beside others.

Runs in a network namespace of its own (unshare --net); needs root and iproute2, and for the row of others pasta.
Give `starts` or `throughput` for one of them, or `swap` for the way out of an ordinary user's networks without a
tunnel, beside a program that has no container around it; it needs gcc. On a machine with other work believe processor
time, and what was measured by turns.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions

ROUNDS, TURNS, BYTES = 20, 5, 1 << 30
BOX = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nENV PATH=/bin\n'
SINK = """
import resource, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
end, _ = listener.accept()
buffer = bytearray(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF)
while end.recv_into(buffer):
    pass
after = resource.getrusage(resource.RUSAGE_SELF)
end.sendall(b"%f" % (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime))
"""


def starts(engine: Engine) -> None:
    """A start and its end, warm: none, and bridge with a port, by turns."""
    took: dict[str, list[float]] = {"none": [], "bridge + port": []}
    for number in range(ROUNDS + 2):
        turn = [
            ("none", {"network": "none"}),
            ("bridge + port", {"network": "bridge", "publish": (f"{9000 + number}:80",)}),
        ]
        # Each first every other time: whoever comes second finds less made ready beforehand.
        for name, options in turn if number % 2 else reversed(turn):
            begun = time.perf_counter()
            engine.run(RunOptions(image="box", command=("true",), detach=False, **options)).result()  # type: ignore[arg-type]
            if number >= 2:
                took[name].append((time.perf_counter() - begun) * 1000)
            time.sleep(0.15)
        for each in engine.containers():
            engine.remove_container(each, force=True)
    for name, times in took.items():
        print(f"start + end, --network {name:14} median {statistics.median(times):6.1f} ms  min {min(times):6.1f}")
    more = statistics.median(b - a for a, b in zip(took["none"], took["bridge + port"], strict=True))
    print(f"bridge + port adds {more:.1f} ms (median of pairs)")


def used_s(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sent(to: tuple[str, int], between: int) -> tuple[float, float]:
    """GB/s into a sink that answers when it has all of it; and the processor time of a GB, of all three, in seconds."""
    with socket.create_connection(to) as end:
        data = bytes(1 << 20)
        before = used_s(os.getpid()) + (used_s(between) if between else 0)
        begun = time.perf_counter()
        for _ in range(BYTES >> 20):
            end.sendall(data)
        end.shutdown(socket.SHUT_WR)
        its_s = float(end.recv(64))
        took_s = time.perf_counter() - begun
        after = used_s(os.getpid()) + (used_s(between) if between else 0)
        return BYTES / took_s / 1e9, (its_s + after - before) / (BYTES / 1e9)


@dataclass(frozen=True)
class Way:
    """A way for bytes to go."""

    inside: int
    """Whose network namespace the sink is in."""
    at: str
    to: tuple[str, int]
    between: int = 0
    """Who passes them on, if somebody does: a pid."""

    def measured(self) -> tuple[float, float]:
        words = ["nsenter", "--target", str(self.inside), "--net", sys.executable, "-c", SINK, self.at, str(self.to[1])]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            return sent(self.to, self.between)
        finally:
            process.wait()


def idle(engine: Engine, **options: object) -> Container:
    """A container to measure in."""
    words = RunOptions(image="box", command=("sleep", "900"), detach=True, **options)  # type: ignore[arg-type]
    container = engine.run(words).result()
    assert isinstance(container, Container) and container.pid
    return container


def clear(engine: Engine) -> None:
    for each in engine.containers():
        engine.remove_container(each, force=True)
    engine.networks.settle()


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def by_hand(number: int, bridge: str, ending: ExitStack) -> subprocess.Popen[bytes]:
    """A namespace on a veth; to a bridge if that has a name."""
    hand = subprocess.Popen(["unshare", "--net", "sleep", "900"], stdout=subprocess.DEVNULL)
    ending.callback(ended, hand)
    time.sleep(0.3)
    here, there = f"h{number}", f"i{number}"
    commands = [f"ip link add {here} type veth peer name {there} netns {hand.pid}", f"ip link set {here} up"]
    if bridge:
        commands += [f"ip link add {bridge} type bridge", f"ip link set {bridge} up"]
        commands += [f"ip link set {here} master {bridge}"]
    commands += [
        f"ip addr add 10.99.{number}.1/24 dev {bridge or here}",
        f"nsenter -t {hand.pid} -n ip addr add 10.99.{number}.2/24 dev {there}",
        f"nsenter -t {hand.pid} -n ip link set {there} up", f"nsenter -t {hand.pid} -n ip link set lo up",
    ]  # fmt: skip
    for command in commands:
        subprocess.run(command.split(), check=True)
    return hand


def pasta(ending: ExitStack) -> tuple[subprocess.Popen[bytes], int] | None:
    """One that passes a port on, as users' engines elsewhere have it, and who is behind it; None if it does not run."""
    program = shutil.which("pasta")
    if program is None:
        return None
    # It begins only where there is a way out.
    for command in (
        "ip link add out type veth peer name yonder", "ip link set yonder up", "ip addr add 10.98.0.1/24 dev out",
        "ip link set out up", "ip route add default via 10.98.0.2",
    ):  # fmt: skip
        subprocess.run(command.split(), check=True)
    words = [program, "--config-net", "--runas", "0", "-t", "9997", "-q", "-f", "--", "sleep", "900"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ending.callback(ended, process)
    time.sleep(1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if process.poll() is None and children:
        # It does not take with it what it started.
        ending.callback(os.close, behind := os.pidfd_open(int(children[0])))
        ending.callback(signal.pidfd_send_signal, behind, signal.SIGKILL)
        return process, int(children[0])
    print("pasta does not run here")
    return None


def throughput(engine: Engine, ending: ExitStack) -> None:
    """Into a container over the bridge and through the forwarder, beside what was made by hand, and pasta; by turns."""
    container = idle(engine, network="bridge", publish=("9999:9999",))
    assert container.pid
    sandbox = engine.networks.sandbox(container)
    assert sandbox is not None
    hands = [by_hand(0, "", ending), by_hand(1, "hand", ending)]
    passing = process_of(engine.layout.root, "forwarder")
    ways = {
        "a veth made by hand": Way(hands[0].pid, "10.99.0.2", ("10.99.0.2", 9999)),
        "a bridge made by hand": Way(hands[1].pid, "10.99.1.2", ("10.99.1.2", 9999)),
        "our bridge": Way(container.pid, sandbox.address, (sandbox.address, 9999)),
        "our forwarder": Way(container.pid, sandbox.address, ("127.0.0.1", 9999), passing),
    }
    if other := pasta(ending):
        ways["pasta"] = Way(other[1], "0.0.0.0", ("127.0.0.1", 9997), other[0].pid)
    got: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            got[name].append(way.measured())
    for name, found in got.items():
        rates, costs = zip(*found, strict=True)
        print(f"{name:24} best {max(rates):5.2f} GB/s, median {statistics.median(rates):5.2f}; "
              f"processor time of a GB: median {statistics.median(costs):.2f} s, least {min(costs):.2f}")  # fmt: skip
    for one, to in (("our bridge", "a veth made by hand"), ("our bridge", "a bridge made by hand"),
                    ("our forwarder", "pasta")):  # fmt: skip
        if to in got:
            pairs = list(zip(got[one], got[to], strict=True))
            rate, cost = (statistics.median(mine[n] / its[n] for mine, its in pairs) for n in (0, 1))
            print(f"{one} / {to}: {rate:.0%} of its rate, {cost:.0%} of its processor time (medians of turns)")


def swap(engine: Engine, program: Path) -> None:
    """As an ordinary user: to a sink at this machine's address, from a container by swapped sockets, beside one that
    has this machine's network, and no container at all; by turns.
    """
    at = ("192.0.2.1", 9100)
    listener = socket.create_server(at, backlog=256)
    threading.Thread(target=sink, args=(listener,), daemon=True).start()

    def outside(*words: str) -> list[float]:
        said = subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout
        return list(map(float, said.split()))

    def inside(network: str) -> Callable[..., list[float]]:
        container = idle(engine, network=network)

        def measured(*words: str) -> list[float]:
            said: list[bytes] = []
            assert container.execute(("/bin/sockets", *words), on_output=lambda _, data: said.append(data)) == 0
            return list(map(float, b"".join(said).split()))

        return measured

    ways = [("no container", outside), ("host", inside("host")), ("socket swap", inside("bridge"))]
    for what, much, units in (("send", "512", ("s", "s of its processor time")), ("times", "100", ("µs",))):
        got: dict[str, list[list[float]]] = {name: [] for name, _ in ways}
        for number in range(2 * TURNS):
            for name, measured in ways[number % 3 :] + ways[: number % 3]:
                got[name].append(measured(what, at[0], str(at[1]), much))
        for column, unit in enumerate(units):
            for name, found in got.items():
                seen = [each[column] for each in found]
                print(f"{what} {much}: {name:12} median {statistics.median(seen):8.3f} {unit}, least {min(seen):8.3f}")
            for name in ("no container", "host"):
                pairs = zip(got[name], got["socket swap"], strict=True)
                ratio = statistics.median(its[column] / mine[column] for its, mine in pairs)
                print(f"{name} / socket swap: {ratio:.0%} (median of turns)")


def sink(listener: socket.socket) -> None:
    """Take what comes, one after the other, and say when it has come to its end."""
    buffer = bytearray(1 << 20)
    while True:
        end, _ = listener.accept()
        with end, suppress(OSError):
            while end.recv_into(buffer):
                pass
            end.sendall(b".")


def as_user() -> None:
    """This program once more, as an ordinary user with another machine on a wire and no /dev/net/tun."""
    tests = Path(__file__).resolve().parent.parent / "tests"
    home = tempfile.mkdtemp(dir=os.environ.get("NBCONTAIN_TEST_DIR"))
    os.chmod(home, 0o777)
    command = [sys.executable, "-I", str(tests / "as_user.py"), "rootless-range", home, "--walled"]
    os.execv(sys.executable, [*command, sys.executable, __file__, "swap"])


def process_of(root: Path, role: str) -> int:
    """One of the networks' processes, as `ps` calls them."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
            if words.startswith(f"nbcontain-network {root}/") and words.endswith(f"/{role}"):
                return int(pid)
    raise LookupError(f"no {role} runs")


def main() -> None:
    """In a namespace of its own."""
    is_swap = sys.argv[1:] == ["swap"]
    if "NBCONTAIN_BENCH_INSIDE" not in os.environ:
        os.environ |= {"NBCONTAIN_BENCH_INSIDE": "1", "NBCONTAIN_PULL": "never"}
        if is_swap:
            as_user()
        os.execvp("unshare", ["unshare", "--net", sys.executable, __file__, *sys.argv[1:]])
    if not is_swap:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    place = os.environ["HOME"] if is_swap else os.environ.get("NBCONTAIN_TEST_DIR")
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=is_swap) as directory:
        context = Path(directory, "context")
        context.mkdir()
        shutil.copy2(busybox, context / "busybox")
        dockerfile = BOX
        if is_swap:
            source = Path(__file__).resolve().parent.parent / "tests" / "network" / "sockets.c"
            words = ["gcc", "-static", "-O2", "-pthread", "-o", str(context / "sockets"), str(source)]
            subprocess.run(words, check=True)
            dockerfile += "COPY sockets /bin/sockets\n"
        # Whatever a measurement leaves running holds this program's output.
        with Engine(Path(directory, "store")) as engine, ExitStack() as ending:
            ending.callback(clear, engine)
            engine.build(dockerfile, BuildOptions(tags=("box",), context=context)).result()
            engine.warm()
            threading.Event().wait(2)
            if is_swap:
                swap(engine, context / "sockets")
            if not sys.argv[1:] or "starts" in sys.argv[1:]:
                starts(engine)
            if not sys.argv[1:] or "throughput" in sys.argv[1:]:
                throughput(engine, ending)


if __name__ == "__main__":
    main()
