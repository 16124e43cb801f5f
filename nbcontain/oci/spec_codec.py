"""The runtime's config.json ⇄ frozen values (runtime-spec config.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from nbcontain.errors import BadDocument
from nbcontain.oci.spec import (
    OCI_VERSION,
    Device,
    Hook,
    IdMapping,
    LateDocument,
    Linux,
    Mount,
    Process,
    Rlimit,
    SharedDocument,
    Spec,
    User,
)  # fmt: skip
from nbcontain.oci.strict_json import Fields
from nbcontain.values import replace

_PROFILE = '"seccomp": '


def spec_to_text(spec: Spec) -> str:
    """config.json of a bundle: the seccomp profile, which is most of it, on a line of its own, and the rest before."""
    profile = spec.linux.seccomp
    document = spec_to_json(replace(spec, linux=replace(spec.linux, seccomp={})))
    if not profile:
        return json.dumps(document)
    linux = json.dumps(document.pop("linux"))[:-1]
    comma = "," if linux != "{" else ""
    match profile:
        case LateDocument():
            text = profile.text
        case SharedDocument():
            text = _text_of(profile)
        case _:
            text = json.dumps(dict(profile))
    return f'{json.dumps(document)[:-1]}, "linux": {linux}{comma}\n{_PROFILE}{text}}}}}'


def spec_from_text(text: str) -> Spec:
    """The inverse, and that of all that is JSON; raises BadDocument, and ValueError for what is not.

    A profile on a line of its own is read when somebody asks for it.
    """
    # Nothing else in there is a line feed: within texts they are written \\n.
    head, _, line = text.partition("\n")
    if not line.startswith(_PROFILE):
        return spec_from_json(json.loads(text))
    profile = LateDocument(line.removeprefix(_PROFILE).removesuffix("}}"))
    return spec_from_json(json.loads(head.removesuffix(",") + "}}"), profile)


@lru_cache(8)
def process_from_text(text: str) -> tuple[Process, Mapping[str, str]]:
    """Of `spec_from_text` only its process and its annotations: what another program in there is like.

    Kept for the last few texts: programs are often started in one container, one after the other.
    """
    head, _, line = text.partition("\n")
    is_apart = line.startswith(_PROFILE)
    top = Fields(json.loads(head.removesuffix(",") + "}}" if is_apart else text), "config.json")
    return process_from_json(top.object("process", required=True).values), top.texts_by_name("annotations")


def without_profile(text: str) -> str:
    """The same, where of a profile that is on a line of its own is left only that there is one."""
    head, _, line = text.partition("\n")
    return f'{head}\n{_PROFILE}{{"defaultAction": ""}}}}}}' if line.startswith(_PROFILE) else text


@lru_cache(16)
def _text_of(document: SharedDocument) -> str:
    return json.dumps(document)


def spec_to_json(spec: Spec) -> dict[str, object]:
    """config.json of a bundle (runtime-spec config.md), ready for json.dumps."""
    linux: dict[str, object] = {
        "namespaces": [_namespace_json(each, spec.linux.paths) for each in spec.linux.namespaces],
        "uidMappings": [_mapping_json(mapping) for mapping in spec.linux.uid_mappings],
        "gidMappings": [_mapping_json(mapping) for mapping in spec.linux.gid_mappings],
        "maskedPaths": list(spec.linux.masked_paths),
        "readonlyPaths": list(spec.linux.readonly_paths),
        "timeOffsets": {
            name: {"secs": offset[0], "nanosecs": offset[1]} for name, offset in spec.linux.time_offsets.items()
        },
        "rootfsPropagation": spec.linux.rootfs_propagation,
        "devices": [_device_json(each) for each in spec.linux.devices],
        "cgroupsPath": spec.linux.cgroups_path,
        "mountLabel": spec.linux.mount_label,
        "personality": {"domain": spec.linux.personality} if spec.linux.personality else None,
        "sysctl": dict(spec.linux.sysctl),
        "resources": dict(spec.linux.resources),
        "seccomp": dict(spec.linux.seccomp),
    }
    document: dict[str, object] = {
        "ociVersion": OCI_VERSION,
        "process": process_to_json(spec.process),
        "root": {"path": spec.root, "readonly": spec.root_readonly},
        "hostname": spec.hostname,
        "domainname": spec.domainname,
        "mounts": [_mount_json(mount) for mount in spec.mounts],
        "linux": {key: value for key, value in linux.items() if value},
        "hooks": {name: [_hook_json(each) for each in hooks] for name, hooks in spec.hooks.items()},
        "annotations": dict(spec.annotations),
    }
    return {key: value for key, value in document.items() if value or key == "linux"}


def spec_from_json(document: Mapping[str, object], seccomp: LateDocument | None = None) -> Spec:
    """The inverse of `spec_to_json`, but for a `seccomp` profile that comes by itself; raises BadDocument."""
    top = Fields(document, "config.json")
    linux, root, hooks = top.object("linux"), top.object("root"), top.object("hooks")
    namespaces = linux.objects("namespaces")
    return Spec(
        process=process_from_json(top.object("process", required=True).values),
        hostname=top.text("hostname"),
        domainname=top.text("domainname"),
        mounts=tuple(_mount(fields) for fields in top.objects("mounts")),
        linux=Linux(
            namespaces=tuple(fields.text("type", required=True) for fields in namespaces),
            paths={fields.text("type"): path for fields in namespaces if (path := fields.text("path"))},
            time_offsets={
                name: _offset(linux.object("timeOffsets").object(name)) for name in linux.values_of("timeOffsets")
            },
            uid_mappings=tuple(_mapping(fields) for fields in linux.objects("uidMappings")),
            gid_mappings=tuple(_mapping(fields) for fields in linux.objects("gidMappings")),
            masked_paths=linux.texts("maskedPaths") or (),
            readonly_paths=linux.texts("readonlyPaths") or (),
            rootfs_propagation=linux.text("rootfsPropagation"),
            devices=tuple(_device(fields) for fields in linux.objects("devices")),
            cgroups_path=linux.text("cgroupsPath"),
            mount_label=linux.text("mountLabel"),
            personality=linux.object("personality").text("domain"),
            sysctl=linux.texts_by_name("sysctl"),
            resources=linux.values_of("resources"),
            seccomp=seccomp or linux.values_of("seccomp"),
        ),
        root=root.text("path") or "rootfs",
        root_readonly=root.flag("readonly"),
        hooks={name: tuple(_hook(each) for each in hooks.objects(name)) for name in hooks.values},
        annotations=top.texts_by_name("annotations"),
    )


def process_to_json(process: Process) -> dict[str, object]:
    """`process` of config.json, which is also what an exec is described by."""
    capabilities = list(process.capabilities)
    user: dict[str, object] = {"uid": process.user.uid, "gid": process.user.gid, "umask": process.user.umask}
    if process.user.additional_gids:
        user["additionalGids"] = list(process.user.additional_gids)
    rows, columns = process.console_size
    document: dict[str, object] = {
        "terminal": process.terminal,
        **({"consoleSize": {"height": rows, "width": columns}} if rows or columns else {}),
        "user": user,
        "args": list(process.args),
        "env": list(process.env),
        "cwd": process.cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities if process.effective is None else list(process.effective),
            "permitted": capabilities if process.permitted is None else list(process.permitted),
            "inheritable": list(process.inheritable),
            "ambient": list(process.ambient),
        },
        "noNewPrivileges": process.no_new_privileges,
        **({"rlimits": [_rlimit_json(each) for each in process.rlimits]} if process.rlimits else {}),
    }
    if process.apparmor:
        document["apparmorProfile"] = process.apparmor
    if process.label:
        document["selinuxLabel"] = process.label
    if process.oom_score_adj is not None:
        document["oomScoreAdj"] = process.oom_score_adj
    if process.scheduler:
        document["scheduler"] = dict(process.scheduler)
    if process.io_priority:
        document["ioPriority"] = {"class": process.io_priority[0], "priority": process.io_priority[1]}
    return document


def process_from_json(document: Mapping[str, object]) -> Process:
    """The inverse of `process_to_json`; raises BadDocument."""
    fields = Fields(document, "process")
    user, size = fields.object("user"), fields.object("consoleSize")
    sets, io = fields.object("capabilities"), fields.object("ioPriority")
    bounding = sets.texts("bounding") or ()
    return Process(
        args=fields.texts("args") or (),
        env=fields.texts("env") or (),
        cwd=fields.text("cwd") or "/",
        user=User(
            uid=user.count("uid"),
            gid=user.count("gid"),
            additional_gids=user.counts("additionalGids"),
            umask=user.count("umask", default=0o022),
        ),
        terminal=fields.flag("terminal"),
        console_size=(size.count("height"), size.count("width")),
        capabilities=bounding,
        permitted=_other(sets.texts("permitted"), bounding),
        effective=_other(sets.texts("effective"), bounding),
        inheritable=sets.texts("inheritable") or (),
        ambient=sets.texts("ambient") or (),
        no_new_privileges=fields.flag("noNewPrivileges"),
        apparmor=fields.text("apparmorProfile"),
        label=fields.text("selinuxLabel"),
        oom_score_adj=fields.number("oomScoreAdj"),
        rlimits=tuple(
            Rlimit(
                each.text("type", required=True), each.count("soft", below=1 << 64), each.count("hard", below=1 << 64)
            )
            for each in fields.objects("rlimits")
        ),
        scheduler=fields.values_of("scheduler"),
        io_priority=(io.text("class", required=True), io.count("priority")) if io.values else None,
    )


def _other(given: tuple[str, ...] | None, bounding: tuple[str, ...]) -> tuple[str, ...] | None:
    """A set of capabilities; None where it is the bounding one."""
    return None if (given or ()) == bounding else given or ()


def _rlimit_json(limit: Rlimit) -> dict[str, object]:
    return {"type": limit.type, "soft": limit.soft, "hard": limit.hard}


def mounts_to_json(mounts: Sequence[Mount]) -> list[dict[str, object]]:
    """A list of mounts, as in config.json and rootfs.json."""
    return [_mount_json(mount) for mount in mounts]


def mounts_from_json(document: object) -> tuple[Mount, ...]:
    """The inverse of `mounts_to_json`; raises BadDocument."""
    return tuple(_mount(fields) for fields in Fields({"mounts": document}, "rootfs.json").objects("mounts"))


def _mount_json(mount: Mount) -> dict[str, object]:
    values: dict[str, object] = {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
        "uidMappings": [_mapping_json(each) for each in mount.uid_mappings],
        "gidMappings": [_mapping_json(each) for each in mount.gid_mappings],
    }
    return {key: value for key, value in values.items() if value}


def _mount(fields: Fields) -> Mount:
    return Mount(
        fields.text("destination", required=True),
        fields.text("type"),
        fields.text("source"),
        fields.texts("options") or (),
        tuple(_mapping(each) for each in fields.objects("uidMappings")),
        tuple(_mapping(each) for each in fields.objects("gidMappings")),
    )


def _namespace_json(name: str, paths: Mapping[str, str]) -> dict[str, object]:
    return {"type": name, "path": paths[name]} if name in paths else {"type": name}


def _offset(fields: Fields) -> tuple[int, int]:
    values = [fields.values.get(name, 0) for name in ("secs", "nanosecs")]
    if not all(isinstance(each, int) for each in values):
        raise BadDocument(f"{fields.place} must be numbers")
    return int(values[0]), int(values[1])


def _device_json(device: Device) -> dict[str, object]:
    document: dict[str, object] = {"path": device.path, "type": device.type, "uid": device.uid, "gid": device.gid}
    if device.type != "p":
        document |= {"major": device.major, "minor": device.minor}
    return document if device.mode is None else document | {"fileMode": device.mode}


def _device(fields: Fields) -> Device:
    return Device(
        fields.text("path", required=True),
        fields.text("type", required=True),
        fields.count("major"),
        fields.count("minor"),
        fields.count("fileMode") if "fileMode" in fields.values else None,
        fields.count("uid"),
        fields.count("gid"),
    )


def _hook_json(hook: Hook) -> dict[str, object]:
    document = {"path": hook.path, "args": list(hook.args), "env": list(hook.env), "timeout": hook.timeout_s}
    return {key: value for key, value in document.items() if value}


def _hook(fields: Fields) -> Hook:
    path = fields.text("path", required=True)
    return Hook(path, fields.texts("args") or (), fields.texts("env") or (), fields.count("timeout"))


def _mapping_json(mapping: IdMapping) -> dict[str, object]:
    return {"containerID": mapping.container_id, "hostID": mapping.host_id, "size": mapping.size}


def _mapping(fields: Fields) -> IdMapping:
    return IdMapping(fields.count("containerID"), fields.count("hostID"), fields.count("size", required=True))
