"""Images and containers to and from files: save, load, export, commit, import."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain import container_facts
from nbcontain.build.changed import changed
from nbcontain.build.importer import Source, imported_image, told_of
from nbcontain.errors import BadArchive, BadReference, ImageNotFound, StoreError, UsageError
from nbcontain.events import Emit, Notice, Progress, scope
from nbcontain.oci.image import Descriptor, History, Image, ImageConfig, Platform, timestamp
from nbcontain.oci.indexes import entry_of, index_of
from nbcontain.oci.platforms import choose, fits, require
from nbcontain.oci.reference import Reference
from nbcontain.runtime.container import Container
from nbcontain.runtime.lifetimes import health_from
from nbcontain.store import destinations
from nbcontain.store.archive_reader import read_archive
from nbcontain.store.archive_writer import Saved, layers_of, write_archive, write_directory
from nbcontain.store.conversion import TOLD_BYTES, converted, layer_step
from nbcontain.store.early import Early
from nbcontain.store.gc import sweep
from nbcontain.store.layer_forms import Form
from nbcontain.task import Task
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine


class Archives:
    """What an engine writes to files and reads from them: a path, "-" for standard output or input, or what is open.

    What is written to is open as a file descriptor, and what is read from is anything with `readinto`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- images ---

    def save(
        self, names: Sequence[str], destination: str | int, *, directory: bool = False,
        platforms: Sequence[Platform] = (),
    ) -> Task[tuple[Image, ...]]:  # fmt: skip
        """Write images to a file that docker, podman, skopeo and umoci read, or as an OCI layout into a directory.

        A repository without a tag stands for all its tags; of an index the images for these platforms are meant, or
        all. Raises ImageNotFound, NoSuchPlatform.
        """
        saved = self._chosen(names)
        if platforms:
            saved = tuple(each for one in _by_name(saved) for each in _only(one, platforms))

        def body(emit: Emit) -> tuple[Image, ...]:
            total = sum(layer.size for layer in layers_of(saved))
            told = _Teller(emit, "save", total)
            with scope(emit, "save", f"save {' '.join(names)}"), self._engine.store.shared():
                blobs = self._engine.store.blobs
                if directory:
                    try:
                        write_directory(saved, blobs, Path(str(destination)).absolute(), told)
                    except OSError as error:
                        raise StoreError(f"cannot write to {destination}", why=error.strerror or "") from error
                else:
                    with destinations.opened(destination) as write:
                        write_archive(saved, blobs, write, told)
            for each in saved:
                self._engine.events.record("image", "save", str(each.image.id), {"name": str(each.image.id)})
            return tuple(each.image for each in saved)

        return Task("save", body)

    def _chosen(self, names: Sequence[str]) -> tuple[Saved, ...]:
        images = self._engine.images()
        chosen: dict[Any, tuple[Image, list[Reference]]] = {}
        for name in names:
            try:
                asked: Reference | None = Reference.parse(name)
            except BadReference:
                asked = None
            tagged = ":" in name.rpartition("/")[2] or "@" in name
            found: list[tuple[Reference | None, Image]] = [
                (reference, image)
                for reference, image in images
                if asked and reference and (reference == asked if tagged else reference.is_beside(asked))
            ] or [(None, self._engine.image(name))]
            for reference, image in reversed(found):
                known = chosen.setdefault(image.digest, (image, []))[1]
                if reference is not None and reference not in known:
                    known.append(reference)
        return tuple(self._saved(image, tuple(references)) for image, references in chosen.values())

    def _saved(self, image: Image, names: tuple[Reference, ...]) -> Saved:
        """An image as it goes into an archive: of an index it is one of the images."""
        index = next((found for each in names if (found := self._engine.store.images.index(each))), None)
        return Saved(image, names, index)

    def load(self, source: Source, platforms: Sequence[Platform] = ()) -> Task[tuple[Saved, ...]]:
        """Read the images of an archive of docker's or of an OCI layout, plain or compressed, file or directory.

        Of an index the images for these platforms, or all. They are verified, unpacked and named. Raises BadArchive,
        BadDocument, DigestMismatch, StoreError, NoSuchPlatform.
        """

        def body(emit: Emit) -> tuple[Saved, ...]:
            engine, images = self._engine, self._engine.store.images
            with scope(emit, "load", f"load {told_of(source)}"), engine.store.shared():
                told = _Teller(emit, "load", None)
                workshop = engine.workshop(emit)
                with Early(workshop.stacks, told.strike) if workshop.can_run else nullcontext() as early:
                    with _opened(source) as stream:
                        choose = partial(_chosen, platforms)
                        with _about(source, "save writes what load reads; import reads a file system's archive"):
                            loaded = read_archive(stream, engine.store.blobs, choose, told, early=early)
                    _require(loaded, platforms)
                    # Here, while the last layers are still being unpacked.
                    for each in loaded:
                        if each.index is not None or not images.is_known(each.image, each.names):
                            images.prepare(each.image)
                    for each in loaded:
                        if workshop.can_run:
                            workshop.unpack(each.image.layers, early, told.strike)
                # All at once; an image of an index is listed by that, if that has a name.
                alone = [each for each in loaded if each.index is None or not each.names]
                images.enter([(each.image, each.names) for each in alone])
                for each in loaded:
                    for name in each.names:
                        # Of the images of an index, the first one here names it.
                        if each.index is not None and images.index(name) != each.index:
                            images.put_index(each.index, name)
                    shown = [name.familiar for name in each.names] or [str(each.image.id)]
                    engine.events.record("image", "load", str(each.image.id), {"name": shown[0]})
                sweep(engine.store)
            return loaded

        return Task("load", body)

    def import_image(
        self, source: Source, tag: str = "", *, changes: Sequence[str] = (), message: str = "",
        platform: Platform | None = None,
    ) -> Task[Image]:  # fmt: skip
        """Make an image of one layer out of a tar file, standard input (-), or a directory; for this machine unless
        another platform is said."""
        reference = Reference.new(tag) if tag else None
        changed(ImageConfig(), changes)

        def body(emit: Emit) -> Image:
            engine = self._engine
            with scope(emit, "build", f"import {tag or told_of(source)}"), engine.store.shared():
                about = _about(source, "import reads a tar of a file system, plain or compressed")
                with scope(emit, "import", f"layer of {told_of(source)}", "build"), about:
                    image = imported_image(source, engine.workshop(emit), "import")
                history = tuple(replace(entry, comment=message or entry.comment) for entry in image.config.history)
                config = replace(image.config, platform=platform or image.config.platform)
                image = Image.of(replace(changed(config, changes), history=history), image.layers)
                engine.store.images.put(image, reference)
            engine.events.record("image", "import", str(image.id), {"name": tag or str(image.id)})
            return image

        return Task(f"import {told_of(source)}", body)

    def convert(self, name: str, form: Form, target: str = "", *, again: bool = False) -> Task[Image]:
        """Have an image's layers compressed in another form: itself, under all its names, or a copy under `target`.

        The image ID stays, and its digest is another. What has the form is done `again` if that is said. Raises
        ImageNotFound, UsageError for a name that stands for several platforms' images (`manifests.convert`) or is none.
        """
        engine = self._engine
        images = engine.store.images
        if images.find_index(name) is not None:
            raise UsageError(f"convert {name}: it stands for images of several platforms")
        image = images.find(name)
        # A name with a digest stands for that manifest and no other.
        own = [each for each in images.names(image.digest) if each.digest is None]
        references = [Reference.new(target)] if target else own
        if not references:
            raise UsageError(f"convert {name}: it has no name to give to what comes of it", hint="convert ID NAME")

        def body(emit: Emit) -> Image:
            with scope(emit, "build", f"convert {name}"), engine.store.shared():
                made = converted(image, form, engine.store.blobs, partial(layer_step, emit, "build"), again=again)
                images.prepare(made)
                images.enter([(made, references)], instead_of=None if target else image.digest)
                if made is not image:
                    share = round(100 * made.size_bytes / max(1, image.size_bytes))
                    emit(Notice("build", f"as {form.name} it takes {share} % of the room that it took"))
            engine.events.record("image", "convert", str(made.id), {"name": str(references[0])})
            engine.housekeeping.collect(wait=False)
            return made

        return Task(f"convert {name}", body)

    # --- containers ---

    def export(self, container: Container, destination: str | int) -> Task[Container]:
        """Write the file system of a container as one tar, as it is now."""
        engine = self._engine

        def body(emit: Emit) -> Container:
            with scope(emit, "export", f"export {container.name}"), destinations.opened(destination) as write:
                active = engine.store.snapshots_of(container.id).active(container.id)
                engine.of(container).workshop(emit).stacks.export(active, write, skip=container.bundle.stubs())
            engine.events.container(container, "export")
            return container

        return Task("export", body)

    def commit(
        self, container: Container, tag: str = "", *, changes: Sequence[str] = (), message: str = "", author: str = "",
        pause: bool = False,
    ) -> Task[Image]:  # fmt: skip
        """Make an image of a container as it is now: its image's layers, and what it changed as one more.

        Its config is the image's with what `run` was told, then changed by these instructions. With `pause` it stands
        still while its files are read, which takes a freezer (SetupFailed says where there is none).
        """
        engine = self._engine
        reference = Reference.new(tag) if tag else None
        base = self.image_of(container)
        config = changed(_as_run(base.config, container), changes)

        def body(emit: Emit) -> Image:
            with scope(emit, "commit", f"commit {container.name}"), engine.store.shared():
                if container.status == "running" and not pause:
                    emit(Notice("commit", f"{container.name} runs on while its files are read",
                                "--pause, or stop it first, where that would matter, as for a database"))  # fmt: skip
                active = engine.store.snapshots_of(container.id).active(container.id)
                with engine.resources.paused(container) if pause else nullcontext():
                    layer = engine.of(container).workshop(emit).stacks.pack_copy(active, container.bundle.stubs())
                now = timestamp()
                entry = History(now, " ".join(container.info.command), message, author, empty_layer=layer is None)
                layers = (*base.layers, *((layer,) if layer else ()))
                made = replace(
                    config, created=now, author=author or config.author, history=(*base.config.history, entry)
                )
                image = Image.of(made, layers)
                engine.store.images.put(image, reference)
            engine.events.container(container, "commit", comment=message, imageID=str(image.id), imageRef=tag)
            return image

        return Task(f"commit {container.name}", body)

    def image_of(self, container: Container) -> Image:
        """The image that a container is made of. Raises ImageNotFound."""
        for _, image in self._engine.images():
            if str(image.id) == container.info.image_id:
                return image
        raise ImageNotFound(
            f"the image that {container.name} is made of is gone", hint="export writes its files; import reads them."
        )


