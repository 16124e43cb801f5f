"""The commands that build."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.build.arguments import allowed
from nbcontain.build.cache_directory import CacheDirectory
from nbcontain.build.outputs import Output
from nbcontain.build.plan import BuildOptions
from nbcontain.build.secrets import agents_of, secrets_of
from nbcontain.build.sources import Source, file_in_archive
from nbcontain.commands.table import command
from nbcontain.display.table import Column, Table
from nbcontain.display.values import InProgress, Lines, Verdict
from nbcontain.display.words import ago, count, size
from nbcontain.errors import UsageError
from nbcontain.oci.image import Image
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.builder import BuildTask
    from nbcontain.engine import Engine

_DURATION = r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?"
_SIZE = r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?"


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuildWords:
    tags: tuple[str, ...] = option("-t", "--tag", help="what to call the image, as in hello or hello:1", metavar="NAME")
    build_args: tuple[str, ...] = option("--build-arg", help="K=V for an ARG of the Dockerfile", metavar="K=V")
    target: str = option("--target", help="the stage to build, by name or number", metavar="STAGE")
    labels: tuple[str, ...] = option("--label", help="K=V, a label for the image", metavar="K=V")
    annotations: tuple[str, ...] = option("--annotation", help="K=V, for the manifest", metavar="K=V")
    network: str = option("--network", help="host or none, for RUN", default="host")
    secrets: tuple[str, ...] = option(
        "--secret", help="for RUN --mount=type=secret: a file, a variable, or a Python variable of the notebook",
        metavar="id=NAME,src=FILE|env=NAME|var=NAME",
    )  # fmt: skip
    ssh: tuple[str, ...] = option("--ssh", help="an agent or key for RUN --mount=type=ssh", metavar="default|ID=PATH")
    allow: tuple[str, ...] = option("--allow", help="network.host, onbuild.secrets", metavar="WHAT")
    pull: bool = option("--pull", help="ask the registry for newer base images")
    no_cache: bool = option("--no-cache", help="run every step again")
    no_cache_stages: tuple[str, ...] = option("--no-cache-filter", help="only those of this stage", metavar="STAGE")
    outputs: tuple[str, ...] = option(
        "-o", "--output", help="the files too: type=local|tar,dest=PATH, DIR, or - for a tar", metavar="WHERE"
    )
    cache_from: tuple[str, ...] = option("--cache-from", help="results of steps too", metavar="type=local,src=DIR")
    cache_to: tuple[str, ...] = option("--cache-to", help="keep results there too", metavar="type=local,dest=DIR")
    iid_file: str = option("--iidfile", help="write the image's id there", metavar="FILE")
    metadata_file: str = option("--metadata-file", help="write what was built there, as JSON", metavar="FILE")
    load: bool = option("--load", help="into the local store, which is what happens anyway")
    check: bool = option("--check", help="check the Dockerfile, and build nothing")
    call: str = option("--call", help="the same", metavar="build|check")
    quiet: bool = option("-q", "--quiet", help="only the image's id at the end")
    display: str = option("--progress", help="how it is shown", metavar="auto|card|plain|quiet|rawjson")

    def in_progress(self, task: BuildTask) -> InProgress[Image]:
        """The build as it is to be shown."""
        return InProgress(task, "build", self.quiet or self.display == "quiet", display=self.checked_display)

    @property
    def is_check(self) -> bool:
        """Whether the Dockerfile is only to be checked. Raises UsageError."""
        if self.call not in ("", "build", "check", "lint"):
            raise UsageError(f"--call={self.call} is not here yet", hint="--call=check, or --call=build")
        return self.check or self.call in ("check", "lint")

    def started(
        self, engine: Engine, dockerfile: str, context: Source | None, variables: Mapping[str, object] | None = None
    ) -> InProgress[Image] | InProgress[Verdict]:
        """The build, or the check, of this text."""
        options = self.build_options(context, variables)
        if self.is_check:
            from nbcontain.commands.lint import checked

            return checked(engine, dockerfile, options)
        return self.in_progress(engine.build(dockerfile, options))

    @property
    def checked_display(self) -> str:
        """What --progress says. Raises UsageError for a display that there is not."""
        if self.display not in ("", "auto", "card", "html", "plain", "quiet", "rawjson"):
            raise UsageError(
                f"--progress {self.display}: there is no such display", hint="auto, card, html, plain, quiet or rawjson"
            )
        return "" if self.display in ("auto", "quiet") else self.display

    def build_options(self, context: Source | None, variables: Mapping[str, object] | None = None) -> BuildOptions:
        """`variables` are the notebook's, for --secret var=."""
        return BuildOptions(
            tags=tuple(name for each in self.tags for name in each.split(",") if name),
            context=context,
            build_args=self.build_args,
            target=self.target,
            no_cache=self.no_cache,
            no_cache_stages=tuple(name for each in self.no_cache_stages for name in each.split(",") if name),
            labels=self.labels,
            annotations=self.annotations,
            network=self.network,
            pull="always" if self.pull else "missing",
            secrets=secrets_of(self.secrets, os.environ, variables),
            ssh=agents_of(self.ssh, os.environ),
            allow=allowed(self.allow),
            outputs=tuple(Output.parse(each) for each in self.outputs),
            cache_from=tuple(CacheDirectory.parse(each, "--cache-from") for each in self.cache_from),
            cache_to=tuple(CacheDirectory.parse(each, "--cache-to") for each in self.cache_to),
            id_file=self.iid_file,
            metadata_file=self.metadata_file,
        )


