"""All that is known of an image, a container and an engine, as JSON documents in docker's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcontain.oci import codec, spec_codec
from nbcontain.oci.image import Platform
from nbcontain.runtime.container import Container

if TYPE_CHECKING:
    from nbcontain.engine import Engine


def image_document(engine: Engine, name: str) -> dict[str, Any]:
    """docker's names for what docker has too."""
    image = engine.image(name)
    config = codec.config_to_json(image.config)
    return {
        "Id": str(image.id),
        "RepoTags": [each.familiar for each in engine.store.images.names(image.digest)],
        "Digest": str(image.digest),
        "Created": image.config.created,
        "Architecture": image.config.platform.architecture,
        "Os": image.config.platform.os,
        "Size": image.size_bytes,
        "Config": config.get("config", {}),
        "RootFS": {
            "Type": "layers",
            "Layers": [str(each.diff_id) for each in image.layers],
            "ChainID": str(image.chain_id or ""),
        },
    }


def container_document(engine: Engine, container: Container) -> dict[str, Any]:
    """docker's names for what docker has too; Spec is the runtime specification's document."""
    state, info = container.state(), container.info
    return {
        "Id": container.id,
        "Name": container.name,
        "Image": info.image_id,
        "ImageName": container.image,
        "Created": info.created,
        "Path": info.command[0] if info.command else "",
        "Args": list(info.command[1:]),
        "State": {
            "Status": container.status,
            "Pid": state.pid if container.status == "running" else 0,
            "ExitCode": state.exit_code,
            "StartedAt": state.started_at,
            "FinishedAt": state.finished_at,
            "Error": state.error,
        },
        "Labels": dict(info.labels),
        "Bundle": str(container.bundle.path),
        "Isolation": engine.profile.describe(engine.host),
        "Spec": spec_codec.spec_to_json(container.bundle.spec),
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
