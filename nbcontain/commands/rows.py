"""What --format can ask of an image, a container, a layer: docker's fields and docker's titles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nbcontain.display.formats import lasting, shortened, since, size_shown, timestamp_shown
from nbcontain.display.template_functions import Method
from nbcontain.filters import moment
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.runtime.bundle import State
from nbcontain.runtime.container import Container

if TYPE_CHECKING:
    from nbcontain.engine import Engine

Row = dict[str, object]

IMAGE_TITLES = {
    "ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
}  # fmt: skip
CONTAINER_TITLES = {
    "ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE",
    "Labels": "LABELS", "Label": "", "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS",
}  # fmt: skip
HISTORY_TITLES = {
    "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
    "Comment": "COMMENT",
}  # fmt: skip


def image_row(
    name: Reference | None, image: Image, digest: Digest, unique_bytes: int | None, containers: int | None,
    *, full: bool,
) -> Row:  # fmt: skip
    """One line of `images`. `digest` is a registry's. Sizes are those of the layers as they are stored."""
    unique = "N/A" if unique_bytes is None else size_shown(unique_bytes)
    shared = "N/A" if unique_bytes is None else size_shown(image.size_bytes - unique_bytes)
    return {
        "ID": str(image.id) if full else image.id.short,
        "Repository": name.familiar_repository if name else "<none>",
        "Tag": (name.tag if name else None) or "<none>",
        "Digest": str(digest),
        "CreatedSince": since(image.config.created),
        "CreatedAt": timestamp_shown(image.config.created),
        "Size": size_shown(image.size_bytes),
        "VirtualSize": size_shown(image.size_bytes),
        "Containers": "N/A" if containers is None else str(containers),
        "SharedSize": shared,
        "UniqueSize": unique,
    }


def state_word(container: Container, status: str) -> str:
    """docker's word for the state of a container of this status."""
    return "dead" if status == "lost" else "paused" if status == "running" and container.is_paused else status


def container_row(
    container: Container, status: str, state: State, size_bytes: tuple[int, int] | None, reach: tuple[str, str],
    *, full: bool,
) -> Row:  # fmt: skip
    """One line of `ps`. `size_bytes` is what it wrote, and that with its image; `reach` its ports and networks."""
    ports, networks = reach
    info = container.info
    # docker's own quoting, of blanks only.
    command = " ".join(f"'{word}'" if " " in word else word for word in info.command)
    mounts = [str(each.get("Name") or each.get("Source", "")) for each in info.mounts]
    size = f"{size_shown(size_bytes[0])} (virtual {size_shown(size_bytes[1])})" if size_bytes else "0B"
    return {
        "ID": container.id if full else container.id[:12],
        "Names": container.name,
        "Image": container.image,
        "Command": f'"{command if full else shortened(command, 20)}"',
        "CreatedAt": timestamp_shown(info.created),
        "RunningFor": since(info.created),
        "Ports": ports,
        "State": state_word(container, status),
        "Status": status_shown(container, status, state),
        "Size": size,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(info.labels.items())),
        "Label": Method(lambda name: info.labels.get(name, "") if isinstance(name, str) else ""),
        "Mounts": ",".join(mounts if full else (shortened(each, 15) for each in mounts)),
        "LocalVolumes": str(sum(each.get("Driver") == "local" for each in info.mounts)),
        "Networks": networks,
    }


def status_shown(container: Container, status: str, state: State) -> str:
    """docker's Status, in its very words: "Up About a minute"."""
    import time

    now = time.time()
    match status:
        case "running":
            return f"Up {lasting(now - (state.started_at or now))}{condition(container)}"
        case "restarting":
            return f"Restarting ({state.exit_code or 0}) {lasting(now - (state.finished_at or now))} ago"
        case "exited":
            code = 255 if state.exit_code is None else state.exit_code
            return f"Exited ({code}) {lasting(now - (state.finished_at or now))} ago"
        case "lost":
            return "Dead"
        case _:
            return "Created"


def condition(container: Container) -> str:
    """What docker says of a running one behind how long it has been up: paused, or how its health is."""
    if container.is_paused:
        return " (Paused)"
    health = container.health()
    if health is None:
        return ""
    return " (health: starting)" if health["Status"] == "starting" else f" ({health['Status']})"


def history_rows(image: Image, *, full: bool, human: bool) -> list[Row]:
    """The lines of `history`, newest first. Only the newest is an image: that is the whole."""
    rows: list[Row] = []
    for number, (entry, layer) in enumerate(reversed(image.steps)):
        size_bytes = layer.descriptor.size if layer else 0
        by = entry.created_by.replace("\t", " ")
        rows.append({
            "ID": (str(image.id) if full else image.id.short) if not number else "<missing>",
            "CreatedAt": _rfc3339(entry.created),
            "CreatedSince": since(entry.created) if human else _rfc3339(entry.created),
            "CreatedBy": by if full else shortened(by, 45),
            "Size": size_shown(size_bytes) if human else str(size_bytes),
            "Comment": entry.comment,
        })  # fmt: skip
    return rows


def _rfc3339(created: str) -> str:
    """In the zone that is set here, to the second, as docker's time.Local does."""
    from datetime import datetime

    if moment(created) == float("-inf"):
        return "0001-01-01T00:00:00Z"
    text = datetime.fromtimestamp(int(moment(created))).astimezone().isoformat(timespec="seconds")
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def unique_bytes(images: Sequence[Image]) -> Mapping[bytes, int]:
    """Per manifest, as it is written, the bytes of layers that no other image here has."""
    layers_of = {image.raw_manifest: {layer.digest: layer.size for layer in image.manifest.layers} for image in images}
    users = Counter(digest for layers in layers_of.values() for digest in layers)
    return {
        manifest: sum(size_bytes for digest, size_bytes in layers.items() if users[digest] == 1)
        for manifest, layers in layers_of.items()
    }


def container_counts(engine: Engine) -> Mapping[str, int]:
    """Per image id, how many containers are made of it."""
    counts: dict[str, int] = {}
    for each in engine.containers():
        counts[each.info.image_id] = counts.get(each.info.image_id, 0) + 1
    return counts
