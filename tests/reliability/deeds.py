"""What the reliability tests have done to a store, each as a user asks for it, and what must be true afterwards."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import sys
import tarfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec

import pytest

from machine import until
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import ContainerNotFound, ImageNotFound, NbcontainError, VolumeNotFound
from nbcontain.oci.codec import parse_manifest
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import LAYER_TAR_GZIP
from nbcontain.runtime.generate import RunOptions
from nbcontain.store.layer_forms import PLAIN, form_of

sys.path.insert(1, str(Path(__file__).parent.parent / "registry"))

from samples import image_of  # noqa: E402
from server import Registry  # noqa: E402

P = ParamSpec("P")
SIX_STEPS = """\
FROM box
RUN ["/bin/busybox", "mkdir", "/made"]
COPY busybox /made/busybox
RUN ["/bin/busybox", "sh", "-c", "echo one > /made/one"]
WORKDIR /made/below
RUN ["/bin/busybox", "rm", "/made/one"]
CMD ["/bin/busybox", "true"]
"""
Deed = Callable[[Engine, Path], None]
"""Something done to a store with a template's content; the second is the directory that holds the inputs."""


def inputs_of(directory: Path, busybox: Path) -> Registry:
    """Fill the directory of the deeds' inputs: a build context, a small tree, an archive; and serve a registry."""
    (directory / "tree/bin").mkdir(parents=True)
    shutil.copy2(busybox, directory / "busybox")
    (directory / "tree/hello").write_text("hello\n" * 1000)
    (directory / "tree/bin/link").symlink_to("../hello")
    os.environ["no_proxy"] = "127.0.0.1"
    registry = Registry()
    registry.add("team/app", "1", *image_of(b"small", random.Random(1).randbytes(700_000)))
    registry.add("team/other", "1", *image_of(b"other", random.Random(2).randbytes(300_000)))
    (directory / "registry").write_text(registry.host)

    def save() -> None:
        with Engine(directory / "other") as engine:
            engine.registry.pull(f"{registry.host}/team/other:1").result()
            name = f"{registry.host}/team/other:1"
            engine.archives.save([name], str(directory / "saved.tar")).result()
            engine.archives.convert(name, PLAIN).result()
            engine.archives.save([name], str(directory / "plain.tar")).result()

    ended = elsewhere(save)
    assert ended.status == 0, ended.words
    shutil.rmtree(directory / "other")
    return registry


OVER = "imported-over"


def template(root: Path, context: Path) -> None:
    """A store with the image box, an old name for it, a container, and something for prune."""
    with Engine(root) as engine:
        box = 'FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "true"]\n'
        engine.build(box, BuildOptions(tags=("box",), context=context)).result()
        engine.tag("box", "old")
        loose = "FROM box\nWORKDIR /rubbish\n"
        engine.build(loose, BuildOptions(tags=("loose",), context=context)).result()
        engine.build("FROM box\nWORKDIR /over\n", BuildOptions(tags=(OVER,), context=context)).result()
        kept = engine.create(RunOptions(image="box", name="kept"))
        (engine.store.snapshots.upper(engine.store.snapshots.active(kept.id)) / "changed").write_text("changed\n" * 99)
        engine.create(RunOptions(image="box", name="going"))
        (engine.volumes.create("data").data / "old").write_text("old\n")
        # So old that the next collection takes them, and what only they hold.
        for record in engine.layout.cache.iterdir():
            os.utime(record, (0, 0))


def import_(engine: Engine, inputs: Path) -> None:
    engine.archives.import_image(str(inputs / "tree"), "imported").result()


def import_over(engine: Engine, inputs: Path) -> None:
    """A name that something else had, which is then collected."""
    engine.archives.import_image(str(inputs / "tree"), OVER).result()
    engine.prune()


def build(engine: Engine, inputs: Path) -> None:
    engine.build(SIX_STEPS, BuildOptions(tags=("six",), context=inputs)).result()


def tag(engine: Engine, inputs: Path) -> None:
    engine.tag("box", "old2")


def move_tag(engine: Engine, inputs: Path) -> None:
    engine.tag("box", "loose")


def convert(engine: Engine, inputs: Path) -> None:
    """Under both its names; what its layer was is collected, if no container holds the store."""
    engine.archives.convert("old", form_of("zstd")).result()


