"""All that is known of an image, a container and an engine, as JSON documents in docker's names."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain import __version__
from nbcontain.errors import BadReference, NoSuchPlatform
from nbcontain.oci import codec, spec_codec
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.platforms import normal, parse
from nbcontain.oci.reference import Reference
from nbcontain.profiles import described, storage_driver
from nbcontain.runtime.container import Container
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine


def image_for(engine: Engine, name: str, platform: str) -> Image:
    """The image of a name, for this platform if one is said. Raises ImageNotFound, NoSuchPlatform, UsageError."""
    if not platform:
        return engine.image(name)
    wanted = parse(platform)
    try:
        return engine.store.images.get(Reference.parse(name), wanted)
    except BadReference:
        image = engine.image(name)
    if normal(image.config.platform) != wanted:
        raise NoSuchPlatform(f"there is no {name} for {wanted}", why=f"it is for {image.config.platform}")
    return image


def image_document(engine: Engine, name: str, platform: str = "") -> dict[str, Any]:
    """docker's names for what docker has too. Size is that of the layers as they are stored."""
    index = engine.store.images.find_index(name)
    try:
        image = image_for(engine, name, platform)
    except NoSuchPlatform:
        # An index for other machines is still to be seen.
        if platform or index is None or not (children := engine.store.images.children(index)):
            raise
        image = children[0]
    config = codec.config_to_json(image.config)
    names = engine.store.images.names(image.digest)
    digests = [f"{each.familiar_repository}@{engine.store.images.registry_digest(each, image)}" for each in names]
    return {
        "Id": str(image.id),
        "RepoTags": [each.familiar for each in names if each.digest is None],
        "RepoDigests": list(dict.fromkeys(digests)),
        "Digest": str(image.digest),
        "Parent": "",
        "Comment": image.config.history[-1].comment if image.config.history else "",
        "Created": _as_go_writes(image.config.created),
        "DockerVersion": _docker_version(image),
        "Author": image.config.author,
        "Architecture": image.config.platform.architecture,
        "Variant": image.config.platform.variant,
        "Os": image.config.platform.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Name": _driver(engine, image), "Data": None},
        "Config": _config(config.get("config", {})),
        "RootFS": {
            "Type": "layers",
            "Layers": [str(each.diff_id) for each in image.layers],
            "ChainID": str(image.chain_id or ""),
        },
        **({"Descriptor": _descriptor(index), "Manifests": _manifests(engine, index)} if index else {}),
        "Metadata": {"LayerSizes": [each.descriptor.size for each in image.layers]},
    }


def _docker_version(image: Image) -> str:
    """What docker's old builder says of itself in a config; the specification has no such thing."""
    said = json.loads(image.raw_config).get("docker_version", "")
    return said if isinstance(said, str) else ""


def _driver(engine: Engine, image: Image) -> str:
    """How its files are kept here; "" where they are not unpacked. What this machine could do is not tried for it."""
    if (name := image.chain_id) is None:
        return ""
    return next((each.driver for each in engine.store.snapshotters if each.exists(name)), "")


def _descriptor(index: ImageIndex) -> dict[str, Any]:
    return {"mediaType": index.media_type, "digest": str(index.digest), "size": len(index.raw)}


def _manifests(engine: Engine, index: ImageIndex) -> list[dict[str, Any]]:
    """docker's words for what is in an index, and whether it is here."""
    return [
        {
            "ID": str(entry.digest),
            "Descriptor": {"mediaType": entry.media_type, "digest": str(entry.digest), "size": entry.size},
            "Available": engine.store.images.child(entry) is not None,
            "Kind": "image" if entry.platform is None or entry.platform.os != "unknown" else "attestation",
            "Platform": str(entry.platform or ""),
        }
        for entry in index.entries
    ]


def _as_go_writes(created: str) -> str:
    """A time without the zeros at the end of its fraction (RFC3339Nano)."""
    return re.sub(r"(\.\d*?)0+(?=Z$|[+-]\d\d:\d\d$)", r"\1", created).replace(".Z", "Z").replace(".+", "+")


def _config(said: Any) -> dict[str, Any]:
    """A config in which everything that people ask a template for is there, though it may be nothing."""
    empty: dict[str, Any] = {"User": "", "Env": [], "Cmd": None, "Entrypoint": None, "WorkingDir": "", "Labels": {}}
    return {**empty, "Volumes": None, **said}


def _shown_spec(container: Container) -> dict[str, Any]:
    """Without the hundreds of names of a seccomp profile, which config.json has."""
    spec = container.bundle.spec
    document = spec_codec.spec_to_json(replace(spec, linux=replace(spec.linux, seccomp={})))
    if spec.linux.seccomp:
        document["linux"]["seccomp"] = {"defaultAction": spec.linux.seccomp.get("defaultAction"), "…": "config.json"}  # type: ignore[index]
    return document


