"""The commands that tell of compose projects: which there are, what their containers are, use and do."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from nbcontain import __version__
from nbcontain.commands.compose import ComposeWords, ServiceWords
from nbcontain.commands.compose_rows import TITLES, compose_row, compose_table
from nbcontain.commands.events import EventsWords, events
from nbcontain.commands.networks import PortWords, container_port
from nbcontain.commands.resources import StatsWords, container_stats
from nbcontain.commands.rows import state_word
from nbcontain.commands.table import FORMAT_HELP, command
from nbcontain.commands.volumes import ListWords, volume_ls
from nbcontain.compose import model
from nbcontain.display.formats import Columns, Format
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Lines
from nbcontain.display.words import ago, count, size
from nbcontain.errors import BadReference, UsageError
from nbcontain.oci.reference import Reference
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PsWords(ServiceWords):
    all: bool = option("-a", "--all", help="stopped ones too, and those that `run` made")
    quiet: bool = option("-q", "--quiet", help="only ids")
    only_services: bool = option("--services", help="only the services' names")
    status: tuple[str, ...] = option("--status", help=f"only those: {', '.join(_STATES)}", metavar="STATE")
    filters: tuple[str, ...] = option("--filter", help="status=STATE, which is --status", metavar="NAME=VALUE")
    format: str = option("--format", help=FORMAT_HELP, metavar="table {{.Name}}…|json|TEMPLATE")
    no_trunc: bool = option("--no-trunc", help="ids and commands in full")

    @property
    def states(self) -> tuple[str, ...]:
        """Those that are asked for; none for those that run. Raises UsageError."""
        for each in self.filters:
            if not each.startswith("status="):
                raise UsageError(f"compose ps --filter {each}: there is no such filter", hint="--filter status=exited")
        states = (*self.status, *(each.partition("=")[2] for each in self.filters))
        for each in states:
            if each not in _STATES:
                raise UsageError(f"compose ps --status {each}: there is no such state", hint=", ".join(_STATES))
        return states


@command("compose", "ps", "list a project's containers", PsWords)
def compose_ps(engine: Engine, words: PsWords) -> Table | Lines | Columns:
    wanted = Format.parse(words.format)
    states = words.states or (() if words.all else ("running", "restarting", "paused"))
    name = engine.compose.name(words.source)
    found = [
        each for each in engine.compose.containers(name, words.services, one_offs=words.all)
        if not states or state_word(each, each.status) in states
    ]  # fmt: skip
    if words.quiet:
        return Lines(tuple(each.id for each in found))
    if words.only_services:
        return Lines(tuple(dict.fromkeys(each.info.labels.get(model.SERVICE, "") for each in found)))
    if wanted.template is not None:
        return wanted.of([compose_row(engine, each, full=words.no_trunc) for each in found], TITLES, "containers")
    return compose_table(engine, name, found, full=words.no_trunc)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LsWords(ComposeWords):
    all: bool = option("-a", "--all", help="those of which nothing runs, too")
    quiet: bool = option("-q", "--quiet", help="only names")
    filters: tuple[str, ...] = option("--filter", help="name=PART: those whose names have it", metavar="NAME=VALUE")
    format: str = option("--format", help="table or json", default="table", metavar="table|json")


@command("compose", "ls", "list the projects that run", LsWords)
def compose_ls(engine: Engine, words: LsWords) -> Table | Lines:
    parts = [each.removeprefix("name=") for each in words.filters]
    if any(not each.startswith("name=") for each in words.filters):
        raise UsageError(f"compose ls --filter {words.filters[0]}: there is no such filter", hint="--filter name=shop")
    rows = []
    for name, containers in engine.compose.all().items():
        states = Counter(state_word(each, each.status) for each in containers)
        if all(part in name for part in parts) and (words.all or states["running"]):
            shown = states if words.all else {"running": states["running"]}
            status = ", ".join(f"{state}({number})" for state, number in sorted(shown.items()))
            rows.append((name, status, containers[0].info.labels.get(model.FILES, "")))
    if words.quiet:
        return Lines(tuple(name for name, *_ in rows))
    if _is_json(words.format, "ls"):
        return _json([dict(zip(("Name", "Status", "ConfigFiles"), row, strict=True)) for row in rows])
    columns = ("NAME", "STATUS", Column("CONFIG FILES", lambda files: files or "a notebook's cell", look="wide"))
    return Table(columns, tuple(rows), count(len(rows), "project"), "projects")


def _is_json(text: str, verb: str) -> bool:
    if text not in ("json", "table"):
        raise UsageError(f"compose {verb} --format {text}: there is no such format", hint="table or json")
    return text == "json"


def _json(rows: object) -> Lines:
    return Lines((json.dumps(rows, separators=(",", ":"), ensure_ascii=False),))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImagesWords(ServiceWords):
    quiet: bool = option("-q", "--quiet", help="only ids")
    format: str = option("--format", help="table or json", default="table", metavar="table|json")


@command("compose", "images", "list the images that a project's containers are made of", ImagesWords)
def compose_images(engine: Engine, words: ImagesWords) -> Table | Lines:
    name = engine.compose.name(words.source)
    containers = sorted(engine.compose.containers(name, words.services, one_offs=True), key=lambda each: each.name)
    here = {str(image.id): image for _, image in engine.images()}
    found = [(each, here.get(each.info.image_id)) for each in containers]
    if words.quiet:
        return Lines(tuple(dict.fromkeys(each.info.image_id.partition(":")[2] for each, _ in found)))
    rows = []
    for each, image in found:
        repository, tag = _named(each.image)
        platform = str(image.config.platform) if image is not None else ""
        rows.append((
            each.name, repository, tag, platform, each.info.image_id, image.size_bytes if image is not None else 0,
            image.config.created if image is not None else "",
        ))  # fmt: skip
    if _is_json(words.format, "images"):
        keys = ("ContainerName", "Repository", "Tag", "Platform", "ID", "Size", "Created")
        return _json([dict(zip(keys, row, strict=True)) for row in rows])
    columns = (
        "CONTAINER", "REPOSITORY", "TAG", "PLATFORM",
        Column("IMAGE ID", lambda text: text.partition(":")[2][:12], look="code"), Column("SIZE", size, "num"),
        Column("CREATED", ago),
    )  # fmt: skip
    return Table(columns, tuple(rows), count(len(rows), "container"), "images")


def _named(image: str) -> tuple[str, str]:
    """An image's repository and tag, as docker compose shows them; what is an id has no tag."""
    try:
        reference = Reference.parse(image)
    except BadReference:
        return image, "<none>"
    return reference.familiar_repository, reference.tag or "<none>"