@dataclass(frozen=True, kw_only=True)
@with_defaults
class DockerfileWords(BuildWords):
    context: str = option(
        "--context", help="the directory that COPY takes files from (default: %%contextfile cells, or .)",
        metavar="DIR|NAME",
    )  # fmt: skip
    into: str = option("--into", help="a Python variable to put the image in", metavar="VAR")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuildCommandWords(BuildWords):
    file: str = option("-f", "--file", help="the Dockerfile, - for standard input (default: PATH/Dockerfile)")
    path: str = argument(help="the directory that COPY takes files from, a tar file, or - for one", metavar="PATH")


@command("image", "build", "make an image from a Dockerfile", BuildCommandWords, top=("build",))
def image_build(engine: Engine, words: BuildCommandWords) -> InProgress[Image] | InProgress[Verdict]:
    _ = words.checked_display
    context = Path(words.path)
    if words.file == words.path == "-":
        raise UsageError("standard input cannot be both the Dockerfile and the context")
    if words.path == "-" or context.is_file():
        # A tar archive is read twice, so standard input is kept until the build is over.
        data = sys.stdin.buffer.read() if words.path == "-" else context.read_bytes()
        if words.path == "-" and not words.file and _is_text(data):
            # As with docker: what comes in is the Dockerfile itself, and there is no context.
            return words.started(engine, data.decode(), None)
        text = _read_dockerfile(words.file) if words.file else file_in_archive(data, "Dockerfile").decode("utf-8-sig")
        return words.started(engine, text, data)
    source = _read_dockerfile(words.file or str(context / "Dockerfile"))
    return words.started(engine, source, context)


def _is_text(data: bytes) -> bool:
    """Whether it can be a Dockerfile: no archive, compressed or not, is free of NUL bytes."""
    return b"\0" not in data[:4096]


def _read_dockerfile(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the Dockerfile {file}",
            why=getattr(error, "strerror", None) or str(error),
            hint="-f FILE names another",
        ) from error


# --- what builds keep -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuilderPruneWords:
    all: bool = option("-a", "--all", help="everything that builds keep, however young")
    filters: tuple[str, ...] = option("--filter", help="until=24h: what was not used for so long", metavar="until=TIME")
    keep_storage: str = option("--keep-storage", help="keep the youngest, as much as this", metavar="SIZE")
    force: bool = option("-f", "--force", help="do not ask (nothing is asked in any case)")


@command("builder", "prune", "forget what builds keep: results of steps, and the last build of each name",
         BuilderPruneWords)  # fmt: skip
def builder_prune(engine: Engine, words: BuilderPruneWords) -> Lines:
    max_age_s = 0.0 if words.all or words.keep_storage else 7 * 86400.0
    for each in words.filters:
        name, _, value = each.partition("=")
        if name != "until":
            raise UsageError(f"--filter {each}: there is until=TIME", hint="--filter until=24h")
        max_age_s = _seconds(value)
    freed = engine.builder.prune(max_age_s, _bytes(words.keep_storage) if words.keep_storage else 0)
    return Lines((f"Total reclaimed space: {size(freed) or '0 B'}",))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuilderUsageWords:
    """No options."""


@command("builder", "du", "what builds keep, and how large it is", BuilderUsageWords)
def builder_usage(engine: Engine, words: BuilderUsageWords) -> Table:
    rows = [(each.key, each.created_by, each.used, each.size_bytes, each.size_bytes) for each in engine.builder.usage()]
    columns = (
        Column("KEY", look="code"), Column("STEP", look="wide"), Column("USED", ago), Column("SIZE", size, "num"),
        Column("", look="graph"),
    )  # fmt: skip
    total = sum(row[3] for row in rows)
    return Table(columns, rows, f"{count(len(rows), 'step')} · {size(total) or '0 B'}", "build cache")


def _seconds(text: str) -> float:
    match = re.fullmatch(_DURATION, text)
    if not text or match is None:
        raise UsageError(f"{text!r} is no duration", hint="24h, 7d, 90m or 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _bytes(text: str) -> int:
    match = re.fullmatch(_SIZE, text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is no size", hint="500MB or 10GB")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))
