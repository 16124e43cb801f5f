"""Where what is written for people goes: a file appears whole, and nothing takes the place of what is no file."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nbcontain.errors import DiskFull, StoreError, UsageError
from nbcontain.store import destinations


def put(destination: Path | str, *pieces: bytes) -> None:
    with destinations.opened(destination) as write:
        for piece in pieces:
            write(piece)


@pytest.mark.parametrize("how", ["opened", "write"])
def test_a_file_appears_whole_or_stays_what_it_was(tmp_path: Path, how: str) -> None:
    path = tmp_path / "it.tar"
    path.write_bytes(b"old")
    if how == "write":
        destinations.write(path, b"new")
    else:
        with pytest.raises(KeyError), destinations.opened(path) as write:
            write(b"half")
            raise KeyError
        assert path.read_bytes() == b"old"
        put(path, b"n", b"ew")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["it.tar"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_one(tmp_path: Path, is_there: bool) -> None:
    (tmp_path / "there").mkdir()
    if is_there:
        (tmp_path / "there" / "it").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/it")
    put(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "it").read_bytes() == b"new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    put(tmp_path / "pipe", b"a", b"b")
    reader.join()
    assert read == [b"ab"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_what_is_open_is_written_to(tmp_path: Path) -> None:
    with open(tmp_path / "gone", "w+b") as file:
        (tmp_path / "gone").unlink()
        (tmp_path / "out").symlink_to(f"/proc/self/fd/{file.fileno()}")
        put(tmp_path / "out", b"new")
        assert file.read() == b"new"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("writes", [put, destinations.write])
def test_a_device_stays_one(tmp_path: Path, writes: object) -> None:
    assert callable(writes)
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "full").symlink_to("/dev/full")
    writes(tmp_path / "null", b"new")
    with pytest.raises(DiskFull):
        writes(tmp_path / "full", b"new")
    assert [stat.S_ISCHR((tmp_path / name).stat().st_mode) for name in ("null", "full")] == [True, True]


def test_of_a_device_itself_nothing_is_replaced(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        device.read_bytes()
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    put(device, b"new")
    destinations.write(device, b"new")
    assert stat.S_ISCHR(device.stat().st_mode)


def test_what_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    for destination in (tmp_path, tmp_path / "none" / "it"):
        with pytest.raises(StoreError, match="cannot write"):
            put(destination, b"new")
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write"):
        put(tmp_path / "plain" / "it", b"new")


def test_a_terminal_is_shown_no_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        with pytest.raises(UsageError):
            put("-", b"new")
    os.close(ours)


def test_standard_output_that_is_full_is_one_error(tmp_path: Path) -> None:
    program = (
        "from nbcontain.store import destinations\nfrom nbcontain.errors import DiskFull\n"
        "try:\n    with destinations.opened('-') as write:\n        write(b'x' * 100_000)\n"
        "except DiskFull as error: raise SystemExit(7)\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 7, done.stderr
