"""Another machine on a wire, for tests of an ordinary user's networks: a few servers in a network namespace.

192.0.2.1 and fd99::1 are this side, 192.0.2.2 and fd99::2 the other, where http is at 8000, an echo of UDP at 9007, and
names at 53.
"""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading


def lay(watched: str) -> None:
    """As root, in a network namespace made for the test: lay the wire. The other machine goes when `watched` goes."""
    machine = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-I", __file__, "serve", watched], stdout=subprocess.PIPE, text=True
    )
    assert machine.stdout is not None and machine.stdout.readline() == "apart\n"
    for words in (
        "ip link set lo up",
        f"ip link add wire type veth peer name wire netns {machine.pid}",
        "ip addr add 192.0.2.1/24 dev wire",
        "ip addr add fd99::1/64 dev wire nodad",
        "ip link set wire up",
        "ip route add default via 192.0.2.2",
        "ip -6 route add default via fd99::2",
        "sysctl -qw net.ipv4.ping_group_range=0\t2147483647",
    ):
        subprocess.run(words.split(" "), check=True)
    assert machine.stdout.readline() == "ready\n"


def serve(watched: str) -> None:
    """The other machine."""
    import os
    import select
    import time

    end = os.pidfd_open(int(watched))
    print("apart", flush=True)
    while "wire" not in [name for _, name in socket.if_nameindex()]:
        time.sleep(0.01)
    for words in (
        "ip link set lo up", "ip addr add 192.0.2.2/24 dev wire", "ip addr add fd99::2/64 dev wire nodad",
        "ip link set wire up",
    ):  # fmt: skip
        subprocess.run(words.split(), check=True)
    web, web6 = http.server.ThreadingHTTPServer(("192.0.2.2", 8000), Hello), Server6(("fd99::2", 8000), Hello)
    echoes = (lambda: answer(9007, bytes), lambda: answer(9007, bytes, "fd99::2"))
    for body in (web.serve_forever, web6.serve_forever, *echoes, lambda: answer(53, named)):
        threading.Thread(target=body, daemon=True).start()
    print("ready", flush=True)
    os.close(1)
    select.select([end], [], [])


class Server6(http.server.ThreadingHTTPServer):
    """By IPv6."""

    address_family = socket.AF_INET6


class Hello(http.server.BaseHTTPRequestHandler):
    """Says who asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello {self.client_address[0]}".encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def answer(port: int, reply: object, address: str = "192.0.2.2") -> None:
    """Serve a port of UDP."""
    end = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    end.bind((address, port))
    while True:
        data, client = end.recvfrom(1 << 16)
        end.sendto(reply(data), client)  # type: ignore[operator]


def named(query: bytes) -> bytes:
    """An address for example.test, and nothing else is there."""
    if b"\x07example\x04test" not in query:
        return query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:]
    head = query[:2] + b"\x81\x80" + query[4:6] + b"\0\1\0\0\0\0" + query[12:]
    return head + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + bytes([198, 51, 100, 7])


if __name__ == "__main__":
    {"lay": lay, "serve": serve}[sys.argv[1]](sys.argv[2])
