"""A program that asks a container's server for one page, standing in the container's network. Executed by the kernel.

python -I -S -c … PACKAGE PID: reads one JSON line, writes one, and the body behind it. It gives up all rights before it
connects: what it is answered is not worth more.
"""

from __future__ import annotations

import json
import os
import sys
import time

from nbcontain.linux import syscalls

_NOBODY = 65534
_HEADERS = 100


def main(pid: int) -> None:
    """The program's whole life. What goes wrong is said in the line: {"error": …}."""
    # All that is needed later is imported now: nobody may not be allowed to read where it lies.
    import encodings.idna  # noqa: F401
    import http.client

    order = json.loads(sys.stdin.buffer.readline())
    try:
        _enter(pid)
        connection = http.client.HTTPConnection("127.0.0.1", int(order["port"]), timeout=float(order["timeout_s"]))
        connection.request(order["method"], order["path"], order["body"].encode("latin-1"), order["headers"])
        answer = connection.getresponse()
        limit, deadline = int(order["limit"]), time.monotonic() + float(order["timeout_s"])
        body = bytearray()
        while len(body) <= limit and (chunk := answer.read1(1 << 16)):
            body += chunk
            if time.monotonic() > deadline:
                raise TimeoutError("it took too long")
        headers = answer.getheaders()[:_HEADERS]
        said = {"status": answer.status, "reason": answer.reason, "headers": headers, "cut": len(body) > limit}
        data = bytes(body[:limit])
    except (OSError, ValueError, http.client.HTTPException) as error:
        said, data = {"error": getattr(error, "strerror", None) or str(error) or type(error).__name__}, b""
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


def _enter(pid: int) -> None:
    """Be in the process's network, and without rights: nobody, where that can be."""
    own = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("user", "net")}
    fds = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")}
    for kind, flag in (("user", syscalls.CLONE_NEWUSER), ("net", syscalls.CLONE_NEWNET)):
        if os.fstat(fds[kind]).st_ino != own[kind]:
            syscalls.setns(fds[kind], flag)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if os.getuid() == 0 and own["user"] == os.fstat(fds["user"]).st_ino:
        os.setgroups(())
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    else:
        # Whoever enters a user namespace has all power in it.
        syscalls.capset(0, 0, 0)
