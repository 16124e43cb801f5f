"""Networks: what a bridge and a published port add to a start, and how fast bytes go, beside others.

Runs in a network namespace of its own (unshare --net); needs root and iproute2, and for the row of others pasta.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions

ROUNDS, BYTES = 20, 1 << 30
BOX = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nENV PATH=/bin\n'
SINK = "import socket,sys\ns=socket.create_server((sys.argv[1],int(sys.argv[2])))\nprint('ready',flush=True)\n" \
       "c,_=s.accept()\nb=bytearray(1<<20)\nn=0\nwhile (k:=c.recv_into(b)): n+=k\nc.sendall(b'x')\n"  # fmt: skip


def starts(engine: Engine) -> None:
    """A start and its end, warm: none, and bridge with a port, by turns."""
    took: dict[str, list[float]] = {"none": [], "bridge + port": []}
    for number in range(ROUNDS + 2):
        for name, options in (
            ("none", {"network": "none"}),
            ("bridge + port", {"network": "bridge", "publish": (f"{9000 + number}:80",)}),
        ):
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


def sent(address: str, port: int, bind: str = "") -> float:
    """GB/s into a sink that answers when it has all of it."""
    with socket.create_connection((address, port), source_address=(bind, 0) if bind else None) as end:
        data = bytes(1 << 20)
        begun = time.perf_counter()
        for _ in range(BYTES >> 20):
            end.sendall(data)
        end.shutdown(socket.SHUT_WR)
        end.recv(1)
        return BYTES / (time.perf_counter() - begun) / 1e9


def sink(pid: int, address: str, port: int) -> subprocess.Popen[str]:
    words = ["nsenter", "--target", str(pid), "--net", sys.executable, "-c", SINK, address, str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def measured(name: str, pid: int, address: str, port: int, to: tuple[str, int]) -> float:
    rates = []
    for _ in range(3):
        process = sink(pid, address, port)
        rates.append(sent(*to))
        process.wait()
    print(f"{name:44} {max(rates):5.2f} GB/s (best of {', '.join(f'{each:.2f}' for each in rates)})")
    return max(rates)


def throughput(engine: Engine) -> None:
    """Into a container over the bridge and through the forwarder, and over a veth that was made by hand."""
    container = engine.run(
        RunOptions(image="box", command=("sleep", "300"), detach=True, network="bridge", publish=("9999:9999",))
    ).result()
    assert isinstance(container, Container) and container.pid
    sandbox = engine.networks.sandbox(container)
    assert sandbox is not None
    hand = subprocess.Popen(["unshare", "--net", "sleep", "300"])
    time.sleep(0.3)
    for command in (
        f"ip link add h0 type veth peer name h1 netns {hand.pid}", "ip addr add 10.99.0.1/24 dev h0",
        "ip link set h0 up",
        f"nsenter -t {hand.pid} -n ip addr add 10.99.0.2/24 dev h1", f"nsenter -t {hand.pid} -n ip link set h1 up",
        f"nsenter -t {hand.pid} -n ip link set lo up",
    ):  # fmt: skip
        subprocess.run(command.split(), check=True)
    by_hand = measured("a veth made by hand", hand.pid, "10.99.0.2", 9999, ("10.99.0.2", 9999))
    bridge = measured("over our bridge", container.pid, sandbox.address, 9999, (sandbox.address, 9999))
    print(f"bridge / veth: {bridge / by_hand:.0%}")
    measured("through our forwarder, 127.0.0.1", container.pid, sandbox.address, 9999, ("127.0.0.1", 9999))
    if pasta := shutil.which("pasta"):
        words = [pasta, "--config-net", "-t", "9998", "-q", "-f", "--", sys.executable, "-c", SINK, "0.0.0.0", "9998"]
        rates = []
        for _ in range(3):
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            try:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    break
                rates.append(sent("127.0.0.1", 9998))
            except OSError:
                break
            finally:
                process.kill()
                process.wait()
        print(f"{'pasta -t':44} {max(rates):5.2f} GB/s" if rates else "pasta does not run here")
    hand.kill()
    hand.wait()


def main() -> None:
    """In a namespace of its own."""
    if "NBCONTAIN_BENCH_INSIDE" not in os.environ:
        os.environ |= {"NBCONTAIN_BENCH_INSIDE": "1", "NBCONTAIN_PULL": "never"}
        os.execvp("unshare", ["unshare", "--net", sys.executable, __file__])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    with tempfile.TemporaryDirectory(dir=os.environ.get("NBCONTAIN_TEST_DIR")) as directory:
        context = Path(directory, "context")
        context.mkdir()
        shutil.copy2(busybox, context / "busybox")
        with Engine(Path(directory, "store")) as engine:
            engine.build(BOX, BuildOptions(tags=("box",), context=context)).result()
            engine.warm()
            threading.Event().wait(2)
            starts(engine)
            throughput(engine)
            for each in engine.containers():
                engine.remove_container(each, force=True)
            engine.networks.settle()


if __name__ == "__main__":
    main()
