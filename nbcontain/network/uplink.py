"""The way out of an ordinary user's networks: pasta or slirp4netns, where one is and /dev/net/tun. Run by the worker.

Both give the user's namespace an interface behind which they pass on what comes as connections of the user's own. What
leaves a network is masqueraded towards it, as towards a machine's real interface. Where none of them can be had, a
relay of ours stands there: it passes datagrams on, and connections are answered for (`runtime.connect_answers`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import NbcontainError, NetworkError
from nbcontain.linux import starts
from nbcontain.linux.starts import start_of
from nbcontain.network import links
from nbcontain.network.links import Links
from nbcontain.network.outside import Outside
from nbcontain.network.records import place
from nbcontain.network.relay import far_end
from nbcontain.network.serving import Serving
from nbcontain.network.tunnels import SWAP, WAY, missing, there
from nbcontain.store import files
from nbcontain.values import asdict, dataclass

DEVICE, FAR = "outside", "beyond"
_MAC, _FAR_MAC = "02:6e:62:00:00:01", "02:6e:62:00:00:02"
_ADDRESS, _GATEWAY, _BITS = "198.19.211.100", "198.19.211.2", 24
"""Of a block that is for tests between machines (RFC 2544), and nobody's."""
_ADDRESS6, _GATEWAY6 = "fd6e:6263:6f6e::100", "fd6e:6263:6f6e::2"
"""pasta's; slirp4netns has its own."""
_READY_S = 5.0
_FIRST_AGAIN_S, _LAST_AGAIN_S = 0.5, 30.0
"""Tried again after so long, each time twice that: one that was killed may be in the way while it ends."""


@dataclass(frozen=True, slots=True)
class _Program:
    """One that was begun, as it is written down for the next worker."""

    pid: int
    start: int
    netns: str
    ipv6: bool
    name: str = ""

    @property
    def is_running(self) -> bool:
        # One that ended before it could be looked at has no beginning.
        return self.start != 0 and start_of(self.pid) == self.start


class Uplink:
    """The uplink of the namespaces that this process has entered."""

    def __init__(self, directory: Path, outside: Outside) -> None:
        self._directory = directory
        self._outside = outside
        self._links = Links("")
        self._relay = Serving(directory.parent / "relay", outside.relay)
        self._again_at = 0.0
        self._again_s = _FIRST_AGAIN_S
        self._pid = 0
        self.ending = -1
        """A descriptor that tells of its end (pidfd_open(2)); -1 if there is none."""
        self.refusal = ""
        """Why none of the programs goes on; "" if one does, or none was wanted yet."""
        self.way = ""
        """What leads out: the name of a program, or SWAP; "" for nothing."""
        self._unrelayed = ""
        """Why no datagram leaves, where connections do; "" where they do too, or nothing does."""
        self._was_tunnel = False
        """Whether a program went on before: connections of who was started then are not answered for."""
        self.has_ipv6 = False
        """Whether IPv6 leads out by it, too."""
        self._told: dict[str, object] = {}
        """What was written down last, for whoever wants to know."""
        self._is_said = False
        """Whether a container was told of `news`."""

    def be(self, holder: int, *, wanted: bool) -> None:
        """Have one that runs, or none. Why no program does is in `refusal`."""
        program = self._running()
        if program is not None and (not wanted or program.netns != place()):
            starts.kill(program.pid, program.start)
            program = None
        if program is None and self._record.exists():
            self._was_tunnel = True
            files.unlink(self._record)
        if not wanted:
            self.refusal, self.way, self._was_tunnel, self._unrelayed = "", "", False, ""
            self._be_relay(wanted=False)
        elif program is not None:
            self.refusal, self.way = "", program.name
        elif self._links.has(FAR):
            # Whose connections are answered for has no use for anything else.
            self.refusal, self.way = self.refusal or missing() or "they were tried", SWAP
            self._pass_datagrams()
        elif time.monotonic() >= self._again_at:
            program = self._tried(holder)
        self.has_ipv6 = self._outside.leads_out_by_ipv6() if self.way == SWAP else program is not None and program.ipv6
        self._tell()
        self._watch(program.pid if program is not None else 0)

    def _tried(self, holder: int) -> _Program | None:
        """Try what there may be; gives the program that runs, if one does."""
        self.refusal, self.way = missing() or self._begin(holder), ""
        program = self._running()
        if program is not None:
            self.way = program.name
        elif self.refusal and not self._was_tunnel:
            self.way = SWAP
            self._pass_datagrams()
        is_none = bool(self.refusal) and (not self.way or bool(self._unrelayed))
        self._again_at = time.monotonic() + self._again_s if is_none else 0.0
        self._again_s = min(2 * self._again_s, _LAST_AGAIN_S) if is_none else _FIRST_AGAIN_S
        return program

    def _pass_datagrams(self) -> None:
        """Have the relay pass them on. Where it cannot, connections leave all the same, since nobody else is needed."""
        try:
            self._links.lay_out(
                (DEVICE, _MAC), (FAR, _FAR_MAC), [(_ADDRESS, _BITS, _GATEWAY), (_ADDRESS6, 64, _GATEWAY6)]
            )
            self._be_relay(wanted=True)
            self._unrelayed = ""
        except (OSError, NbcontainError) as error:
            why = getattr(error, "why", "")
            self._unrelayed = f"{error}: {why}" if why else str(error)
            # Half of it leads nowhere, and would be taken for all of it.
            self._be_relay(wanted=False)

    def _tell(self) -> None:
        """Write down what leads out."""
        told = {"way": self.way, "why": self.refusal, "ipv6": self.has_ipv6, "unrelayed": self._unrelayed}
        if told != self._told:
            self._told = told
            files.make_directory(self._directory, durable=False)
            files.replace(self._directory / WAY, json.dumps(told).encode(), durable=False)

    def news(self) -> str:
        """What the first container that it leads out of is told; "" from then on."""
        said, self._is_said = self._is_said, True
        if said or self.way != SWAP:
            return ""
        how = f"do not ({self._unrelayed})" if self._unrelayed else "by a relay"
        return f"connections leave networks by sockets of this machine's, datagrams {how}: {self.refusal}"

    def expected(self) -> str:
        """What will lead out, as far as can be told without trying."""
        return self.way or ("" if self._was_tunnel or not missing() else SWAP)

    def _be_relay(self, *, wanted: bool) -> None:
        """Have the far end of the link held, or no link. Raises OSError, NetworkError."""
        if not wanted:
            self._relay.sync({})
            self._links.remove(FAR)
            return
        told = {"mac": _MAC.replace(":", ""), "own_mac": _FAR_MAC.replace(":", "")}
        key = f"{place()} {socket.if_nametoindex(FAR)}"
        self._relay.sync({key: (told, lambda: [far_end(FAR)])})
        if why := self._relay.refused.get(key):
            raise NetworkError("the relay cannot hold its link", why=why)

    def helpers(self) -> list[Serving]:
        """The processes that may end."""
        return [self._relay]

    def _watch(self, pid: int) -> None:
        if pid == self._pid:
            return
        if self.ending >= 0:
            # It has ended, unless its record went with the store.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.ending, signal.SIGKILL)
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
                begun = _Program(pid, start_of(pid), place(), has_ipv6, name)
                files.replace(self._record, json.dumps(asdict(begun)).encode(), durable=False)
                if _is_ready(begun):
                    return ""
                starts.kill(begun.pid, begun.start)
                # It never led out: nobody was started behind it.
                files.unlink(self._record)
                lines = files.read(self._log, 1 << 16).decode(errors="replace").split("\n")
                why = f"{name}: {next((each for each in reversed(lines) if each.strip()), 'it ended')}"
            except (OSError, NbcontainError) as error:
                why = f"{name}: {error}"
        return why

    @property
    def _record(self) -> Path:
        return self._directory / "uplink.json"

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

    def _running(self) -> _Program | None:
        """The program that runs; None if none does."""
        try:
            found = json.loads(files.read(self._record, 1 << 10))
            pid, start, netns = int(found["pid"]), int(found["start"]), str(found["netns"])
            program = _Program(pid, start, netns, bool(found["ipv6"]), str(found.get("name", "")))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return program if program.is_running else None


def end_all_of(holder: int) -> None:
    """Holder: end whatever leads out of the namespaces that it holds, when nobody else is left who knows of it."""
    network = f"{_namespace(holder, 'net')}\0".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as words:
            if network in words.read(1 << 12):
                os.kill(int(pid), signal.SIGKILL)


def _namespace(holder: int, kind: str) -> str:
    return f"/proc/{holder}/ns/{kind}"


def _words(name: str, holder: int, *, has_ipv6: bool) -> list[str]:
    """What pasta(1) and slirp4netns(1) are told: an interface and a way out, and nothing of this machine's loopback."""
    users, network = _namespace(holder, "user"), _namespace(holder, "net")
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


def _is_ready(program: _Program) -> bool:
    """Whether it has made its interface and a route, which takes it a moment; False if it ended."""
    until = time.monotonic() + _READY_S
    while time.monotonic() < until and program.is_running:
        with suppress(OSError):
            index = socket.if_nametoindex(DEVICE)
            with open("/proc/thread-self/net/route", encoding="ascii") as lines:
                routes = [line.split() for line in lines]
            if index and any(each[:2] == [DEVICE, "00000000"] for each in routes):
                return True
        time.sleep(0.002)
    return False
