"""The commands on networks: docker's words, and `draw`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from nbcontain.commands.images import inspected
from nbcontain.commands.table import Names, OneName, command, docker_line, of_each
from nbcontain.display.formats import Format, timestamp_shown
from nbcontain.display.table import Column, Table, Watched
from nbcontain.display.topology import Topology
from nbcontain.display.values import Confirm, Document, InProgress, Lines
from nbcontain.display.words import count, without_asking
from nbcontain.errors import NetworkNotFound, UsageError
from nbcontain.events import Emit
from nbcontain.filters import NETWORKS, NETWORKS_PRUNING, Filters, chosen_networks
from nbcontain.network import words as docker
from nbcontain.network.documents import network_document
from nbcontain.network.model import Attachment, Network
from nbcontain.networks import NetworkRequest
from nbcontain.options import argument, option, with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

T = TypeVar("T")
TITLES = {
    "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
    "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
}  # fmt: skip


def _done(verb: str, act: Callable[[], T]) -> InProgress[T]:
    def body(emit: Emit) -> T:
        return act()

    return InProgress(Task(verb, body), "work")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CreateWords:
    name: str = argument(help="what to call it", metavar="NETWORK")
    driver: str = option("-d", "--driver", help="bridge", default="bridge")
    subnet: tuple[str, ...] = option("--subnet", help="its addresses, as in 10.5.0.0/24", metavar="CIDR")
    gateway: tuple[str, ...] = option("--gateway", help="this machine's address in it", metavar="ADDRESS")
    ip_range: tuple[str, ...] = option("--ip-range", help="the part that addresses are given from", metavar="CIDR")
    internal: bool = option("--internal", help="nothing leads out of it")
    ipv6: bool = option("--ipv6", help="with IPv6 too")
    labels: tuple[str, ...] = option("--label", help="NAME=value, for people and programs", metavar="NAME=VALUE")
    options: tuple[str, ...] = option("-o", "--opt", help="mtu=1400, and docker's names of it", metavar="NAME=VALUE")

    def request(self) -> NetworkRequest:
        """What is asked for."""
        return NetworkRequest(
            name=self.name, driver=self.driver, subnets=self.subnet, gateways=self.gateway, ranges=self.ip_range,
            internal=self.internal, ipv6=self.ipv6, labels=self.labels, options=self.options,
        )  # fmt: skip


@command("network", "create", "make a network", CreateWords)
def network_create(engine: Engine, words: CreateWords) -> InProgress[Lines]:
    return _done("network create", lambda: Lines((engine.networks.create(words.request()).id,)))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ListWords:
    quiet: bool = option("-q", "--quiet", help="only ids")
    no_trunc: bool = option("--no-trunc", help="ids in full")
    filters: tuple[str, ...] = option("-f", "--filter", help=f"only those: {', '.join(NETWORKS)}", metavar="NAME=VALUE")
    format: str = option("--format", help="a table of these columns, or a text for each",
                         metavar="table {{.Name}}…|json|TEMPLATE")  # fmt: skip


@command("network", "ls", "list networks", ListWords, aliases=("list",))
def network_ls(engine: Engine, words: ListWords) -> object:
    wanted = Format.parse(words.format)
    found = chosen_networks(engine, engine.networks.all(), Filters.parse(words.filters, NETWORKS))
    if words.quiet and wanted.template is None:
        return Lines(tuple(each.id if words.no_trunc else each.id[:12] for each in found))
    if wanted.template is not None:
        return wanted.of([_row(each, full=words.no_trunc) for each in found], TITLES, "networks")
    living = engine.networks.records.living()
    rows = [
        (
            each.id if words.no_trunc else each.id[:12], each.name, each.driver,
            " · ".join(str(subnet.block) for subnet in each.subnets), "internal" if each.internal else "",
            sum(one.on(each.id) is not None for one in living),
        )
        for each in found
    ]  # fmt: skip
    columns = (
        Column("NETWORK ID", look="code"), "NAME", "DRIVER", Column("SUBNET", look="code"), "",
        Column("CONTAINERS", look="num"),
    )  # fmt: skip
    footer = f"{count(len(rows), 'network')} · {_default(engine)}"
    return Watched(columns, rows, footer, "networks", command=docker_line("network ls", words),
                   again=lambda: cast(Watched, network_ls(engine, words)), kinds=("network", "container"))  # fmt: skip


def _default(engine: Engine) -> str:
    said = f"containers that name none are on {engine.networks.default()}"
    if not engine.networks.can_bridge():
        return said
    out = engine.networks.way_out()
    return f"{said} · the way out: {out.text}{f' ({out.why})' if out.why else ''}"


def _row(network: Network, *, full: bool) -> dict[str, object]:
    return {
        "ID": network.id if full else network.id[:12], "Name": network.name, "Driver": network.driver, "Scope": "local",
        "IPv4": "true", "IPv6": str(network.subnet(6) is not None).lower(), "Internal": str(network.internal).lower(),
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(network.labels.items())),
        "CreatedAt": timestamp_shown(network.created) if network.created else "",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RemoveWords(Names):
    force: bool = option("-f", "--force", help="say nothing of those that are not there")


@command("network", "rm", "remove networks", RemoveWords, aliases=("remove",))
def network_rm(engine: Engine, words: RemoveWords) -> InProgress[Lines]:
    def remove(name: str) -> list[str]:
        try:
            engine.networks.remove(name)
        except NetworkNotFound:
            if words.force:
                return []
            raise
        return [name]

    return _done("network rm", lambda: Lines(of_each(words.names, remove)))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class InspectWords(Names):
    format: str = option("-f", "--format", help="json, or a template for each", metavar="json|TEMPLATE")
    verbose: bool = option("-v", "--verbose", help="docker's, for swarms: nothing more here")


@command("network", "inspect", "everything that is known of networks, as JSON", InspectWords)
def network_inspect(engine: Engine, words: InspectWords) -> Document | Lines:
    leads = engine.networks.way_out().text if engine.networks.can_bridge() else ""

    def describe(name: str) -> tuple[str, dict[str, object]]:
        return "network", network_document(found := engine.networks.get(name), engine.networks.on(found), leads)

    return inspected(words.names, describe, words.format)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ConnectWords:
    network: str = argument(help="a network", metavar="NETWORK")
    container: str = argument(help="a container, running or not", metavar="CONTAINER")
    alias: tuple[str, ...] = option("--alias", help="a further name there", metavar="NAME")
    ip: str = option("--ip", help="a certain IPv4 address", metavar="ADDRESS")
    ip6: str = option("--ip6", help="a certain IPv6 address", metavar="ADDRESS")
    mac_address: str = option("--mac-address", help="a certain MAC", metavar="MAC")

    def attachment(self) -> Attachment:
        """What is asked for. Raises UsageError."""
        return Attachment(
            self.network,
            docker.address_of(self.ip, 4, "--ip") if self.ip else "",
            docker.address_of(self.ip6, 6, "--ip6") if self.ip6 else "",
            docker.mac_address(self.mac_address) if self.mac_address else "",
            tuple(map(docker.checked_alias, self.alias)),
        )


@command("network", "connect", "put a container on a further network", ConnectWords)
def network_connect(engine: Engine, words: ConnectWords) -> InProgress[None]:
    asked = words.attachment()

    def act() -> None:
        engine.networks.connect(words.network, engine.container(words.container), asked)

    return _done("network connect", act)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class DisconnectWords:
    network: str = argument(help="a network", metavar="NETWORK")
    container: str = argument(help="a container, running or not", metavar="CONTAINER")
    force: bool = option("-f", "--force", help="whatever is in the way")


@command("network", "disconnect", "take a container off a network", DisconnectWords)
def network_disconnect(engine: Engine, words: DisconnectWords) -> InProgress[None]:
    def act() -> None:
        engine.networks.disconnect(words.network, engine.container(words.container), force=words.force)

    return _done("network disconnect", act)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PruneWords:
    force: bool = option("-f", "--force", help="without asking")
    filters: tuple[str, ...] = option("--filter", help=f"only those: {', '.join(NETWORKS_PRUNING)}",
                                      metavar="NAME=VALUE")  # fmt: skip


@command("network", "prune", "remove the networks that no container is on", PruneWords)
def network_prune(engine: Engine, words: PruneWords) -> Confirm | InProgress[Lines]:
    def act() -> InProgress[Lines]:
        def body() -> Lines:
            gone = engine.networks.prune(words.filters)
            return Lines(("Deleted Networks:", *gone) if gone else ())

        return _done("network prune", body)

    if words.force:
        return act()
    meant = engine.networks.unused(words.filters)
    rows = [("network", each.name, ", ".join(str(subnet.block) for subnet in each.subnets)) for each in meant]
    again = without_asking("network prune", words.filters)
    footer = f"{count(len(rows), 'thing')} would go. Nothing was removed: {again} does it without asking."
    table = Table(("WHAT", "NAME", Column("ABOUT", look="wide")), rows, footer, "what network prune would remove")
    warning = ("WARNING! This will remove all custom networks not used by at least one container.",)
    return Confirm(warning, table, act, "network prune")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class DrawWords:
    names: tuple[str, ...] = argument(help="networks; without any, all that somebody is on or that were made",
                                      nargs="*", metavar="NETWORK")  # fmt: skip


@command("network", "draw", "networks as a picture: who is on them, at which addresses, behind which ports", DrawWords)
def network_draw(engine: Engine, words: DrawWords) -> Topology:
    living = tuple(engine.networks.records.living())
    if words.names:
        shown = [engine.networks.get(name) for name in words.names]
    else:
        shown = [
            each for each in engine.networks.all()
            if each.driver == "bridge" and (not each.is_built_in or any(one.on(each.id) for one in living))
        ]  # fmt: skip
    return Topology(tuple(shown), living)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PortWords(OneName):
    port: str = argument(help="one of its ports, as in 80/tcp", nargs="?", default="", metavar="PORT[/PROTOCOL]")


@command("container", "port", "which ports of this machine lead to a container's", PortWords, top=("port",))
def container_port(engine: Engine, words: PortWords) -> Lines:
    container = engine.container(words.name)
    found = engine.networks.ports(container)
    shown = [(f"{each.container_port}/{each.protocol}", str(each).partition("->")[0]) for each in found]
    if not words.port:
        return Lines(tuple(f"{inside} -> {outside}" for inside, outside in shown))
    wanted = words.port if "/" in words.port else f"{words.port}/tcp"
    if not (lines := tuple(outside for inside, outside in shown if inside == wanted)):
        raise UsageError(f"no public port '{wanted}' published for {container.name}")
    return Lines(lines)
