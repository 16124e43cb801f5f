"""What happened to an engine's objects, and what happens from now on: docker's events. `engine.events`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nbcontain.filters import Filters, instant
from nbcontain.segments import Reader
from nbcontain.store import events_log, files

if TYPE_CHECKING:
    from pathlib import Path

    from nbcontain.engine import Engine
    from nbcontain.linux.watching import Watch
    from nbcontain.runtime.container import Container

FILTERS = (
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
    "service", "type", "volume",
)  # fmt: skip
_LATE_S = 0.05
"""Two who write at the same time may do so in the other order."""

Happening = Mapping[str, Any]
"""One event, in docker's names: Type, Action, Actor {ID, Attributes}, scope, time, timeNano."""


class Events:
    """Telling of events, and hearing of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _path(self) -> Path:
        return self._engine.layout.events

    def record(
        self, kind: str, action: str, object_id: str, attributes: Mapping[str, str] | None = None, then: str = ""
    ) -> None:
        """Tell everybody that `action` happened to an object (see `events_log`).

        `kind` is docker's Type (container, image, volume, network, builder), `action` docker's Action; `then` is
        another one that follows at once.
        """
        events_log.record(self._path, kind, action, object_id, attributes or {}, then=then)

    def container(self, container: Container, action: str, then: str = "", **attributes: str) -> None:
        """The same of a container, with what docker says of one in every event."""
        with suppress(OSError, ValueError):
            info = container.info
            told = {**info.labels, "image": info.image, "name": info.name, **attributes}
            self.record("container", action, container.id, told, then)

    def between(
        self, since: str = "", until: str = "", filters: Sequence[str] = (), *, follow: bool = True
    ) -> Generator[Happening | None]:
        """Events in their order; with `follow` also those to come, for ever or to the time `until`.

        Times are durations before now, dates or seconds, as docker's. None comes several times a second while nothing
        happens, so that who follows can stop. Raises UsageError.
        """
        chosen = Filters.parse(filters, FILTERS)
        begin = instant(since, word="--since") if since else None
        end = instant(until, word="--until") if until else None
        files.make_directory(self._path.parent, durable=False)
        from nbcontain.linux.watching import Watch

        watch = Watch(self._path.parent)
        # Without --since, what was before is nobody's business, as with docker; unless it is all that is asked for.
        # Opened now, so that what happens from here on is heard whenever somebody begins to listen.
        reader = Reader(self._path, from_now=begin is None and end is None and follow)
        return self._heard(watch, reader, begin, end, _Choice(chosen), follow)

    def _heard(
        self, watch: Watch, reader: Reader, begin: float | None, end: float | None, choice: _Choice, follow: bool
    ) -> Generator[Happening | None]:
        try:
            rest = b""
            while True:
                has_come = False
                while data := reader.chunk():
                    has_come = True
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        event = _read(line)
                        if event is None or (begin is not None and event["timeNano"] < begin * 1e9):
                            continue
                        if end is not None and event["timeNano"] > end * 1e9:
                            continue
                        if choice.holds(event):
                            yield event
                if not has_come and (not follow or (end is not None and time.time() > end + _LATE_S)):
                    return
                if not has_come:
                    yield None
                    wait_s = 0.2 if end is None else min(0.2, max(0.01, end + _LATE_S - time.time()))
                    watch.wait(wait_s)
        finally:
            reader.close()
            watch.close()


def _read(line: bytes) -> Happening | None:
    """The event of a line; None for what is none."""
    try:
        event = json.loads(line)
        actor = event["Actor"]
        is_one = isinstance(event["timeNano"], int) and isinstance(actor["ID"], str)
        is_one = is_one and isinstance(actor["Attributes"], dict) and isinstance(event["Action"], str)
        return event if is_one and isinstance(event["Type"], str) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


class _Choice:
    """docker's filters of events: values of one name are alternatives, names are conditions; all labels must hold."""

    def __init__(self, filters: Filters) -> None:
        self._wanted = {name: filters.all(name) for name in FILTERS if filters.all(name)}
        self._filters = filters
        self._kinds = [
            name for name in ("container", "image", "network", "volume", "daemon", "plugin", "service", "node",
                              "secret", "config")
            if name in self._wanted
        ]  # fmt: skip

    def holds(self, event: Happening) -> bool:
        attributes = event["Actor"]["Attributes"]
        if (actions := self._wanted.get("event")) and not any(_is_action(event["Action"], each) for each in actions):
            return False
        if (kinds := self._wanted.get("type")) and event["Type"] not in kinds:
            return False
        if (scopes := self._wanted.get("scope")) and event.get("scope") not in scopes:
            return False
        if not self._filters.labels_hold(attributes):
            return False
        return all(self._names(event, kind) for kind in self._kinds)

    def _names(self, event: Happening, kind: str) -> bool:
        """Whether the object is one of those that were asked for, by name, id, or the beginning of its id."""
        actor, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
        wanted = self._wanted[kind]
        if kind == "image":
            # docker: of containers too that are made of it; with a tag or without.
            named = [actor, attributes.get("name", "")] if event["Type"] == "image" else [attributes.get("image", "")]
            if event["Type"] not in ("image", "container"):
                return False
            return any(each in wanted or _untagged(each) in wanted for each in named if each)
        if event["Type"] != kind:
            # Of networks and volumes, what containers do with them.
            return kind == "container" and attributes.get("container", "") in wanted
        return any(actor == each or attributes.get("name") == each or (each and actor.startswith(each))
                   for each in wanted)  # fmt: skip


def _is_action(action: str, wanted: str) -> bool:
    """docker's: "health_status" stands for "health_status: healthy" too, "exec_start" for "exec_start: ls"."""
    return action == wanted or action.startswith(f"{wanted}:")


def _untagged(name: str) -> str:
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail and not re.fullmatch(r"[0-9a-f]{64}", tail) else name
