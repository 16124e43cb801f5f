"""The one table that turns what a host allows into how containers run there: the ladder of isolation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from nbcontain.errors import Unavailable, UsageError
from nbcontain.host import Ability, Host
from nbcontain.linux.idmap import IdMap
from nbcontain.runtime.rungs import RUNGS, Rung
from nbcontain.store.snapshots import Driver
from nbcontain.values import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Profile:
    """One rung. The first row of `PROFILES` whose needs are met is taken, unless the user names another."""

    name: str
    needs: tuple[Ability, ...]
    about: str
    """What is so there, for people."""
    as_root: bool | None = None
    """Only for the host's root, or only for others."""
    is_asked_for: bool = False
    """It is never taken by itself."""
    runs: bool = True
    kernel: Ability = Ability.KERNEL
    """What it takes of the kernel besides, whoever asks."""
    rung: Rung = field(default_factory=Rung)
    """What processes are told of it; as the host allows, once it is chosen."""

    def missing(self, host: Host) -> list[str]:
        """What this host lacks for it, each with what the kernel answered."""
        if not self.is_for(host):
            return ["it is for root" if self.as_root else "it is for users other than root"]
        needs = (*self.needs, *((self.kernel,) if self.runs else ()))
        return [f"{each.value}: {host.abilities[each].why}" for each in needs if not host.can(each)]

    def is_for(self, host: Host) -> bool:
        """Whether such a user may be on it, whatever the host allows.

        Root has what needs no user namespace; but for kernels on which nobody inherits what a container leaves behind,
        so that it has to end with a namespace of processes. Calls are answered on none of these.
        """
        if host.is_root and self.kernel is Ability.CHILDREN:
            return not host.can(Ability.KERNEL) and not host.can(Ability.NOTIFY)
        return self.as_root in (None, host.is_root)

    def require(self, host: Host, what: str) -> None:
        """Raise Unavailable, naming each rung that was tried and what it lacks, if nothing can run here."""
        if self.runs:
            return
        tried = {each.name: each.missing(host) for each in PROFILES if each.runs and each.is_for(host)}
        others = [each.name for each in PROFILES if each.is_asked_for]
        best = next((name for name, lacking in tried.items() if not lacking), "")
        if best and best not in others:
            why, hint = f"isolation {self.name} was asked for, which has none", f"{best} can be had here"
            raise Unavailable(f"{what} needs a container", why=why, hint=hint)
        answers = [f"{name}: {'; '.join(lacking)}" for name, lacking in tried.items() if lacking]
        raise Unavailable(
            f"{what} needs a container, and this machine lets nobody make one here",
            why="\n".join(answers),
            hint=asked_for(host)
            + "pull, push, COPY, from-host and import work all the same; %nbcontain doctor tells more",
        )

    @property
    def isolation(self) -> str:
        """What is real there, for people: each namespace by name."""
        if not self.runs:
            return self.about
        rest = [name for name in RUNGS["rootless-range"].namespaces if name not in self.rung.namespaces]
        own = ", ".join(self.rung.namespaces) or "none"
        shared = f"; shared with this machine: {', '.join(rest)}" if rest else ""
        return f"{self.about}. Namespaces of its own: {own}{shared}"

    def describe(self) -> str:
        """One line: which rung this is, and what is real on it."""
        return f"isolation {self.name}: {self.isolation}"


PROFILES = (
    Profile(
        "full", (Ability.ADMIN, Ability.PIVOT, Ability.FRESH_PROC),
        "all that Linux has, with this machine's ids", as_root=True,
    ),
    Profile(
        "rootless-range", (Ability.USER_NAMESPACES, Ability.ID_RANGES, Ability.OWNERS, Ability.PIVOT),
        "a user namespace with a range of ids of your own", as_root=False,
    ),
    Profile(
        "rootless-single", (Ability.USER_NAMESPACES, Ability.PIVOT),
        "a user namespace with one id", as_root=False,
    ),
    Profile(
        "root-noproc", (Ability.ADMIN, Ability.MOVE_ROOT),
        "namespaces and mounts of its own, but no /proc is mounted", as_root=True,
    ),
    Profile(
        "userns-chroot", (Ability.USERNS_CHROOT,),
        "a chroot in a user namespace: nothing can be mounted", as_root=False, kernel=Ability.CHILDREN,
    ),
    Profile("chroot", (Ability.CHROOT,), "a chroot and nothing else: processes and networks are shared", as_root=True),
    Profile(
        "proot", (Ability.PROOT, Ability.LANDLOCK),
        "no isolation but of files: PRoot translates each path, Landlock keeps from this machine's files, and processes"
        " and networks are shared", as_root=False,
    ),
    Profile(
        "preload", (Ability.PRELOAD, Ability.LANDLOCK, Ability.NOTIFY_OUTSIDE),
        "no isolation but of files: a library that is loaded into programs translates their paths, so that static ones"
        " do not run; Landlock keeps from this machine's files, and processes and networks are shared",
        as_root=False, is_asked_for=True,
    ),
    Profile("none", (), "no containers here; images can be pulled, made by COPY, looked into and pushed", runs=False),
)  # fmt: skip
"""The ladder, from the best rung down."""

