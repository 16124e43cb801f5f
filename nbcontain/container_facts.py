"""What a container is, in the words of docker's Config and HostConfig: as its record and its spec say. Pure.

What docker has a word for and neither of them knows is left out, and never made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbcontain.linux.limits import Limits, from_json
from nbcontain.network.documents import port_document
from nbcontain.network.model import wish_from_json
from nbcontain.oci.image import Healthcheck, ImageConfig, timestamp
from nbcontain.oci.spec import Spec
from nbcontain.runtime.annotations import GROUPS, JOINS, REAPER, USER
from nbcontain.runtime.bundle import ContainerInfo, State
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.rungs import FURNITURE

_PERIOD_US = 100_000
_SAID = (("IpcMode", "ipc", "private"), ("UsernsMode", "userns", ""))
_NO_DEVICES = FURNITURE | {"/dev/shm"}
_NEVER = "0001-01-01T00:00:00Z"
"""What docker says of a time that has not come."""
_LISTS = {
    "cap_add": "CapAdd", "cap_drop": "CapDrop", "security_opt": "SecurityOpt", "dns": "Dns", "dns_option": "DnsOptions",
    "dns_search": "DnsSearch", "add_hosts": "ExtraHosts", "volumes_from": "VolumesFrom",
}  # fmt: skip
_NONE_HERE: Mapping[str, Any] = {
    "Cgroup": "", "CgroupParent": "", "Isolation": "", "Links": None, "VolumeDriver": "", "DeviceRequests": None,
    "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
}  # fmt: skip
"""docker's words for what no container has here."""


def said(options: RunOptions, image: ImageConfig) -> dict[str, Any]:
    """What is kept of what `run` was told, since no spec tells it any more."""
    entrypoint = (options.entrypoint,) if options.entrypoint else ()
    attached = [] if options.detach else list(options.attach) or ["stdout", "stderr"]
    found = {
        **{name: list(getattr(options, name)) for name in _LISTS},
        "privileged": options.privileged, "publish_all": options.publish_all, "cidfile": options.cidfile,
        "open_stdin": options.interactive, "attach": attached,
        "entrypoint": list(image.entrypoint or () if options.entrypoint is None else entrypoint),
        "volumes": list(image.volumes),
        "no_healthcheck": options.no_healthcheck or (image.healthcheck or Healthcheck()).test[:1] == ("NONE",),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value}


def state(state: State, status: str, *, is_paused: bool) -> dict[str, Any]:
    """docker's State, but for Health."""
    return {
        "Status": "paused" if is_paused else status, "Running": status == "running", "Paused": is_paused,
        "Restarting": status == "restarting", "OOMKilled": state.oom_killed, "Dead": status == "lost",
        "Pid": state.pid if status == "running" else 0, "ExitCode": state.exit_code or 0, "Error": state.error,
        "StartedAt": timestamp(state.started_at) if state.started_at else _NEVER,
        "FinishedAt": timestamp(state.finished_at) if state.finished_at else _NEVER,
    }  # fmt: skip


def config(info: ContainerInfo, spec: Spec) -> dict[str, Any]:
    """docker's Config: what the program gets."""
    process, told = spec.process, info.options.get("said") or {}
    attached, entrypoint = told.get("attach", []), told.get("entrypoint", [])
    anonymous = [each["Destination"] for each in info.mounts if each.get("Anonymous")]
    opens = bool(told.get("open_stdin"))
    found: dict[str, Any] = {
        "Hostname": spec.hostname, "Domainname": spec.domainname, "User": spec.annotations.get(USER, ""),
        "AttachStdin": opens and bool(attached), "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached, "Tty": process.terminal, "OpenStdin": opens,
        "StdinOnce": opens and bool(attached),
        "Env": list(process.env), "Cmd": list(info.command[len(entrypoint) :]) or None, "Image": info.image,
        "Volumes": {each: {} for each in (*told.get("volumes", []), *anonymous)} or None, "WorkingDir": process.cwd,
        "Entrypoint": entrypoint or None, "OnBuild": None, "Labels": dict(info.labels), "StopSignal": info.stop_signal,
        "StopTimeout": int(info.stop_timeout_s),
    }  # fmt: skip
    exposed = wish_from_json(info.options["networks"]).exposed if info.options.get("networks") else ()
    if exposed:
        found["ExposedPorts"] = {each: {} for each in exposed}
    if info.health:
        found["Healthcheck"] = {name: value for name, value in info.health.items() if name != "args"}
    elif told.get("no_healthcheck"):
        found["Healthcheck"] = {"Test": ["NONE"]}
    return found


