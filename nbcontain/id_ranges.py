"""The ids of a container that is being made: those of this machine's containers, another's, or a range of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import NbcontainError, Unavailable, UsageError
from nbcontain.linux.idmap import IdMap, subordinate
from nbcontain.oci.digest import ChainID, Digest, sha256
from nbcontain.oci.spec import IdMapping, Spec
from nbcontain.runtime.annotations import USERNS
from nbcontain.runtime.mount_points import WORK
from nbcontain.runtime.users import UserMode, allotted, own, space, user_mode
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.host import Host
    from nbcontain.oci.image import Image
    from nbcontain.runtime.container import Container
    from nbcontain.runtime.generate import RunOptions
    from nbcontain.runtime.sharing import Donor

GRANTED_TO = "containers"
"""The user to whom /etc/subuid grants what root's containers may have, as podman reads it."""


@dataclass(frozen=True, slots=True)
class Ids:
    """What the ids of a container are to be."""

    map: IdMap
    mode: UserMode
    said: str
    differ: bool
    """They are others than those of its files."""

    def settled(self, spec: Spec, others: Callable[[], Sequence[Container]], container_id: str) -> Spec:
        """The spec with its range, which no other container has. Called where no other can be made. Raises Unavailable.
        """
        if not self.differ:
            return spec
        spec = replace(spec, annotations={**spec.annotations, USERNS: self.said})
        if not self.mode.own_size:
            return spec
        size = self.mode.own_size
        first = allotted(_places(), [*_of_users(), *_of_containers(others())], size, int(container_id[:12], 16))
        found = own(first, size)
        return replace(spec, linux=replace(spec.linux, uid_mappings=found.uids, gid_mappings=found.gids))


def asked(engine: Engine, options: RunOptions, donors: Mapping[str, Donor]) -> Ids:
    """The ids that these options ask for. Raises UsageError, Unavailable."""
    host, rung = engine.host, engine.profile.rung
    mode = user_mode(options.userns, is_root=host.is_root)
    if donors and (mode.own_size or mode.kept):
        named = " and ".join(f"--{each}" for each in donors)
        raise UsageError(
            f"--userns {options.userns} and {named} container:… cannot be together",
            why="who shares a container's namespaces has to be of its user namespace", hint="--userns container:NAME",
        )  # fmt: skip
    donor = next((each for each in donors.values() if not each.ids.is_identity), None)
    if not host.is_root or (donor is None and not mode.own_size):
        return Ids(host.ids, mode, options.userns, differ=False)
    said = options.userns or f"container:{donor.id if donor else ''}"
    if not rung.proc or not rung.mounts:
        raise Unavailable(
            f"--userns {said} cannot be had with isolation {engine.profile.name}",
            why="files cannot be shown with other owners where nothing can be mounted", hint="--userns host",
        )  # fmt: skip
    # Which range is found when it is written (`settled`); how many they are decides everything else.
    return Ids(donor.ids if donor else own(1, mode.own_size), mode, said, differ=True)


def kept(userns: str, host: Host) -> IdMap:
    """The ids of containers in which the user is itself, or whom --userns names. Raises UsageError, Unavailable."""
    uid, gid = user_mode(userns, is_root=host.is_root).kept or (-1, -1)
    if host.ids.is_single:
        raise Unavailable(
            f"--userns {userns} takes a range of ids", why="you have one id here, which has to be root's inside",
            hint="/etc/subuid and /etc/subgid grant ranges; --user NUMBER with -v DIRECTORY:/path:U needs none",
        )  # fmt: skip
    return host.ids.keeping(host.uid if uid < 0 else uid, host.gid if gid < 0 else gid)


def user_kept(host: Host) -> str:
    """Who the user is in there, as --user says it."""
    return f"{host.ids.uids[0].container_id}:{host.ids.gids[0].container_id}"


def files_of(engine: Engine, image: Image) -> ChainID | None:
    """The snapshot with an image's files for containers of this engine, made if it is not there.

    Where the user keeps its id, that of each file is another on the disk: so all of them are there once more. podman
    does the same, since no ordinary user may show a file with another owner than it has.
    """
    if not engine.keeps or image.chain_id is None:
        return image.chain_id
    numbers = json.dumps(engine.host.ids.numbers())
    name = ChainID(Digest("sha256", sha256(f"{image.chain_id} {numbers}".encode()).hexdigest()))
    snapshots = engine.store.snapshots
    if not snapshots.exists(name):
        # Whose files these are, as it is seen from there, and whose they are to be.
        moved = engine.host.ids.within(engine.ordinary.host.ids).numbers()
        with snapshots.staging() as staging:
            engine.launcher.call(
                "give_to_others", staging.mounts, moved, source=snapshots.view(image.chain_id), imports=(WORK,)
            )  # fmt: skip
            staging.commit(name, None)
    return name


def ids_of(spec: Spec) -> IdMap:
    """Those of a container."""
    if "user" not in spec.linux.namespaces:
        return IdMap.identity()
    return IdMap(spec.linux.uid_mappings, spec.linux.gid_mappings)


def _of_containers(others: Sequence[Container]) -> list[tuple[int, int]]:
    found = []
    for each in others:
        # One that is removed meanwhile has none.
        with suppress(OSError, ValueError, NbcontainError):
            if each.info.options.get("userns"):
                spec = each.bundle.spec
                maps = (*spec.linux.uid_mappings, *spec.linux.gid_mappings)
                found += [(one.host_id, one.host_id + one.size) for one in maps]
    return found


def _places() -> list[tuple[int, int]]:
    granted = [
        each for each in subordinate("/etc/subuid", -1, GRANTED_TO)
        if any((each.host_id, each.size) == (one.host_id, one.size)
               for one in subordinate("/etc/subgid", -1, GRANTED_TO))
    ]  # fmt: skip
    return space(granted, _here())


def _here() -> list[IdMapping]:
    lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    return [IdMapping(*map(int, line.split())) for line in lines]


def _of_users() -> list[tuple[int, int]]:
    """What is granted to others."""
    found = []
    for path in ("/etc/subuid", "/etc/subgid"):
        with suppress(OSError):
            for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
                who, _, rest = line.partition(":")
                first, _, size = rest.partition(":")
                if who != GRANTED_TO and first.isdecimal() and size.strip().isdecimal():
                    found.append((int(first), int(first) + int(size)))
    return found
