"""The commands that build."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nbcontain.build.arguments import allowed, parse_platform
from nbcontain.build.named import contexts_of
from nbcontain.build.outputs import Output
from nbcontain.build.plan import BuildOptions
from nbcontain.build.secrets import agents_of, secrets_of
from nbcontain.commands.inputs import BuildInputs, inputs_of
from nbcontain.commands.table import command
from nbcontain.display.table import Column, Table
from nbcontain.display.values import InProgress, Lines, Verdict
from nbcontain.display.words import ago, count, size
from nbcontain.dockerfile.ast import Remark
from nbcontain.errors import UsageError
from nbcontain.oci.image import Image
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.build.caches import CachePlace
    from nbcontain.build.provenance import ProvenanceOptions
    from nbcontain.builder import BuildTask
    from nbcontain.engine import Engine

_DURATION = r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?"
_SIZE = r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?"


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuildWords:
    tags: tuple[str, ...] = option("-t", "--tag", help="what to call the image, as in hello or hello:1", metavar="NAME")
    build_args: tuple[str, ...] = option("--build-arg", help="K=V for an ARG of the Dockerfile", metavar="K=V")
    contexts: tuple[str, ...] = option(
        "--build-context", help="more files or an image by name, for FROM and --from",
        metavar="NAME=DIR|URL|docker-image://REF|oci-layout://DIR",
    )  # fmt: skip
    target: str = option("--target", help="the stage to build, by name or number", metavar="STAGE")
    labels: tuple[str, ...] = option("--label", help="K=V, a label for the image", metavar="K=V")
    annotations: tuple[str, ...] = option("--annotation", help="for the manifest, or for LEVEL", metavar="[LEVEL:]K=V")
    network: str = option("--network", help="default, host or none, for RUN", default="default")
    isolation: str = option("--isolation", help="how RUN is shut in: %nbcontain doctor lists the rungs", metavar="RUNG")
    add_hosts: tuple[str, ...] = option("--add-host", help="a line for the /etc/hosts of RUN", metavar="NAME:IP")
    shm_size: str = option("--shm-size", help="of /dev/shm in RUN (default: 64m)", metavar="SIZE")
    ulimits: tuple[str, ...] = option("--ulimit", help="a limit for RUN", metavar="TYPE=SOFT[:HARD]")
    secrets: tuple[str, ...] = option(
        "--secret", help="for RUN --mount=type=secret: a file, a variable, or a Python variable of the notebook",
        metavar="id=NAME,src=FILE|env=NAME|var=NAME",
    )  # fmt: skip
    ssh: tuple[str, ...] = option("--ssh", help="an agent or key for RUN --mount=type=ssh", metavar="default|ID=PATH")
    platforms: tuple[str, ...] = option(
        "--platform", help="what the image is for; several give an index", metavar="OS/ARCHITECTURE,…"
    )
    automounts: tuple[str, ...] = option(
        "--automount", help="what every RUN sees besides its own mounts", metavar="type=secret,id=NAME|…"
    )
    allow: tuple[str, ...] = option("--allow", help="device[=NAME], network.host, onbuild.secrets", metavar="WHAT")
    pull: bool = option("--pull", help="ask the registry for newer base images")
    no_cache: bool = option("--no-cache", help="run every step again")
    rm: bool = option("--rm", help="nothing, as with buildx: steps leave no containers", default=True)
    force_rm: bool = option("--force-rm", help="the same")
    compress: bool = option("--compress", help="nothing, as with buildx: no context is sent anywhere")
    no_cache_stages: tuple[str, ...] = option("--no-cache-filter", help="only those of this stage", metavar="STAGE")
    outputs: tuple[str, ...] = option(
        "-o", "--output", help="the result too: DIR, - for a tar, or type=local|tar|oci|docker|registry,dest=PATH",
        metavar="WHERE",
    )
    cache_from: tuple[str, ...] = option(
        "--cache-from", help="results of steps too", metavar="NAME|type=registry,ref=NAME|type=local,src=DIR"
    )
    cache_to: tuple[str, ...] = option(
        "--cache-to", help="keep results there too (mode=max: of every step)",
        metavar="type=registry,ref=NAME|type=local,dest=DIR|type=inline",
    )  # fmt: skip
    iid_file: str = option("--iidfile", help="write the image's id there", metavar="FILE")
    metadata_file: str = option("--metadata-file", help="write what was built there, as JSON", metavar="FILE")
    load: bool = option("--load", help="into the local store, which is what happens anyway")
    push: bool = option("--push", help="to its registry, too")
    provenance: str = option("--provenance", help="how it came about, as SLSA has it, beside the image where it goes "
                             "and in --metadata-file", metavar="true|false|mode=min|max",
                             bare=("true", r"(?:true|false|0|1|(?:mode|version|builder-id|reproducible)=.*)"))
    attests: tuple[str, ...] = option("--attest", help="the same", metavar="type=provenance[,mode=max]")
    sbom: str = option("--sbom", help="refused: there is no scanner here", metavar="false", bare=("true", "true|false"))
    check: bool = option("--check", help="check the Dockerfile, and build nothing")
    call: str = option(
        "--call", help="only tell of the Dockerfile: what to better, what it takes, its targets",
        metavar="check|outline|targets[,format=json]",
    )  # fmt: skip
    quiet: bool = option("-q", "--quiet", help="only the image's id at the end")
    display: str = option("--progress", help="how it is shown", metavar="auto|card|plain|quiet|rawjson")

    def in_progress(self, task: BuildTask) -> InProgress[Image]:
        """The build as it is to be shown."""
        takes_stdout = any(each.destination == "-" for each in self._outputs())
        return InProgress(
            task, "build", self.quiet or self.display == "quiet", takes_stdout, display=self.checked_display
        )

    def started(
        self, engine: Engine, given: BuildInputs, variables: Mapping[str, object] | None = None,
        contexts: Mapping[str, Any] | None = None,
    ) -> InProgress[Image] | InProgress[Verdict]:  # fmt: skip
        """The build, or the check, of this. `variables` are the notebook's, `contexts` its contexts by name."""
        options = self.build_options(given, variables, contexts)
        if self.call or self.check:
            from nbcontain.commands.calls import call_of, called

            if call := call_of(self.call, is_check=self.check):
                return called(engine, call, given.dockerfile, options)
        return self.in_progress(engine.isolated(self.isolation).build(given.dockerfile, options))

    def _outputs(self) -> tuple[Output, ...]:
        found = tuple(Output.parse(each) for each in self.outputs)
        return (*found, Output("image", push=True)) if self.push else found

    def _caches(self, words: tuple[str, ...], flag: str) -> tuple[CachePlace, ...]:
        if not words:
            return ()
        from nbcontain.build.caches import CachePlace

        return tuple(CachePlace.parse(each, flag) for each in words)

    def _provenance(self) -> ProvenanceOptions | None:
        if not (self.sbom or self.provenance or self.attests):
            return None
        from nbcontain.build.provenance import provenance_of, refuse_sbom

        if self.sbom not in ("", "false", "0"):
            refuse_sbom(f"--sbom={self.sbom}")
        return provenance_of(self.provenance, self.attests)

    @property
    def checked_display(self) -> str:
        """What --progress says. Raises UsageError for a display that there is not."""
        if self.display not in ("", "auto", "card", "html", "plain", "quiet", "rawjson"):
            raise UsageError(
                f"--progress {self.display}: there is no such display", hint="auto, card, html, plain, quiet or rawjson"
            )
        return "" if self.display in ("auto", "quiet") else self.display

    def build_options(
        self, given: BuildInputs, variables: Mapping[str, object] | None = None,
        contexts: Mapping[str, Any] | None = None,
    ) -> BuildOptions:  # fmt: skip
        """`variables` are the notebook's, for --secret var= and --build-context NAME=var:."""
        return BuildOptions(
            tags=tuple(name for each in self.tags for name in each.split(",") if name),
            context=given.context,
            contexts=contexts_of(self.contexts, contexts, variables),
            ignore=given.ignore,
            build_args=self.build_args,
            target=self.target,
            no_cache=self.no_cache,
            no_cache_stages=tuple(name for each in self.no_cache_stages for name in each.split(",") if name),
            labels=self.labels,
            annotations=self.annotations,
            network="host" if self.network == "default" else self.network,
            **_platforms(self.platforms),
            add_hosts=self.add_hosts,
            automounts=self.automounts,
            shm_size=self.shm_size,
            ulimits=self.ulimits,
            pull="always" if self.pull else "missing",
            secrets=secrets_of(self.secrets, os.environ, variables),
            ssh=agents_of(self.ssh, os.environ),
            allow=allowed(self.allow),
            outputs=self._outputs(),
            provenance=self._provenance(),
            remarks=(Remark("--load does nothing: the image is in the local store", None),) if self.load else (),
            dockerfile_name=given.name,
            hints=not self.quiet and self.display != "quiet",
            cache_from=self._caches(self.cache_from, "--cache-from"),
            cache_to=self._caches(self.cache_to, "--cache-to"),
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
    path: str = argument(
        help="the directory that COPY takes files from, a tar file or - for one, a git repository, or a URL",
        metavar="PATH|URL|-",
    )  # fmt: skip


@command("image", "build", "make an image from a Dockerfile", BuildCommandWords, top=("build",))
def image_build(engine: Engine, words: BuildCommandWords) -> InProgress[Image] | InProgress[Verdict]:
    _ = words.checked_display
    return words.started(engine, inputs_of(words.path, words.file))


def _platforms(words: tuple[str, ...]) -> dict[str, Any]:
    """--platform a,b as the options of a build: nothing where it was not given. Raises UsageError."""
    found = tuple(dict.fromkeys(parse_platform(name) for each in words for name in each.split(",") if name))
    return {"platforms": found, "platform": found[0]} if found else {}


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
