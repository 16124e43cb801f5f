"""The way out of an ordinary user's networks: pasta or slirp4netns, where one is and /dev/net/tun. Run by the worker.

Both give the user's namespace an interface behind which they pass on what comes as connections of the user's own. What
leaves a network is masqueraded towards it, as towards a machine's real interface.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import NbcontainError
from nbcontain.linux import starts
from nbcontain.linux.starts import start_of
from nbcontain.network import links
from nbcontain.network.outside import Outside
from nbcontain.network.tunnels import missing, there
from nbcontain.store import files

DEVICE = "outside"
_ADDRESS, _GATEWAY, _BITS = "198.19.211.100", "198.19.211.2", 24
"""Of a block that is for tests between machines (RFC 2544), and nobody's."""
_ADDRESS6, _GATEWAY6 = "fd6e:6263:6f6e::100", "fd6e:6263:6f6e::2"
"""pasta's; slirp4netns has its own."""
_READY_S = 5.0
_FIRST_AGAIN_S, _LAST_AGAIN_S = 0.5, 30.0
"""Tried again after so long, each time twice that: one that was killed may be in the way while it ends."""


class Uplink:
    """The uplink of the namespaces that this process has entered."""

    def __init__(self, directory: Path, outside: Outside) -> None:
        self._directory = directory
        self._outside = outside
        self._again_at = 0.0
        self._again_s = _FIRST_AGAIN_S
        self._pid = 0
        self.ending = -1
        """A descriptor that tells of its end (pidfd_open(2)); -1 if there is none."""
        self.refusal = ""
        """Why there is none; "" if there is one, or none was wanted yet."""
        self.has_ipv6 = False
        """Whether IPv6 leads out by it, too."""

    def be(self, holder: int, *, wanted: bool) -> None:
        """Have one that runs, or none. Whatever is wrong is in `refusal`."""
        record = self._running()
        if record is not None and (not wanted or record["netns"] != _netns()):
            starts.kill(record["pid"], record["start"])
            record = None
        if record is None:
            files.unlink(self._directory / "uplink.json")
        if not wanted or record is not None:
            self.refusal = ""
        elif time.monotonic() >= self._again_at:
            self.refusal = missing() or self._begin(holder)
            self._again_at = time.monotonic() + self._again_s if self.refusal else 0.0
            self._again_s = min(2 * self._again_s, _LAST_AGAIN_S) if self.refusal else _FIRST_AGAIN_S
            record = self._running()
        self.has_ipv6 = record is not None and bool(record["ipv6"])
        self._watch(record["pid"] if record is not None and not self.refusal else 0)

    def _watch(self, pid: int) -> None:
        if pid == self._pid:
            return
        if self.ending >= 0:
            os.close(self.ending)
        self._pid, self.ending = pid, -1
        if pid:
            with suppress(OSError):
                self.ending = os.pidfd_open(pid)

    def _begin(self, holder: int) -> str:
        """Try each program there is; gives why none goes on, or "" if one does."""
        why = ""
        has_ipv6 = self._outside.leads_out_by_ipv6()
        if has_ipv6:
            # slirp4netns says that it is one.
            links.believe_routers()
        for name, program in there().items():
            try:
                files.make_directory(self._directory, durable=False)
                pid = self._spawned([program, *_words(name, holder, has_ipv6=has_ipv6)])
                record = {"pid": pid, "start": start_of(pid), "netns": _netns(), "ipv6": int(has_ipv6)}
                files.replace(self._directory / "uplink.json", json.dumps(record).encode(), durable=False)
                if _is_ready(pid, record["start"]):
                    return ""
                starts.kill(pid, record["start"])
                lines = files.read(self._log, 1 << 16).decode(errors="replace").split("\n")
                why = f"{name}: {next((each for each in reversed(lines) if each.strip()), 'it ended')}"
            except (OSError, NbcontainError) as error:
                why = f"{name}: {error}"
        return why

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _spawned(self, words: list[str]) -> int:
        files.unlink(self._log)
        log = files.open_to_append(self._log)
        try:
            return self._outside.spawn(words, log)
        finally:
            os.close(log)

    def _running(self) -> dict[str, int] | None:
        """What was written of the one that runs; None if none does."""
        try:
            found = json.loads(files.read(self._directory / "uplink.json", 1 << 10))
            record = {name: int(found.get(name, 0)) for name in ("pid", "start", "netns", "ipv6")}
            # One that ended before it could be looked at has no beginning.
            return record if record["start"] and start_of(record["pid"]) == record["start"] else None
        except (OSError, ValueError, KeyError, TypeError, NbcontainError):
            return None


def _words(name: str, holder: int, *, has_ipv6: bool) -> list[str]:
    """What pasta(1) and slirp4netns(1) are told: an interface and a way out, and nothing of this machine's loopback."""
    users, network = (f"/proc/{holder}/ns/{each}" for each in ("user", "net"))
    if name == "pasta":
        more = ["--address", _ADDRESS6, "--gateway", _GATEWAY6] if has_ipv6 else ["--ipv4-only"]
        return [
            "--foreground", "--quiet", "--config-net", "--ns-ifname", DEVICE, *more,
            "--address", _ADDRESS, "--netmask", str(_BITS), "--gateway", _GATEWAY, "--no-map-gw",
            "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--userns", users, "--netns", network,
        ]  # fmt: skip
    block = f"{_ADDRESS.rpartition('.')[0]}.0/{_BITS}"
    return [
        "--configure", "--mtu=65520", "--disable-host-loopback", f"--cidr={block}",
        *(["--enable-ipv6"] if has_ipv6 else []),
        "--netns-type=path", f"--userns-path={users}", network, DEVICE,
    ]  # fmt: skip


def _is_ready(pid: int, start: int) -> bool:
    """Whether it has made its interface and a route, which takes it a moment; False if it ended."""
    until = time.monotonic() + _READY_S
    while start and time.monotonic() < until and start_of(pid) == start:
        with suppress(OSError):
            index = socket.if_nametoindex(DEVICE)
            with open("/proc/thread-self/net/route", encoding="ascii") as lines:
                routes = [line.split() for line in lines]
            if index and any(each[:2] == [DEVICE, "00000000"] for each in routes):
                return True
        time.sleep(0.002)
    return False


def _netns() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino
