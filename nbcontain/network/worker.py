"""The process that holds pyroute2 and makes networks real: one per store, for as long as somebody needs it.

Executed by whoever needs it first, a kernel or a terminal's command, and nobody's child from then on. It is asked over
its control socket, does one thing at a time, and is the only one to write what is known of networks. When containers
end, it takes away what was theirs; when nobody has been on a network or asked for anything for a while, it takes away
all of it and ends. Killed at any line, it leaves what the next one settles.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from nbcontain.channel import Channel, Listener, Message, describe
from nbcontain.errors import NetworkError, NetworkInUse, PortTaken, StoreError
from nbcontain.linux.starts import start_of
from nbcontain.network import addresses, places, rooms
from nbcontain.network.etc import HOSTS_BYTES, changed_hosts
from nbcontain.network.fabric import Fabric, leading, netns_of, port_key
from nbcontain.network.helper import silence
from nbcontain.network.model import (
    DEFAULT,
    Attachment,
    Endpoint,
    Network,
    PortMapping,
    Sandbox,
    Subnet,
    attachment_from_json,
    network_to_json,
    sandbox_asked,
    sandbox_to_json,
    wish_from_json,
)
from nbcontain.network.own import Own, Vigil
from nbcontain.network.ports import owned
from nbcontain.network.programs import Programs
from nbcontain.network.records import Records
from nbcontain.oci.image import timestamp
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.values import replace

_LOOK_S = 0.25
"""How often it looks whether a container whose first process ended is over."""
_ENDING_S = 0.5
"""How long somebody who wants a port or an address waits for one who is about to end."""
_CHECK_S = 5.0
"""How often it looks whether somebody flushed the packet filter."""


class Worker:
    """Serves a store's networks."""

    def __init__(self, layout: Layout, place: str, listener: Listener, idle_s: float, own: Own | None) -> None:
        """`own` is what an ordinary user has; None for root."""
        self.records = Records(layout)
        self.place = place
        self.fabric = Fabric(self.records, place, own)
        self._listener = listener
        self._idle_s = idle_s
        self._epoll = select.epoll()
        self._clients: dict[int, Channel] = {}
        self._programs = Programs(self._epoll)
        self._ending: set[str] = set()
        """Containers whose first process has ended; their lock may be held for a moment, or for another run."""
        known = (each for each in self.records.sandboxes() if each.place == place)
        self._sandboxes: dict[str, Sandbox] = {each.container: each for each in known}
        self._kept: set[str] = set()
        """Networks whose bridges stay until it is quiet."""
        self._last: dict[str, str] = {}
        """Per network, the address that was given last."""
        self._used_at = time.monotonic()
        self._checked_at = 0.0

    def serve(self, ready: int) -> None:
        self.records.sweep()
        self._settle(force=True)
        self.fabric.attach_again(list(self._sandboxes.values()))
        self._vigil = Vigil(self._epoll, self.fabric.own)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        gc.freeze()
        os.write(ready, b".")
        os.close(ready)
        silence()
        while True:
            events = self._epoll.poll(self._wait_s())
            for fd, _ in events:
                if fd == self._listener.fileno():
                    client = self._listener.accept()
                    self._clients[client.fileno()] = client
                    self._epoll.register(client.fileno(), select.EPOLLIN)
                elif fd in self._clients:
                    self._serve_client(self._clients[fd])
                elif container := self._programs.ended(fd):
                    self._ending.add(container)
                elif not self._vigil.serves(fd):
                    # A helper or the uplink ended: there is to be a new one.
                    self._lose(fd)
            self._look()
            if self._is_idle():
                self._end()

    # --- the loop ---

    def _wait_s(self) -> float:
        return _LOOK_S if self._ending else min(_CHECK_S, self._idle_s / 2)

    def _look(self) -> None:
        """What happened without anybody's asking."""
        now = time.monotonic()
        gone = {each for each in self._ending if not self.records.is_alive(each)}
        if gone:
            self._settle()
        for container in list(self._ending):
            sandbox = self._sandboxes.get(container)
            if sandbox is None or start_of(sandbox.pid) == 0 and self._has_new_process(sandbox):
                self._ending.discard(container)
        if now - self._checked_at >= _CHECK_S and self._sandboxes:
            self._checked_at = now
            self._vigil.look()
            with suppress(NetworkError):
                self._settle(force=True)

    def _has_new_process(self, sandbox: Sandbox) -> bool:
        """Whether a supervisor started its program again, in the same network namespace."""
        pid, pid_start = self.records.process_of(sandbox.container)
        if pid == sandbox.pid or not pid or start_of(pid) != pid_start:
            return False
        self._write(replace(sandbox, pid=pid, pid_start=pid_start))
        self._watch(self._sandboxes[sandbox.container])
        return True

    def _is_idle(self) -> bool:
        if self._sandboxes or self._clients:
            self._used_at = time.monotonic()
            return False
        return time.monotonic() - self._used_at >= self._idle_s

    def _end(self) -> None:
        # First: whoever comes now asks the next one.
        files.unlink(self.records.layout.network_process(self.place, "worker") / "control.sock")
        self._kept.clear()
        self._settle(force=True)
        self.fabric.end()
        rooms.leave(self.records.layout, self.place)
        os._exit(0)

    def _serve_client(self, client: Channel) -> None:
        try:
            message, fds = client.receive()
        except (ValueError, OSError, RecursionError):
            message, fds = None, []
        if message is None:
            self._epoll.unregister(client.fileno())
            self._clients.pop(client.fileno()).close()
            return
        self._used_at = time.monotonic()
        try:
            answer = self._answer(message, fds)
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            answer = describe(error)
        finally:
            for fd in fds:
                os.close(fd)
        client.tell(answer)

    def _answer(self, message: Message, fds: Sequence[int]) -> Message:
        match message.get("do"):
            case "prepare":
                return self.prepare(message)
            case "attach":
                return self.attach(message, fds)
            case "release":
                self.release(str(message["container"]))
                return {}
            case "create":
                return self.create(message)
            case "remove":
                self.remove(str(message["network"]))
                return {}
            case "connect":
                return self.connect(message)
            case "disconnect":
                return self.disconnect(message)
            case "settle":
                # Whose end nobody heard of yet is replaced before whoever asks has an answer.
                self._vigil.look()
                self._kept.clear()
                self._settle(force=True)
                self.fabric.attach_again(list(self._sandboxes.values()))
                return {}
            case other:
                raise NetworkError(f"the networks' worker knows no {other!r}")

    def _lose(self, fd: int) -> None:
        with suppress(OSError, FileNotFoundError):
            self._epoll.unregister(fd)
        for serving in self.fabric.helpers():
            if serving.channel is not None and serving.channel.fileno() == fd:
                serving.forget()
        with suppress(NetworkError):
            self._settle(force=True)

    # --- what is ---

    def _wait_for_ending(self) -> None:
        """For the locks of containers whose program has ended, as their supervisors are about to end too."""
        deadline = time.monotonic() + _ENDING_S
        while time.monotonic() < deadline and any(
            each.pid and start_of(each.pid) != each.pid_start and self.records.is_alive(each.container)
            for each in self._sandboxes.values()
        ):
            time.sleep(0.002)
        self._settle()

    def _settle(self, *, force: bool = False) -> None:
        """Forget who has ended, and have the kernel be what the rest needs."""
        gone = [each for each in self._sandboxes.values() if not self.records.is_alive(each.container)]
        for sandbox in gone:
            self._forget(sandbox)
        if force:
            rooms.forget_others(self.records, self.place)
        if gone or force:
            self.fabric.settle(list(self._sandboxes.values()), keep=self._kept)
            self._hear_helpers()
        for sandbox in self._sandboxes.values():
            if (
                sandbox.pid
                and not self._programs.has(sandbox.container)
                and sandbox.container not in self._ending
            ):
                self._watch(sandbox)

    def _hear_helpers(self) -> None:
        for fd in self.fabric.endings():
            with suppress(FileExistsError):
                self._epoll.register(fd, select.EPOLLIN)

    def _forget(self, sandbox: Sandbox) -> None:
        self.fabric.let_go(sandbox)
        self.fabric.servers.pop(sandbox.container, None)
        self._ending.discard(sandbox.container)
        self._sandboxes.pop(sandbox.container, None)
        self.records.remove_sandbox(sandbox.container)
        self._programs.forget(sandbox.container)

    def _write(self, sandbox: Sandbox) -> None:
        self.records.write_sandbox(sandbox)
        self._sandboxes[sandbox.container] = sandbox

    def _watch(self, sandbox: Sandbox) -> None:
        if not self._programs.watch(sandbox):
            self._ending.add(sandbox.container)

    # --- containers ---

    def prepare(self, message: Message) -> Message:
        """Before a container is made: its places on networks, and its ports, which are bound from here on."""
        self._settle()
        wish = wish_from_json(message["wish"])
        container = str(message["container"])
        if (old := self._sandboxes.get(container)) is not None:
            self._forget(old)
        sandbox = sandbox_asked(message, self.place)
        networks = [self._network(each.network) for each in wish.attachments]
        for network, attachment in zip(networks, wish.attachments, strict=True):
            if sandbox.on(network.id) is not None:
                raise NetworkError(f"{sandbox.name} is asked to be on {network.name} twice")
            sandbox = replace(sandbox, endpoints=(*sandbox.endpoints, self._placed(sandbox, network, attachment)))
        taken: dict[str, Any] = {}
        try:
            for port in wish.published:
                found, end = self._bound(port, sandbox)
                sandbox = replace(sandbox, ports=(*sandbox.ports, found))
                taken[port_key(sandbox, found)] = end
            self._write(sandbox)
        except BaseException:
            for end in taken.values():
                end.close()
            raise
        self.fabric.bound |= taken
        if wish.servers:
            self.fabric.servers[container] = wish.servers
        own = self.fabric.own
        return {
            "sandbox": sandbox_to_json(sandbox), **self._shown(sandbox),
            "within": own.space.users if own is not None else "", "way": self.fabric.lead_out(networks),
        }  # fmt: skip

    def _bound(self, port: PortMapping, sandbox: Sandbox) -> tuple[PortMapping, socket.socket]:
        """A published port, if need be once who has it has ended. Raises PortTaken with its owner, NetworkError."""
        try:
            return self.fabric.bind(port)
        except PortTaken:
            self._wait_for_ending()
        try:
            return self.fabric.bind(port)
        except PortTaken as error:
            raise owned(error, port, [*self._sandboxes.values(), sandbox]) from None

    def _shown(self, sandbox: Sandbox) -> Message:
        """What its files in /etc are made of."""
        networks = {each.id: each for each in self.records.networks()}
        asked = [networks[each.network] for each in sandbox.endpoints]
        named = [each for each in asked if each.has_names]
        at = [each for each in (named or asked) if self.fabric.needs_responder(each)]
        first = sandbox.on(at[0].id) if at else None
        gateway = _gateway(at[0], first) if at and first is not None else ""
        out = leading(sandbox.endpoints)
        return {
            "responder": gateway, "has_names": bool(named) or self.fabric.own is not None,
            "gateway": (out.gateway or out.gateway6) if out is not None else "",
        }  # fmt: skip

    def attach(self, message: Message, fds: Sequence[int]) -> Message:
        """A container was made, and waits for links, names and ports. `fds` has a namespace that we may not open."""
        sandbox = self._sandboxes.get(str(message["container"]))
        if sandbox is None:
            raise NetworkError("the container has no place on any network", why="its record is gone")
        sandbox = replace(sandbox, pid=int(message["pid"]), pid_start=int(message["pid_start"]))
        with nullcontext(fds[0]) if fds else netns_of(sandbox.pid, sandbox.pid_start) as netns:
            self._write(sandbox)
            self._kept |= {each.network for each in sandbox.endpoints}
            self.fabric.settle(list(self._sandboxes.values()), keep=self._kept)
            self._hear_helpers()
            self.fabric.attach(sandbox, netns)
        self._watch(sandbox)
        return {"notices": self.fabric.notices(sandbox)}

    def release(self, container: str) -> None:
        """A container that could not be started."""
        if (sandbox := self._sandboxes.get(container)) is not None:
            self._forget(sandbox)
            self._settle(force=True)

    def _placed(self, sandbox: Sandbox, network: Network, attachment: Attachment) -> Endpoint:
        others = [each for each in self._sandboxes.values() if each.container != sandbox.container]
        return places.placed(self.fabric.tag, sandbox, network, attachment, others, self._last)

    # --- while it runs ---

    def connect(self, message: Message) -> Message:
        """Put a running container on a further network."""
        self._settle()
        attachment = attachment_from_json(message["attachment"])
        network = self._network(attachment.network)
        container = str(message["container"])
        old = self._sandboxes.get(container) or sandbox_asked(message, self.place)
        if old.on(network.id) is not None:
            raise NetworkError(f"{old.name} is on {network.name} already")
        pid, pid_start = int(message["pid"]), int(message["pid_start"])
        sandbox = replace(
            old, pid=pid, pid_start=pid_start, endpoints=(*old.endpoints, self._placed(old, network, attachment))
        )
        with netns_of(pid, pid_start) as netns:
            self._write(sandbox)
            self._kept.add(network.id)
            try:
                self.fabric.settle(list(self._sandboxes.values()), keep=self._kept)
                self.fabric.attach(sandbox, netns)
            except BaseException:
                self._write(old)
                self._settle(force=True)
                raise
        self._hear_helpers()
        if not self._programs.has(container):
            self._watch(sandbox)
        self._rename(old, sandbox)
        return {"sandbox": sandbox_to_json(sandbox), **self._shown(sandbox), "notices": self.fabric.notices(sandbox)}

    def disconnect(self, message: Message) -> Message:
        """Take a running container off a network."""
        self._settle()
        network = self._network(str(message["network"]))
        old = self._sandboxes.get(str(message["container"]))
        if old is None or old.on(network.id) is None:
            raise NetworkError(f"container {message['name']} is not connected to network {network.name}")
        sandbox = replace(old, endpoints=tuple(each for each in old.endpoints if each.network != network.id))
        endpoint = old.on(network.id)
        assert endpoint is not None
        self._write(sandbox)
        self.fabric.links.remove(endpoint.link)
        with netns_of(sandbox.pid, sandbox.pid_start) as netns:
            self.fabric.links.lead_out(netns, leading(sandbox.endpoints))
        self._kept.discard(network.id)
        self._settle(force=True)
        self._rename(old, sandbox)
        return {"sandbox": sandbox_to_json(sandbox), **self._shown(sandbox)}

    def _rename(self, old: Sandbox, sandbox: Sandbox) -> None:
        """The container's own lines in its /etc/hosts, where it lies and is mounted. One that it made huge stays."""
        path = self.records.layout.container(sandbox.container) / "hosts"
        with suppress(OSError, StoreError):
            text = files.read(path, HOSTS_BYTES).decode(errors="surrogateescape")
            changed = changed_hosts(text, old, sandbox)
            files.rewrite(path, changed.encode(errors="surrogateescape"))

    # --- networks ---

    def _network(self, name: str) -> Network:
        """A network; the default one is made when it is first needed. Raises NetworkNotFound."""
        network = self.records.find(name)
        if network.name == DEFAULT and not network.subnets:
            block = addresses.free_block(self._taken(), large=True)
            network = replace(network, created=timestamp(), subnets=(Subnet(block, block[1]),))
            self.records.write(network)
        return network

    def _taken(self) -> list[Any]:
        own = [subnet.block for each in self.records.networks() for subnet in each.subnets]
        return [*own, *self.fabric.blocks()]

    def create(self, message: Message) -> Message:
        """Make a network of what was asked for (see `places.founded`)."""
        has_ipv6 = Path("/proc/sys/net/ipv6").is_dir()
        network = places.founded(message, self.records.networks(), self._taken(), has_ipv6=has_ipv6)
        self.records.write(network)
        return {"network": network_to_json(network)}

    def remove(self, name: str) -> None:
        """Forget a network that nobody is on. Raises NetworkInUse."""
        self._settle()
        network = self.records.find(name)
        if network.is_built_in:
            raise NetworkError(f"{network.name} is a pre-defined network and cannot be removed")
        # Those of other namespaces' workers too.
        if on := [each.name for each in self.records.living() if each.on(network.id) is not None]:
            raise NetworkInUse(
                f"network {network.name} has active endpoints", why=f"{', '.join(on)}",
                hint=f"%network disconnect {network.name} {on[0]}, or stop what is on it",
            )  # fmt: skip
        self.records.remove(network)
        self._kept.discard(network.id)
        self._settle(force=True)


def _gateway(network: Network, endpoint: Endpoint) -> str:
    """Where the responder listens for a container; its own family's."""
    subnet = network.subnet(4 if endpoint.address else 6)
    return str(subnet.gateway) if subnet is not None else ""

