"""Whose ids a container's are: docker's and podman's --userns, read; and ranges of ids, allotted. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.errors import Unavailable, UsageError
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.spec import IdMapping
from nbcontain.values import dataclass

USUAL_SIZE = 65_536
"""As many ids as images know of."""
_MACHINES = IdMapping(0, 524_288, 1_879_048_192 - 524_288)
"""What systemd sets apart for the containers of a machine (UIDS-GIDS.md)."""
_ROOTLESS = {
    "nomap": "the image and all else are in directories of yours alone, where a first process in which you do not exist"
    " finds nothing",
    "auto": "for you to have a range of its own, the image's files would have to be shown with other owners than on the"
    " disk, which the kernel lets root alone do (mount_setattr(2), MOUNT_ATTR_IDMAP)",
}


@dataclass(frozen=True, slots=True)
class UserMode:
    """What --userns says, as far as this machine has it."""

    own_size: int = 0
    """So many ids of its own; 0 is those that containers have here."""
    container: str = ""
    """Whose user namespace it joins."""
    kept: tuple[int, int] | None = None
    """Who is this user and group inside, by numbers; -1 for the same as outside."""


def user_mode(text: str, *, is_root: bool) -> UserMode:
    """What --userns says. Raises UsageError, also for what is not to be had here, with the reason."""
    word, _, rest = text.partition(":")
    if word == "container" and rest:
        return UserMode(container=rest)
    if text in ("", "host") or (text == "private" and not is_root):
        return UserMode()
    if is_root and word in ("auto", "private"):
        return UserMode(own_size=_size(text, rest) if word == "auto" else USUAL_SIZE)
    if is_root and word in ("keep-id", "nomap"):
        raise UsageError(
            f"--userns {text} is for users other than root", why="root's own id is every container's here already",
            hint="--userns auto gives a container ids of its own",
        )  # fmt: skip
    if word == "keep-id":
        return UserMode(kept=_kept(text, rest))
    if word in _ROOTLESS:
        raise UsageError(
            f"--userns {text} is not to be had by an ordinary user", why=_ROOTLESS[word], hint="leave --userns out"
        )
    raise UsageError(
        f"--userns: invalid USER mode: {text}",
        hint="host, private, auto[:size=N], keep-id[:uid=N,gid=N], or container:NAME",
    )


def _kept(text: str, rest: str) -> tuple[int, int]:
    found = {"uid": -1, "gid": -1}
    for each in filter(None, rest.split(",")):
        name, _, number = each.partition("=")
        if name not in found or not number.isascii() or not number.isdecimal() or int(number) >= 2**32 - 1:
            raise UsageError(f"--userns {text}: {each} says no id", hint="--userns keep-id:uid=1000,gid=1000")
        found[name] = int(number)
    return found["uid"], found["gid"]


def _size(text: str, rest: str) -> int:
    if not rest:
        return USUAL_SIZE
    name, _, number = rest.partition("=")
    if name in ("uidmapping", "gidmapping"):
        raise UsageError(f"--userns {text}: {name} is not here", why="the ids of a container are one range of its own")
    if name != "size" or not number.isascii() or not number.isdecimal() or not 0 < int(number) <= 1 << 24:
        raise UsageError(f"--userns {text}: that is no size", hint="--userns auto:size=65536")
    return int(number)


def own(first: int, size: int) -> IdMap:
    """The map of a container whose ids begin there."""
    return IdMap((IdMapping(0, first, size),), (IdMapping(0, first, size),))


def space(granted: Sequence[IdMapping], here: Sequence[IdMapping]) -> list[tuple[int, int]]:
    """Where ranges may be allotted, as (first, end): in what /etc/subuid grants to containers, or else in what systemd
    sets apart for them; of both what exists `here`, as /proc/self/uid_map has it."""
    wanted = granted or (_MACHINES,)
    found = []
    for each in wanted:
        for mine in here:
            first = max(each.host_id, mine.container_id)
            end = min(each.host_id + each.size, mine.container_id + mine.size)
            if first < end:
                found.append((first, end))
    return found


def allotted(places: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]], size: int, seed: int) -> int:
    """The first of `size` ids that no range of `taken` has, each (first, end). Raises Unavailable if there are none.

    `seed` chooses among those there are, so that stores which do not know of each other rarely choose the same.
    """
    slots = [(first, (end - first) // size) for first, end in places]
    total = sum(number for _, number in slots)
    for turn in range(total):
        place = (seed + turn) % total
        for start, number in slots:
            if place < number:
                first = start + place * size
                if all(first + size <= low or end <= first for low, end in taken):
                    return first
                break
            place -= number
    raise Unavailable(
        f"there are no {size} ids left for a container",
        why=f"{len(taken)} ranges are taken, of {sum(end - first for first, end in places)} ids for containers",
        hint="--userns auto:size=N asks for fewer; %container rm gives those of a container back; /etc/subuid and"
        " /etc/subgid can grant more to the user named containers",
    )