ISOLATION = "NBCONTAIN_ISOLATION"


def choose(host: Host, wanted: str = "") -> Profile:
    """The first profile whose needs this host meets, or the one that is `wanted`, with what is real there.

    Raises UsageError for a rung that there is not, Unavailable for one that this host does not allow.
    """
    best = next(each for each in PROFILES if not each.is_asked_for and not each.missing(host))
    if not wanted or wanted == "default":
        return _settled(best, host)
    found = next((each for each in PROFILES if each.name == wanted), None)
    if found is None:
        raise UsageError(f"there is no isolation {wanted!r}", hint=", ".join(each.name for each in PROFILES))
    if missing := found.missing(host):
        raise Unavailable(
            f"the isolation {wanted} cannot be had here", why="\n".join(missing), hint=f"{best.name} can"
        )
    return _settled(found, host)


def _settled(profile: Profile, host: Host) -> Profile:
    """The profile with its rung as it is on this host."""
    rung = RUNGS[profile.name]
    namespaces = tuple(name for name in rung.namespaces if name != "network" or host.can(Ability.NET_NAMESPACE))
    answers = host.can(answering(profile))
    lacks_ids = not rung.enters or ("user" in namespaces and ids_of(profile, host).is_single)
    # PRoot pretends for itself; the library is not to be had without answers.
    pretended: Literal["", "blind"] = "blind" if rung.enters else ""
    rung = replace(
        rung, namespaces=namespaces, serves=answers and not rung.proc,
        ids="" if not lacks_ids else "notify" if answers else pretended,
        translator=host.abilities[_TRANSLATORS[rung.root]].why if rung.root in _TRANSLATORS else "",
        joins=host.can(Ability.KERNEL),
    )  # fmt: skip
    return replace(profile, rung=rung)


_TRANSLATORS = {"proot": Ability.PROOT, "preload": Ability.PRELOAD}


def asked_for(host: Host) -> str:
    """The beginning of a hint: which rungs could be had that nobody has who does not ask; "" for none."""
    names = [each.name for each in PROFILES if each.is_asked_for and not each.missing(host)]
    return "".join(f"{ISOLATION}={name} can be had; " for name in names)


def answering(profile: Profile) -> Ability:
    """What it takes that calls of that profile's containers are answered."""
    return Ability.NOTIFY if RUNGS[profile.name].enters else Ability.NOTIFY_OUTSIDE


def ids_of(profile: Profile, host: Host) -> IdMap:
    """How users are numbered in that profile's containers."""
    if host.is_root and profile.name == "userns-chroot":
        return IdMap.everybody()
    if host.is_root or profile.name in ("rootless-range", "none"):
        return host.ids
    return IdMap.single(host.uid, host.gid)


def described(name: str, namespaces: Iterable[str]) -> str:
    """What is real for a container that was made on the rung of this name and has these namespaces of its own. Pure."""
    profile = next((each for each in PROFILES if each.name == name), PROFILES[0])
    own = frozenset(namespaces)
    order = [each for each in RUNGS["rootless-range"].namespaces if each in own]
    return replace(profile, rung=replace(RUNGS[profile.name], namespaces=tuple(order))).describe()


STORAGE_DRIVER = "NBCONTAIN_STORAGE_DRIVER"


def storage_driver(host: Host, environ: Mapping[str, str], profile: Profile | None = None) -> tuple[Driver, str]:
    """How snapshots are made here, and why: as the user says, else overlay where one can be mounted.

    Raises UsageError for a driver that there is not, Unavailable for an overlay that cannot be.
    """
    probe = host.abilities[Ability.OVERLAY]
    is_ok, why = probe.ok, f"no overlay can be mounted there: {probe.why}"
    if profile is not None and profile.runs and not profile.rung.mounts:
        is_ok, why = False, f"nothing is mounted with the isolation {profile.name}"
    match environ.get(STORAGE_DRIVER, ""):
        case "":
            return ("overlay", "") if is_ok else ("copy", why)
        case "overlay" if not is_ok:
            raise Unavailable(
                "no overlay can be mounted in the store", why=why, hint=f"unset {STORAGE_DRIVER}, or make it copy"
            )
        case "overlay" | "copy" as driver:
            return driver, f"{STORAGE_DRIVER} says so"
        case other:
            raise UsageError(f"{STORAGE_DRIVER}={other} is no storage driver", hint="overlay or copy")
