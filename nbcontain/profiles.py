"""The one table that turns what a host allows into how containers run there."""

from __future__ import annotations

from collections.abc import Mapping

from nbcontain.errors import Unavailable, UsageError
from nbcontain.host import Ability, Host
from nbcontain.store.snapshots import Driver
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to run containers. The first row of `PROFILES` whose needs are met is taken."""

    name: str
    needs: tuple[Ability, ...]
    isolation: str
    """What is real there, for people."""
    runs: bool = True

    def require(self, host: Host, what: str) -> None:
        """Raise Unavailable, naming each thing that was tried and what the kernel answered, if nothing can run here."""
        if self.runs:
            return
        tried = (Ability.ADMIN, Ability.USER_NAMESPACES, Ability.PIVOT)
        answers = [f"{each.value}: {host.abilities[each].why}" for each in tried if not host.abilities[each].ok]
        raise Unavailable(
            f"{what} needs a container, and this machine lets nobody make one here",
            why="\n".join(answers),
            hint="from-host and import still make images that can be looked into; %nbcontain doctor tells more",
        )

    def describe(self, host: Host) -> str:
        """One line: which rung this is, and what is real on it."""
        return f"profile {self.name}: {self.isolation}"


PROFILES = (
    Profile("root", (Ability.ADMIN, Ability.PIVOT), "own mount, pid, uts, ipc and cgroup namespaces; the host's ids"),
    Profile(
        "rootless",
        (Ability.USER_NAMESPACES, Ability.ID_RANGES, Ability.PIVOT),
        "own user, mount, pid, uts, ipc and cgroup namespaces; a range of ids of your own",
    ),
    Profile(
        "rootless-single",
        (Ability.USER_NAMESPACES, Ability.PIVOT),
        "own user, mount, pid, uts, ipc and cgroup namespaces; one id only, so that files have one owner",
    ),
    Profile("none", (), "no containers here; images can be imported and looked into, but nothing runs", runs=False),
)


STORAGE_DRIVER = "NBCONTAIN_STORAGE_DRIVER"


def storage_driver(host: Host, environ: Mapping[str, str]) -> tuple[Driver, str]:
    """How snapshots are made here, and why: as the user says, else overlay where one can be mounted.

    Raises UsageError for a driver that there is not, Unavailable for an overlay that cannot be.
    """
    probe = host.abilities[Ability.OVERLAY]
    match environ.get(STORAGE_DRIVER, ""):
        case "":
            return ("overlay", "") if probe.ok else ("copy", f"no overlay can be mounted there: {probe.why}")
        case "overlay" if not probe.ok:
            raise Unavailable(
                "no overlay can be mounted in the store", why=probe.why, hint=f"unset {STORAGE_DRIVER}, or make it copy"
            )
        case "overlay" | "copy" as driver:
            return driver, f"{STORAGE_DRIVER} says so"
        case other:
            raise UsageError(f"{STORAGE_DRIVER}={other} is no storage driver", hint="overlay or copy")


def choose(host: Host) -> Profile:
    """The first profile whose needs this host meets; the last one needs nothing."""
    return next(each for each in PROFILES if all(host.abilities[need].ok for need in each.needs))
