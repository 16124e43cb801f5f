"""A container's process from both sides as people see it: tables as text, one card as HTML. Pure: names are hostile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nbcontain.anatomy import instruction_of
from nbcontain.display import html
from nbcontain.display.table import Column, Table
from nbcontain.display.words import bar, count, memory, size
from nbcontain.oci.spec import IdMapping
from nbcontain.values import asdict, dataclass
from nbcontain.xray import Meters, Sides, Xray

CAPABILITY_WORDS: Mapping[str, str] = {
    "CHOWN": "give files to others", "DAC_OVERRIDE": "read and write whatever the modes of files say",
    "DAC_READ_SEARCH": "read files by number, past any root", "FOWNER": "change modes of others' files",
    "FSETID": "keep set-user-ID when writing", "KILL": "signal others' processes", "SETGID": "be other groups",
    "SETUID": "be other users", "SETPCAP": "hand on capabilities", "LINUX_IMMUTABLE": "make files immutable",
    "NET_BIND_SERVICE": "use ports below 1024", "NET_BROADCAST": "broadcast", "NET_ADMIN": "change networks",
    "NET_RAW": "make raw packets (ping)", "IPC_LOCK": "lock memory", "IPC_OWNER": "use others' shared memory",
    "SYS_MODULE": "load kernel modules", "SYS_RAWIO": "reach hardware", "SYS_CHROOT": "change the root",
    "SYS_PTRACE": "look into and change any process", "SYS_PACCT": "account for processes",
    "SYS_ADMIN": "mount, and a hundred things more", "SYS_BOOT": "reboot", "SYS_NICE": "raise priorities",
    "SYS_RESOURCE": "go beyond limits", "SYS_TIME": "set the clock", "SYS_TTY_CONFIG": "hang up terminals",
    "MKNOD": "make devices", "LEASE": "hold leases on files", "AUDIT_WRITE": "write the audit log",
    "AUDIT_CONTROL": "change auditing", "SETFCAP": "give files capabilities",
    "MAC_OVERRIDE": "go past access control of modules", "MAC_ADMIN": "change that", "SYSLOG": "read the kernel's log",
    "WAKE_ALARM": "wake the machine", "BLOCK_SUSPEND": "keep it awake", "AUDIT_READ": "read the audit log",
    "PERFMON": "watch performance", "BPF": "load BPF programs", "CHECKPOINT_RESTORE": "freeze and thaw processes",
}  # fmt: skip
SECTIONS = ("process", "namespaces", "limits", "capabilities", "network", "mounts", "layers")


@dataclass(frozen=True, slots=True)
class Xrayed:
    """A container, explained; `sections` are those that are shown."""

    xray: Xray
    sides: Sides
    sections: tuple[str, ...] = SECTIONS

    def tables(self) -> list[tuple[str, Table]]:
        """Each section's table, by the section."""
        return [(name, table) for name, table in _tables(self.xray, None) if name in self.sections]

    def to_dict(self) -> dict[str, object]:
        """All of it as JSON has it."""
        return asdict(self.xray)

    def __repr__(self) -> str:
        head = f"{self.xray.name} · {self.xray.image} · isolation {self.xray.isolation} · pid {self.xray.pid}"
        return "\n\n".join([head, *(table.text() for _, table in self.tables())])

    def _repr_html_(self) -> str:
        return html.framed(picture(self.xray, None, self.sections), f"both sides of {self.xray.name}")


def picture(xray: Xray, before: Meters | None, sections: Sequence[str] = SECTIONS, *, ended: bool = False) -> str:
    """The inside of the card. `before` is an earlier moment, for what is used in between."""
    state = html.state_mark("gone" if ended else "up", "ended" if ended else "running")
    title = html.element("strong", html.escape(xray.name), "nbc-title")
    facts = " · ".join((xray.image, f"isolation {xray.isolation}"))
    about = html.element("span", html.escape(facts), "nbc-about")
    parts = [html.element("div", html.element("div", f"{state} {title} {about}", "nbc-head"), "nbc-top")]
    for name, table in _tables(xray, before):
        if name in sections:
            parts.append(_section(name, table))
    return "".join(parts)


_OPEN = {"process", "namespaces", "limits"}


def _section(name: str, table: Table) -> str:
    summary = html.element("summary", html.escape(table.title) + " " + html.element(
        "span", html.escape(table.footer), "nbc-about"))  # fmt: skip
    rows = "".join(_row(table, row) for row in table.rows)
    columns = [column if isinstance(column, Column) else Column(column) for column in table.columns]
    titles = "".join(
        html.element("th", html.escape(column.title), f"nbc-{column.look}" if column.look == "num" else "", scope="col")
        for column in columns
    )
    inside = html.element("thead", html.element("tr", titles)) + html.element("tbody", rows)
    drawn = html.element("table", inside, "nbc-table")
    scroll = html.element("div", drawn, "nbc-scroll", tabindex="0", role="region", aria_label=table.title)
    return html.opening("details", summary + scroll, is_open=name in _OPEN, classes="nbx-section")


