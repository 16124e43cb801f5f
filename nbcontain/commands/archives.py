"""The commands that write images and containers to files, and read them: docker's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.values import InProgress, Lines
from nbcontain.errors import UsageError
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.platforms import parse
from nbcontain.options import argument, option, with_defaults
from nbcontain.store import layer_forms
from nbcontain.store.archive_writer import Saved
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class SaveWords:
    names: tuple[str, ...] = argument(help="images", nargs="+", metavar="NAME")
    output: str = option("-o", "--output", help="the file to write (standard output unless said)", default="-")
    format: str = option("--format", help="docker-archive and oci-archive are one file, read by all; oci-dir is an "
                         "OCI layout in a directory", default="docker-archive")  # fmt: skip
    platforms: tuple[str, ...] = option("--platform", help="of images for several platforms only this one's (again: "
                                        "another)", metavar="OS/ARCHITECTURE")  # fmt: skip
    quiet: bool = option("-q", "--quiet", help="no progress")


@command("image", "save", "write images to a file that docker, podman and skopeo load", SaveWords, top=("save",))
def image_save(engine: Engine, words: SaveWords) -> InProgress[Lines]:
    if words.format not in ("docker-archive", "oci-archive", "oci-dir"):
        raise UsageError(f"--format {words.format}: there is no such format", hint="docker-archive or oci-dir")
    is_directory = words.format == "oci-dir"
    if is_directory and words.output == "-":
        raise UsageError("--format oci-dir: into which directory?", hint="-o DIR")
    task = engine.archives.save(
        words.names, words.output, directory=is_directory, platforms=_platforms(words.platforms)
    )

    def result(images: tuple[Image, ...]) -> Lines:
        return Lines(() if words.output == "-" else (words.output,))

    return InProgress(task.then(result), "work", words.quiet)


def _platforms(words: tuple[str, ...]) -> tuple[Platform, ...]:
    return tuple(dict.fromkeys(parse(name) for each in words for name in each.split(",") if name))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LoadWords:
    source: str = argument(help="an archive or a directory (standard input unless said)", nargs="?", metavar="FILE")
    input: str = option("-i", "--input", help="the same, as docker has it", metavar="FILE")
    platforms: tuple[str, ...] = option("--platform", help="of images for several platforms only this one's (again: "
                                        "another)", metavar="OS/ARCHITECTURE")  # fmt: skip
    quiet: bool = option("-q", "--quiet", help="no progress")


@command("image", "load", "read the images of an archive: docker's, podman's, an OCI layout", LoadWords, top=("load",))
def image_load(engine: Engine, words: LoadWords) -> InProgress[Lines]:
    task = engine.archives.load(words.input or words.source or "-", _platforms(words.platforms))

    def result(loaded: tuple[Saved, ...]) -> Lines:
        # The images of an index have their names together.
        lines = (
            f"Loaded image: {name.familiar}" if name else f"Loaded image ID: {each.image.id}"
            for each in loaded
            for name in (each.names or (None,))
        )
        return Lines(tuple(dict.fromkeys(lines)))

    return InProgress(task.then(result), "work", words.quiet)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImportWords:
    source: str = argument(
        help="a root file system: a tar file (gzip, bzip2, xz, zstd too), a directory, or - for standard input",
        metavar="FILE",
    )
    name: str = argument(help="what to call the image", nargs="?", default="", metavar="NAME")
    changes: tuple[str, ...] = option("-c", "--change", help="an instruction for its config, as in 'CMD [\"sh\"]'",
                                      metavar="INSTRUCTION")  # fmt: skip
    message: str = option("-m", "--message", help="a comment for its history", metavar="TEXT")
    platform: str = option("--platform", help="what its programs are for (this machine unless said)",
                           metavar="OS/ARCHITECTURE")  # fmt: skip


@command("image", "import", "make an image of one layer out of a root file system", ImportWords, top=("import",))
def image_import(engine: Engine, words: ImportWords) -> InProgress[Image]:
    if words.source.startswith(("http://", "https://")):
        raise UsageError(
            f"import {words.source}: a URL is not read here",
            hint=f"curl -L {words.source} | nbcontain import - {words.name}",
        )
    platform = parse(words.platform) if words.platform else None
    task = engine.archives.import_image(
        words.source, words.name, changes=words.changes, message=words.message, platform=platform
    )
    return InProgress(task, "import")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ConvertWords:
    name: str = argument(help="an image, or a list of several platforms' images", metavar="NAME")
    target: str = argument(help="what to call what comes of it (its own names unless said)", nargs="?", default="",
                           metavar="NEW")  # fmt: skip
    compression: str = option("--compression", help="zstd, gzip or uncompressed", default="zstd", metavar="FORM")
    level: int | None = option("--level", help="of zstd: 1 is quickest, 22 smallest (3 unless said)", metavar="N")


@command("image", "convert", "compress an image's layers in another form: the same image ID", ConvertWords)
def image_convert(engine: Engine, words: ConvertWords) -> InProgress[Image] | InProgress[Lines]:
    form = layer_forms.form_of(words.compression, words.level)
    if engine.store.images.find_index(words.name) is not None:
        made = engine.manifests.convert(words.name, form, words.target, again=words.level is not None)
        return InProgress(made.then(lambda index: Lines((f"{words.target or words.name}@{index.digest}",))), "convert")
    task = engine.archives.convert(words.name, form, words.target, again=words.level is not None)
    return InProgress(task, "convert")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExportWords:
    name: str = argument(help="a container")
    output: str = option("-o", "--output", help="the file to write (standard output unless said)", default="-")


@command("container", "export", "write a container's file system as a tar", ExportWords, top=("export",))
def container_export(engine: Engine, words: ExportWords) -> InProgress[Lines]:
    task = engine.archives.export(engine.container(words.name), words.output)
    return InProgress(task.then(lambda _: Lines(() if words.output == "-" else (words.output,))), "work")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Committing:
    """What an image of a container is given besides."""

    changes: tuple[str, ...] = option("-c", "--change", help="an instruction for its config, as in 'CMD [\"sh\"]'",
                                      metavar="INSTRUCTION")  # fmt: skip
    message: str = option("-m", "--message", help="a comment for its history", metavar="TEXT")
    author: str = option("-a", "--author", help="who made it", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CommitWords(Committing):
    container: str = argument(help="a container")
    name: str = argument(help="what to call the image", nargs="?", default="", metavar="NAME")
    pause: bool = option("-p", "--pause", help="let it stand still while its files are read")
    quiet: bool = option("-q", "--quiet", help="only the image's id")


@command("container", "commit", "make an image of a container and what it changed", CommitWords, top=("commit",))
def container_commit(engine: Engine, words: CommitWords) -> InProgress[Image]:
    task = engine.archives.commit(
        engine.container(words.container), words.name, changes=words.changes, message=words.message,
        author=words.author, pause=words.pause,
    )  # fmt: skip
    return InProgress(task, "work", words.quiet)
