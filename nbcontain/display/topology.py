"""The networks as a picture: who is on which, at which address, and which ports of this machine lead there. Pure.

Names and labels are other people's: whatever is drawn of them is text, and escaped.
"""

from __future__ import annotations

from nbcontain.display import html
from nbcontain.display.harmless import visible
from nbcontain.display.html import element, escape
from nbcontain.network.model import Endpoint, Network, PortMapping, Sandbox
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Topology:
    """Networks, and the running containers on them."""

    networks: tuple[Network, ...]
    sandboxes: tuple[Sandbox, ...]

    def members(self, network: Network) -> list[tuple[Sandbox, Endpoint]]:
        found = [(each, there) for each in self.sandboxes if (there := each.on(network.id)) is not None]
        return sorted(found, key=lambda each: each[0].name)

    def text(self) -> str:
        """The same, with lines."""
        lines: list[str] = []
        for network in self.networks:
            lines.append(visible(f"{network.name}  {_about(network)}"))
            members = self.members(network)
            for place, (sandbox, endpoint) in enumerate(members):
                is_last = place == len(members) - 1
                lines.append(visible(f"{'└─' if is_last else '├─'} {sandbox.name}  {_addresses(endpoint)}"))
                bar = "   " if is_last else "│  "
                aliases = f"also {', '.join(endpoint.aliases)}" if endpoint.aliases else ""
                lines += [visible(f"{bar}{text}") for text in filter(None, (aliases, *_ports(sandbox, endpoint)))]
            if not members:
                lines.append("└─ nobody")
        return "\n".join(lines) if lines else "there are no networks with containers"

    def __repr__(self) -> str:
        return self.text()

    def html(self) -> str:
        """A bar for each network, and a box below it for each that is on it."""
        drawn = "".join(self._network(network) for network in self.networks)
        return html.framed(drawn or element("div", "no networks with containers", "nbc-net nbc-quiet"), "networks")

    _repr_html_ = html

    def _network(self, network: Network) -> str:
        title = element("strong", escape(network.name), "nbc-title")
        about = element("span", escape(_about(network)), "nbc-about")
        head = element("div", f"{title} {about}", "nbc-net-head")
        cable = element("div", "", "nbc-net-cable nbc-net-inner" if network.internal else "nbc-net-cable")
        members = "".join(element("li", _box(*each)) for each in self.members(network))
        below = element("ul", members, "nbc-net-members") if members else element("span", "nobody", "nbc-quiet")
        return element("div", f"{head}{cable}{below}", "nbc-net")


def _box(sandbox: Sandbox, endpoint: Endpoint) -> str:
    """One container, as it is on one network."""
    lines = [_addresses(endpoint), f"also {', '.join(endpoint.aliases)}" if endpoint.aliases else ""]
    drawn = [element("div", escape(line), "nbc-quiet") for line in lines if line]
    drawn += [element("div", escape(port), "nbc-net-port") for port in _ports(sandbox, endpoint)]
    return element("strong", escape(sandbox.name)) + "".join(drawn)


def _about(network: Network) -> str:
    words = [str(each.block) for each in network.subnets]
    return " · ".join([*words, *(["internal"] if network.internal else [])])


def _addresses(endpoint: Endpoint) -> str:
    return " · ".join(filter(None, (endpoint.address, endpoint.address6)))


def _ports(sandbox: Sandbox, endpoint: Endpoint) -> list[str]:
    """The published ports, drawn where they lead: on its first network."""
    first = sandbox.endpoints[0] if sandbox.endpoints else None
    return [_shown(each) for each in sandbox.ports] if first is not None and first.network == endpoint.network else []


def _shown(port: PortMapping) -> str:
    return f"{port.host}:{port.host_port} → {port.container_port}/{port.protocol}"
