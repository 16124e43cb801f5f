"""Journals: every record from the first, for any number of followers, to the end."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.errors import Cancelled, Span
from nbcontain.events import Finished, Notice, Output, Progress, Record, Started, decode, encode, scope
from nbcontain.journal import FileJournal, MemoryJournal
from nbcontain.linux import syscalls, watching
from nbcontain.linux.watching import Watch
from nbcontain.runtime import output_lines
from nbcontain.task import Task, at_once

texts = st.text(max_size=40)
events = st.one_of(
    st.builds(
        Started,
        texts,
        texts,
        st.none() | texts.filter(bool),
        st.none() | st.builds(Span, st.integers(1), st.integers(1)),
    ),
    st.builds(Progress, texts, st.integers(0), st.none() | st.integers(0)),
    st.builds(Output, texts, st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=60)),
    st.builds(Notice, texts, texts, texts, st.sampled_from(["", "warning", "hint", "ending"])),
    st.builds(Finished, texts, st.sampled_from(["done", "cached", "failed"]), texts, st.none() | st.integers(0, 255)),
)


@given(events)
def test_every_event_survives_its_line_byte_for_byte(event: object) -> None:
    line = encode(Record(12.5, event))  # type: ignore[arg-type]
    assert line.endswith(b"\n") and b"\n" not in line[:-1]
    again = decode(line).event
    # An empty text is left out of the line and comes back as the field's default, or as an empty text.
    assert encode(Record(12.5, again)) == line


@given(st.binary(max_size=80))
def test_what_is_no_journal_line_is_a_value_error_and_nothing_else(line: bytes) -> None:
    try:
        decode(line)
    except ValueError:
        pass


def test_what_a_follower_holds_is_let_go_where_there_is_nothing_to_follow(tmp_path: Path) -> None:
    ended: list[str] = []
    with pytest.raises(FileNotFoundError):
        FileJournal(tmp_path / "removed" / "journal.jsonl").follow(lambda: ended.append("at_end"))
    assert ended == ["at_end"]


def test_a_follower_that_comes_late_sees_everything_from_the_first() -> None:
    journal = MemoryJournal()
    journal.append(Started("a", "one"))
    seen: list[Record] = []
    thread = threading.Thread(target=lambda: seen.extend(journal.follow()))
    thread.start()
    journal.append(Finished("a", "done"))
    journal.close()
    thread.join(5)
    assert [type(record.event) for record in seen] == [Started, Finished]


def test_a_file_is_followed_while_it_grows_and_ends_with_its_task(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = FileJournal(path)
    writer.append(Started("c", "web"))
    seen: list[Record] = []
    thread = threading.Thread(target=lambda: seen.extend(FileJournal(path, lambda: True).follow()))
    thread.start()
    for number in range(100):
        writer.append(Output("c", "stdout", b"%d\n" % number))
    writer.append(Finished("c", "done", exit_code=0))
    thread.join(5)
    assert not thread.is_alive()
    assert b"".join(r.event.data for r in seen if isinstance(r.event, Output)).split() == [
        b"%d" % n for n in range(100)
    ]


def test_a_writer_that_was_killed_leaves_an_account_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    FileJournal(path).append(Started("c", "web"))
    last = list(FileJournal(path, lambda: False).follow())[-1]
    assert last.event == Finished("c", "lost", detail="its supervisor is gone")


def test_a_torn_last_line_hides_nothing_before_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    FileJournal(path).append(Started("c", "web"))
    with path.open("ab") as file:
        file.write(b'{"time":1,"kind":"outp')
    assert [record.event for record in FileJournal(path).read()] == [Started("c", "web")]


def test_long_output_is_cut_into_records_of_moderate_size(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    FileJournal(path).extend(output_lines.parts(1.0, "c", "stdout", b"x" * 100_000))
    records = FileJournal(path).read()
    assert max(len(record.event.data) for record in records) <= 8192  # type: ignore[union-attr]
    assert b"".join(record.event.data for record in records) == b"x" * 100_000  # type: ignore[union-attr]


def test_a_cancelled_task_is_struck_at_its_next_word() -> None:
    going = threading.Event()

    def body(emit: object) -> None:
        with scope(emit, "t", "waits"):  # type: ignore[arg-type]
            going.set()
            while True:
                emit(Progress("t", 1))  # type: ignore[operator]

    task = Task("t", body)
    going.wait(5)
    task.cancel()
    with pytest.raises(Cancelled):
        task.result()
    assert task.journal.read()[-1].event == Finished("t", "cancelled")


def test_what_waits_silently_is_told_of_the_cancellation() -> None:
    let_go = threading.Event()
    task = Task("t", lambda emit: let_go.wait(5))
    task.on_cancel(let_go.set)
    task.cancel()
    assert task.wait(2)


def test_who_asks_is_told_once_that_it_is_done_even_afterwards() -> None:
    let_go, told = threading.Event(), threading.Semaphore(0)

    def body(emit: object) -> None:
        let_go.wait(5)
        raise ValueError

    task = Task("t", body)
    task.on_done(told.release)
    assert not told.acquire(timeout=0.05)
    let_go.set()
    assert told.acquire(timeout=2) and task.is_done
    task.on_done(told.release)
    assert told.acquire(timeout=0) and not told.acquire(timeout=0)


@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_a_file_is_followed_too_where_the_kernel_watches_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Each user has 128 of these, for all their programs together."""

    def refused(*_: object) -> int:
        raise OSError(errno.EMFILE if limit == "instances" else errno.ENOSPC, "no more")

    monkeypatch.setattr(syscalls, "inotify_init" if limit == "instances" else "inotify_add_watch", refused)
    path = tmp_path / "journal.jsonl"
    journal = FileJournal(path)
    journal.open()
    journal.append(Started("t", "t"))
    seen: list[Record] = []
    thread = threading.Thread(target=lambda: seen.extend(FileJournal(path, lambda: True).follow()))
    thread.start()
    time.sleep(0.1)
    journal.append(Finished("t", "done"))
    thread.join(10)
    assert not thread.is_alive()
    assert [type(each.event) for each in seen] == [Started, Finished]