def rmi(engine: Engine, inputs: Path) -> None:
    try:
        engine.remove_image("loose")
    except ImageNotFound:
        # Repeated, after it had been done already.
        engine.prune()


def prune(engine: Engine, inputs: Path) -> None:
    try:
        engine.remove_image("loose")
    except ImageNotFound:
        pass
    engine.prune()


def create(engine: Engine, inputs: Path) -> None:
    if not any(each.name == "new" for each in engine.containers()):
        engine.create(RunOptions(image="box", name="new"))


def run(engine: Engine, inputs: Path) -> None:
    engine.run(RunOptions(image="box", remove=True)).result()


def rm(engine: Engine, inputs: Path) -> None:
    try:
        engine.remove_container(engine.container("going"))
    except ContainerNotFound:
        pass


def _host(inputs: Path) -> str:
    return (inputs / "registry").read_text()


def pull(engine: Engine, inputs: Path) -> None:
    engine.registry.pull(f"{_host(inputs)}/team/app:1").result()


def push(engine: Engine, inputs: Path) -> None:
    name = f"{_host(inputs)}/pushed/box:1"
    engine.tag("box", name)
    engine.registry.push(name).result()
    there, here = engine.registry.manifest(name), engine.image("box").raw_manifest
    assert there == here, (there, here)


def load(engine: Engine, inputs: Path) -> None:
    engine.archives.load(str(inputs / "saved.tar")).result()


def push_plain(engine: Engine, inputs: Path) -> None:
    """Layers that come as tars are compressed, and what they were is collected if no container holds the store."""
    name = f"{_host(inputs)}/team/other:1"
    engine.archives.load(str(inputs / "plain.tar")).result()
    [(_, digest)] = engine.registry.push(name).result()
    there = engine.registry.manifest(name)
    assert Digest.of(there) == digest
    assert {each.media_type for each in parse_manifest(there).layers} == {LAYER_TAR_GZIP}


def commit(engine: Engine, inputs: Path) -> None:
    engine.archives.commit(engine.container("kept"), "committed").result()


def save(engine: Engine, inputs: Path) -> None:
    """Into the store's own directory, where the tests' disk looks."""
    root = engine.layout.root
    if not (root / "saved").is_dir():
        engine.archives.save(["box"], str(root / "saved"), directory=True).result()
    engine.archives.save(["box", "loose"], str(root / "saved.tar")).result()