def _as_run(config: ImageConfig, container: Container) -> ImageConfig:
    """The image's config with what is this container's own, as `inspect` says it; its ONBUILD is over."""
    spec, info = container.bundle.spec, container.info
    process, said = spec.process, container_facts.config(info, spec)
    stop_signal = info.stop_signal if config.stop_signal or info.stop_signal != "SIGTERM" else ""
    known = {entry.partition("=")[0]: entry for entry in config.env}
    # What this machine told it of its own, as of a proxy with a password, is for no image.
    told = (*(info.options.get("told") or ()), f"HOSTNAME={spec.hostname or os.uname().nodename}")
    env = tuple(
        known[name] if entry in told else entry for entry in process.env
        if (name := entry.partition("=")[0]) in known or (name != "PATH" and entry not in told)
    )  # fmt: skip
    return replace(
        config, env=env, labels={**config.labels, **info.labels}, user=said["User"], stop_signal=stop_signal,
        working_dir=process.cwd if process.cwd != "/" else config.working_dir,
        entrypoint=tuple(said["Entrypoint"]) if said["Entrypoint"] else None,
        cmd=tuple(said["Cmd"]) if said["Cmd"] else None,
        exposed_ports=tuple(sorted({*config.exposed_ports, *said.get("ExposedPorts", ())})),
        healthcheck=health_from(info.health) if info.health or config.healthcheck else None, on_build=(),
    )  # fmt: skip


