"""`events`: what happened to containers, images, volumes and networks, and what happens from now on."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nbcontain.commands.table import command
from nbcontain.display.formats import Format
from nbcontain.display.template import Template
from nbcontain.display.values import InProgress
from nbcontain.errors import UsageError
from nbcontain.events import Emit, Output, Started
from nbcontain.happenings import FILTERS
from nbcontain.options import option, with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class EventsWords:
    """What `events` can be told."""

    since: str = option("--since", help="those from a time on: 10m, a date, or seconds since 1970", metavar="TIME")
    until: str = option("--until", help="to a time, and then end", metavar="TIME")
    filters: tuple[str, ...] = option("-f", "--filter", help=f"only those: {', '.join(FILTERS)}",
                                      metavar="NAME=VALUE")  # fmt: skip
    format: str = option("--format", help="json, or a template for each", metavar="json|TEMPLATE")


@command("system", "events", "what happens to containers, images, volumes and networks", EventsWords, (), ("events",))
def events(engine: Engine, words: EventsWords) -> InProgress[None]:
    wanted = Format.parse(words.format)
    if wanted.is_table and words.format:
        raise UsageError("events --format table is not there", why="what goes on has no last line", hint="json")
    heard = engine.events.between(words.since, words.until, words.filters)
    is_over = threading.Event()

    def body(emit: Emit) -> None:
        emit(Started("events", "events"))
        for event in heard:
            if is_over.is_set():
                heard.close()
                return
            if event is not None:
                emit(Output("events", "stdout", f"{shown(event, wanted.template)}\n".encode(errors="backslashreplace")))

    task = Task("events", body)
    task.on_cancel(is_over.set)
    return InProgress(task, "exec")


def shown(event: Mapping[str, Any], template: Template | None) -> str:
    """One event as docker writes it."""
    if template is None:
        return line(event)
    if template.text == "{{json .}}":
        return json.dumps(document(event), separators=(",", ":"), ensure_ascii=False)
    kept = document(event)
    fields = {
        "Type": event["Type"], "Action": event["Action"], "Actor": event["Actor"], "Scope": event.get("scope", ""),
        "Time": event["time"], "TimeNano": event["timeNano"], "Status": kept.get("status", ""),
        "ID": kept.get("id", ""), "From": kept.get("from", ""),
    }  # fmt: skip
    return template.render(fields)


def document(event: Mapping[str, Any]) -> dict[str, Any]:
    """With what docker says again in the names of its first years, of containers and images."""
    old: dict[str, Any] = {}
    if event["Type"] in ("container", "image"):
        old = {"status": event["Action"], "id": event["Actor"]["ID"]}
        if event["Type"] == "container" and (image := event["Actor"]["Attributes"].get("image")):
            old["from"] = image
    return {**old, **event}


def line(event: Mapping[str, Any]) -> str:
    """docker's line: time, type, action, id, and what else is known, sorted."""
    from datetime import datetime

    seconds, nanoseconds = divmod(event["timeNano"], 10**9)
    then = datetime.fromtimestamp(seconds).astimezone()
    zone = then.strftime("%z")
    at = f"{then:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}" + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(event["Actor"]["Attributes"].items()))
    told = f" ({attributes})" if attributes else ""
    return f"{at} {event['Type']} {event['Action']} {event['Actor']['ID']}{told}"
