"""The control group that keeps one container's limits. Run by the supervisor.

Which imports this only for one that has any. It knows nothing of the flags that they came from: argparse would be
loaded by every process of ours.
"""

from __future__ import annotations

from nbcontain.linux import device_rules
from nbcontain.linux.cgroups import Group, Tree
from nbcontain.linux.limits import from_json
from nbcontain.linux.more_limits import more_limits
from nbcontain.oci.strict_json import Fields
from nbcontain.runtime.bundle import Bundle


def group_of(container_id: str, *, is_root: bool) -> Group:
    """The group that keeps a container's limits; there may be none."""
    return Group(Tree.here(is_root=is_root), container_id)


def begin(bundle: Bundle, pid: int, *, is_root: bool, by_itself: bool) -> list[int]:
    """Supervisor: limit the first process, which waits. Raises SetupFailed.

    Gives what it is to enter the group by first of all, for the caller to close, if it can do that `by_itself`.
    """
    group = group_of(bundle.path.name, is_root=is_root)
    try:
        resources = bundle.spec.linux.resources
        rules = device_rules.from_json(Fields(resources, "resources").objects("devices"))
        group.limit(from_json(resources), rules, more_limits(resources).settings)
        if doors := group.doors() if by_itself else []:
            return doors
        group.enter(pid)
        return []
    except BaseException:
        group.remove()
        raise


def enter(bundle: Bundle, pid: int, *, is_root: bool) -> None:
    """Supervisor: a further process, which waits, is limited with the others. Raises SetupFailed."""
    group_of(bundle.path.name, is_root=is_root).enter(pid)


def doors(bundle: Bundle, *, is_root: bool) -> list[int]:
    """Supervisor: what a further program's stage enters the group by, for the caller to close; may be nothing."""
    return group_of(bundle.path.name, is_root=is_root).doors()


def end(bundle: Bundle, *, is_root: bool) -> tuple[bool, int]:
    """Supervisor: all its processes have ended. Gives whether one was killed because there was no memory for it, and
    how many bytes all of them had at most."""
    group = group_of(bundle.path.name, is_root=is_root)
    said = group.oom_kills() > 0, group.memory_peak() or 0
    group.remove()
    return said
