"""What is known of a context's files from one process to the next, and that it is never believed wrongly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nbcontain.build import fingerprint, remembered
from nbcontain.build.context import ContentCache, Context
from nbcontain.build.plan import BuildOptions
from nbcontain.build.selection import Wanted
from nbcontain.engine import Engine
from nbcontain.errors import Cancelled
from nbcontain.store import gc

Look = Callable[[], tuple[str, list[str]]]
listed = fingerprint._listing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("d/f", "d/g", "d/deep/h", os.fsdecode(b"d/\xff")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name.encode('utf-8', 'surrogateescape')!r}")
    return root


@pytest.fixture
def look(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Looks at the context as a new process does: its digest, and which files had to be read."""
    monkeypatch.setattr(fingerprint, "_RACY_NS", -1)
    monkeypatch.setattr(fingerprint, "_WORTH_FILES", 1)
    read: list[str] = []
    opened = fingerprint.opened_name
    monkeypatch.setattr(fingerprint, "opened_name", lambda *a: (read.append(a[-1]), opened(*a))[1])

    def as_a_new_process() -> tuple[str, list[str]]:
        read.clear()
        cache = ContentCache(tmp_path / "contexts")
        with cache.keeping():
            found = str(Context(root, cache).digest(Wanted(("d",))))
        names = list(read)
        assert found == str(Context(root).digest(Wanted(("d",)))), "what is kept is what a fresh look finds"
        return found, names

    return as_a_new_process


def kept(tmp_path: Path) -> Path:
    [path] = (tmp_path / "contexts").iterdir()
    return path


def test_the_next_process_reads_only_what_changed(root: Path, look: Look) -> None:
    first, read = look()
    assert len(read) == 4
    assert look() == (first, [])
    (root / "d" / "g").write_text("g/d")
    second, read = look()
    assert second != first and read == ["d/g"]
    assert look() == (second, [])


@pytest.mark.parametrize("change", ["content", "touched", "mode", "attribute", "replaced"])
def test_any_change_of_a_file_is_seen(root: Path, look: Look, change: str) -> None:
    file = root / "d" / "f"
    look()
    before = file.stat()
    match change:
        case "content":
            # Of the same size, and with the time that it had.
            file.write_text(file.read_text().swapcase())
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "touched":
            os.utime(file, (1, 1))
        case "mode":
            file.chmod(0o600)
        case "attribute":
            os.setxattr(file, "user.note", b"x")
        case "replaced":
            file.with_name("new").write_text(file.read_text())
            os.replace(file.with_name("new"), file)
    assert "d/f" in look()[1]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "directory", "format", "root"])
def test_what_is_not_whole_is_as_if_it_were_not_there(tmp_path: Path, look: Look, damage: str) -> None:
    found, _ = look()
    path = kept(tmp_path)
    data = path.read_bytes()
    body = json.loads(data.partition(b"\n")[2])
    match damage:
        case "cut":
            path.write_bytes(data[:-9])
        case "changed":
            path.write_bytes(data.replace(b"d/", b"e/"))
        case "empty":
            path.write_bytes(b"")
        case "directory":
            path.unlink()
            path.mkdir()
        case _:
            said = json.dumps(body | {damage: "another"}).encode()
            path.write_bytes(remembered._mark(said) + b"\n" + said)
    again, read = look()
    assert again == found and len(read) == 4


def test_what_was_read_before_a_cancellation_is_kept(root: Path, tmp_path: Path, look: Look) -> None:
    def strike(size_bytes: int) -> None:
        if size_bytes:
            raise Cancelled("nobody wants it")

    cache = ContentCache(tmp_path / "contexts")
    with pytest.raises(Cancelled), cache.keeping():
        Context(root, cache).digest(Wanted(("d",)), strike)
    assert look()[1] == ["d/deep/h"]


def test_what_another_build_reads_meanwhile_hinders_nobody(root: Path, tmp_path: Path, look: Look) -> None:
    class ReadingMore(str):
        def startswith(self, *arguments: Any) -> bool:
            cache.put(f"{self}-more", (0, 0, 0, 0, 0), "", 1)
            return super().startswith(*arguments)

    cache = ContentCache(tmp_path / "contexts")
    cache.put(ReadingMore("/elsewhere"), (0, 0, 0, 0, 0), "", 1)
    with cache.keeping():
        Context(root, cache).digest(Wanted(("d",)))
    assert look()[1] == []


def test_a_context_is_the_same_by_its_relative_name(
    root: Path, tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    cache = ContentCache(tmp_path / "contexts")
    with cache.keeping():
        Context(Path(), cache).digest(Wanted(("d",)))
    assert look()[1] == []


@pytest.mark.parametrize("where", ["root", "below"])
def test_nothing_is_kept_of_a_file_system_whose_times_its_maker_chose(
    root: Path, tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "root":
        monkeypatch.setattr("os.fstatvfs", lambda fd: SimpleNamespace(f_flag=os.ST_RDONLY))
    else:
        # What is below seems to be mounted there.
        seen = fingerprint.stat_key
        monkeypatch.setattr(fingerprint, "_listing", lambda fd: [
            (name, mode, device + 1, *rest) for name, mode, device, *rest in listed(fd)
        ])  # fmt: skip
        monkeypatch.setattr(fingerprint, "stat_key", lambda found: (seen(found)[0] + 1, *seen(found)[1:]))
    assert len(look()[1]) == len(look()[1]) == 4


def test_files_that_are_gone_are_forgotten(root: Path, tmp_path: Path, look: Look) -> None:
    for number in range(20):
        (root / "d" / f"more{number}").write_text("x")
    look()
    for number in range(20):
        (root / "d" / f"more{number}").unlink()
    (root / "d" / "g").write_text("changed")
    look()
    assert b"more" not in kept(tmp_path).read_bytes() and b"deep" in kept(tmp_path).read_bytes()


def test_little_is_not_worth_keeping(root: Path, tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "contexts")
    with cache.keeping():
        Context(root, cache).digest(Wanted(("d",)))
    assert not (tmp_path / "contexts").exists()


def test_a_place_that_cannot_be_written_hinders_nothing(root: Path, tmp_path: Path, look: Look) -> None:
    (tmp_path / "contexts").write_text("in the way")
    assert len(look()[1]) == len(look()[1]) == 4


def test_a_build_leaves_what_it_saw_and_a_sweep_takes_it(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_RACY_NS", -1)
    monkeypatch.setattr(fingerprint, "_WORTH_FILES", 1)
    engine.build("FROM scratch\nCOPY d /d\n", BuildOptions(context=root)).result()
    assert len(list(engine.layout.contexts.iterdir())) == 1
    gc.collect(engine.store, list)
    assert len(list(engine.layout.contexts.iterdir())) == 1
    monkeypatch.setattr("time.time", lambda: 1e11)
    gc.collect(engine.store, list)
    assert list(engine.layout.contexts.iterdir()) == []