def host_config(info: ContainerInfo, spec: Spec) -> dict[str, Any]:
    """docker's HostConfig: what it may use of the machine, and what becomes of it."""
    linux, shm = spec.linux, next((each for each in spec.mounts if each.destination == "/dev/shm"), None)
    name, _, most = (info.restart or "no").partition(":")
    told = info.options.get("said") or {}
    published = wish_from_json(info.options["networks"]).published if info.options.get("networks") else ()
    return {
        **_NONE_HERE,
        **{word: told.get(name) or ([] if word.startswith("Dns") else None) for name, word in _LISTS.items()},
        "ContainerIDFile": told.get("cidfile", ""),
        "PortBindings": port_document((), published),
        "PublishAllPorts": bool(told.get("publish_all")),
        "Privileged": bool(told.get("privileged")),
        "ConsoleSize": list(spec.process.console_size),
        "AutoRemove": info.remove,
        "RestartPolicy": {"Name": name, "MaximumRetryCount": int(most or 0)},
        "LogConfig": {"Type": info.log.get("driver", "json-file"), "Config": dict(info.log.get("options", {}))},
        "Runtime": info.runtime.rpartition("/")[2] or "nbcontain",
        "NetworkMode": info.options.get("network", ""),
        **_namespaces(info, spec),
        "ReadonlyRootfs": spec.root_readonly,
        "Init": spec.annotations.get(REAPER) == "true",
        "GroupAdd": [each for each in spec.annotations.get(GROUPS, "").split(",") if each],
        "OomScoreAdj": spec.process.oom_score_adj or 0,
        "Sysctls": dict(linux.sysctl),
        "Ulimits": [
            {"Name": each.type.removeprefix("RLIMIT_").lower(), "Soft": each.soft, "Hard": each.hard}
            for each in spec.process.rlimits
        ],
        "ShmSize": _bytes(next((each[5:] for each in shm.options if each.startswith("size=")), "")) if shm else 0,
        "Binds": [
            _bind(each) for each in info.mounts
            if each.get("Type") in ("bind", "volume") and not each.get("Anonymous")
        ],
        "Tmpfs": {
            each.destination: ",".join(each.options)
            for each in spec.mounts
            if each.type == "tmpfs" and not each.destination.startswith("/dev")
        },
        # Where the control group allows less, it says so by device numbers: whose they were is in neither.
        "Devices": [
            {"PathOnHost": each.source, "PathInContainer": each.destination}
            | ({} if "devices" in linux.resources else {"CgroupPermissions": "rwm"})
            for each in spec.mounts
            if each.type == "bind" and each.source.startswith("/dev/") and each.destination not in _NO_DEVICES
        ],
        "DeviceCgroupRules": list(info.options.get("device_cgroup_rules") or ()),
        "MaskedPaths": list(linux.masked_paths),
        "ReadonlyPaths": list(linux.readonly_paths),
        **_limits(from_json(linux.resources)),
        **_further_limits(linux.resources),
    }


def _namespaces(info: ContainerInfo, spec: Spec) -> dict[str, str]:
    joined = dict(word.partition("=")[::2] for word in spec.annotations.get(JOINS, "").split(",") if word)
    found = {}
    for name, word in (("pid", "PidMode"), ("uts", "UTSMode"), ("cgroup", "CgroupnsMode")):
        own = "private" if name == "cgroup" else ""
        here = own if name in spec.linux.namespaces else "host"
        found[word] = f"container:{joined[name]}" if name in joined else here
    said = {word: str(info.options.get(name, usual)) for word, name, usual in _SAID}
    return found | said


def _limits(limits: Limits) -> dict[str, Any]:
    quota, period = limits.cpu_quota_us or 0, limits.cpu_period_us or 0
    return {
        "Memory": limits.memory or 0, "MemorySwap": limits.memory_and_swap or 0,
        "MemoryReservation": limits.memory_reservation or 0, "CpuShares": limits.cpu_shares or 0,
        "CpuQuota": quota, "CpuPeriod": period,
        "NanoCpus": quota * 10_000 if quota > 0 and period == _PERIOD_US else 0,
        "CpusetCpus": limits.cpus, "CpusetMems": limits.memory_nodes, "PidsLimit": limits.pids,
        "BlkioWeight": limits.io_weight or 0,
    }  # fmt: skip


def _further_limits(resources: Mapping[str, Any]) -> dict[str, Any]:
    memory, cpu, io = (resources.get(name, {}) for name in ("memory", "cpu", "blockIO"))
    return {
        "MemorySwappiness": memory.get("swappiness"), "OomKillDisable": memory.get("disableOOMKiller"),
        "CpuRealtimePeriod": cpu.get("realtimePeriod", 0), "CpuRealtimeRuntime": cpu.get("realtimeRuntime", 0),
        "BlkioWeightDevice": [
            {"Path": f"{each['major']}:{each['minor']}", "Weight": each["weight"]}
            for each in io.get("weightDevice", [])
        ],
    }  # fmt: skip


def _bind(mount: Any) -> str:
    source = mount.get("Name") or mount.get("Source", "")
    return f"{source}:{mount.get('Destination', '')}" + ("" if mount.get("RW", True) else ":ro")


def _bytes(text: str) -> int:
    """A size as tmpfs is told it; 0 for none, or one that depends on the memory there is."""
    units = {"k": 10, "m": 20, "g": 30}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "")
    return int(number) << units.get(unit, 0) if number.isdecimal() else 0
