"""The networks as a picture: who is on which, at which address, and which ports of this machine lead there. Pure.

Names and labels are other people's: whatever is drawn of them is text, and escaped.
"""

from __future__ import annotations

from html import escape

from nbcontain.display.harmless import visible
from nbcontain.network.model import Endpoint, Network, PortMapping, Sandbox
from nbcontain.values import dataclass

_WIDTH, _BOX_WIDTH, _LINE = 760, 300, 18
_TOP, _LEFT, _GAP, _NOBODY_HEIGHT = 34, 16, 14, 24
_STYLE = (
    ".nb-topology{font:13px system-ui,sans-serif}"
    ".nb-topology text{fill:currentColor}"
    ".nb-topology .net{fill:none;stroke:currentColor;stroke-opacity:.45}"
    ".nb-topology .bar{stroke:#3b82c4;stroke-width:4}"
    ".nb-topology .internal{stroke:#b7791f;stroke-dasharray:7 4}"
    ".nb-topology .box{fill:currentColor;fill-opacity:.06;stroke:currentColor;stroke-opacity:.35}"
    ".nb-topology .wire{stroke:currentColor;stroke-opacity:.5}"
    ".nb-topology .port{fill:#2f855a}"
    ".nb-topology .small{font-size:11px;opacity:.75}"
)


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
        """An SVG, with the text as its description."""
        return f'<div class="nb-topology"><style>{_STYLE}</style>{self._svg()}</div>'

    _repr_html_ = html

    def _svg(self) -> str:
        parts: list[str] = []
        y = 10
        for network in self.networks:
            members = self.members(network)
            rows: list[list[tuple[Sandbox, Endpoint]]] = [members[n : n + 2] for n in range(0, len(members), 2)]
            heights = [max(_height(*each) for each in row) for row in rows]
            total = _TOP + (sum(heights) + _GAP * len(rows) if rows else _NOBODY_HEIGHT) + 4
            bar = "bar internal" if network.internal else "bar"
            title = _text(_LEFT + 8, y + 20, network.name, weight="600")
            about = _text(_WIDTH - 24, y + 20, _about(network), anchor="end", small=True)
            parts.append(f'<rect class="net" x="8" y="{y}" width="{_WIDTH - 16}" height="{total}" rx="8"/>')
            parts += [title, about, f'<line class="{bar}" x1="24" x2="{_WIDTH - 24}" y1="{y + _TOP}" y2="{y + _TOP}"/>']
            if not members:
                parts.append(_text(_LEFT + 8, y + _TOP + 16, "nobody", small=True))
            below = y + _TOP + _GAP
            for row, height in zip(rows, heights, strict=True):
                for column, (sandbox, endpoint) in enumerate(row):
                    x = _LEFT + 24 + column * (_BOX_WIDTH + 60)
                    parts.append(f'<line class="wire" x1="{x + 40}" x2="{x + 40}" y1="{y + _TOP}" y2="{below}"/>')
                    parts += _box(x, below, sandbox, endpoint)
                below += height + _GAP
            y += total + 12
        label = escape(self.text(), quote=True)
        return (
            f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {max(y, 40)}" width="100%" '
            f'style="max-width:{_WIDTH}px">{"".join(parts) or _text(20, 24, "no networks with containers")}</svg>'
        )


def _height(sandbox: Sandbox, endpoint: Endpoint) -> int:
    return _LINE * (2 + bool(endpoint.aliases) + len(_ports(sandbox, endpoint))) + 10


def _box(x: int, y: int, sandbox: Sandbox, endpoint: Endpoint) -> list[str]:
    height = _height(sandbox, endpoint)
    parts = [f'<rect class="box" x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{height}" rx="6"/>']
    line = y + _LINE
    parts.append(_text(x + 10, line, sandbox.name, weight="600"))
    line += _LINE
    parts.append(_text(x + 10, line, _addresses(endpoint), small=True))
    if endpoint.aliases:
        line += _LINE
        parts.append(_text(x + 10, line, f"also {', '.join(endpoint.aliases)}", small=True))
    for port in _ports(sandbox, endpoint):
        line += _LINE
        parts.append(f'<circle class="port" cx="{x + 14}" cy="{line - 4}" r="4"/>')
        parts.append(_text(x + 24, line, port, small=True))
    return parts


def _text(x: int, y: int, text: str, *, weight: str = "", anchor: str = "", small: bool = False) -> str:
    extra = f' font-weight="{weight}"' * bool(weight) + f' text-anchor="{anchor}"' * bool(anchor)
    shown = visible(text)
    shown = shown if len(shown) <= 46 else shown[:45] + "…"
    extra += ' class="small"' * small
    return f'<text x="{x}" y="{y}"{extra}>{escape(shown)}</text>'


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