def _chosen(wanted: Sequence[Platform], entries: Sequence[Descriptor], name: str) -> Sequence[Descriptor]:
    """Of an index's manifests those for these platforms; without any, all but what is for none, as attestations are."""
    if wanted:
        return [choose(entries, platform, name) for platform in wanted]
    return [each for each in entries if each.platform is None or each.platform.os != "unknown"]


@contextmanager
def _about(source: Source, hint: str) -> Iterator[None]:
    """What is wrong with an archive says which one, and what is read here."""
    try:
        yield
    except BadArchive as error:
        name = f"{source}: " if isinstance(source, str) and source != "-" else ""
        raise BadArchive(f"{name}{error.message}", why=error.why, hint=error.hint or hint) from error


def _require(loaded: Sequence[Saved], wanted: Sequence[Platform]) -> None:
    """Raises NoSuchPlatform for an image that is in no index, and for none of these platforms, if there are any."""
    for each in loaded if wanted else ():
        offered, name = each.image.config.platform, each.names[0].familiar if each.names else each.image.id.short
        if each.index is None and not any(fits(offered, platform) for platform in wanted):
            require(offered, wanted[0], name)


def _by_name(saved: Sequence[Saved]) -> list[list[Saved]]:
    """Those together that are of one index, or alone."""
    groups: dict[Any, list[Saved]] = {}
    for each in saved:
        groups.setdefault(each.index.digest if each.index else each.image.digest, []).append(each)
    return list(groups.values())


def _only(variants: Sequence[Saved], wanted: Sequence[Platform]) -> list[Saved]:
    """The images for these platforms under the same names: one as it is, several in an index of their own."""
    entries = [entry_of(each.image) for each in variants]
    name = variants[0].names[0].familiar if variants[0].names else "image"
    chosen = {choose(entries, platform, name).digest for platform in wanted}
    kept = [each for each in variants if each.image.digest in chosen]
    index = index_of(entry_of(each.image) for each in kept) if len(kept) > 1 else None
    return [replace(each, index=index) for each in kept]


class _Teller:
    """Tells how many bytes are through, not too often."""

    def __init__(self, emit: Emit, task: str, total: int | None) -> None:
        self._emit, self._task, self._total = emit, task, total
        self._told = 0

    def __call__(self, done: int) -> None:
        """So many are now."""
        if done - self._told >= TOLD_BYTES or done == self._total:
            self._told = done
            self.strike()

    def strike(self) -> None:
        """Say it once more: raises if nobody wants this any more."""
        self._emit(Progress(self._task, self._told, self._total))


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    if not isinstance(source, str):
        yield source
        return
    if source == "-":
        yield sys.stdin.buffer
        return
    path = Path(source)
    if os.path.isdir(path):
        yield path
        return
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise StoreError(f"cannot read {source}", why=error.strerror or "") from error
    with file:
        yield file