def opened(*words: str) -> int:
    """How many of this process's descriptors are of such a thing."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # Somebody's thread has closed it since.
            found += any(word in os.readlink(f"/proc/self/fd/{fd}") for word in words)
    return found


def test_who_follows_and_never_reads_keeps_nothing_watched(tmp_path: Path) -> None:
    before = opened("inotify", str(tmp_path))
    for _ in range(5):
        FileJournal(tmp_path / "journal.jsonl", lambda: True).follow()
    watch = Watch(tmp_path)
    while not opened("inotify"):
        watch.wait(0.01)
    del watch
    deadline = time.monotonic() + 10
    while opened("inotify", str(tmp_path)) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert opened("inotify", str(tmp_path)) <= before


def test_the_kernel_is_asked_to_tell_of_what_takes_longer_than_a_moment(tmp_path: Path) -> None:
    """To end an instance takes ten milliseconds, which the end of a process waits for."""
    journal = FileJournal(tmp_path / "journal.jsonl", lambda: True)
    journal.append(Started("t", "t"))
    before = opened("inotify")
    records = journal.follow()
    assert isinstance(next(records).event, Started)
    threading.Timer(0.01, journal.append, (Output("t", "stdout", b"soon"),)).start()
    assert next(records).event == Output("t", "stdout", b"soon")
    assert opened("inotify") == before
    threading.Timer(0.3, journal.append, (Output("t", "stdout", b"late"),)).start()
    # It goes away meanwhile, as with --rm, and may still be written to.
    threading.Timer(0.02, os.rename, (tmp_path, tmp_path.with_name("gone"))).start()
    assert next(records).event == Output("t", "stdout", b"late")
    assert opened("inotify") == before + 1
    began = time.monotonic()
    threading.Timer(0.2, journal.append, (Finished("t", "done"),)).start()
    assert isinstance(next(records).event, Finished)
    assert time.monotonic() - began < 1
    os.rename(tmp_path.with_name("gone"), tmp_path)


def test_who_has_a_hint_does_not_wait_for_the_next_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watching, "_MOMENT_S", 1000)
    reading, writing = os.pipe()
    watch = Watch(tmp_path, reading)
    watch.wait(0.001)
    # It has been looked for so long that the next look is a minute away.
    watch._began -= 480
    threading.Timer(0.05, os.close, (writing,)).start()
    began = time.monotonic()
    watch.wait(60)
    assert time.monotonic() - began < 30
    # It tells that once.
    began = time.monotonic()
    watch.wait(0.2)
    assert time.monotonic() - began >= 0.2
    os.close(reading)


def test_who_stops_before_anything_was_read_lets_go_of_all_that_was_opened(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").touch()
    ended: list[int] = []
    FileJournal(tmp_path / "journal.jsonl").follow(lambda: ended.append(1)).close()
    assert ended == [1]


def test_who_is_behind_gets_much_at_once_and_is_let_go_while_it_still_grows(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl", lambda: True)
    journal.append(Started("it", "it"))
    for _ in range(200):
        journal.append(Output("it", "stdout", b"y\n" * 10_000))
    enough = threading.Event()
    batches = journal.batches(enough=enough.is_set)
    first = next(batches)
    assert isinstance(first[0].event, Started) and 50 < len(first) < 200
    enough.set()
    # Somebody writes without a pause.
    journal.append(Output("it", "stdout", b"y\n" * 10_000))
    assert sum(map(len, batches)) < 200
    journal.close()


def test_who_has_had_enough_is_let_go_though_the_writer_lives_on(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl", lambda: True)
    journal.append(Started("c", "web"))
    enough = threading.Event()
    records = journal.follow(enough=enough.is_set)
    assert isinstance(next(records).event, Started)
    enough.set()
    assert list(records) == []


def test_what_is_done_at_once_is_in_order_and_no_more_of_it_than_there_is_room_for() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def act(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return number * 2

    assert at_once(range(120), act, "test") == [number * 2 for number in range(120)]
    assert 1 < most <= 50
