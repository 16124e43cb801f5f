"""Names: a container asks a thousand times a second for ten seconds, and how often a second at most, beside an echo.

Runs in a network namespace of its own (unshare --net); needs root. What is lost is counted by the container's side.
The echo is the least that such a process can do in Python: it hears a packet and says it again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.networks import NetworkRequest
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from network import process_of, used_s

SECONDS, RATE, FLOOD = 10, 1000, 30_000
BOX = "FROM scratch\nCOPY busybox /bin/sleep\n"
ASKING = """
import select, socket, struct, sys, time
address, name, (port, rate, count) = sys.argv[1], sys.argv[2], map(int, sys.argv[3:])
question = b"".join(bytes([len(each)]) + each for each in name.encode().split(b".")) + b"\\0\\0\\1\\0\\1"
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: nothing is to be lost on this side
end.connect((address, port))
end.setblocking(False)
begun, sent, waits, at = time.perf_counter(), 0, [], {}
while len(waits) < count and time.perf_counter() - begun < count / (rate or 3000) + 3:
    now = time.perf_counter()
    due = min(count, int((now - begun) * rate) + 1) if rate else min(count, len(waits) + 64)
    while sent < due:
        end.send(struct.pack("!HHHHHH", sent % 65536, 0x100, 1, 0, 0, 0) + question)
        at[sent % 65536] = time.perf_counter()
        sent += 1
    select.select([end], [], [], 0.0005)
    try:
        while True:
            data = end.recv(4096)
            waits.append(time.perf_counter() - at.pop(int.from_bytes(data[:2], "big")))
    except BlockingIOError:
        pass
waits.sort()
print(sent, len(waits), time.perf_counter() - begun, waits[len(waits) // 2], waits[len(waits) * 99 // 100])
"""
ECHO = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind((sys.argv[1], 5353))
print("ready", flush=True)
while True:
    data, client = end.recvfrom(65535)
    end.sendto(data, client)
"""


def asked(title: str, inside: int, server: int, address: str, port: int, rate: int, count: int) -> float:
    """Ask from the network namespace of `inside`; gives the server's processor time for one question, in seconds."""
    before = used_s(server)
    words = ["nsenter", "--target", str(inside), "--net", sys.executable, "-c", ASKING, address, "web",
             *map(str, (port, rate, count))]  # fmt: skip
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    sent, heard, took_s, half_s, most_s = int(said[0]), int(said[1]), *map(float, said[2:])
    each_s = (used_s(server) - before) / max(heard, 1)
    print(
        f"{title:34} {sent:6} asked, {sent - heard:4} lost, {heard / took_s:6.0f}/s; median {half_s * 1000:6.2f} ms, "
        f"99 of 100 within {most_s * 1000:6.2f} ms; {each_s * 1e6:4.0f} µs of processor each"
    )
    return each_s


def main() -> None:
    """In a namespace of its own."""
    if "NBCONTAIN_BENCH_INSIDE" not in os.environ:
        os.environ |= {"NBCONTAIN_BENCH_INSIDE": "1", "NBCONTAIN_PULL": "never"}
        os.execvp("unshare", ["unshare", "--net", sys.executable, __file__])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("NBCONTAIN_BENCH_DIR")) as directory:
        context = Path(directory, "context")
        context.mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy2(busybox, context / "busybox")
        with Engine(Path(directory, "store")) as engine:
            engine.build(BOX, BuildOptions(tags=("box",), context=context)).result()
            network = engine.networks.create(NetworkRequest(name="lab"))
            gateway = str(network.subnets[0].gateway)
            options = RunOptions(image="box", command=("/bin/sleep", "600"), detach=True, network="lab", name="web")
            web = engine.run(options).result()
            assert isinstance(web, Container) and web.pid
            threading.Event().wait(1)
            names = process_of(engine.layout.root, "names")
            asked("names, 1,000 a second", web.pid, names, gateway, 53, RATE, RATE * SECONDS)
            ours = asked("names, as fast as it answers", web.pid, names, gateway, 53, 0, FLOOD)
            echo = subprocess.Popen([sys.executable, "-c", ECHO, gateway], stdout=subprocess.PIPE, text=True)
            assert echo.stdout is not None
            echo.stdout.readline()
            least = asked("an echo in Python, the same", web.pid, echo.pid, gateway, 5353, 0, FLOOD)
            echo.kill()
            echo.wait()
            print(f"an answer takes {ours / least:.1f} times an echo's processor time")
            engine.remove_container(web, force=True)
            engine.networks.settle()


if __name__ == "__main__":
    main()
