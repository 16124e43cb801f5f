"""COPY of plain files, whose layer is written straight from them: the same bytes as when they are copied one by one."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import places
from machine import Machine, until
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, NbcontainError
from nbcontain.store import files, tar
from nbcontain.store.compression import uncompressed

BELOW = """\
FROM box
RUN mkdir -p /real/sub /closed/in && chmod 700 /closed && chown 7:8 /closed /real/sub && ln -s /real /link \\
 && echo old > /real/one && ln -s one /real/two && echo old > /real/sub/leaf \\
 && mkdir /shared && chown 0:50 /shared && chmod 2775 /shared && touch -d 2001-02-03 /real /closed
"""
STEPS = """\
FROM below
COPY one /one
COPY one two /many/
COPY one /link/
COPY dir/ /link
COPY one two /real/
COPY dir /closed/in/deep/down
COPY --chown=app:staff --chmod=u=rwX,go=rX . /all
COPY --parents dir/sub/leaf /parents/
COPY --exclude=*.md . /most/
ADD --chmod=600 one /added/
COPY one dir /shared/
COPY one /shared/new/one
COPY --chown=7:9 one /shared/given/one
"""
Line = tuple[object, ...]


@pytest.fixture(scope="module")
def machine(busybox_context: Path) -> Iterator[Machine]:
    with places.store_directory() as root, Engine(root) as engine:
        machine = Machine(engine, busybox_context)
        machine.build(BELOW, "below", busybox_context)
        yield machine


def plain_context(place: Path) -> Path:
    for name in ("one", "two", "dir/sub/leaf", "dir/sub.md", "dir/read.md", "dir/z/last"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"this is {name}\n" * 20)
    (place / "dir/large").write_bytes(bytes(range(256)) * 5000)
    (place / "dir/empty").touch()
    (place / "dir/ü\n").touch()
    os.symlink("sub/leaf", place / "dir/short")
    os.chmod(place / "two", 0o4751)
    os.chmod(place / "dir/sub", 0o2750)
    os.utime(place / "dir/sub", (1_000_000_000, 1_000_000_000))
    return place


def with_further_names(context: Path, place: Path) -> Path:
    """The same files, each of which has a name elsewhere too: then it is not looked at as a plain one."""
    shutil.copytree(context, place / "context", symlinks=True)
    (place / "names").mkdir()
    files = [each for each in (place / "context").rglob("*") if each.is_file() and not each.is_symlink()]
    for number, each in enumerate(files):
        os.link(each, place / "names" / str(number))
    return place / "context"


def layers(engine: Engine, text: str, context: Path) -> list[list[Line]]:
    """Everything in the tar of each new layer, in its order; of directories the time only where it is an old one."""
    image = engine.build(text, BuildOptions(context=context, no_cache=True, tags=("made",))).result()
    found = []
    for layer in image.layers[len(engine.image("below").layers) :]:
        lines: list[Line] = []
        with engine.store.blobs.open(layer.descriptor.digest) as blob:
            reader = tar.Reader(uncompressed(blob))
            while (entry := reader.next()) is not None:
                time = entry.mtime_ns // 10**9 if entry.kind != tar.DIRECTORY or entry.mtime_ns < 15 * 10**17 else 0
                data = b"".join(bytes(chunk) for chunk in iter(reader.chunk, b""))
                lines.append((entry.name, entry.kind, entry.mode, entry.uid, entry.gid, time, entry.link,
                              entry.xattrs, data))  # fmt: skip
        found.append(lines)
    return found


def shown(machine: Machine) -> str:
    places = "/one /many /real /closed /all /parents /most /added /shared"
    return machine.sh(f"find {places} ! -type d -exec stat -c '%n %F %a %u %g %s %Y' {{}} + | sort", image="made")


def test_the_layer_has_the_same_bytes_as_one_of_copied_files(machine: Machine, tmp_path: Path) -> None:
    context = plain_context(tmp_path / "plain")
    found, seen = layers(machine.engine, STEPS, context), shown(machine)
    linked = with_further_names(context, tmp_path)
    assert found == layers(machine.engine, STEPS, linked)
    assert seen == shown(machine)
    assert "/real/sub/leaf" in seen and len(found) == 13


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("COPY dir /real/one", "/real/one cannot be made a directory"),
        ("COPY dir /made\nCOPY two /made/sub.md/x", "/made/sub.md cannot be made a directory"),
        ("COPY two /clash/sub\nCOPY dir /clash", "cannot copy a directory to /clash/sub"),
        ("COPY dir/sub /clash/two\nCOPY two /clash/", "cannot copy a file to /clash/two"),
        ("COPY --chown=nobody-here one /y", "nobody-here"),
        (f"COPY one /{'x' * 256}", "cannot write /x*"),
    ],
)
def test_what_is_in_the_way_is_told(machine: Machine, tmp_path: Path, step: str, why: str) -> None:
    context = plain_context(tmp_path / "plain")
    with pytest.raises(NbcontainError, match=why):
        layers(machine.engine, f"FROM below\n{step}\n", context)


def test_holes_stay_holes(machine: Machine, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.write(b"begin")
    machine.build("FROM box\nCOPY sparse /sparse\n", "sparse", tmp_path)
    size, blocks = machine.sh("stat -c '%s %b' /sparse", image="sparse").split()
    assert (int(size), int(blocks) < 1000) == (8 << 20, True)


def test_what_turns_out_not_to_be_plain_is_copied_and_what_was_begun_is_gone(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(8 << 20))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(8 << 20)
    machine.build("FROM box\nRUN true\n", "mixed", tmp_path)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    machine.build("FROM box\nCOPY . /made/\n", "mixed", tmp_path)
    # Snapshots and blobs are written out by threads that stay for a second or more.
    until(lambda: threading.active_count() <= threads)
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    assert not [each for each in machine.engine.store.layout.tmp.iterdir() if len(each.name) == len(".tmp-") + 16]
    assert machine.sh("stat -c %s /made/a /made/sparse", image="mixed").split() == [str(8 << 20)] * 2


def test_a_layer_that_is_given_up_midway_ends_who_unpacks_it(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(os.urandom(9 << 20))

    write = files.write

    def full(fd: int, data: bytes | memoryview) -> None:
        if os.fstat(fd).st_size > 5 << 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(BuildError, match="no room left"):
        machine.build("FROM box\nCOPY a /made/\n", "full", tmp_path)
    assert not [each for each in machine.engine.store.layout.tmp.iterdir() if len(each.name) == len(".tmp-") + 16]


def test_a_name_like_a_whiteouts_is_a_file(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / ".wh.passwd").write_text("no whiteout")
    machine.build("FROM box\nCOPY .wh.passwd /etc/\n", "named", tmp_path)
    assert machine.sh("cat /etc/.wh.passwd; head -c 4 /etc/passwd", image="named") == "no whiteoutroot"
