"""The commands on room: system df, and the prunes, which ask before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nbcontain.commands.rows import status_shown
from nbcontain.commands.table import command
from nbcontain.display.formats import Format, size_shown
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Confirm, InProgress, Lines, Sections
from nbcontain.display.words import ago, command_line, count, size, without_asking
from nbcontain.errors import UsageError
from nbcontain.filters import PRUNING
from nbcontain.housekeeping import Pruned, Share, Usage
from nbcontain.options import option, with_defaults
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine

DF_TITLES = {
    "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
}  # fmt: skip


# --- df ---


@dataclass(frozen=True, kw_only=True)
@with_defaults
class UsageWords:
    verbose: bool = option("-v", "--verbose", help="image by image, container by container, step by step")
    format: str = option("--format", help="a table of these columns, or a text for each line",
                         metavar="table {{.Type}}…|json|TEMPLATE")  # fmt: skip


@command("system", "df", "what takes room on the disk, and what of it may go", UsageWords)
def system_df(engine: Engine, words: UsageWords) -> InProgress[object]:
    wanted = Format.parse(words.format)
    if words.verbose and wanted.template is not None:
        raise UsageError("system df: -v or --format, not both", hint="image ls --format has SharedSize and UniqueSize")

    def drawn(usage: Usage) -> object:
        if wanted.template is not None:
            return wanted.of([_share_row(share) for share in usage.shares], DF_TITLES, "disk usage")
        return _verbose(engine, usage) if words.verbose else _shares_table(engine, usage)

    return InProgress(engine.housekeeping.usage().then(drawn), "work")


def _share_row(share: Share) -> dict[str, object]:
    return {
        "Type": share.kind, "TotalCount": str(share.total), "Active": str(share.active),
        "Size": size_shown(share.size_bytes, 4), "Reclaimable": _reclaimable(share),
    }  # fmt: skip


def _reclaimable(share: Share) -> str:
    percent = f" ({share.reclaimable_bytes * 100 // share.size_bytes}%)" if share.size_bytes else ""
    return size_shown(share.reclaimable_bytes, 4) + percent


def _shares_table(engine: Engine, usage: Usage) -> Table:
    columns = (
        "TYPE", Column("TOTAL", look="num"), Column("ACTIVE", look="num"), Column("SIZE", size, "num"),
        Column("RECLAIMABLE", size, "num"), Column("", look="graph"),
    )  # fmt: skip
    rows = [
        (each.kind, each.total, each.active, each.size_bytes, each.reclaimable_bytes, each.size_bytes)
        for each in usage.shares
    ]
    footer = f"{size(usage.size_bytes)} in {engine.layout.root} · {size(usage.free_bytes)} free there"
    if usage.images:
        footer += f" · images: {size(usage.stored_bytes)} of layers as image ls counts them, the rest is them unpacked"
    return Table(columns, rows, footer, "disk usage")


def _verbose(engine: Engine, usage: Usage) -> Sections:
    images = Table(
        ("REPOSITORY", "TAG", Column("IMAGE ID", look="code"), Column("CREATED", ago), Column("SIZE", size, "num"),
         Column("SHARED", size, "num"), Column("UNIQUE", size, "num"), Column("USED", look="num")),
        [
            (name.familiar_repository if name else "<none>", (name.tag if name else None) or "<none>", image.id.short,
             image.config.created, image.size_bytes, image.size_bytes - unique, unique, containers)
            for name, image, unique, containers in usage.images
        ], "", "images", "Images space usage",
    )  # fmt: skip
    containers = Table(
        (Column("CONTAINER ID", look="code"), "IMAGE", Column("COMMAND", look="code"), Column("SIZE", size, "num"),
         Column("CREATED", ago), "STATUS", "NAMES"),
        [
            (each.id[:12], each.image, command_line(each.info.command)[:40], wrote, each.info.created,
             status_shown(each, status, each.state()), each.name)
            for each, status, wrote in usage.containers
        ], "", "containers", "Containers space usage",
    )  # fmt: skip
    steps = engine.builder.usage()
    builds = Table(
        (Column("CACHE ID", look="code"), Column("STEP", look="wide"), Column("SIZE", size, "num"),
         Column("LAST USED", ago)),
        [(each.key, each.created_by, each.size_bytes, each.used) for each in steps], "", "build cache",
        "Build cache usage",
    )  # fmt: skip
    volumes = Table(
        (Column("VOLUME NAME", look="code"), Column("LINKS", look="num"), Column("SIZE", size, "num")),
        [(each.name, links, size_bytes) for each, links, size_bytes in usage.volumes], "", "volumes",
        "Local Volumes space usage",
    )  # fmt: skip
    return Sections((images, containers, volumes, builds, replace(_shares_table(engine, usage), title="All together")))


# --- prunes ---


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PruneWords:
    filters: tuple[str, ...] = option("--filter", help=f"only those: {', '.join(PRUNING)}", metavar="NAME=VALUE")
    force: bool = option("-f", "--force", help="without asking")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImagePruneWords(PruneWords):
    all: bool = option("-a", "--all", help="all images that no container is made of, not only those without a name")


@command("image", "prune", "remove images that nothing needs", ImagePruneWords)
def image_prune(engine: Engine, words: ImagePruneWords) -> Confirm | InProgress[Lines]:
    def act() -> InProgress[Lines]:
        task = engine.housekeeping.prune(containers=False, all_images=words.all, filters=words.filters)
        return InProgress(task.then(_told), "work")

    what = "all images without at least one container associated to them" if words.all else "all dangling images"
    warning = (f"WARNING! This will remove {what}.",)
    return _asked(words, act, warning, lambda: _image_plan(engine, words), "image prune")


@command("container", "prune", "remove all stopped containers", PruneWords)
def container_prune(engine: Engine, words: PruneWords) -> Confirm | InProgress[Lines]:
    def act() -> InProgress[Lines]:
        return InProgress(engine.housekeeping.prune(images=False, filters=words.filters).then(_told), "work")

    warning = ("WARNING! This will remove all stopped containers.",)
    return _asked(words, act, warning, lambda: _container_plan(engine, words), "container prune")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class SystemPruneWords(ImagePruneWords):
    volumes: bool = option("--volumes", help="anonymous volumes that no container has, too")


@command("system", "prune", "remove stopped containers, images that nothing needs, and old results of builds",
         SystemPruneWords)  # fmt: skip
def system_prune(engine: Engine, words: SystemPruneWords) -> Confirm | InProgress[Lines]:
    def act() -> InProgress[Lines]:
        # docker too lets filters speak of containers and images, and leaves the rest alone.
        builds = not words.filters
        task = engine.housekeeping.prune(
            all_images=words.all, builds=builds, volumes=words.volumes, filters=words.filters
        )
        return InProgress(task.then(_told), "work")

    images = "all images without at least one container associated to them" if words.all else "all dangling images"
    warning = ["WARNING! This will remove:", "  - all stopped containers", f"  - {images}"]
    if words.volumes:
        warning.insert(2, "  - all anonymous volumes not used by at least one container")
    if not words.filters:
        warning.append("  - all build cache" if words.all else "  - build cache that was not used for a week")
    else:
        warning += ["", "  Items to be pruned will be filtered with:", *(f"  - {each}" for each in words.filters)]
    def plan() -> list[tuple[str, str, str, int | None]]:
        volumes = _volume_plan(engine, words) if words.volumes else []
        return [*_container_plan(engine, words), *volumes, *_image_plan(engine, words)]

    return _asked(words, act, (*warning, ""), plan, "system prune")


def _asked(
    words: PruneWords, act: Callable[[], InProgress[Lines]], warning: Sequence[str],
    plan: Callable[[], list[tuple[str, str, str, int | None]]], verb: str,
) -> Confirm | InProgress[Lines]:  # fmt: skip
    if words.force:
        return act()
    rows = plan()
    columns = ("WHAT", "NAME", Column("ABOUT", look="wide"), Column("SIZE", size, "num"))
    switches = (("-a", "all"), ("--volumes", "volumes"))
    flags = [flag for flag, name in switches if getattr(words, name, False)]
    again = without_asking(f"nbcontain {verb}" if verb.startswith("system") else verb, words.filters, *flags)
    footer = f"{count(len(rows), 'thing')} would go. Nothing was removed: {again} does it without asking."
    if not rows:
        footer = f"{again} would only clear up after builds." if "system" in verb else "There is nothing to remove."
    return Confirm(tuple(warning), Table(columns, rows, footer, f"what {verb} would remove"), act, verb)


def _image_plan(engine: Engine, words: ImagePruneWords) -> list[tuple[str, str, str, int | None]]:
    return [
        (
            "image", name.familiar if name else "<none>", f"{image.id.short}, made {ago(image.config.created)}",
            image.size_bytes,
        )
        for name, image in engine.housekeeping.unused_images(all=words.all, filters=words.filters)
    ]  # fmt: skip


def _container_plan(engine: Engine, words: PruneWords) -> list[tuple[str, str, str, int | None]]:
    return [
        ("container", each.name, f"of {each.image}, {status_shown(each, *each.look())}", None)
        for each in engine.housekeeping.stopped_containers(words.filters)
    ]


def _volume_plan(engine: Engine, words: PruneWords) -> list[tuple[str, str, str, int | None]]:
    """Those that are unused already, and those whose last containers are going."""
    going = {each.id for each in engine.housekeeping.stopped_containers(words.filters)}
    uses = engine.volumes.uses()
    return [
        ("volume", each.name[:12], f"made {ago(each.created)}", engine.volumes.size_bytes(each))
        for each in engine.volumes
        if each.is_anonymous and all(use.container.id in going for use in uses.get(each.name, ()))
    ]  # fmt: skip


def _told(pruned: Pruned) -> Lines:
    """docker's account of it."""
    lines: list[str] = []
    if pruned.containers:
        lines += ["Deleted Containers:", *pruned.containers, ""]
    if pruned.volumes:
        lines += ["Deleted Volumes:", *pruned.volumes, ""]
    if pruned.images:
        lines += ["Deleted Images:", *pruned.images, ""]
    return Lines((*lines, f"Total reclaimed space: {size_shown(pruned.size_bytes, 4)}"))

