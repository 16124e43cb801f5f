"""The commands on volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from nbcontain.commands.images import inspected
from nbcontain.commands.table import FORMAT_HELP, command, docker_line, existence, of_each
from nbcontain.display.formats import Format, size_shown
from nbcontain.display.table import Column, Table, Watched
from nbcontain.display.values import Confirm, Document, InProgress, Lines, Verdict
from nbcontain.display.words import ago, count, size, without_asking
from nbcontain.errors import UsageError, VolumeNotFound
from nbcontain.events import Emit
from nbcontain.filters import VOLUMES
from nbcontain.options import argument, labels_of, option, with_defaults
from nbcontain.store.volumes import Volume
from nbcontain.task import Task
from nbcontain.values import dataclass
from nbcontain.volumes import Removed, Use

if TYPE_CHECKING:
    from nbcontain.engine import Engine

TITLES = {
    "Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
    "Links": "LINKS", "Size": "SIZE", "CreatedAt": "CREATED AT", "Availability": "AVAILABILITY", "Group": "GROUP",
    "Status": "STATUS",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CreateWords:
    name: str = argument(help="what to call it; without one it is anonymous", nargs="?", default="")
    name_too: str = option("--name", help="docker's old word for the same", metavar="NAME")
    driver: str = option("-d", "--driver", help="local, which is the only one", default="local")
    labels: tuple[str, ...] = option("--label", help="NAME=value, for people and programs", metavar="NAME=VALUE")
    options: tuple[str, ...] = option(
        "-o", "--opt", help="type=, device= and o=, as mount(8) knows them", metavar="NAME=VALUE"
    )
    ignore: bool = option("--ignore", help="it may be there already, which it may in any case")


@command("volume", "create", "make a volume", CreateWords)
def volume_create(engine: Engine, words: CreateWords) -> Lines:
    options = dict(_pair(each, "--opt") for each in words.options)
    if words.name and words.name_too:
        raise UsageError("volume create: the name is told twice", hint="volume create NAME")
    name = words.name or words.name_too
    made = engine.volumes.create(name, driver=words.driver, labels=labels_of(words.labels), options=options)
    return Lines((made.name,))


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{flag} {text}: that is no option", hint=f"{flag} type=tmpfs")
    return name, value


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ListWords:
    quiet: bool = option("-q", "--quiet", help="only names")
    filters: tuple[str, ...] = option("-f", "--filter", help=f"only those: {', '.join(VOLUMES)}", metavar="NAME=VALUE")
    format: str = option("--format", help=FORMAT_HELP, metavar="table {{.Name}}…|json|TEMPLATE")
    size: bool = option("-s", "--size", help="what each takes of the disk")


@command("volume", "ls", "list volumes", ListWords, aliases=("list",))
def volume_ls(engine: Engine, words: ListWords) -> object:
    wanted = Format.parse(words.format)
    found = engine.volumes.all(words.filters)
    if words.quiet and wanted.template is None:
        return Lines(tuple(each.name for each in found))
    if wanted.template is not None:
        return wanted.of([_row(each) for each in found], TITLES, "volumes")
    uses = engine.volumes.uses()
    columns = (
        Column("NAME", look="code"), "DRIVER", Column("CREATED", ago), Column("USED BY", look="wide"),
        *((Column("SIZE", size, "num"),) if words.size else ()),
    )  # fmt: skip
    rows = [
        (_short(each), each.driver, each.created, _used_by(uses.get(each.name, ())),
         *((engine.volumes.size_bytes(each),) if words.size else ()))
        for each in found
    ]  # fmt: skip
    unused = sum(each.name not in uses for each in found)
    # Without -a prune takes only those that nobody has named.
    footer = count(len(found), "volume") + (f" · {unused} unused  (%volume prune -a)" if unused else "")
    line = "" if words.size else docker_line("volume ls", words)  # docker's lists no sizes
    return Watched(columns, rows, footer, "volumes", command=line,
                   again=lambda: cast(Watched, volume_ls(engine, words)), kinds=("volume", "container"))  # fmt: skip


def _short(volume: Volume) -> str:
    return volume.name[:12] + "…" if volume.is_anonymous and len(volume.name) == 64 else volume.name


def _used_by(uses: Sequence[Use]) -> str:
    return ", ".join(f"{each.container.name}:{each.target}{' (ro)' * each.is_readonly}" for each in uses)


def _row(volume: Volume) -> dict[str, object]:
    return {
        "Name": volume.name, "Driver": volume.driver, "Scope": "local", "Mountpoint": volume.mountpoint,
        "Labels": ",".join(f"{name}={value}" for name, value in volume.labels.items()), "Links": "N/A", "Size": "N/A",
        "CreatedAt": volume.created, "Availability": "N/A", "Group": "N/A", "Status": "N/A",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class VolumeNames:
    names: tuple[str, ...] = argument(help="volumes", nargs="+", metavar="VOLUME")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class InspectWords(VolumeNames):
    format: str = option("-f", "--format", help="json, or a template for each", metavar="json|TEMPLATE")


@command("volume", "inspect", "everything that is known of volumes, as JSON", InspectWords)
def volume_inspect(engine: Engine, words: InspectWords) -> Document | Lines:
    return inspected(words.names, lambda name: ("volume", document(engine.volumes.get(name))), words.format)


def document(volume: Volume) -> dict[str, object]:
    """docker's document of a volume."""
    labels: Mapping[str, str] | None = dict(volume.labels) or None
    return {
        "CreatedAt": volume.created, "Driver": volume.driver, "Labels": labels, "Mountpoint": volume.mountpoint,
        "Name": volume.name, "Options": dict(volume.options) or None, "Scope": "local",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RemoveWords(VolumeNames):
    force: bool = option("-f", "--force", help="it may be gone already; one that is in use stays all the same")


@command("volume", "rm", "remove volumes, and all their files", RemoveWords, aliases=("remove",))
def volume_rm(engine: Engine, words: RemoveWords) -> InProgress[Lines]:
    def remove(name: str) -> list[str]:
        try:
            engine.volumes.remove(name)
        except VolumeNotFound:
            if not words.force:
                raise
        return [name]

    return InProgress(Task("volume rm", lambda emit: Lines(of_each(words.names, remove))), "work")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PruneWords:
    all: bool = option("-a", "--all", help="those with names too, not only anonymous ones")
    filters: tuple[str, ...] = option("--filter", help="only those: label, label!, all", metavar="NAME=VALUE")
    force: bool = option("-f", "--force", help="without asking")


@command("volume", "prune", "remove volumes that no container has", PruneWords)
def volume_prune(engine: Engine, words: PruneWords) -> Confirm | InProgress[Lines]:
    def act() -> InProgress[Lines]:
        def body(emit: Emit) -> Lines:
            return told(engine.volumes.prune(all=words.all, filters=words.filters))

        return InProgress(Task("volume prune", body), "work")

    if words.force:
        return act()
    found = engine.volumes.unused(all=words.all, filters=words.filters)
    rows = [(_short(each), each.created, engine.volumes.size_bytes(each)) for each in found]
    what = "all" if words.all else "anonymous"
    again = without_asking("volume prune", words.filters, *["-a"] * words.all)
    footer = f"{count(len(rows), 'volume')} would go. Nothing was removed: {again} does it without asking."
    table = Table((Column("NAME", look="code"), Column("CREATED", ago), Column("SIZE", size, "num")), rows,
                  footer if rows else "There is nothing to remove.", "what volume prune would remove")  # fmt: skip
    warning = f"WARNING! This will remove {what} local volumes not used by at least one container."
    return Confirm((warning,), table, act, "volume prune")


def told(removed: Removed) -> Lines:
    """docker's account of it."""
    lines = ["Deleted Volumes:", *removed.volumes, ""] if removed.volumes else []
    return Lines((*lines, f"Total reclaimed space: {size_shown(removed.size_bytes, 4)}"))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExportWords:
    name: str = argument(help="a volume", metavar="VOLUME")
    output: str = option("-o", "--output", help="where to; standard output unless given", default="-", metavar="FILE")


@command("volume", "export", "write all files of a volume as one tar", ExportWords)
def volume_export(engine: Engine, words: ExportWords) -> InProgress[None]:
    return InProgress(engine.volumes.export(words.name, words.output).then(lambda _: None), "work")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImportWords:
    name: str = argument(help="a volume, which may have files in it", metavar="VOLUME")
    source: str = argument(help="a tar, plain or compressed, or - for standard input", nargs="?", default="-",
                           metavar="FILE")  # fmt: skip


@command("volume", "import", "unpack a tar into a volume", ImportWords)
def volume_import(engine: Engine, words: ImportWords) -> InProgress[Lines]:
    return InProgress(engine.volumes.import_(words.name, words.source).then(lambda each: Lines((each.name,))), "work")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExistsWords:
    name: str = argument(help="a volume", metavar="VOLUME")


@command("volume", "exists", "whether there is a volume of that name: exit status 0 or 1", ExistsWords)
def volume_exists(engine: Engine, words: ExistsWords) -> Verdict:
    return existence(lambda: engine.volumes.get(words.name))
