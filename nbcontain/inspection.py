"""All that is known of an image, a container and an engine, as JSON documents in docker's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcontain.oci import codec, spec_codec
from nbcontain.oci.image import Platform
from nbcontain.oci.indexes import ImageIndex
from nbcontain.runtime.container import Container

if TYPE_CHECKING:
    from nbcontain.engine import Engine


def image_document(engine: Engine, name: str) -> dict[str, Any]:
    """docker's names for what docker has too."""
    image = engine.image(name)
    config = codec.config_to_json(image.config)
    index = engine.store.images.find_index(name)
    return {
        "Id": str(image.id),
        "RepoTags": [str(each.familiar) for each, other in engine.images() if each and other.digest == image.digest],
        "Digest": str(image.digest),
        "Created": image.config.created,
        "Architecture": image.config.platform.architecture,
        "Os": image.config.platform.os,
        **({"Variant": image.config.platform.variant} if image.config.platform.variant else {}),
        "Size": image.size_bytes,
        "Config": config.get("config", {}),
        "RootFS": {
            "Type": "layers",
            "Layers": [str(each.diff_id) for each in image.layers],
            "ChainID": str(image.chain_id or ""),
        },
        **({"Descriptor": _descriptor(index), "Manifests": _manifests(engine, index)} if index else {}),
    }


def _descriptor(index: ImageIndex) -> dict[str, Any]:
    return {"mediaType": index.media_type, "digest": str(index.digest), "size": len(index.raw)}


def _manifests(engine: Engine, index: ImageIndex) -> list[dict[str, Any]]:
    """docker's words for what is in an index, and whether it is here."""
    here = {image.digest for _, image in engine.images()}
    return [
        {
            "ID": str(entry.digest),
            "Descriptor": {"mediaType": entry.media_type, "digest": str(entry.digest), "size": entry.size},
            "Available": entry.digest in here,
            "Kind": "image" if entry.platform is None or entry.platform.os != "unknown" else "attestation",
            "Platform": str(entry.platform or ""),
        }
        for entry in index.entries
    ]


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