def torn(root: Path) -> str:
    """What of `save` is there and not whole."""
    if (root / "saved.tar").exists():
        with tarfile.open(root / "saved.tar") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if member.name.startswith("blobs/sha256/") and content:
                    assert hashlib.sha256(content.read()).hexdigest() == member.name.rpartition("/")[2]
            assert "manifest.json" in archive.getnames()
    if (root / "saved").exists():
        for path in (root / "saved/blobs/sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        assert (root / "saved/index.json").exists()
    return ""


def volume_create(engine: Engine, inputs: Path) -> None:
    engine.volumes.create("made", labels={"of": "a deed"})


def volume_rm(engine: Engine, inputs: Path) -> None:
    try:
        engine.volumes.remove("data")
    except VolumeNotFound:
        pass


def volume_use(engine: Engine, inputs: Path) -> None:
    """A container with a volume that is filled from the image, and an anonymous one."""
    if not any(each.name == "with-volumes" for each in engine.containers()):
        engine.create(RunOptions(image="box", name="with-volumes", volumes=("filled:/bin", "/anonymous")))
        engine.volumes.prune()


def repair(engine: Engine, inputs: Path) -> None:
    engine.soundness.look(fix=True, full=True)


DEEDS: dict[str, Deed] = {
    each.__name__.rstrip("_"): each
    for each in (
        import_, import_over, build, tag, move_tag, convert, rmi, prune, create, run, rm, pull, push, load,
        push_plain, commit,
        save, volume_create, volume_rm, volume_use,
    )
}  # fmt: skip


MADE = ("imported", "six", "team/", "pushed", "committed")
"""In names of what deeds make: the layers of these are of another time each time."""


def seen(root: Path) -> tuple[object, ...]:
    """What a user sees of a store: names with their layers' content, containers with how they are."""
    with Engine(root) as engine:
        images = sorted(
            (str(name), tuple(str(layer.diff_id) for layer in image.layers) if str(name) != "None" else ())
            for name, image in engine.images()
            if name is not None and not any(word in str(name) for word in MADE)
        )
        names = sorted(str(name) for name, _ in engine.images() if name is not None)
        volumes = sorted(
            ("" if each.is_anonymous else each.name, walk(each.data))
            for each in engine.volumes
        )  # fmt: skip
        # One of --rm goes a moment after its run, and whoever looks then still comes upon it.
        kept = sorted((each.name, each.status) for each in engine.containers() if not each.info.remove)
        return (images, names, kept, volumes)


def tried(root: Path, inputs: Path) -> str:
    """The names of the modules that it takes to do most of this."""
    with Engine(root) as engine:
        for deed in (build, pull, import_, commit):
            deed(engine, inputs)
    assert problems(root, fix=True) == [] and seen(root)
    return "\n".join(name for name in sys.modules if name.startswith("nbcontain."))


_LAUNCHER = vars(Engine)["launcher"]


@contextmanager
def one_zygote(root: Path) -> Iterator[None]:
    """All engines of this process, and of those that are forked from it, have one zygote, which is of the store `root`.

    To begin with one takes longer than what it is there for. Who is killed on purpose has one of its own (`alone`).
    """
    with pytest.MonkeyPatch.context() as patch, Engine(root) as engine:
        engine.run(RunOptions(image="box", remove=True)).result()
        # Its thread may still be asking for a spare: who is forked meanwhile would wait for the lock for ever.
        until(lambda: not [each for each in threading.enumerate() if each.name.startswith("nbcontain run")])
        launcher = engine.launcher
        patch.setattr(Engine, "launcher", property(lambda engine: launcher))
        yield


def alone() -> None:
    """From here on engines of this process have a zygote of their own, which ends with it."""
    setattr(Engine, "launcher", _LAUNCHER)  # noqa: B010 - a property for mypy


def walk(directory: Path) -> list[str]:
    """All that is in a directory, by its path in there."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def problems(root: Path, *, fix: bool) -> list[str]:
    """What `system check --full` finds; with `fix`, what is left after one repair."""
    with Engine(root) as engine:
        report = engine.soundness.look(full=True, fix=fix)
        return [f"{each.kind}: {each.subject}: {each.detail}" for each in report.left]


@dataclass(frozen=True)
class Ended:
    """How a process of ours ended: by this signal, or with this status and these words."""

    signal: int
    status: int
    words: str


def elsewhere(body: Callable[[], object]) -> Ended:
    """Do something in a process of its own; what it raises comes back as words, with status 1 (2: no typed error)."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as words:
                try:
                    words.write(str(body() or ""))
                    status = 0
                except NbcontainError as error:
                    words.write("\n".join(error.lines()))
                    status = 1
                except BaseException:  # noqa: BLE001 - it is told to the parent
                    words.write(traceback.format_exc())
                    status = 2
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as words:
        text = words.read()
    _, code = os.waitpid(pid, 0)
    return Ended(os.WTERMSIG(code) if os.WIFSIGNALED(code) else 0, os.waitstatus_to_exitcode(code), text)


def with_one_thread(test: Callable[P, None]) -> Callable[P, None]:
    """In a process of its own."""

    @wraps(test)
    def run(*args: P.args, **named: P.kwargs) -> None:
        done = elsewhere(partial(test, *args, **named))
        assert (done.signal, done.status) == (0, 0), done.words

    return run


def copied(source: Path, target: Path) -> Path:
    """A store's copy, in place of what was there."""
    new, gone = target.with_name(f"{target.name}-new"), target.with_name(f"{target.name}-gone")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new, symlinks=True, copy_function=shutil.copy2)
    while True:
        if target.exists():
            # A thread of the engine that was there may still be writing out.
            shutil.rmtree(gone, ignore_errors=True)
            target.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        try:
            new.rename(target)
            break
        except OSError as error:
            # A supervisor of that store tells of a container's end, and makes the directory of events for that.
            if error.errno != errno.ENOTEMPTY:
                raise
    at_home(target, source)
    return target


def at_home(root: Path, source: Path) -> None:
    """Have a store that was at `source` know what this machine allows: to try it again takes longer than all else."""
    facts = root / "host.json"
    facts.unlink(missing_ok=True)
    facts.write_text((source / "host.json").read_text().replace(json.dumps(str(source)), json.dumps(str(root))))
