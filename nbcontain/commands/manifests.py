"""The commands on manifest lists: docker's and podman's words."""

from __future__ import annotations

import json
from typing import Any

from nbcontain.commands.table import ListWords, command, existence
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Document, InProgress, Lines, Verdict
from nbcontain.display.words import count, size
from nbcontain.engine import Engine
from nbcontain.errors import UsageError
from nbcontain.manifests import Said
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.indexes import ImageIndex, index_from
from nbcontain.oci.reference import Reference
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CreateWords:
    name: str = argument(help="the list", metavar="LIST")
    images: tuple[str, ...] = argument(help="images here, or in registries", nargs="*", metavar="IMAGE")
    amend: bool = option("-a", "--amend", help="add to a list that is there")
    all: bool = option("--all", help="of what is a list itself all images, not only the one for this machine")
    annotation: tuple[str, ...] = option("--annotation", help="say this of the list", metavar="NAME=VALUE")
    quiet: bool = option("-q", "--quiet", help="only the list's digest at the end")


@command("manifest", "create", "make a manifest list of images", CreateWords)
def manifest_create(engine: Engine, words: CreateWords) -> InProgress[object]:
    task = engine.manifests.create(
        words.name, words.images, amend=words.amend, every=words.all, said=Said(annotations=words.annotation)
    )
    return InProgress(task.then(_digest), "work", words.quiet)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class SaidWords:
    """What may be said of an image in a list."""

    os: str = option("--os", help="its operating system", metavar="OS")
    arch: str = option("--arch", help="its architecture", metavar="ARCHITECTURE")
    variant: str = option("--variant", help="its architecture's variant", metavar="VARIANT")
    annotation: tuple[str, ...] = option("--annotation", help="say this of it", metavar="NAME=VALUE")

    def said(self) -> Said:
        return Said(self.os, self.arch, self.variant, self.annotation)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class AddWords(SaidWords):
    name: str = argument(help="the list", metavar="LIST")
    images: tuple[str, ...] = argument(help="images here, or in registries", nargs="+", metavar="IMAGE")
    all: bool = option("--all", help="of what is a list itself all images, not only the one for this machine")
    quiet: bool = option("-q", "--quiet", help="only the list's digest at the end")


@command("manifest", "add", "add images to a manifest list", AddWords)
def manifest_add(engine: Engine, words: AddWords) -> InProgress[object]:
    task = engine.manifests.add(words.name, words.images, every=words.all, said=words.said())
    return InProgress(task.then(_digest), "work", words.quiet)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class AnnotateWords(SaidWords):
    name: str = argument(help="the list", metavar="LIST")
    image: str = argument(help="an image of it: its digest, or its name here", metavar="IMAGE")


@command("manifest", "annotate", "say of an image in a list what it is for", AnnotateWords)
def manifest_annotate(engine: Engine, words: AnnotateWords) -> Lines:
    return _digest(engine.manifests.annotate(words.name, words.image, words.said()))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RemoveWords:
    name: str = argument(help="the list", metavar="LIST")
    image: str = argument(help="an image of it: its digest, or its name here", metavar="IMAGE")


@command("manifest", "remove", "take an image out of a manifest list", RemoveWords)
def manifest_remove(engine: Engine, words: RemoveWords) -> Lines:
    return _digest(engine.manifests.take_out(words.name, words.image))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RmWords:
    names: tuple[str, ...] = argument(help="lists", nargs="+", metavar="LIST")


@command("manifest", "rm", "remove manifest lists; images that have names stay", RmWords)
def manifest_rm(engine: Engine, words: RmWords) -> Lines:
    gone: list[str] = []
    for name in words.names:
        engine.manifests.get(name)
        gone += engine.remove_image(name)
    return Lines(tuple(gone))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class InspectWords:
    names: tuple[str, ...] = argument(help="a list or image, here or in a registry", nargs="+", metavar="NAME")
    verbose: bool = option("-v", "--verbose", help="each image with its name and digest, as docker shows it")


@command("manifest", "inspect", "a manifest list of here, or what its registry has, as JSON", InspectWords)
def manifest_inspect(engine: Engine, words: InspectWords) -> Document:
    # docker's "inspect LIST IMAGE" means the image: what a list says of it is in the list.
    name = words.names[-1]
    if len(words.names) > 2:
        raise UsageError("manifest inspect: one name, or a list and an image of it")
    descriptor, raw = engine.manifests.document(name)
    if not words.verbose:
        return Document(json.loads(raw))
    reference = Reference.parse(name)
    if descriptor.media_type not in codec.INDEXES:
        return Document(_verbose(reference, descriptor.digest, descriptor.media_type, descriptor.size, None))
    entries = index_from(raw).entries
    return Document([_verbose(reference, e.digest, e.media_type, e.size, e.platform) for e in entries])


def _verbose(name: Reference, digest: Digest, media_type: str, size_bytes: int, platform: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": media_type, "digest": str(digest), "size": size_bytes}
    if platform is not None:
        found["platform"] = {"architecture": platform.architecture, "os": platform.os} | (
            {"variant": platform.variant} if platform.variant else {}
        )
    return {"Ref": f"{name.registry}/{name.repository}@{digest}", "Descriptor": found}


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PushWords:
    name: str = argument(help="the list", metavar="LIST")
    destination: str = argument(help="where to, if not what its name says", nargs="?", metavar="NAME")
    all: bool = option("--all", help="its images too, which is what is done in any case")
    purge: bool = option("-p", "--purge", "--rm", help="remove the list here once it is there")
    quiet: bool = option("-q", "--quiet", help="only the digest at the end")


@command("manifest", "push", "send a manifest list and all its images to a registry", PushWords)
def manifest_push(engine: Engine, words: PushWords) -> InProgress[object]:
    engine.manifests.get(words.name)
    task = engine.registry.push(words.name, to=words.destination.removeprefix("docker://"))

    def result(sent: tuple[tuple[Reference, Digest], ...]) -> Lines:
        if words.purge:
            engine.remove_image(words.name, force=True)
        return Lines(tuple(str(digest) for _, digest in sent))

    return InProgress(task.then(result), "push", words.quiet)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExistsWords:
    name: str = argument(help="the list", metavar="LIST")


@command("manifest", "exists", "whether there is a manifest list of that name here: exit status 0 or 1", ExistsWords)
def manifest_exists(engine: Engine, words: ExistsWords) -> Verdict:
    return existence(lambda: engine.manifests.get(words.name))


@command("manifest", "ls", "list manifest lists", ListWords, aliases=("list",))
def manifest_ls(engine: Engine, words: ListWords) -> Table | Lines:
    found = engine.store.images.indexes()
    if words.quiet:
        return Lines(tuple(name.familiar for name, _ in found))
    columns = (
        Column("LIST"), Column("TAG"), Column("DIGEST", look="wide"), Column("PLATFORMS"), Column("SIZE", size, "num"),
    )  # fmt: skip
    rows = [
        (
            name.familiar_repository, name.tag or "<none>", index.digest.short, platforms(index),
            size_bytes(engine, index),
        )
        for name, index in found
    ]  # fmt: skip
    return Table(columns, rows, count(len(rows), "manifest list"), "manifests")


def platforms(index: ImageIndex) -> str:
    """What a list is for, in words."""
    return ", ".join(map(str, index.platforms)) or "nothing"


def size_bytes(engine: Engine, index: ImageIndex) -> int:
    """The layers of a list's images, each once."""
    images = engine.store.images.children(index)
    return sum({layer.digest: layer.size for image in images for layer in image.manifest.layers}.values())


def _digest(index: ImageIndex) -> Lines:
    return Lines((str(index.digest),))
