"""The verbs of the magics and of the terminal, written once: docker's names, flags and meanings.

A command returns a value (a table, lines, a document) or something in progress; it never prints.
Drawing what comes back is the business of whoever called. To add a verb, add a function here.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbcontain import __version__
from nbcontain.build.plan import BuildOptions
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Document, InProgress, Lines, Log
from nbcontain.display.words import ago, command_line, count, size
from nbcontain.docker_words import KNOWN_FLAGS
from nbcontain.engine import Engine, ExecOptions
from nbcontain.errors import ContainerError, NbcontainError, UsageError
from nbcontain.events import Output, Record
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.options import argument, option, parse, with_defaults
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.task import Task

# --- the table of commands --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. `aliases` are other names in its group, `top` its names on the terminal without the group."""

    group: str
    name: str
    help: str
    options: type
    function: Callable[[Engine, Any], object]
    aliases: tuple[str, ...] = ()
    top: tuple[str, ...] = ()


COMMANDS: list[Command] = []
GROUPS = {"image": "images: make, list, look into, remove", "container": "containers: run, watch, stop, remove"}


def command(
    group: str, name: str, help: str, options: type, aliases: tuple[str, ...] = (), top: tuple[str, ...] = ()
) -> Callable[[Callable[[Engine, Any], object]], Callable[[Engine, Any], object]]:
    """Put the decorated function into the table."""

    def register(function: Callable[[Engine, Any], object]) -> Callable[[Engine, Any], object]:
        COMMANDS.append(Command(group, name, help, options, function, aliases, top))
        return function

    return register


def find(group: str, word: str) -> Command | None:
    """The command that `word` means in `group`; group "" is the terminal, where docker's short words hold too."""
    for each in COMMANDS:
        if group and each.group == group and word in (each.name, *each.aliases):
            return each
        if not group and (word in each.top or (each.group == "nbcontain" and word == each.name)):
            return each
    return None


def parse_words(group: str, words: Sequence[str]) -> tuple[Command, Any]:
    """The command and its options that these words mean. Raises UsageError, and HelpAsked for --help."""
    prog = group or "nbcontain"
    if group in ("", "nbcontain") and words and words[0] in GROUPS:
        group, prog, words = words[0], f"nbcontain {words[0]}", words[1:]
    if group == "nbcontain":
        group = ""
    if not words or words[0].startswith("-"):
        if words and words[0] not in ("--help", "-h"):
            raise UsageError(f"{prog}: {words[0]} comes before a command", hint=f"{prog} --help")
        raise UsageError(f"{prog}: which command?", why=overview(group), hint=f"{prog} COMMAND --help")
    found = find(group, words[0])
    if found is None:
        from difflib import get_close_matches

        names = [name for each in COMMANDS if (group and each.group == group) for name in (each.name, *each.aliases)]
        names += [name for each in COMMANDS if not group for name in (each.name, *each.top)]
        near = get_close_matches(words[0], names, 1)
        hint = f"did you mean {near[0]}?" if near else f"{prog} --help lists the commands"
        raise UsageError(f"{prog}: there is no command {words[0]!r}", hint=hint)
    options = parse(
        found.options, f"{prog} {words[0]}", found.help, words[1:], KNOWN_FLAGS.get(f"{found.group} {found.name}", {})
    )
    return found, options


