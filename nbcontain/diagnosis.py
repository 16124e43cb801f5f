"""What a machine allows and what it does not, as findings: what, why, and what to try."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nbcontain.errors import NbcontainError
from nbcontain.host import Ability, Host, user_name
from nbcontain.linux import probe as probe_words
from nbcontain.linux.cgroups import Tree
from nbcontain.network.tunnels import MASQUERADE, PROGRAMS
from nbcontain.oci.spec import Mount
from nbcontain.profiles import ISOLATION, PROFILES, Profile, answering, storage_driver
from nbcontain.store.place import Place
from nbcontain.store.snapshots import Driver
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

State = Literal["yes", "no", "partly"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that people may want here."""

    state: State
    what: str
    why: str = ""
    """What the kernel said, or what is so instead."""
    attempt: str = ""
    """What to try; "" where it works, or where nothing can be done from inside."""


def diagnosed(engine: Engine) -> tuple[Finding, ...]:
    """What is so now: everything is tried anew, down to a process inside."""
    host = engine.fresh_host()
    driver, why = storage_driver(host, engine.environ, engine.profile)
    found = findings(
        host, engine.profile, driver, why, refusal_of(engine), user_name(host.uid),
        "" if host.is_root else as_root(os.environ, Path("/proc/self/status").read_text()),
    )  # fmt: skip
    lacking = lacking_limits(host, Tree.here(is_root=host.is_root)) if engine.profile.runs else ()
    return (*found, *lacking, *_leading_out(engine), *_moved(engine.place))


def as_root(environ: Mapping[str, str], status: str) -> str:
    """What asks the same as root; "" where nobody may become that. `status` is /proc/self/status."""
    import shutil

    if "\nNoNewPrivs:\t0\n" not in f"\n{status}" or not shutil.which("sudo", path=environ.get("PATH", os.defpath)):
        return ""
    # By its path: sudo has a PATH of its own.
    return f"sudo {sys.executable} -m nbcontain doctor"


def refusal_of(engine: Engine) -> str:
    """What goes wrong with starting a process inside; "" if nothing does, or nothing is tried."""
    try:
        if engine.profile.runs:
            engine.launcher.call("nothing", (Mount("/", "bind", str(engine.layout.tmp), ("bind",)),), {})
    except (NbcontainError, OSError) as error:
        return " ".join(filter(None, (str(error), getattr(error, "why", ""))))
    return ""


def findings(
    host: Host, profile: Profile, driver: Driver, driver_why: str, refusal: str, user: str, as_root: str = ""
) -> tuple[Finding, ...]:
    """The most important first. Pure. `refusal` is what went wrong when a process inside was started, "" if nothing.

    `as_root` is what asks the same as root, "" if nobody may.
    """
    left_out = _NOT_FOR_ROOT if host.is_root else _FOR_ROOT
    # What is only looked at where something better is missing is not worth a word where that is there.
    is_first = profile.rung.root == "pivot"
    needed = [_ability(host, each, user, profile) for each in _NEEDED if each not in left_out + _SECOND * is_first]
    if not host.can(Ability.KERNEL):
        needed = [_ability(host, Ability.KERNEL, user, profile), *needed]
    if not profile.runs:
        # Of what containers could have besides, nothing matters, and nothing that is advised about it would help.
        if not host.is_root:
            needed += [_ability(host, Ability.PROOT, user, profile), *_asked_for(host, user, profile)]
        return (_running(profile, refusal, as_root), *needed)
    wanted = [_ability(host, each, user, profile) for each in _WANTED if each not in left_out]
    storage = _storage(host, driver, driver_why, profile)
    about = [] if profile.rung.enters else [Finding("partly", "isolation", profile.about)]
    kept = (*_owners(host, profile), *_served(host, profile), *_second_wall(host, profile))
    return (_running(profile, refusal), *about, *needed, *wanted, storage, *kept)


def ladder(host: Host, profile: Profile) -> tuple[Finding, ...]:
    """Every rung for this user, from the best one down: whether it can be had, and what it lacks. Pure."""
    found = []
    for each in PROFILES:
        if not each.is_for(host):
            continue
        lacking = each.missing(host)
        what = f"isolation {each.name}" + (" (taken)" if each.name == profile.name else "")
        found.append(Finding("no" if lacking else "yes", what, "; ".join(lacking) or each.about))
    return tuple(found)


_NOT_FOR_ROOT = (Ability.USER_NAMESPACES, Ability.ID_RANGES, Ability.USERNS_CHROOT)
_FOR_ROOT = (Ability.ADMIN, Ability.MOVE_ROOT, Ability.CHROOT)
_SECOND = (Ability.MOVE_ROOT, Ability.USERNS_CHROOT, Ability.CHROOT)
_NEEDED = (
    Ability.ADMIN, Ability.USER_NAMESPACES, Ability.PIVOT, Ability.MOVE_ROOT, Ability.USERNS_CHROOT, Ability.CHROOT,
)  # fmt: skip
_WANTED = (Ability.ID_RANGES, Ability.FRESH_PROC, Ability.NET_NAMESPACE, Ability.NET_ADMIN, Ability.CGROUPS)


