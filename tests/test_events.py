"""`events`: what is told of containers and images, in docker's words, who hears it, and that it is kept."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from machine import Machine, until
from nbcontain import segments
from nbcontain.commands import parse_words
from nbcontain.display.present import present
from nbcontain.engine import Engine
from nbcontain.errors import UsageError
from nbcontain.events import Notice
from nbcontain.journal import FileJournal
from nbcontain.segments import Reader
from nbcontain.store import events_log, files
from nbcontain.store.rotation import rotated


def happened(engine: Engine, *filters: str, since: float = 0.0) -> list[tuple[str, str]]:
    """Type and action of what was told since then."""
    told = engine.events.between(str(since), filters=filters, follow=False)
    return [(each["Type"], each["Action"]) for each in told if each is not None]


def lines_of(engine: Engine, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    command, options = parse_words("", ["events", *words])
    progress = command.function(engine, options)
    present(progress.task, progress.kind, mode="plain")  # type: ignore[attr-defined]
    return capsys.readouterr().out.splitlines()


def test_a_containers_life_is_told_in_dockers_words(engine: Engine, busybox_image: str) -> None:
    began = time.time()
    machine = Machine.on(engine)
    container = machine.start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done", image="busybox")
    engine.restart(container, 5)
    engine.kill(container, 9)
    container.wait(5)
    engine.remove_container(container)
    told = happened(engine, "type=container", since=began)
    assert [action for _, action in told] == [
        "create", "start", "kill", "die", "stop", "start", "restart", "kill", "die", "destroy",
    ]  # fmt: skip
    [died, _] = [e for e in engine.events.between(str(began), filters=["event=die"], follow=False) if e is not None]
    assert died["Actor"]["Attributes"]["exitCode"] == "3"
    assert died["Actor"]["Attributes"]["name"] == container.name
    assert died["Actor"]["Attributes"]["image"] == "busybox"


def test_rm_tells_of_the_end_and_of_the_removal(engine: Engine, busybox_image: str) -> None:
    machine = Machine.on(engine)
    began = time.time()
    machine.run("true", image="busybox")
    until(lambda: "destroy" in [action for _, action in happened(engine, since=began)])
    assert [action for _, action in happened(engine, since=began)] == ["create", "start", "die", "destroy"]


def test_images_are_told_of(engine: Engine, busybox_image: str) -> None:
    began = time.time()
    engine.tag("busybox", "other:1")
    engine.remove_image("other:1")
    assert happened(engine, since=began) == [("image", "tag"), ("image", "untag")]
    assert happened(engine, "image=busybox", since=began) == []


def test_filters_are_alternatives_within_a_name_and_conditions_between(engine: Engine) -> None:
    record = engine.events.record
    record("volume", "create", "data", {"driver": "local"})
    record("network", "connect", "n1", {"container": "abc", "name": "web", "type": "bridge"})
    record("container", "health_status: healthy", "abcdef", {"image": "app:1", "name": "one", "team": "blue"})
    record("container", "exec_start: ls", "abcdef", {"image": "app:1", "name": "one", "team": "blue"})
    record("container", "start", "fedcba", {"image": "app:2", "name": "two", "team": "red"})
    assert len(happened(engine)) == 5
    assert happened(engine, "type=volume") == [("volume", "create")]
    assert happened(engine, "volume=data", "event=destroy") == []
    assert happened(engine, "network=web") == [("network", "connect")]
    assert happened(engine, "event=health_status", "event=exec_start") == [
        ("container", "health_status: healthy"), ("container", "exec_start: ls"),
    ]  # fmt: skip
    assert len(happened(engine, "container=abc", "type=container")) == 2
    assert len(happened(engine, "container=two")) == 1
    assert len(happened(engine, "label=team=blue")) == 2
    assert len(happened(engine, "label=team")) == 3
    assert len(happened(engine, "image=app")) == 3
    assert len(happened(engine, "image=app:2")) == 1
    with pytest.raises(UsageError, match="no filter 'colour'"):
        happened(engine, "colour=red")


def test_a_line_and_its_formats_are_dockers(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    events_log.record(engine.layout.events, "container", "die", "abc", {"name": "one", "exitCode": "3", "image": "i"},
                      now=1700000000.5)  # fmt: skip
    [line] = lines_of(engine, capsys, "--since", "1700000000", "--until", "1700000001")
    assert line.endswith(" container die abc (exitCode=3, image=i, name=one)")
    assert line[19:29] == ".500000000"
    [text] = lines_of(engine, capsys, "--since", "0", "--until", "1700000001", "--format", "json")
    assert json.loads(text) == {
        "status": "die", "id": "abc", "from": "i", "Type": "container", "Action": "die", "scope": "local",
        "Actor": {"ID": "abc", "Attributes": {"name": "one", "exitCode": "3", "image": "i"}},
        "time": 1700000000, "timeNano": 1700000000500000000,
    }  # fmt: skip
    template = "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.exitCode}}"
    assert lines_of(engine, capsys, "--until", "1700000001", "--format", template) == ["container die abc 3"]


def test_who_follows_hears_at_once_and_can_stop(engine: Engine) -> None:
    command, options = parse_words("", ["events", "--filter", "type=volume"])
    task = command.function(engine, options).task  # type: ignore[attr-defined]
    said_so_far = lambda: b"".join(getattr(r.event, "data", b"") for r in task.journal.read())  # noqa: E731
    engine.events.record("container", "start", "abc", {})
    engine.events.record("volume", "create", "data", {})
    until(lambda: b"volume create data" in said_so_far())
    assert b"container" not in said_so_far()
    task.cancel()
    assert task.wait(2)


def test_events_outlive_kernels_and_rotations_and_none_is_read_twice(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_log, "SEGMENT_BYTES", 4000)
    engine.events.record("container", "first", "abc", {})
    reader = Reader(engine.layout.events)
    writers = [threading.Thread(target=lambda n=n: [
        engine.events.record("container", f"a{n}-{i}", "abc", {"filling": "x" * 40}) for i in range(100)
    ]) for n in range(4)]  # fmt: skip
    heard: list[bytes] = []
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        heard += reader.chunk().split(b"\n")
    for writer in writers:
        writer.join()
    heard += b"".join(reader.chunks()).split(b"\n")
    kept = sorted(engine.layout.events.parent.iterdir())
    assert 1 < len(kept) <= events_log.SEGMENTS
    recent = happened(engine)
    assert len(recent) == len(set(recent)) > 50
    assert reader.missed or len([each for each in heard if b"Action" in each]) == 401


def test_a_full_or_missing_store_keeps_nobody_from_working(engine: Engine) -> None:
    _ = engine.store
    engine.layout.events.parent.mkdir()
    engine.layout.events.mkdir()
    engine.events.record("container", "start", "abc", {})


def test_a_line_that_comes_while_the_file_is_put_aside_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    monkeypatch.setattr(events_log, "SEGMENT_BYTES", 400)
    rename = os.rename
    others: list[threading.Thread] = []

    def slow_rename(source: Path, target: Path) -> None:
        rename(source, target)
        if not others:
            others.append(threading.Thread(target=events_log.record, args=(path, "volume", "second", "b", {})))
            others[0].start()
            # It has written where it found no file, or it waits for the one that is being begun.
            others[0].join(0.3)

    monkeypatch.setattr(files, "_rename", slow_rename)
    events_log.record(path, "volume", "first", "a", {"filling": "x" * 400})
    others[0].join()
    reader = Reader(path)
    heard = b"".join(reader.chunks())
    assert (heard.count(b'"first"'), heard.count(b'"second"'), reader.missed) == (1, 1, 0)


def test_a_file_system_without_hard_links_does_not_keep_a_file_from_being_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(source))

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"old\n")
    fd = rotated(path, 2)
    os.write(fd, b"new\n")
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "events.jsonl.0"]
    assert b"".join(Reader(path).chunks()) == b"old\n" + segments.head(1) + b"new\n"


def test_a_reader_that_rotations_overtake_while_it_looks_knows_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"0\n")
    reader = Reader(path)
    assert reader.chunk() == b"0\n"
    os.close(rotated(path, 1))
    os.close(rotated(path, 1))
    listed = segments.numbers

    def overtaken(directory: int | Path | str, name: str) -> list[int]:
        found = listed(directory, name)
        with monkeypatch.context() as while_it_rotates:
            while_it_rotates.setattr(segments, "numbers", listed)
            os.close(rotated(path, 1))
        return found

    monkeypatch.setattr(segments, "numbers", overtaken)
    first = reader.chunk()
    monkeypatch.setattr(segments, "numbers", listed)
    heard = (first + b"".join(reader.chunks())).splitlines()
    with path.open("rb") as last:
        assert heard[-1] == last.readline().strip()
        assert len(heard) == len(set(heard)) == segments.number_of(last.fileno()) - reader.missed


def test_a_disk_without_room_for_another_file_takes_more_events_in_the_one_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    events_log.record(path, "volume", "first", "a", {})
    monkeypatch.setattr(events_log, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(files, "write", _is_full)
    events_log.record(path, "volume", "second", "b", {})
    assert len(path.read_bytes().splitlines()) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_without_room_for_another_file_lets_a_containers_journal_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl")
    journal.limit_bytes = 1
    journal.begin_anew = partial(rotated, journal.path, 2)
    monkeypatch.setattr(files, "write", _is_full)
    journal.append(Notice("", "one"))
    journal.append(Notice("", "two"))
    journal.close()
    assert [record.event for record in journal.read()] == [Notice("", "one"), Notice("", "two")]


def _is_full(fd: int, data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
