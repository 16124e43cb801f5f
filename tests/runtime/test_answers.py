"""What answers for the kernel knows: the list of what is served, and the rules of who may become whom."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bpf import ALLOW, ERRNO, Filter
from nbcontain.linux import filter_bytes
from nbcontain.runtime.answered_calls import filter_of
from nbcontain.runtime.guard_answers import GuardAnswers
from nbcontain.runtime.id_answers import IdAnswers
from nbcontain.runtime.kept_ids import KEEP, Ids, People, Seen
from nbcontain.runtime.served import served
from nbcontain.store.makers import Notes

ROOT, APP = Ids(), Ids.of(1000, 1001, (1001, 50))


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/root/etc/shadow", "/proc/self/root", "/proc/self/cwd/x", "/proc/self/../1/status", "/proc/self/mem",
        "/proc/self/fd", "/proc/self/fd/", "/proc/self/fd/../root", "/proc/99/status", "/proc/kcore", "/proc/kmsg",
        "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/self/map_files/0-1", "/proc/self/ns/pid",
        "/proc", "/proc/self", "/proc/self/task", "/dev/sda", "/dev/fd/1/x", "/dev/fd/-1", "/dev/mem", "/dev",
        "/sys/kernel/debug/x", "/etc/passwd",
        "/proc/self/status/", "/proc/self\0/status", "/proc/sélf/status", "/dev/shm/x", "/dev/pts/0",
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_is_not_served(path: str) -> None:
    assert served(path.encode(), (7,)) is None


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("/proc/self/status", "process", "status"), ("//proc/./self//status", "process", "status"),
        ("/proc/7/maps", "process", "maps"), ("/proc/thread-self/stat", "task", "stat"),
        ("/proc/meminfo", "proc", "meminfo"), ("/dev/tty", "tty", ""),
        ("/proc/net/dev", "process", "net/dev"), ("/proc/mounts", "mounts", "mounts"), ("/proc/self/exe", "exe", ""),
        ("/dev/null", "device", "null"), ("/dev/stderr", "fd", ""), ("/proc/self/fd/63", "fd", ""),
        ("/sys/devices/system/cpu/online", "sys", "devices/system/cpu/online"),
    ],
)  # fmt: skip
def test_what_is_on_it_is(path: str, kind: str, name: str) -> None:
    found = served(path.encode(), (7,))
    assert found is not None
    assert (found.kind, found.name) == (kind, name)


def test_nothing_that_changes_what_is_open_goes_round_who_guards_it() -> None:
    """io_uring has the calls that change attributes, and asks no filter; the others take an empty path."""
    found = Filter(filter_bytes.unpacked(filter_of("files guard", "x86_64"))[0])
    assert found.verdict(425) == ERRNO | 1
    for number, index in ((452, 3), (463, 2), (466, 2), (469, 4)):
        flags = [*[0] * index, 0x1100]
        assert (found.verdict(number, flags), found.verdict(number)) == (ERRNO | 38, ALLOW)


def test_root_may_become_anybody_and_nobody_else_may() -> None:
    assert ROOT.with_three("uid", 5, 5, 5).uids == (5, 5, 5)
    assert ROOT.with_three("uid", KEEP, 5, KEEP).uids == (0, 5, 0)
    assert ROOT.with_one("uid", 9) == ROOT.with_three("uid", 9, 9, 9)
    for change in (
        lambda: APP.with_three("uid", 0, 0, 0), lambda: APP.with_one("uid", 0), lambda: APP.with_two("gid", KEEP, 0),
        lambda: APP.with_groups(()),
    ):  # fmt: skip
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(ValueError, match="4294967295"):
        ROOT.with_one("uid", KEEP)


def test_who_came_back_by_the_saved_id_is_root_again() -> None:
    away = ROOT.with_three("uid", KEEP, 33, KEEP)
    assert not away.is_root
    assert away.with_one("uid", 0).uids == (0, 0, 0)
    gone = ROOT.with_two("uid", 33, 33)
    with pytest.raises(PermissionError):
        gone.with_one("uid", 0)


def test_who_keeps_capabilities_changes_the_group_after_the_user_until_it_executes_another_program() -> None:
    """As setpriv(1) does it (PR_SET_KEEPCAPS)."""
    found = Filter(filter_bytes.unpacked(filter_of("ids", "x86_64"))[0])
    assert (found.verdict(157, (8, 1)) == ALLOW, found.verdict(157, (15, 1)) == ALLOW) == (False, True)
    caller = Becoming()
    answers = IdAnswers(caller, People(ROOT, caller.seen), Notes.to(-1, (0, 0), is_first=True))  # type: ignore[arg-type]
    answers.prctl(caller.call(8, 1))
    answers.setresuid(caller.call(33, 33, 33))
    answers.setresgid(caller.call(34, 34, 34))
    caller.name = b"/bin/sh"
    with pytest.raises(PermissionError):
        answers.setresgid(caller.call(0, 0, 0))
    assert answers._people.who(10).uids == (33, 33, 33)
    assert answers._people.who(10).gids == (34, 34, 34)
    assert not answers._people.who(10).is_root


class Becoming:
    """One process that asks to be another, without a kernel."""

    name = b"/usr/bin/setpriv"

    def seen(self, thread: int) -> Seen:
        return Seen(10, 1, 10, 10, 100)

    def call(self, *arguments: int) -> Any:
        return SimpleNamespace(pid=10, arguments=arguments)

    def program(self, pid: int) -> bytes:
        return self.name

    def check(self, call: Any) -> None: ...
    def give(self, call: Any, value: int = 0) -> None: ...
    def let_through(self, call: Any) -> None: ...


def test_file_ids_follow_and_refuse_in_silence() -> None:
    assert ROOT.with_three("uid", KEEP, 33, KEEP).file_uid == 33
    assert APP.with_files("uid", 0) == APP
    assert ROOT.with_files("gid", 5).file_gid == 5


def test_a_child_is_who_its_parent_was_also_when_that_has_gone() -> None:
    seen = {10: Seen(10, 1, 10, 10, 100), 11: Seen(11, 10, 10, 10, 101), 12: Seen(12, 11, 10, 10, 102)}

    def look(thread: int) -> Seen:
        if thread not in seen:
            raise ProcessLookupError(3, "")
        return seen[thread]

    people = People(ROOT, look)
    assert people.who(12) == ROOT
    people.become(10, APP)
    assert people.who(10) == people.who(11) == people.who(12) == APP
    del seen[10], seen[11]
    assert people.who(12) == APP
    # Another one with its number has nothing to do with it.
    seen[10] = Seen(10, 1, 99, 99, 500)
    assert people.who(10) == ROOT


class Calling:
    """Whoever asks, without a kernel that hands the call on."""

    def __init__(self, path: Path, groups: bytes) -> None:
        self.path, self.groups = path, groups
        self.has_let_through = False

    def statuses(self, pid: int, *names: bytes) -> list[bytes]:
        by_owner = f"{1 << 3:016x}".encode()
        said = {b"Uid": b"7\t7\t7\t7", b"Gid": b"7\t7\t7\t7", b"Groups": self.groups, b"CapEff": by_owner}
        return [said[name] for name in names]

    def of_caller(self, call: Any, number: int) -> int:
        return os.open(self.path, os.O_PATH)

    def check(self, call: Any) -> None: ...

    def give(self, call: Any) -> None: ...


def given_to_a_group(path: Path, groups: bytes, own: list[int]) -> str:
    """What comes of that, done for one of `groups` by an answerer of `own`."""
    os.setgroups(own)
    os.chdir("/proc")
    try:
        GuardAnswers(Calling(path, groups)).fchown(SimpleNamespace(pid=1, arguments=(3, KEEP, 50)))  # type: ignore[arg-type]
    except PermissionError:
        return f"no {os.getgroups()}"
    return f"{path.stat().st_gid} {os.getgroups()}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only the host's root guards what is its own")
@pytest.mark.parametrize(
    ("groups", "own", "said"), [(b"7 50 ", [0, 8], "50 [0, 8]"), (b"", [0, 50], "no [0, 50]")], ids=["its", "not its"]
)
def test_who_guards_has_the_callers_groups_and_not_its_own(
    tmp_path: Path, groups: bytes, own: list[int], said: str
) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, 7, 7)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, given_to_a_group(path, groups, own).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as told:
        assert told.read() == said