def _row(table: Table, row: Sequence[object]) -> str:
    cells = []
    for number, (column, value) in enumerate(zip(table.columns, row, strict=True)):
        text = html.escape(column.show(value) if isinstance(column, Column) else value if value is not None else "")
        look = f"nbc-{column.look}" if isinstance(column, Column) and column.look else ""
        if text in ("≠ own", "= shared"):
            look = "nbx-own" if text == "≠ own" else "nbx-shared"
        cells.append(html.element("th", text, look, scope="row") if number == 0 else html.element("td", text, look))
    return html.element("tr", "".join(cells))


def _tables(xray: Xray, before: Meters | None) -> Iterator[tuple[str, Table]]:
    here, there = Column("THIS MACHINE", look="wide"), Column("THE CONTAINER", look="wide")
    yield "process", Table(
        ("", here, there), [*((each.what, each.outside, each.inside) for each in xray.pairs), *_others(xray)],
        _maps(xray), title="the same process from both sides",
    )  # fmt: skip
    own = sum(not each.is_shared for each in xray.namespaces)
    yield "namespaces", Table(
        # The numbers last: where there is not room for all, they are what is least missed.
        ("NAMESPACE", "", Column("WHAT THAT MEANS", look="wide"),
         Column("THIS MACHINE", _inode, "num"), Column("THE CONTAINER", _inode, "num")),
        [(each.kind, "= shared" if each.is_shared else "≠ own" if each.inside else "?", each.why,
          each.outside, each.inside) for each in xray.namespaces],
        f"{own} of its own, {len(xray.namespaces) - own} shared", title="namespaces",
    )  # fmt: skip
    yield "limits", Table(("", "USED", "LIMIT", Column("", look="graph")), _meters(xray.meters, before),
                          xray.meters.why and f"limits: {xray.meters.why}", title="control group")  # fmt: skip
    rights = [(name, "kept", CAPABILITY_WORDS.get(name, "")) for name in xray.kept]
    rights += [(name, "dropped", CAPABILITY_WORDS.get(name, "")) for name in xray.dropped]
    yield "capabilities", Table(
        (Column("", look="code"), "", Column("WHAT IT ALLOWS, OR HOW IT IS", look="wide")),
        [*((what, "", how) for what, how in xray.gates), *rights],
        f"{len(xray.kept)} capabilities kept, {len(xray.dropped)} dropped", title="what stands in the way",
    )  # fmt: skip
    yield "network", Table(("", Column("WHERE", look="wide")), xray.network, title="network")
    hidden = [("hidden", "", ", ".join(xray.hidden))] if xray.hidden else []
    yield "mounts", Table(
        (Column("WHERE", look="code"), "HOW", Column("WHAT FOR", look="wide")),
        [*((each.destination, f"{each.kind}{', read only' if each.is_readonly else ''}", each.purpose)
           for each in xray.mounts), *hidden],
        count(len(xray.mounts), "mount"), title="mounts",
    )  # fmt: skip
    yield "layers", Table(
        (Column("MADE BY", look="wide"), Column("STORED", lambda amount: size(amount) if amount >= 0 else "", "num")),
        [(instruction_of(text) or "(nothing says)", amount) for text, amount in xray.layers],
        "the uppermost first", title="its root",
    )  # fmt: skip


def _inode(number: int) -> str:
    return str(number) if number else "?"


def _others(xray: Xray) -> Iterator[tuple[str, str, str]]:
    for each in xray.seen:
        within = "nobody" if each.user_inside is None else str(each.user_inside)
        yield f"· {each.command}", f"pid {each.outside}, user {each.user_outside}", f"pid {each.inside}, user {within}"


def _maps(xray: Xray) -> str:
    def said(each: IdMapping) -> str:
        last = f"–{each.container_id + each.size - 1}" if each.size > 1 else ""
        there = f"–{each.host_id + each.size - 1}" if each.size > 1 else ""
        return f"{each.container_id}{last} inside is {each.host_id}{there} here"

    if any(each.container_id == each.host_id and each.size > 1 << 31 for each in xray.uid_map) or not xray.uid_map:
        return "users have the same numbers on both sides"
    return "users: " + ", ".join(map(said, xray.uid_map))


def _meters(now: Meters, before: Meters | None) -> list[tuple[str, str, str, str]]:
    percent = now.cpu_percent(before) if before is not None else None
    cpu = f"{percent:.0f} %" if percent is not None else f"{now.cpu_s:.1f} s so far"
    most = now.cpus * 100 if now.cpus else None
    return [
        ("memory", memory(now.memory) + _share(now.memory, now.memory_limit), memory(now.memory_limit) or "none",
         bar(now.memory, now.memory_limit or 0, 16)),
        ("processors", cpu, f"{now.cpus:g} of them" if now.cpus else "none", bar(percent or 0, most or 0, 16)),
        ("processes", str(now.processes) + _share(now.processes, now.processes_limit),
         str(now.processes_limit or "none"), bar(now.processes, now.processes_limit or 0, 16)),
    ]  # fmt: skip


def _share(amount: float, limit: float | None) -> str:
    """How much of a limit that is, in words."""
    return f" ({100 * amount / limit:.0f} %)" if limit else ""