def _asked_for(host: Host, user: str, profile: Profile) -> Iterator[Finding]:
    """The rungs that nobody has who does not ask: which of them could be had, or what that takes."""
    for each in PROFILES:
        if not each.is_asked_for:
            continue
        if lacking := [need for need in (*each.needs, each.kernel) if not host.can(need)]:
            yield _ability(host, lacking[0], user, profile)
        else:
            what = f"isolation {each.name}, for who asks for it"
            yield Finding("partly", what, each.about, f"{ISOLATION}={each.name}")


def _running(profile: Profile, refusal: str, as_root: str = "") -> Finding:
    if refusal:
        return Finding("no", "containers", refusal, "please report this: all that was tried before says that it works")
    if profile.runs:
        return Finding("yes", "containers")
    why = "for the reasons below; pull, push, save, load, images work all the same"
    return Finding("no", "containers", why, f"as root there may be more: {as_root}" if as_root else "")


def _ability(host: Host, ability: Ability, user: str, profile: Profile) -> Finding:
    probe = host.abilities[ability]
    if probe.ok:
        return Finding("yes", ability.value)
    instead, attempt = _ADVICE.get(ability, ("", ""))
    rung = profile.rung
    is_rooted = ability is Ability.PIVOT and profile.runs
    if is_rooted:
        instead = _ROOTS.get(rung.root, "paths are translated instead")
    if ability is Ability.KERNEL and profile.runs:
        instead = "nothing can be started in a container that runs (exec, health checks)"
    if ability is Ability.FRESH_PROC and rung.proc:
        instead = "this machine's is shown inside"
    if ability is Ability.ID_RANGES and not rung.mounts:
        attempt = ""  # It takes mounts, too.
    if ability in (Ability.PROOT, Ability.PRELOAD) and not host.can(Ability.LANDLOCK):
        instead, attempt = f"it would take Landlock, too: {host.abilities[Ability.LANDLOCK].why}", ""
    if ability is Ability.USER_NAMESPACES:
        attempt = _for_user_namespaces(probe.why)
    if probe.why.endswith((probe_words.NO_GAIN, probe_words.NO_SYSTEMD, probe_words.NOT_TRACED)):
        instead = "" if ability is Ability.PROOT else instead
        attempt = ""  # It would not help here.
    why = "; ".join(filter(None, (probe.why, instead)))
    # What is given in another way is not missing.
    state: State = "partly" if is_rooted or ability in _GIVEN_OTHERWISE else "no"
    return Finding(state, ability.value, why, attempt.format(user=user or "YOU"))


_ROOTS = {"move": "a mount is moved over the root instead", "chroot": "a chroot has to do"}
_GIVEN_OTHERWISE = frozenset({Ability.FRESH_PROC, Ability.ID_RANGES})
_ADVICE: dict[Ability, tuple[str, str]] = {
    Ability.ADMIN: ("this root may not do what containers take", "a machine, or a container that is privileged"),
    Ability.ID_RANGES: (
        "all files belong to one id; owners are recorded",
        "as root: apt install uidmap; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
    ),
    Ability.PIVOT: ("no container can be shut into its own files", ""),
    Ability.FRESH_PROC: ("none is mounted inside", ""),
    Ability.PROOT: ("with one, programs could be run", "PRoot 5.3 or later, made for this machine, in PATH"),
    Ability.PRELOAD: (
        "with one, programs that are not static could be run, for who asks for it", "Debian's fakechroot, in PATH",
    ),
    Ability.NET_NAMESPACE: ("containers share this machine's network", ""),
    Ability.NET_ADMIN: ("containers have this machine's network or none", ""),
    Ability.CGROUPS: (
        "memory and processors cannot be limited",
        "systemd-run --user --scope -p Delegate=yes, on a machine with systemd",
    ),
}  # fmt: skip


def _for_user_namespaces(why: str) -> str:
    if "id map" in why or "setgroups" in why:
        return "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)"
    # All others cannot be changed, or nobody knows by whom: a chroot, gVisor.
    return next((attempt for end, attempt in _FOR_USER_NAMESPACES.items() if why.endswith(end)), "")


_FOR_USER_NAMESPACES = {
    probe_words.NOT_FOR_USERS: "as root: sysctl -w kernel.unprivileged_userns_clone=1",
    probe_words.NO_MORE: "as root: sysctl -w user.max_user_namespaces=15000",
    probe_words.FILTERED: "a container started with --security-opt seccomp=unconfined, or a pod's profile Unconfined",
    probe_words.NO_MOUNTS: "a container started with --security-opt apparmor=unconfined (or label=disable), or a pod's"
    " AppArmor profile Unconfined",
}


