"""One build for several platforms: what each is remembered and shown as."""

from __future__ import annotations

from nbcontain.events import BUILD, Emit, Event, Started
from nbcontain.oci.image import Platform
from nbcontain.values import replace


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
