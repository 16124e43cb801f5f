"""Whether a config.json can be made a container of here, before anything is made. Pure.

What is merely malformed `oci.spec_codec` has refused by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nbcontain.errors import BadDocument, CommandNotFound
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.linux.confine import RLIMITS
from nbcontain.oci.spec import Process, Spec
from nbcontain.runtime.hooks import NAMES as HOOKS
from nbcontain.runtime.namespaces import FLAGS
from nbcontain.values import replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_VERSION = re.compile(r"1\.(\d+)\.\d+([-+].*)?")
_PROPAGATIONS = ("", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable")
_KNOWN = frozenset(f"CAP_{name}" for name in CAPABILITIES)


def check(config: Mapping[str, Any], spec: Spec) -> None:
    """Raises BadDocument, and CommandNotFound where there is no program."""
    version = config.get("ociVersion")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise BadDocument(f"config.json is of version {version!r} of the specification", why="this is a runtime of 1.x")
    linux: Mapping[str, Any] = config.get("linux") or {}
    if linux.get("intelRdt"):
        raise BadDocument("linux.intelRdt is not here", why="this runtime does not allocate caches and their bandwidth")
    for name in ("solaris", "windows", "vm", "zos"):
        if config.get(name):
            raise BadDocument(f"config.json is of another platform: it has {name}")
    if not (config.get("root") or {}).get("path"):
        raise BadDocument("config.json.root.path is missing")
    _check_namespaces(spec)
    _check_process(spec)
    for mount in spec.mounts:
        if not mount.destination.startswith("/"):
            raise BadDocument(f"the mount {mount.destination!r} has no absolute destination")
    for name, of_it in spec.hooks.items():
        if name not in HOOKS:
            raise BadDocument(f"there are no hooks {name!r}", hint=", ".join(HOOKS))
        for hook in of_it:
            if not hook.path.startswith("/"):
                raise BadDocument(f"the {name} hook {hook.path!r} has no absolute path")
    if spec.linux.rootfs_propagation not in _PROPAGATIONS:
        raise BadDocument(f"there is no rootfsPropagation {spec.linux.rootfs_propagation!r}")


def without_unknown(process: Process) -> tuple[Process, tuple[str, ...]]:
    """The process without capabilities that there are not, and their names: a caller is warned of those only."""
    unknown: list[str] = []

    def known(names: tuple[str, ...]) -> tuple[str, ...]:
        unknown.extend(name for name in names if name not in _KNOWN)
        return tuple(name for name in names if name in _KNOWN)

    sets = {
        "capabilities": known(process.capabilities),
        "inheritable": known(process.inheritable),
        "ambient": known(process.ambient),
        "permitted": None if process.permitted is None else known(process.permitted),
        "effective": None if process.effective is None else known(process.effective),
    }
    return (replace(process, **sets) if unknown else process), tuple(dict.fromkeys(unknown))  # type: ignore[arg-type]


def _check_namespaces(spec: Spec) -> None:
    names = spec.linux.namespaces
    for name in names:
        if name not in FLAGS:
            raise BadDocument(f"there is no namespace {name!r}", hint=", ".join(FLAGS))
        if names.count(name) > 1:
            raise BadDocument(f"the namespace {name!r} is said twice")
    own = {name for name in names if name not in spec.linux.paths}
    if (spec.hostname or spec.domainname) and "uts" not in names:
        raise BadDocument("a hostname needs a uts namespace", why="it would be this machine's")
    has_map = bool(spec.linux.uid_mappings or spec.linux.gid_mappings)
    if has_map and "user" not in own:
        raise BadDocument("linux.uidMappings need a user namespace of its own")
    if "user" in own and not (spec.linux.uid_mappings and spec.linux.gid_mappings):
        raise BadDocument("a user namespace needs linux.uidMappings and linux.gidMappings")
    if spec.linux.time_offsets and "time" not in own:
        raise BadDocument("linux.timeOffsets need a time namespace of its own")
    for name in spec.linux.sysctl:
        key = name.replace("/", ".")
        needed = _namespace_of(key)
        if needed is None or needed not in names:
            why = f"it needs a {needed} namespace" if needed else "it belongs to no namespace"
            raise BadDocument(f"linux.sysctl {name} is this machine's", why=why)


def _namespace_of(key: str) -> str | None:
    if key.startswith("net."):
        return "network"
    if key in ("kernel.domainname", "kernel.hostname"):
        return "uts"
    ours = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")
    return "ipc" if key.startswith(ours) else None


def _check_process(spec: Spec) -> None:
    process = spec.process
    if not process.args:
        raise CommandNotFound("process.args is empty: there is no program to run")
    if not process.cwd.startswith("/"):
        raise BadDocument(f"process.cwd {process.cwd!r} is not absolute")
    types = [each.type for each in process.rlimits]
    for each in process.rlimits:
        if each.type.removeprefix("RLIMIT_").lower() not in RLIMITS or not each.type.startswith("RLIMIT_"):
            raise BadDocument(f"there is no limit {each.type!r}")
        if types.count(each.type) > 1:
            raise BadDocument(f"the limit {each.type} is said twice")