@command("compose", "top", "the processes of a project's containers", ServiceWords)
def compose_top(engine: Engine, words: ServiceWords) -> Table:
    from nbcontain.processes import columns

    chosen = columns(())
    rows = []
    for each in engine.compose.containers(engine.compose.name(words.source), words.services):
        if each.status == "running":
            labels = each.info.labels
            whose = (labels.get(model.SERVICE, ""), labels.get(model.NUMBER, "1"))
            rows += [(*whose, *(value(one) for _, value in chosen)) for one in engine.processes.of(each)]
    return Table(("SERVICE", "#", *(title for title, _ in chosen)), tuple(rows), "", "processes")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposePortWords(ComposeWords):
    protocol: str = option("--protocol", help="tcp or udp", default="tcp")
    index: int = option("--index", help="which of the service's containers", default=1, metavar="NUMBER")
    service: str = argument(help="a service", metavar="SERVICE")
    port: str = argument(help="a port of its containers", metavar="PORT")


@command("compose", "port", "which port of this machine leads to a service's", ComposePortWords)
def compose_port(engine: Engine, words: ComposePortWords) -> object:
    container = engine.compose.container(engine.compose.name(words.source), words.service, words.index)
    return container_port(engine, PortWords(name=container.id, port=f"{words.port}/{words.protocol}"))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposeStatsWords(ServiceWords):
    all: bool = option("-a", "--all", help="those that do not run, too")
    format: str = option("--format", help=FORMAT_HELP, metavar="table {{.Name}}…|json|TEMPLATE")
    no_stream: bool = option("--no-stream", help="one look, and no more")
    no_trunc: bool = option("--no-trunc", help="ids in full")


@command("compose", "stats", "what a project's containers use of the machine, again and again", ComposeStatsWords)
def compose_stats(engine: Engine, words: ComposeStatsWords) -> object:
    name = engine.compose.name(words.source)
    found = engine.compose.containers(name, words.services)
    shown = [each for each in found if words.all or each.status == "running"]
    if not shown:
        raise UsageError(f"nothing of the project {name} runs", hint="%compose up -d")
    return container_stats(engine, StatsWords(
        names=tuple(each.id for each in shown), all=words.all, format=words.format, no_stream=words.no_stream,
        no_trunc=words.no_trunc,
    ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class VolumesWords(ComposeWords):
    quiet: bool = option("-q", "--quiet", help="only names")
    format: str = option("--format", help=FORMAT_HELP, metavar="table {{.Name}}…|json|TEMPLATE")


@command("compose", "volumes", "list a project's volumes", VolumesWords)
def compose_volumes(engine: Engine, words: VolumesWords) -> object:
    filters = (f"label={model.PROJECT}={engine.compose.name(words.source)}",)
    return volume_ls(engine, ListWords(quiet=words.quiet, filters=filters, format=words.format))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposeEventsWords(ComposeWords):
    since: str = option("--since", help="those from a time on: 10m, a date, or seconds since 1970", metavar="TIME")
    until: str = option("--until", help="to a time, and then end", metavar="TIME")
    json: bool = option("--json", help="as docker events has them in JSON")


@command("compose", "events", "what happens to a project's containers", ComposeEventsWords)
def compose_events(engine: Engine, words: ComposeEventsWords) -> object:
    filters = ("type=container", f"label={model.PROJECT}={engine.compose.name(words.source)}")
    return events(engine, EventsWords(
        since=words.since, until=words.until, filters=filters, format="json" if words.json else "",
    ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class VersionWords(ComposeWords):
    format: str = option("--format", help="pretty or json", default="pretty", metavar="pretty|json")
    short: bool = option("--short", help="the number alone")


@command("compose", "version", "this program's version", VersionWords)
def compose_version(engine: Engine, words: VersionWords) -> Lines:
    if words.format not in ("pretty", "json"):
        raise UsageError(f"compose version --format {words.format}: there is no such format", hint="pretty or json")
    if words.format == "json":
        return _json({"version": __version__})
    return Lines((__version__ if words.short else f"nbcontain {__version__}",))
