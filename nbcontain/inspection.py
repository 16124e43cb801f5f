"""All that is known of an image, a container and an engine, as JSON documents in docker's names."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from nbcontain import __version__
from nbcontain.oci import codec, spec_codec
from nbcontain.oci.image import Platform
from nbcontain.runtime.container import Container

if TYPE_CHECKING:
    from nbcontain.engine import Engine


def image_document(engine: Engine, name: str) -> dict[str, Any]:
    """docker's names for what docker has too. Size is that of the layers as they are stored."""
    image = engine.image(name)
    config = codec.config_to_json(image.config)
    names = [each for each, other in engine.images() if each and other.digest == image.digest]
    return {
        "Id": str(image.id),
        "RepoTags": [each.familiar for each in names],
        "RepoDigests": list(dict.fromkeys(f"{each.familiar_repository}@{image.digest}" for each in names)),
        "Digest": str(image.digest),
        "Parent": "",
        "Comment": image.config.history[-1].comment if image.config.history else "",
        "Created": image.config.created,
        "Author": image.config.author,
        "Architecture": image.config.platform.architecture,
        "Variant": image.config.platform.variant,
        "Os": image.config.platform.os,
        "Size": image.size_bytes,
        "Config": _config(config.get("config", {})),
        "RootFS": {
            "Type": "layers",
            "Layers": [str(each.diff_id) for each in image.layers],
            "ChainID": str(image.chain_id or ""),
        },
        "Metadata": {"LayerSizes": [each.descriptor.size for each in image.layers]},
    }


def _config(said: Any) -> dict[str, Any]:
    """A config in which everything that people ask a template for is there, though it may be nothing."""
    empty: dict[str, Any] = {"User": "", "Env": [], "Cmd": None, "Entrypoint": None, "WorkingDir": "", "Labels": {}}
    return {**empty, "Volumes": None, **said}


def container_document(engine: Engine, container: Container, *, size: bool = False) -> dict[str, Any]:
    """docker's names for what docker has too; Spec is the runtime specification's document."""
    state, info = container.state(), container.info
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
            "Status": status,
            "Running": status == "running",
            "Paused": False,
            "Dead": status == "lost",
            "Pid": state.pid if status == "running" else 0,
            "ExitCode": state.exit_code,
            "StartedAt": state.started_at,
            "FinishedAt": state.finished_at,
            "Error": state.error,
        },
        "Labels": dict(info.labels),
        "Config": {"Image": container.image, "Labels": dict(info.labels), "Cmd": list(info.command)},
        "Bundle": str(container.bundle.path),
        "Isolation": engine.profile.describe(engine.host),
        "Spec": spec_codec.spec_to_json(container.bundle.spec),
    }
    if size:
        from nbcontain.store.gc import size_on_disk

        document["SizeRw"] = size_on_disk(engine.layout.active(container.id) / "fs")
        document["SizeRootFs"] = document["SizeRw"] + sum(
            {image.id: image.size_bytes for _, image in engine.images() if str(image.id) == info.image_id}.values()
        )
    return document


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
    return {
        "profile": engine.profile.name,
        "isolation": engine.profile.isolation,
        "store": str(engine.layout.root),
        "images": str(len({image.digest for _, image in engine.images()})),
        "containers": f"{len(containers)} ({sum(each.status == 'running' for each in containers)} running)",
        "platform": str(Platform.here()),
        "kernel": engine.host.kernel,
        "cgroup": engine.host.cgroup,
    }