_MOUNT = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")


def container_document(engine: Engine, container: Container, *, size: bool = False) -> dict[str, Any]:
    """docker's names for what docker has too; Spec is the runtime specification's document."""
    from nbcontain import container_facts

    state, info, spec = container.state(), container.info, container.bundle.spec
    status = container.status
    document: dict[str, Any] = {
        "Id": container.id,
        "Name": container.name,
        "Image": info.image_id,
        "ImageName": container.image,
        "Created": info.created,
        "Path": info.command[0] if info.command else "",
        "Args": list(info.command[1:]),
        "State": {
            **container_facts.state(state, status, is_paused=container.is_paused),
            **({"Health": health} if (health := container.health()) is not None else {}),
        },
        **{word: str(path) if path.exists() else "" for word, path in _paths(container).items()},
        "Platform": str(info.options.get("platform", "")).partition("/")[0],
        "Driver": engine.store.snapshots_of(container.id).driver,
        "GraphDriver": _graph(container),
        "MountLabel": "",
        "ProcessLabel": spec.process.label,
        "AppArmorProfile": spec.process.apparmor,
        "RestartCount": state.restart_count,
        "DroppedBytes": state.dropped_bytes,
        "HostConfig": container_facts.host_config(info, spec),
        "Labels": dict(info.labels),
        "Config": container_facts.config(info, spec),
        "NetworkSettings": engine.networks.settings(container),
        "Mounts": [{name: each[name] for name in _MOUNT if name in each} for each in info.mounts],
        "Bundle": str(container.bundle.path),
        "Isolation": described(info.rung, spec.linux.namespaces),
        "Spec": _shown_spec(container),
    }
    if size:
        from nbcontain.store.gc import written_bytes

        document["SizeRw"] = written_bytes(engine.store.written_at(container.id))
        document["SizeRootFs"] = document["SizeRw"] + sum(
            {image.id: image.size_bytes for _, image in engine.images() if str(image.id) == info.image_id}.values()
        )
    return document


def _paths(container: Container) -> dict[str, Path]:
    """docker's words for files of a container's."""
    place = container.bundle.path
    return {
        "ResolvConfPath": place / "resolv.conf", "HostnamePath": place / "hostname", "HostsPath": place / "hosts",
        "LogPath": place / "journal.jsonl",
    }  # fmt: skip


def _graph(container: Container) -> dict[str, Any]:
    """Where a container's files are."""
    [root, *_] = container.bundle.rootfs
    words = dict(each.partition("=")[::2] for each in root.options)
    names = {"lowerdir": "LowerDir", "upperdir": "UpperDir", "workdir": "WorkDir"}
    return {"Name": root.type, "Data": {title: words[name] for name, title in names.items() if name in words} or None}


def version_document() -> dict[str, Any]:
    """What `version` tells, in docker's names: one program is client and server."""
    machine = Platform.here()
    said = {
        "Version": __version__, "Os": machine.os, "Arch": machine.architecture, "KernelVersion": os.uname().release,
        "PythonVersion": sys.version.partition(" ")[0],
    }  # fmt: skip
    return {"Client": said, "Server": said}


def info_document(engine: Engine) -> dict[str, Any]:
    """What `info` tells, in docker's names."""
    statuses = [each.status for each in engine.containers()]
    machine = os.uname()
    return {
        "Name": machine.nodename,
        "ServerVersion": __version__,
        "Containers": len(statuses),
        "ContainersRunning": statuses.count("running"),
        "ContainersPaused": 0,
        "ContainersStopped": len(statuses) - statuses.count("running"),
        "Images": len({image.digest for _, image in engine.images()}),
        "Driver": "overlay",
        "DockerRootDir": str(engine.layout.root),
        "KernelVersion": machine.release,
        "OSType": Platform.here().os,
        "Architecture": machine.machine,
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "CgroupVersion": engine.host.cgroup,
        "Profile": engine.profile.name,
        "Isolation": engine.profile.isolation,
    }


def facts(engine: Engine) -> dict[str, str]:
    """What `%nbcontain info` tells."""
    containers = engine.containers()
    driver, why = storage_driver(engine.host, engine.environ, engine.profile)
    return {
        "profile": engine.profile.name,
        "isolation": engine.profile.isolation,
        "store": str(engine.layout.root) + (f" ({engine.place.why})" if engine.place.why else ""),
        "storage driver": driver + (f" ({why})" if why else ""),
        "images": str(len({image.digest for _, image in engine.images()})),
        "containers": f"{len(containers)} ({sum(each.status == 'running' for each in containers)} running)",
        "platform": str(Platform.here()),
        "kernel": engine.host.kernel,
        "cgroup": engine.host.cgroup,
    }
