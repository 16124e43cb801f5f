"""The runtime's config.json ⇄ frozen values (runtime-spec config.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from nbcontain.oci.spec import OCI_VERSION, IdMapping, Linux, Mount, Process, Rlimit, SharedDocument, Spec, User
from nbcontain.oci.strict_json import Fields
from nbcontain.values import replace


def spec_to_text(spec: Spec) -> str:
    """The same as `json.dumps(spec_to_json(spec))`, but quicker where many specs share a seccomp profile."""
    profile = spec.linux.seccomp
    if not isinstance(profile, SharedDocument):
        return json.dumps(spec_to_json(spec))
    document = spec_to_json(replace(spec, linux=replace(spec.linux, seccomp={})))
    linux = json.dumps(document.pop("linux") | {"seccomp": None})  # type: ignore[operator]
    return f'{json.dumps(document)[:-1]}, "linux": {linux.removesuffix("null}")}{_text_of(profile)}}}}}'


@lru_cache(16)
def _text_of(document: SharedDocument) -> str:
    return json.dumps(document)


def spec_to_json(spec: Spec) -> dict[str, object]:
    """config.json of a bundle (runtime-spec config.md), ready for json.dumps."""
    linux: dict[str, object] = {
        "namespaces": [{"type": namespace} for namespace in spec.linux.namespaces],
        "uidMappings": [_mapping_json(mapping) for mapping in spec.linux.uid_mappings],
        "gidMappings": [_mapping_json(mapping) for mapping in spec.linux.gid_mappings],
        "maskedPaths": list(spec.linux.masked_paths),
        "readonlyPaths": list(spec.linux.readonly_paths),
        "sysctl": dict(spec.linux.sysctl),
        "resources": dict(spec.linux.resources),
        "seccomp": spec.linux.seccomp,
    }
    document: dict[str, object] = {
        "ociVersion": OCI_VERSION,
        "process": process_to_json(spec.process),
        "root": {"path": "rootfs", "readonly": spec.root_readonly},
        "hostname": spec.hostname,
        "mounts": [_mount_json(mount) for mount in spec.mounts],
        "linux": {key: value for key, value in linux.items() if value},
        "annotations": dict(spec.annotations),
    }
    return {key: value for key, value in document.items() if value or key == "linux"}


def spec_from_json(document: Mapping[str, object]) -> Spec:
    """The inverse of `spec_to_json`; raises BadDocument."""
    top = Fields(document, "config.json")
    linux, root = top.object("linux"), top.object("root")
    return Spec(
        process=process_from_json(top.object("process", required=True).values),
        hostname=top.text("hostname"),
        mounts=tuple(_mount(fields) for fields in top.objects("mounts")),
        linux=Linux(
            namespaces=tuple(fields.text("type", required=True) for fields in linux.objects("namespaces")),
            uid_mappings=tuple(_mapping(fields) for fields in linux.objects("uidMappings")),
            gid_mappings=tuple(_mapping(fields) for fields in linux.objects("gidMappings")),
            masked_paths=linux.texts("maskedPaths") or (),
            readonly_paths=linux.texts("readonlyPaths") or (),
            sysctl=linux.texts_by_name("sysctl"),
            resources=linux.values_of("resources"),
            seccomp=linux.values_of("seccomp"),
        ),
        root_readonly=root.flag("readonly"),
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
            "effective": capabilities,
            "permitted": capabilities,
            "inheritable": [],
            "ambient": [],
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
    return document


def process_from_json(document: Mapping[str, object]) -> Process:
    """The inverse of `process_to_json`; raises BadDocument."""
    fields = Fields(document, "process")
    user, size = fields.object("user"), fields.object("consoleSize")
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
        capabilities=fields.object("capabilities").texts("bounding") or (),
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
    )


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
    }
    return {key: value for key, value in values.items() if value}


def _mount(fields: Fields) -> Mount:
    return Mount(
        fields.text("destination", required=True),
        fields.text("type"),
        fields.text("source"),
        fields.texts("options") or (),
    )


def _mapping_json(mapping: IdMapping) -> dict[str, object]:
    return {"containerID": mapping.container_id, "hostID": mapping.host_id, "size": mapping.size}


def _mapping(fields: Fields) -> IdMapping:
    return IdMapping(fields.count("containerID"), fields.count("hostID"), fields.count("size", required=True))