def overview(group: str = "") -> str:
    """A line a command: the help of a group, or of the terminal's first word."""
    rows = [(each.name, each.help) for each in COMMANDS if each.group == (group or "nbcontain")]
    if not group:
        rows += [(name, f"{text} ({name} --help)") for name, text in GROUPS.items()]
        shorts = sorted({word for each in COMMANDS for word in each.top})
        rows.append(("", "docker's short words work too: " + " ".join(shorts)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Nothing:
    """No options."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Names:
    names: tuple[str, ...] = argument(help="names or ids", nargs="+", metavar="NAME")


# --- images -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuildWords:
    tags: tuple[str, ...] = option("-t", "--tag", help="what to call the image, as in hello or hello:1", metavar="NAME")
    build_args: tuple[str, ...] = option("--build-arg", help="K=V for an ARG of the Dockerfile", metavar="K=V")
    target: str = option("--target", help="the stage to build, by name or number", metavar="STAGE")
    labels: tuple[str, ...] = option("--label", help="K=V, a label for the image", metavar="K=V")
    network: str = option("--network", help="host or none, for RUN", default="host")
    no_cache: bool = option("--no-cache", help="run every step again")
    quiet: bool = option("-q", "--quiet", help="only the image's id at the end")

    def build_options(self, context: Path | None) -> BuildOptions:
        return BuildOptions(
            tags=self.tags,
            context=context,
            build_args=self.build_args,
            target=self.target,
            no_cache=self.no_cache,
            labels=self.labels,
            network=self.network,
        )


@dataclass(frozen=True, kw_only=True)
@with_defaults
class DockerfileWords(BuildWords):
    context: str = option("--context", help="the directory that COPY takes files from", default=".", metavar="DIR")
    into: str = option("--into", help="a Python variable to put the image in", metavar="VAR")
    display: str = option("--progress", help="card or plain", metavar="card|plain")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuildCommandWords(BuildWords):
    file: str = option("-f", "--file", help="the Dockerfile, - for standard input (default: PATH/Dockerfile)")
    path: str = argument(help="the directory that COPY takes files from", metavar="PATH")


@command("image", "build", "make an image from a Dockerfile", BuildCommandWords, top=("build",))
def image_build(engine: Engine, words: BuildCommandWords) -> InProgress[Image]:
    source = _read_dockerfile(words.file, Path(words.path))
    return InProgress(engine.build(source, words.build_options(Path(words.path))), "build", words.quiet)


def _read_dockerfile(file: str, context: Path) -> str:
    if file == "-":
        import sys

        return sys.stdin.read()
    path = Path(file) if file else context / "Dockerfile"
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the Dockerfile {path}",
            why=getattr(error, "strerror", None) or str(error),
            hint="-f FILE names another",
        ) from error


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageListWords:
    repository: str = argument(help="only images of this name", nargs="?", default="", metavar="NAME")
    all: bool = option("-a", "--all", help="images without a name too (they are listed in any case)")
    quiet: bool = option("-q", "--quiet", help="only ids")
    digests: bool = option("--digests", help="manifests' digests too")
    no_trunc: bool = option("--no-trunc", help="ids in full")


@command("image", "ls", "list images", ImageListWords, aliases=("images", "list"), top=("images",))
def image_ls(engine: Engine, words: ImageListWords) -> Table | Lines:
    found = engine.images()
    if words.repository:
        wanted = Reference.parse(words.repository)
        tagged = ":" in words.repository.rpartition("/")[2]
        found = [
            (name, image)
            for name, image in found
            if name
            and (name.registry, name.repository) == (wanted.registry, wanted.repository)
            and (not tagged or name.tag == wanted.tag)
        ]
    if words.quiet:
        return Lines(tuple(dict.fromkeys(_id(image, words.no_trunc) for _, image in found)))
    unique = _unique_bytes([image for _, image in found])
    columns = (
        Column("IMAGE"), Column("TAG"), *((Column("DIGEST", look="code"),) if words.digests else ()),
        Column("ID", look="code"), Column("CREATED", ago), Column("SIZE", size, "num"), Column("UNIQUE", size, "num"),
        Column("", look="graph"),
    )  # fmt: skip
    rows = [
        (
            name.familiar_repository if name else "<none>", (name.tag if name else None) or "<none>",
            *((str(image.digest),) if words.digests else ()), _id(image, words.no_trunc), image.config.created,
            image.size_bytes, unique[image.id], unique[image.id],
        )
        for name, image in found
    ]  # fmt: skip
    blobs = {layer.digest: layer.size for _, image in found for layer in image.manifest.layers}
    total = sum({image.id: image.size_bytes for _, image in found}.values())
    footer = f"{count(len(rows), 'image')} · layers on disk {size(sum(blobs.values()))}"
    if total > sum(blobs.values()):
        footer += f" (without sharing it would be {size(total)})"
    return Table(columns, rows, footer, "images")


def _id(image: Image, full: bool = False) -> str:
    return str(image.id) if full else image.id.short


def _unique_bytes(images: Sequence[Image]) -> dict[Any, int]:
    """Per image id, the bytes of layers that no other image here has."""
    users: dict[Any, set[Any]] = {}
    for image in images:
        for layer in image.manifest.layers:
            users.setdefault(layer.digest, set()).add(image.id)
    return {
        image.id: sum(layer.size for layer in image.manifest.layers if users[layer.digest] == {image.id})
        for image in images
    }


@command("image", "inspect", "everything that is known of images, as JSON", Names)
def image_inspect(engine: Engine, words: Names) -> Document:
    return Document([engine.inspect_image(name) for name in words.names])


@dataclass(frozen=True, kw_only=True)
@with_defaults
class HistoryWords:
    image: str = argument(help="an image")
    no_trunc: bool = option("--no-trunc", help="instructions in full")


@command("image", "history", "which instruction made which layer", HistoryWords, top=("history",))
def image_history(engine: Engine, words: HistoryWords) -> Table:
    image = engine.image(words.image)
    layers = iter(image.layers)
    rows = []
    for entry in image.config.history:
        layer = None if entry.empty_layer else next(layers, None)
        text = entry.created_by or entry.comment
        rows.append((
            layer.descriptor.digest.short if layer else "",
            entry.created, text if words.no_trunc or len(text) <= 72 else text[:71] + "…",
            *[layer.descriptor.size if layer else 0] * 2,
        ))  # fmt: skip
    columns = (
        Column("LAYER", look="code"), Column("CREATED", ago), Column("CREATED BY", look="wide"),
        Column("SIZE", size, "num"), Column("", look="graph"),
    )  # fmt: skip
    return Table(columns, rows[::-1], "newest first", f"history of {words.image}")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class TagWords:
    source: str = argument(help="an image")
    target: str = argument(help="its further name", metavar="NAME")


@command("image", "tag", "give an image a further name", TagWords, top=("tag",))
def image_tag(engine: Engine, words: TagWords) -> Lines:
    reference = engine.tag(words.source, words.target)
    return Lines((reference.familiar,))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageRemoveWords(Names):
    force: bool = option("-f", "--force", help="although stopped containers are made of it (they go on)")


@command("image", "rm", "remove names, and images left without one", ImageRemoveWords, ("rmi", "remove"), ("rmi",))
def image_rm(engine: Engine, words: ImageRemoveWords) -> Lines:
    return Lines(tuple(line for name in words.names for line in engine.remove_image(name, force=words.force)))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class FromHostWords:
    tag: str = option("-t", "--tag", help="what to call it", default="host")
    programs: tuple[str, ...] = argument(help="further programs of here", nargs="*", default=(), metavar="PROGRAM")


@command("image", "from-host", "make a small image of this machine's shell, coreutils and Python", FromHostWords)
def image_from_host(engine: Engine, words: FromHostWords) -> InProgress[Image]:
    return InProgress(engine.from_host(words.tag, words.programs), "build")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImportWords:
    source: str = argument(
        help="a root file system: a tar file (gzip, bzip2, xz too), a directory, or - for standard input",
        metavar="FILE",
    )
    name: str = argument(help="what to call the image", nargs="?", default="", metavar="NAME")


@command("image", "import", "make an image of one layer out of a root file system", ImportWords, top=("import",))
def image_import(engine: Engine, words: ImportWords) -> InProgress[Image]:
    return InProgress(engine.import_image(words.source, words.name), "build")


# --- containers -------------------------------------------------------------------------------


@command("container", "run", "make a container of an image and run it", RunOptions, top=("run",))
def container_run(engine: Engine, options: RunOptions) -> InProgress[Any]:
    return InProgress(engine.run(options), "run")


@command("container", "create", "make a container of an image, to be started later", RunOptions, top=("create",))
def container_create(engine: Engine, options: RunOptions) -> Lines:
    return Lines((engine.create(replace(options, detach=True)).id,))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PsWords:
    all: bool = option("-a", "--all", help="stopped ones too")
    quiet: bool = option("-q", "--quiet", help="only ids")
    no_trunc: bool = option("--no-trunc", help="ids and commands in full")


@command("container", "ps", "list containers", PsWords, aliases=("ls", "list"), top=("ps",))
def container_ps(engine: Engine, words: PsWords) -> Table | Lines:
    found = [(each, each.status) for each in engine.containers()]
    shown = [(each, status) for each, status in found if words.all or status == "running"]
    if words.quiet:
        return Lines(tuple(each.id if words.no_trunc else each.id[:12] for each, _ in shown))
    rows = tuple(_ps_row(each, status, words.no_trunc) for each, status in shown)
    running = sum(status == "running" for _, status in found)
    rest = len(found) - running
    footer = f"{running} running · {rest} stopped" + ("" if words.all or not rest else "  (-a shows them)")
    code = [Column(title, look="code") for title in ("ID", "COMMAND")]
    columns = (code[0], "IMAGE", code[1], Column("CREATED", ago), "STATUS", "NAME")
    return Table(columns, rows, footer, "containers")


def _ps_row(container: Container, status: str, full: bool) -> tuple[str, ...]:
    text = command_line(container.info.command)
    return (
        container.id if full else container.id[:12],
        container.image,
        text if full or len(text) <= 24 else text[:23] + "…",
        container.info.created,
        describe_status(container, status),
        container.name,
    )


def describe_status(container: Container, status: str) -> str:
    """docker's STATUS: "Up 3 minutes", "Exited (0) 2 hours ago"."""
    state = container.state()
    match status:
        case "running":
            return f"Up {ago(state.started_at).removesuffix(' ago')}"
        case "exited":
            return f"Exited ({state.exit_code}) {ago(state.finished_at)}"
        case "lost":
            return "Lost (its supervisor was killed)"
        case _:
            return status.capitalize()


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LogsWords:
    name: str = argument(help="a container")
    follow: bool = option("-f", "--follow", help="go on until it ends")
    timestamps: bool = option("-t", "--timestamps", help="when each piece came")
    tail: str = option("-n", "--tail", help="only the last so many lines", default="all", metavar="N")


@command("container", "logs", "what a container wrote, from its first line", LogsWords, top=("logs",))
def container_logs(engine: Engine, words: LogsWords) -> Log:
    container = engine.container(words.name)
    if words.tail != "all" and not words.tail.isdigit():
        raise UsageError(f"--tail {words.tail}: that is no number of lines", hint="--tail 20, or --tail all")
    if words.follow and words.tail == "all":
        return Log(container.follow(), words.timestamps)
    records = container.logs()
    if words.tail != "all":
        records = last_lines(records, int(words.tail))
    return Log(iter(records), words.timestamps)


def last_lines(records: Sequence[Record], count: int) -> list[Record]:
    """The records that hold the last `count` lines of both streams together, the first one cut to fit."""
    kept: list[Record] = []
    missing = count
    for record in reversed(records):
        if not isinstance(record.event, Output) or missing <= 0:
            continue
        lines = record.event.data.splitlines(keepends=True)
        taken = lines[-missing:]
        missing -= len(taken)
        kept.append(replace(record, event=replace(record.event, data=b"".join(taken))))
    return kept[::-1]


@dataclass(frozen=True, kw_only=True)
@with_defaults
class StopWords(Names):
    time: int = option("-t", "--time", help="seconds to wait before SIGKILL", default=10, metavar="SECONDS")


@command("container", "stop", "ask containers to end, kill them when they do not", StopWords, top=("stop",))
def container_stop(engine: Engine, words: StopWords) -> InProgress[Lines]:
    return _each(engine, words.names, "stop", lambda container: engine.stop(container, words.time))


@command("container", "start", "run stopped containers again", Names, top=("start",))
def container_start(engine: Engine, words: Names) -> InProgress[Lines]:
    return _each(engine, words.names, "start", engine.start)


@command("container", "restart", "stop containers and run them again", StopWords, top=("restart",))
def container_restart(engine: Engine, words: StopWords) -> InProgress[Lines]:
    return _each(engine, words.names, "restart", lambda container: engine.restart(container, words.time))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class KillWords(Names):
    signal: str = option("-s", "--signal", help="which signal", default="KILL", metavar="SIGNAL")


@command("container", "kill", "send containers a signal, SIGKILL unless told", KillWords, top=("kill",))
def container_kill(engine: Engine, words: KillWords) -> InProgress[Lines]:
    return _each(engine, words.names, "kill", lambda container: engine.kill(container, words.signal))


@command("container", "wait", "wait until containers end, and give their exit codes", Names, top=("wait",))
def container_wait(engine: Engine, words: Names) -> InProgress[Lines]:
    return InProgress(engine.wait_all([engine.container(name) for name in words.names], Lines), "work")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RemoveWords(Names):
    force: bool = option("-f", "--force", help="running ones too: they are killed")
    volumes: bool = option("-v", "--volumes", help="with their anonymous volumes (there are none yet)")


@command("container", "rm", "remove containers, and what they wrote", RemoveWords, aliases=("remove",), top=("rm",))
def container_rm(engine: Engine, words: RemoveWords) -> InProgress[Lines]:
    return _each(engine, words.names, "rm", lambda container: engine.remove_container(container, force=words.force))


def _each(engine: Engine, names: Sequence[str], verb: str, act: Callable[[Container], object]) -> InProgress[Lines]:
    """Do the same to each, as docker does: what fails does not stop the rest; the first error is raised at the end."""
    containers = [(name, engine.container(name)) for name in names]

    def body(emit: Any) -> Lines:
        errors: list[NbcontainError] = []
        done = []
        for name, container in containers:
            try:
                act(container)
                done.append(name)
            except ContainerError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return Lines(tuple(done))

    return InProgress(Task(verb, body), "work")


@command("container", "exec", "run a further program in a running container", ExecOptions, top=("exec",))
def container_exec(engine: Engine, options: ExecOptions) -> InProgress[Any]:
    return InProgress(engine.exec(options), "exec")


@command("container", "inspect", "everything that is known of containers, as JSON", Names)
def container_inspect(engine: Engine, words: Names) -> Document:
    return Document([engine.inspect_container(engine.container(name)) for name in words.names])


@dataclass(frozen=True, kw_only=True)
@with_defaults
class OneName:
    name: str = argument(help="a container")


@command(
    "container", "diff", "what a container changed of its image: A added, C changed, D deleted", OneName, (), ("diff",)
)
def container_diff(engine: Engine, words: OneName) -> Table:
    rows = tuple(engine.diff(engine.container(words.name)))
    footer = f"{count(len(rows), 'change')} in the layer of {words.name}"
    return Table(("KIND", Column("PATH", look="code")), rows, footer)


@command("container", "attach", "show a running container's card again", OneName, aliases=("show",), top=("attach",))
def container_attach(engine: Engine, words: OneName) -> Container:
    return engine.container(words.name)


@command("container", "prune", "remove all stopped containers", Nothing)
def container_prune(engine: Engine, _: Nothing) -> InProgress[Lines]:
    stopped = [each.id[:12] for each in engine.containers() if each.status not in ("running", "created")]
    return _each(engine, stopped, "prune", lambda container: engine.remove_container(container, force=False))


# --- the engine itself ------------------------------------------------------------------------


@command("nbcontain", "info", "where things are kept, how many, and what is isolated here", Nothing)
def info(engine: Engine, _: Nothing) -> Table:
    return Table(("", ""), tuple(engine.info().items()), f"nbcontain {__version__}")


@command("nbcontain", "doctor", "what this machine allows, why not, and what still works", Nothing)
def doctor(engine: Engine, _: Nothing) -> Table:
    host = engine.fresh_host()
    rows = tuple(("yes" if probe.ok else "no", ability.value, probe.why) for ability, probe in host.abilities.items())
    return Table(("HERE", "WHAT", "WHY"), rows, engine.profile.describe(host))


@command("nbcontain", "prune", "remove images without a name, unused layers and old build steps", Nothing)
def prune(engine: Engine, _: Nothing) -> InProgress[Lines]:
    def body(emit: Any) -> Lines:
        return Lines((f"freed {size(engine.prune())}",))

    return InProgress(Task("prune", body), "work")


@command("nbcontain", "version", "this program's version", Nothing)
def version(engine: Engine, _: Nothing) -> Lines:
    return Lines((f"nbcontain {__version__}",))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class InspectWords(Names):
    pass


@command("nbcontain", "inspect", "a container or an image, as JSON", InspectWords)
def inspect(engine: Engine, words: InspectWords) -> Document:
    values = []
    for name in words.names:
        try:
            values.append(engine.inspect_container(engine.container(name)))
        except ContainerError:
            values.append(engine.inspect_image(name))
    return Document(values)


def split(line: str) -> list[str]:
    """A magic's line as words, by the shell's rules for quotes. Raises UsageError for an open quote."""
    try:
        return shlex.split(line, posix=True)
    except ValueError as error:
        hint = "close the quote, or write \\' for a lone one"
        raise UsageError(f"cannot read {line!r}", why=str(error), hint=hint) from error