def _storage(host: Host, driver: Driver, why: str, profile: Profile) -> Finding:
    if driver == "overlay":
        return Finding("yes", "storage driver overlay: what is changed is kept apart", why)
    shared = host.can(Ability.REFLINKS)
    cost = "copies share their blocks" if shared else "a container or RUN copies all files of its image"
    elsewhere = "NBCONTAIN_ROOT on another disk, or in /dev/shm where that is large"
    attempt = "" if shared or not profile.rung.mounts else elsewhere
    return Finding("partly", "storage driver copy: whole trees", f"{why}; {cost}", attempt)


def lacking_limits(host: Host, tree: Tree) -> Iterator[Finding]:
    """What cannot be limited though groups can be made: nothing that they are made in has the controller."""
    lacking = [each for each in ("memory", "cpu", "pids") if not tree.keeps(each)]
    if host.can(Ability.CGROUPS) and lacking:
        why = f"no controller for them in {tree.second or 'what is mounted'}"
        yield Finding("no", f"limits of {', '.join(lacking)}", why)


def _leading_out(engine: Engine) -> Iterator[Finding]:
    """What leads out of networks, where there can be any."""
    if not engine.networks.can_bridge():
        return
    out = engine.networks.way_out()
    attempt = "as root: apt install passt, or slirp4netns" if "installed" in out.why else ""
    if out.way in PROGRAMS or out.way == MASQUERADE:
        yield Finding("yes", f"the way out of networks: {out.way}")
    elif out.way:
        why = f"{out.why}; connections are made by sockets of this machine's, datagrams are relayed"
        yield Finding("partly", f"the way out of networks: {out.way}", why, attempt)
    else:
        yield Finding("no", "the way out of networks", f"{out.why}; who names no network has this machine's", attempt)
    if out.way:
        why = "" if out.ipv6 else "this machine has no default route of IPv6; it stays among containers"
        yield Finding("yes" if out.ipv6 else "no", "the way out by IPv6", why)


def _moved(place: Place) -> Iterator[Finding]:
    if place.why:
        why = f"{place.why}; it is in {place.layout.root}"
        yield Finding("partly", "a store in its usual place", why, "NBCONTAIN_ROOT names another place")


def _owners(host: Host, profile: Profile) -> Iterator[Finding]:
    if profile.runs and not host.can(Ability.OWNERS) and (host.is_root or host.can(Ability.ID_RANGES)):
        instead = "what RUN makes has other owners in its image" if host.is_root else "so one id alone is used"
        state: State = "no" if host.is_root else "partly"
        why, attempt = host.keeps_no_owners
        yield Finding(state, Ability.OWNERS.value, f"{why}; {instead}", attempt)
    if not host.ids.is_single or host.is_root or not (profile.rung.enters or profile.rung.ids):
        return
    what = "RUN chown, and users other than root inside"
    if profile.rung.ids == "notify":
        shown = "root" if profile.rung.enters else "your own number"
        why = f"there is one id only: a process keeps in mind who is who and whose is what; ls shows {shown} inside"
        yield Finding("partly", what, why)
    else:
        why = f"there is one id only, and nobody can answer for the kernel: {host.abilities[answering(profile)].why}; "
        why += "RUN chown is only pretended; what COPY --chown and layers from elsewhere say is kept"
        attempt = "COPY --chown in place of RUN chown; apt-get -o APT::Sandbox::User=root"
        yield Finding("no", what, why, attempt + "; a range of ids" * profile.rung.mounts)
    if not host.can(Ability.ATTRIBUTES):
        why = f"{host.abilities[Ability.ATTRIBUTES].why}; owners are recorded beside the files"
        yield Finding("partly", Ability.ATTRIBUTES.value, why, "NBCONTAIN_ROOT on another disk")


def _second_wall(host: Host, profile: Profile) -> Iterator[Finding]:
    """Where a chroot is all that keeps files apart, it matters."""
    if profile.rung.root == "chroot" and profile.runs and not host.can(Ability.LANDLOCK):
        shared = "a directory that it is sent" if "pid" in profile.rung.namespaces else "this machine's processes"
        why = f"{host.abilities[Ability.LANDLOCK].why}; who looks for a way out of a chroot may find one by {shared}"
        yield Finding("no", Ability.LANDLOCK.value, why, "run what you trust")


def _served(host: Host, profile: Profile) -> Iterator[Finding]:
    if not profile.runs or profile.rung.proc:
        return
    what = "files of /proc" if profile.rung.mounts else "files of /proc, /dev and /sys"
    if profile.rung.serves:
        yield Finding("partly", what, "those on a list are opened by a process outside")
        return
    why = host.abilities[Ability.NOTIFY].why
    if why == os.strerror(errno.EBUSY):
        why += ", since this place answers calls of programs itself"
    yield Finding("no", what, f"none is mounted, and nobody can open them for a container: {why}")
