"""`logs`: what a container wrote, in docker's ways of asking for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.values import Log
from nbcontain.errors import UsageError
from nbcontain.events import Output, Record
from nbcontain.filters import instant
from nbcontain.options import argument, option, with_defaults
from nbcontain.runtime.lifetimes import details
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LogsWords:
    """What `logs` can be told."""

    name: str = argument(help="a container")
    follow: bool = option("-f", "--follow", help="go on until it ends")
    timestamps: bool = option("-t", "--timestamps", help="when each line came")
    tail: str = option("-n", "--tail", help="only the last so many lines", default="all", metavar="N")
    since: str = option("--since", help="from a time on: 10m, a date, or seconds since 1970", metavar="TIME")
    until: str = option("--until", help="to a time", metavar="TIME")
    details: bool = option("--details", help="with the labels and variables that --log-opt names")
    grep: str = option("--grep", help="of these the lines in which this is found", metavar="REGEX")
    stderr: bool = option("--stderr", help="of these what went to standard error")


@command("container", "logs", "what a container wrote, from its first line", LogsWords, top=("logs",))
def container_logs(engine: Engine, words: LogsWords) -> Log:
    container = engine.container(words.name)
    info = container.info
    # docker: a number below zero, and what is none at all but "all", is all.
    count = int(words.tail) if words.tail.isascii() and words.tail.isdecimal() else None
    if count is None and words.tail != "all" and not words.tail.startswith("-"):
        raise UsageError(f"--tail {words.tail}: that is no number of lines", hint="--tail 20, or --tail all")
    if info.log.get("driver") == "none":
        raise UsageError(
            f"{info.name} keeps no log", why="configured logging driver does not support reading (--log-driver none)"
        )
    since = instant(words.since, word="--since") if words.since else None
    until = instant(words.until, word="--until") if words.until else None
    enough = threading.Event()
    records = container.output(follow=words.follow, tail=count, since=since, until=until, enough=enough.is_set)
    if words.grep or words.stderr:
        from nbcontain.logbook import expression, searched

        streams = ("stderr",) if words.stderr else ("stdout", "stderr")
        records = searched(records, expression(words.grep, f"--grep {words.grep}"), streams)
    told = details(info.log, info.labels, container.bundle.spec.process.env) if words.details else {}
    if words.timestamps or words.details:
        records = prefixed(records, told if words.details else None, timestamps=words.timestamps)
    return Log(records, enough.set, f"logs of {container.name}")


def prefixed(records: Iterator[Record], told: Mapping[str, str] | None, *, timestamps: bool) -> Iterator[Record]:
    """Each line with when it came, and what else is known of it, as docker writes them."""
    begins = {"stdout": True, "stderr": True}
    said = ",".join(f"{name}={value}" for name, value in sorted(told.items())) + " " if told is not None else ""
    for record in records:
        event = record.event
        if not isinstance(event, Output):
            continue
        head = ((stamp(record.time) + " " if timestamps else "") + said).encode()
        pieces = _lines(event.data)
        data = b""
        for piece in pieces:
            data += (head if begins[event.stream] else b"") + piece
            begins[event.stream] = piece.endswith(b"\n")
        yield replace(record, event=replace(event, data=data))


def _lines(data: bytes) -> list[bytes]:
    """At line feeds only: a carriage return is a program's own."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


def stamp(at: float) -> str:
    """docker's: RFC 3339 to the nanosecond, in UTC."""
    seconds = int(at)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{round((at - seconds) * 1e6):06d}000Z"
