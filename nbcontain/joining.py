"""How containers come to be on networks: where they are born, whose they join, and what leads out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from nbcontain.host import Ability
from nbcontain.network.records import place
from nbcontain.network.tunnels import (
    MASQUERADE,
    SWAP,
    WAY,
    WayOut,
    leads_out_by_ipv6,
    missing,
    not_forwarding,
    there,
)
from nbcontain.oci.spec import Spec
from nbcontain.runtime.annotations import WAY_OUT, WITHIN
from nbcontain.runtime.bundle_writer import write_spec
from nbcontain.runtime.container import Container
from nbcontain.runtime.rungs import FURNITURE
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.host import Host

_KERNEL = {"network": "net"}


def can_swap(host: Host) -> bool:
    """Whether connections of containers can be answered for."""
    return host.can(Ability.NOTIFY)


def no_way_out(host: Host) -> str:
    """Why nothing leads out of networks here, in words; "" where something does."""
    if host.is_root:
        return not_forwarding()
    return "" if can_swap(host) else missing()


def way_out(layout: Layout, host: Host, *, is_used: bool) -> WayOut:
    """What leads out of networks: where somebody uses them, what does now; else what would."""
    if host.is_root:
        why = not_forwarding()
        return WayOut("" if why else MASQUERADE, why, leads_out_by_ipv6())
    if is_used:
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(files.read(layout.network_process(place(), "uplink") / WAY, 1 << 16))
            if said["way"]:
                lacks = str(said.get("unrelayed", ""))
                return WayOut(str(said["way"]), str(said["why"]), bool(said["ipv6"]), lacks)
    why, ipv6 = missing(), leads_out_by_ipv6()
    if why:
        return WayOut(SWAP if can_swap(host) else "", why, ipv6)
    return WayOut(next(iter(there())), "", ipv6)


def join(engine: Engine, container: Container, other: Container) -> None:
    """Have a container be born into another's network namespace, and see that one's files of names."""
    joined = ["network", *(["user"] if not engine.host.ids.is_identity else [])]
    spec = container.bundle.spec
    linux = replace(
        spec.linux, namespaces=tuple(dict.fromkeys((*spec.linux.namespaces, *joined))),
        paths={**spec.linux.paths, **{each: f"/proc/{other.pid}/ns/{_KERNEL.get(each, each)}" for each in joined}},
    )  # fmt: skip
    own, others = str(container.bundle.path), str(other.bundle.path)
    mounts = tuple(
        replace(each, source=each.source.replace(own, others))
        if each.destination in FURNITURE and each.source.startswith(own)
        else each
        for each in spec.mounts
    )
    others_way = other.bundle.spec.annotations.get(WAY_OUT, "")
    annotations = {name: text for name, text in spec.annotations.items() if name != WAY_OUT}
    if others_way:
        annotations[WAY_OUT] = others_way
    write_spec(container.bundle, replace(spec, linux=linux, mounts=mounts, annotations=annotations))


def be_born(container: Container, spec: Spec, *, within: str, way_out: str = "") -> None:
    """Have a container's user namespace be made within that of its networks, where these are an ordinary user's.

    Where nothing but its connections' being answered leads out of these, `way_out` is their record.
    """
    said = {name: text for name, text in ((WITHIN, within), (WAY_OUT, way_out)) if text}
    others = {name: text for name, text in spec.annotations.items() if name not in (WITHIN, WAY_OUT)}
    if spec.annotations != others | said:
        write_spec(container.bundle, replace(spec, annotations=others | said))
