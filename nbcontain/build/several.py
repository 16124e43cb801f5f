"""One build for several platforms: what each is remembered and shown as, and how the index of them is handed out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nbcontain.build.outputs import Output
from nbcontain.build.request import BuildOptions
from nbcontain.errors import UsageError
from nbcontain.events import BUILD, Emit, Event, Started
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.values import replace


def checked(options: BuildOptions) -> None:
    """Whether an index can be handed out as it is asked for. Raises UsageError."""
    for output in options.outputs:
        if output.destination and output.kind != "local":
            raise UsageError(
                f"-o type={output.kind} is for one platform",
                hint="-o DIR makes a directory per platform; save writes the index to a file afterwards",
            )
    if options.provenance is not None:
        raise UsageError("--provenance is for one platform", hint="build the platforms one by one")


def record_name(name: str, platform: Platform | None) -> str:
    """What a build is remembered under: of several platforms only the first has the image's own name."""
    if platform is None or not name or name.startswith("/"):
        return name
    repository, _, tag = name.rpartition(":")
    return f"{repository}-{str(platform).replace('/', '-')}:{tag}"


def told_apart(emit: Emit, platform: Platform) -> Emit:
    """Steps of one of several platforms, each with a name of its own."""

    def told(event: Event) -> None:
        if event.task != BUILD:
            event = replace(event, task=f"{platform} {event.task}")
        if isinstance(event, Started) and event.parent == BUILD:
            event = replace(event, name=f"[{platform}] {event.name}")
        emit(event)

    return told


def hand_out(
    images: Sequence[Image], index: ImageIndex, names: Sequence[Reference], options: BuildOptions,
    write: Callable[[Output, Image], None], push: Callable[[Reference, ImageIndex], object],
) -> None:  # fmt: skip
    """Everything that was asked for besides the index in the store, as BuildKit does it."""
    from nbcontain.build import exports

    for output in options.outputs:
        for image in images if output.kind == "local" else ():
            directory = str(image.config.platform).replace("/", "_")
            write(replace(output, destination=str(Path(output.destination, directory))), image)
        for name in output.targets(names) if output.push else ():
            push(name, index)
    if options.id_file:
        exports.write_text(options.id_file, str(index.digest))
    if options.metadata_file:
        exports.write_metadata(options.metadata_file, _metadata(index, names))


def _metadata(index: ImageIndex, names: Sequence[Reference]) -> dict[str, Any]:
    digest = str(index.digest)
    return {
        "containerimage.descriptor": {"mediaType": index.media_type, "digest": digest, "size": len(index.raw)},
        "containerimage.digest": digest,
        **({"image.name": ",".join(map(str, names))} if names else {}),
    }
