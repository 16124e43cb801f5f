"""Networks of an engine, and who is on them: made, listed, joined and left. `engine.networks`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain import joining
from nbcontain.errors import ContainerError, NetworkError, NetworkInUse, NetworkNotFound, NotRunning, UsageError
from nbcontain.events import Emit, Notice
from nbcontain.filters import NETWORKS_PRUNING, Filters
from nbcontain.host import Ability, Host
from nbcontain.network import etc, words
from nbcontain.network.client import Client
from nbcontain.network.documents import settings, shown_ports
from nbcontain.network.model import (
    DEFAULT,
    Attachment,
    Network,
    PortMapping,
    Sandbox,
    Wish,
    attachment_to_json,
    network_from_json,
    sandbox_from_json,
    wish_from_json,
    wish_to_json,
)
from nbcontain.network.records import Records
from nbcontain.network.tunnels import SWAP, WayOut
from nbcontain.network.wishes import wish
from nbcontain.oci.image import ImageConfig
from nbcontain.options import labels_of
from nbcontain.runtime import hosts
from nbcontain.runtime.annotations import WITHIN
from nbcontain.runtime.container import Container
from nbcontain.runtime.grants import own_network
from nbcontain.runtime.networking import JOINED, mode_of
from nbcontain.store import files
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.runtime.generate import RunOptions
    from nbcontain.runtime.launcher import Launcher
    from nbcontain.runtime.leash import Leash

VARIABLE = "NBCONTAIN_NETWORK"
"""The network of who names none, in place of what is best here."""
_WISH = "network.json"
_OPTIONS = (
    "com.docker.network.driver.mtu", "mtu", "com.docker.network.bridge.enable_ip_masquerade",
)  # fmt: skip
_DRIVERS = {
    "overlay": "there is one machine here", "macvlan": "bridges are what there is",
    "ipvlan": "bridges are what there is",
    "host": "there is one already: --network host", "none": "there is one already: --network none",
    "null": "there is one already: --network none",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A network to be made."""

    name: str
    driver: str = "bridge"
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    internal: bool = False
    ipv6: bool = False
    labels: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Networks:
    """The networks of one engine's store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @cached_property
    def records(self) -> Records:
        return Records(self._engine.layout)

    @cached_property
    def _client(self) -> Client:
        layout, ids = self._engine.layout, self._engine.host.ids
        if ids.is_single:
            # It may be the first on networks whose namespaces are those too of containers with a range.
            ids = Host.detect(layout.root, cache=layout.host_facts).ids
        return Client(layout, ids)

    def close(self) -> None:
        """Hang up on the worker, which ends when nobody needs it any more."""
        if "_client" in self.__dict__:
            self._client.close()

    def warm(self) -> None:
        """Have a worker started, where containers will need one."""
        if self.default() == DEFAULT:
            self._client.warm()

    def _ask(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        self._require("networks")
        return self._client.ask(message, fds)

    def _require(self, what: str) -> None:
        host = self._engine.host
        if not self.can_bridge():
            from nbcontain.errors import Unavailable

            probe = host.abilities[Ability.NET_ADMIN]
            raise Unavailable(
                f"{what} with bridges cannot be had here", why=probe.why or "this machine's network cannot be changed",
                hint="--network host" + ", or --network none" * ("network" in self._engine.profile.rung.namespaces),
            )  # fmt: skip

    # --- what there is ---

    def can_bridge(self) -> bool:
        """Whether networks with bridges can be made here."""
        host, own = self._engine.host, self._engine.profile.rung.namespaces
        return "network" in own and host.can(Ability.NET_ADMIN) and host.can(Ability.NET_NAMESPACE)

    def default(self) -> str:
        """The network of a container that names none: the default bridge where that leads out, else the host's."""
        chosen = self._engine.environ.get(VARIABLE, "")
        return chosen or (DEFAULT if self.can_bridge() and not self.no_way_out() else "host")

    def no_way_out(self) -> str:
        """Why nothing leads out of networks here, in words; "" where something does."""
        return joining.no_way_out(self._engine.host)

    def way_out(self) -> WayOut:
        """What leads out of networks: in use now, or else what would be."""
        return joining.way_out(self._engine.layout, self._engine.host, is_used=self._client.is_there())

    def all(self) -> list[Network]:
        """All networks, by name; bridge, host and none are always there."""
        return self.records.networks()

    def get(self, name: str) -> Network:
        """A network by name, id or the beginning of its id. Raises NetworkNotFound."""
        return self.records.find(name)

    def on(self, network: Network) -> list[Sandbox]:
        """The running containers on a network."""
        return [each for each in self.records.living() if each.on(network.id) is not None]

    def sandbox(self, container: Container) -> Sandbox | None:
        """Where a running container is on networks; None for one that is on none."""
        found = self.records.sandbox(container.id)
        return found if found is not None and container.bundle.is_alive() else None

    def settings(self, container: Container) -> dict[str, Any]:
        """NetworkSettings of `container inspect`."""
        return settings(self.wish_of(container), self.sandbox(container))

    def ports(self, container: Container) -> tuple[PortMapping, ...]:
        """The published ports of a running container."""
        found = self.sandbox(container)
        return found.ports if found is not None else ()

    def reach(self, container: Container) -> tuple[str, str]:
        """docker's PORTS and NETWORKS of a container."""
        wished = self.wish_of(container)
        names = [each.network for each in wished.attachments] or [wished.mode]
        if not (wished.exposed or wished.published):
            return "", ",".join(names)
        is_running = container.status == "running"
        text = shown_ports(wished.exposed, self.ports(container)) if is_running else ""
        return text, ",".join(names)

    def names(self, container: Container) -> set[str]:
        """The names and ids of the networks that a container is to be on."""
        wished = self.wish_of(container)
        found = {wished.mode, *(each.network for each in wished.attachments)}
        return found | {each.id for each in self.all() if each.name in found}

    def publishes(self, container: Container, port: str) -> bool:
        """docker's filter publish: a container's port, or this machine's, as in 80 or 80/tcp, or a range."""
        wanted = words.exposed(port)
        ports = self.ports(container) or self.wish_of(container).published
        shown = {f"{number}/{each.protocol}" for each in ports for number in (each.container_port, each.host_port)}
        return bool(shown & set(wanted))

    def exposes(self, container: Container, port: str) -> bool:
        """docker's filter expose."""
        return bool(set(self.wish_of(container).exposed) & set(words.exposed(port)))

    # --- making and removing ---

    def create(self, request: NetworkRequest) -> Network:
        """Make a network. Raises NetworkError and its kin, UsageError."""
        if request.driver != "bridge":
            why = _DRIVERS.get(request.driver, "there are no plugins")
            raise UsageError(
                f"network create: the driver {request.driver} is not here", why=why, hint="--driver bridge"
            )
        options = words.pairs(request.options)
        for name in options:
            if name not in _OPTIONS:
                raise UsageError(f"network create: the option {name} is not here", hint=f"{', '.join(_OPTIONS)}")
        words.check_mtu(options)
        answer = self._ask({
            "do": "create", "name": request.name, "internal": request.internal, "ipv6": request.ipv6,
            "labels": labels_of(request.labels), "options": options,
            "subnets": words.subnets(request.subnets, request.gateways, request.ranges),
        })  # fmt: skip
        made = network_from_json(answer["network"])
        self._tell("create", made)
        return made

    def remove(self, name: str) -> None:
        """Forget a network. Raises NetworkNotFound, NetworkInUse."""
        found = self.get(name)
        self._ask({"do": "remove", "network": name})
        self._tell("destroy", found)

    def _tell(self, action: str, network: Network, **attributes: str) -> None:
        told = {"name": network.name, "type": network.driver, **attributes}
        self._engine.events.record("network", action, network.id, told)

    def unused(self, filters: Sequence[str] = ()) -> list[Network]:
        """The networks that no container is on, nor will be when it is started. Filters are docker's, of labels."""
        wanted: set[str] = set()
        for container in self._engine.containers():
            wanted |= {each.network for each in self.wish_of(container).attachments}
        found = [each for each in self.all() if not each.is_built_in and not wanted & {each.name, each.id}]
        asked, occupied = Filters.parse(filters, NETWORKS_PRUNING), self.occupied()
        return [each for each in found if each.id not in occupied and asked.labels_hold(each.labels)]

    def occupied(self) -> set[str]:
        """The ids of the networks that running containers are on."""
        return {endpoint.network for each in self.records.living() for endpoint in each.endpoints}

    def prune(self, filters: Sequence[str] = ()) -> list[str]:
        """Remove those; gives their names."""
        gone: list[str] = []
        for network in self.unused(filters):
            # Somebody may have come to be on it, or have removed it.
            with suppress(NetworkInUse, NetworkNotFound):
                self.remove(network.id)
                gone.append(network.name)
        return gone

    def settle(self) -> None:
        """Put right what the dead left: links, rules, addresses, ports."""
        if self.can_bridge() and (self._client.is_there() or self._engine.layout.networks.exists()):
            self._ask({"do": "settle"})

    # --- wishes ---

    def decide(self, options: RunOptions, config: ImageConfig) -> tuple[RunOptions, Wish, tuple[str, ...]]:
        """The same options with a network that was decided on, what is wished of networks, and what of it cannot be.

        Raises UsageError and ContainerNotFound.
        """
        added = [hosts.added(each) for each in options.add_hosts]
        wished, notices = wish(options, sorted(config.exposed_ports), added, self.default)
        mode = wished.mode
        if mode.startswith(JOINED):
            other = self._engine.container(mode.removeprefix(JOINED))
            mode = f"container:{other.id}"
            wished = replace(wished, mode=mode)
        if wished.is_networked:
            self._require(f"--network {mode}")
            for each in wished.attachments:
                self.get(each.network)
        return options if options.network == mode else replace(options, network=mode), wished, notices

    def knobs(self, wished: Wish, host: Host) -> dict[str, str]:
        """The kernel's settings of a network of a container's own, that nobody need ask for. The host's ids are its."""
        return own_network(host) if wished.is_networked else {}

    def wish_of(self, container: Container) -> Wish:
        """What a container was asked to have, and what was changed since."""
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            return wish_from_json(json.loads(files.read(container.bundle.path / _WISH, 1 << 20)))
        said = container.info.options.get("networks")
        if isinstance(said, Mapping):
            with suppress(ValueError, TypeError, KeyError):
                return wish_from_json(said)
        return Wish(mode_of(str(container.info.options.get("network", "host"))))

    def _change(self, container: Container, wished: Wish) -> None:
        files.replace(container.bundle.path / _WISH, json.dumps(wish_to_json(wished)).encode())

    # --- starting ---

    def is_born_as_said(self, wish: Wish) -> bool:
        """Whether a container's spec says already when it is made what it is born into; else `launch` writes it."""
        return not wish.mode.startswith(JOINED) and (self._engine.host.ids.is_identity or not wish.is_networked)

    def launch(
        self, container: Container, *, leash: Leash | None, stdin: int | None, launcher: Launcher | None = None,
        emit: Emit = lambda event: None,
    ) -> None:  # fmt: skip
        """Start a container, on its networks if it has any. Raises what hindered it, typed."""
        launcher = launcher or self._engine.of(container).launcher
        wished = self.wish_of(container)
        if not wished.is_networked:
            if wished.mode.startswith(JOINED):
                joining.join(self._engine, container, self._engine.running(wished.mode.removeprefix(JOINED)))
            elif container.info.unusual:
                joining.be_born(container, container.bundle.spec, within="")
            self._write_files(container, wished)
            container.launch(launcher, leash=leash, stdin=stdin, start=True)
            return
        container.hold()
        namespace: list[int] = []
        try:
            spec = container.bundle.spec
            prepared = self._ask({
                "do": "prepare", "container": container.id, "name": container.name,
                "hostname": spec.hostname, "domainname": spec.domainname, "wish": wish_to_json(wished),
            })  # fmt: skip
            self._write_networked_files(container, wished, prepared)
            way_out = self._record(container) if prepared["way"] == SWAP else ""
            joining.be_born(container, spec, within=str(prepared["within"]), way_out=way_out)
            container.launch(launcher, leash=leash, stdin=stdin, start=False, handed=namespace)
            state = container.state()
            attached = self._ask(
                {"do": "attach", "container": container.id, "pid": state.pid, "pid_start": state.pid_start}, namespace
            )
            for text in attached["notices"]:
                emit(Notice("", text))
            if prepared["way"] == SWAP and not way_out:
                emit(Notice("", "TCP does not leave networks: nobody can answer for connections of this container"))
            container.begin()
        except BaseException:
            container.abandon()
            with suppress(NetworkError, ContainerError, OSError):
                self._client.ask({"do": "release", "container": container.id})
            raise
        finally:
            for fd in namespace:
                os.close(fd)

    def _record(self, container: Container) -> str:
        """What says where a container's networks lead, if its connections can be answered for; else ""."""
        can = joining.can_swap(self._engine.host)
        return str(self._engine.layout.network_sandbox(container.id)) if can else ""

    def _write_files(self, container: Container, wished: Wish) -> None:
        """resolv.conf of a container without networks, where something was asked for it."""
        if not (wished.servers or wished.search or wished.resolver_options) or wished.mode.startswith(JOINED):
            return
        with suppress(OSError):
            text = Path(etc.RESOLV_CONF).read_text(errors="replace")
            files.replace(
                container.bundle.path / "resolv.conf", etc.of_host(wished, text).encode(), 0o644, durable=False
            )

    def _write_networked_files(self, container: Container, wished: Wish, prepared: Mapping[str, Any]) -> None:
        sandbox = sandbox_from_json(prepared["sandbox"])
        hosts_text = etc.hosts(sandbox, wished.hosts, str(prepared["gateway"]))
        responder = [prepared["responder"]] if prepared["responder"] else []
        resolver = etc.resolver(wished, etc.of_machine(), responder, has_names=bool(prepared["has_names"]))
        for name, text in (("hosts", hosts_text), ("resolv.conf", resolver.text())):
            files.replace(container.bundle.path / name, text.encode(), 0o644, durable=False)

    # --- joining and leaving ---

    def connect(self, network: str, container: Container, attachment: Attachment | None = None) -> None:
        """Put a container on a further network, at once if it runs. Raises NetworkError and its kin."""
        found = self.get(network)
        wished = self.wish_of(container)
        if not wished.is_networked and wished.mode != "none":
            raise NetworkError(
                f"{container.name} cannot be connected to {found.name}",
                why=f"its network is {_shown_mode(wished.mode)}",
                hint="a container with --network none, or on other networks, can",
            )  # fmt: skip
        if found.driver != "bridge":
            raise NetworkError(f"container cannot be connected to {found.name} network")
        if any(each.network in (found.name, found.id) for each in wished.attachments):
            raise NetworkError(f"{container.name} is on {found.name} already")
        asked = replace(attachment or Attachment(""), network=found.name)
        if found.name == DEFAULT and (asked.aliases or asked.address or asked.address6):
            raise UsageError("user specified IP address and alias are supported on user defined networks only")
        if container.status == "running":
            if not self._engine.host.ids.is_identity and WITHIN not in container.bundle.spec.annotations:
                raise NetworkError(
                    f"{container.name} cannot be connected to {found.name} while it runs",
                    why="it was started without networks, outside of the namespaces that yours are in",
                    hint=f"%container stop {container.name}, connect it, and start it again",
                )  # fmt: skip
            state = container.state()
            answer = self._ask({
                "do": "connect", "container": container.id, "name": container.name,
                "hostname": container.bundle.spec.hostname, "domainname": container.bundle.spec.domainname,
                "pid": state.pid, "pid_start": state.pid_start, "attachment": attachment_to_json(asked),
            })  # fmt: skip
            self._write_resolver(container, wished, answer)
        mode = found.name if wished.mode == "none" else wished.mode
        self._change(container, replace(wished, mode=mode, attachments=(*wished.attachments, asked)))
        self._tell("connect", found, container=container.id)

    def disconnect(self, network: str, container: Container, *, force: bool = False) -> None:
        """Take a container off a network, at once if it runs. Raises NetworkError."""
        found = self.get(network)
        wished = self.wish_of(container)
        left = tuple(each for each in wished.attachments if each.network not in (found.name, found.id))
        if len(left) == len(wished.attachments):
            raise NetworkError(f"container {container.name} is not connected to network {found.name}")
        if container.status == "running":
            try:
                answer = self._ask(
                    {"do": "disconnect", "container": container.id, "name": container.name, "network": found.id}
                )
                self._write_resolver(container, wished, answer)
            except (NetworkError, NotRunning):
                if not force:
                    raise
        mode = left[0].network if left else "none"
        self._change(container, replace(wished, mode=mode, attachments=left))
        self._tell("disconnect", found, container=container.id)

    def _write_resolver(self, container: Container, wished: Wish, answer: Mapping[str, Any]) -> None:
        """Whom a running container asks for names from now on; into the very file that it sees."""
        responder = [answer["responder"]] if answer["responder"] else []
        resolver = etc.resolver(wished, etc.of_machine(), responder, has_names=bool(answer["has_names"]))
        with suppress(OSError):
            files.rewrite(container.bundle.path / "resolv.conf", resolver.text().encode())


def _shown_mode(mode: str) -> str:
    return "this machine's" if mode == "host" else f"that of {mode.removeprefix('container:')[:12]}"

