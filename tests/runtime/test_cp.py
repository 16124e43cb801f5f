"""cp: files in and out of containers that run and that do not, docker's rules of what goes where, and races."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from machine import SLEEP, Machine, until
from nbcontain.commands import parse_words
from nbcontain.errors import ContainerError, NbcontainError, UsageError
from nbcontain.runtime.container import Container


def cp(machine: Machine, *words: str) -> None:
    found, options = parse_words("", ["cp", *words])
    found.function(machine.engine, options).task.result()  # type: ignore[attr-defined]


def inside(machine: Machine, container: Container, script: str) -> str:
    """What a script says in it, started for that if need be."""
    if container.status == "running":
        return machine.execute(container, "sh", "-c", script)[1]
    raise AssertionError("it does not run")


@pytest.fixture(params=["running", "stopped"])
def target(request: pytest.FixtureRequest, profile: str, machine: Machine) -> Container:
    made = (
        "mkdir -p /data/sub; echo one > /data/one; echo two > /data/sub/two; chmod 640 /data/one; "
        "ln -s one /data/link; ln -s /data /abs; "
    )
    container = machine.start(made + SLEEP, name="c")
    if request.param == "stopped":
        machine.engine.stop(container, 5)
    return container


def started(machine: Machine, container: Container) -> Container:
    if container.status != "running":
        machine.engine.start(container)
        until(lambda: container.status == "running")
    return container


def test_what_comes_out_goes_where_docker_says(target: Container, machine: Machine, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    cp(machine, "c:/data/one", str(here))
    cp(machine, "c:/data/one", str(here / "other"))
    assert (here / "one").read_text() == (here / "other").read_text() == "one\n"
    assert stat.S_IMODE((here / "one").stat().st_mode) == 0o640
    assert (here / "one").stat().st_uid == os.geteuid()
    cp(machine, "c:/data", str(here))
    assert (here / "data" / "sub" / "two").read_text() == "two\n"
    assert os.readlink(here / "data" / "link") == "one"
    # A link with a slash is what it leads to.
    cp(machine, "c:/abs/", str(here / "behind"))
    assert (here / "behind" / "sub" / "two").read_text() == "two\n"
    # All of it is: but for what is the kernel's, which docker does not see.
    cp(machine, "c:/", str(here / "all"))
    assert (here / "all" / "data" / "one").exists() and os.listdir(here / "all" / "proc") == []
    cp(machine, "c:/data/.", str(here / "fresh"))
    assert sorted(os.listdir(here / "fresh")) == ["link", "one", "sub"]
    cp(machine, "c:data/link", str(here / "kept"))
    assert os.readlink(here / "kept") == "one"
    cp(machine, "-L", "c:/data/link", str(here / "followed"))
    assert (here / "followed").read_text() == "one\n"
    cp(machine, "c:/abs/sub/two", str(here))
    assert (here / "two").read_text() == "two\n"
    with pytest.raises(ContainerError, match="no /none"):
        cp(machine, "c:/none", str(here))
    with pytest.raises(UsageError, match="directory to a file"):
        cp(machine, "c:/data", str(here / "one"))
    with pytest.raises(UsageError, match="is not there"):
        cp(machine, "c:/data/one", str(here / "none" / "x"))
    with pytest.raises(UsageError, match="must exist"):
        cp(machine, "c:/data/one", str(here / "none") + "/")
    os.mkfifo(here / "pipe")
    with pytest.raises(UsageError, match="is a device"):
        cp(machine, "c:/data/one", str(here / "pipe"))
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)


def test_what_goes_in_goes_where_docker_says(target: Container, machine: Machine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "file").write_text("text")
    os.link(tree / "a" / "file", tree / "hard")
    (tree / "big").write_bytes(os.urandom(3_000_000))
    cp(machine, str(tree), "c:/data")
    cp(machine, str(tree), "c:/new")
    cp(machine, f"{tree}/.", "c:/data/sub")
    cp(machine, str(tree / "a" / "file"), "c:/data/link")
    cp(machine, str(tree / "a" / "file"), "c:/abs/named")
    with pytest.raises(UsageError, match="directory to a file"):
        cp(machine, str(tree), "c:/data/one")
    with pytest.raises(UsageError, match="is not there"):
        cp(machine, str(tree / "big"), "c:/none/x")
    if target.status == "running":
        with pytest.raises(UsageError, match="is a device"):
            cp(machine, str(tree / "big"), "c:/dev/null")
    container = started(machine, target)
    script = (
        "cat /data/tree/a/file /new/hard /data/sub/a/file /data/named; wc -c < /new/big; "
        "stat -c %u:%g /new/big; stat -c %h /new/hard; cat /data/sub/two"
    )
    assert inside(machine, container, script) == "text" * 4 + "3000000\n0:0\n2\ntwo\n"


def test_tars_go_in_by_stdin_and_come_out_by_stdout(machine: Machine, tmp_path: Path) -> None:
    machine.start("mkdir /data; echo x > /data/x; " + SLEEP, name="c")
    out, given = tmp_path / "out.tar", tmp_path / "in.tar"
    saved, standard_in = os.dup(1), os.dup(0)
    fd = os.open(out, os.O_WRONLY | os.O_CREAT)
    try:
        os.dup2(fd, 1)
        cp(machine, "c:/data", "-")
    finally:
        os.dup2(saved, 1)
    with tarfile.open(out) as tar:
        assert [each.name for each in tar] == ["data", "data/x"]
    with tarfile.open(given, "w:gz") as tar:
        info = tarfile.TarInfo("y")
        info.size, info.uid = 1, 1000
        tar.addfile(info, io.BytesIO(b"y"))
    fd = os.open(given, os.O_RDONLY)
    try:
        os.dup2(fd, 0)
        cp(machine, "-", "c:/data")
    finally:
        os.dup2(standard_in, 0)
    assert inside(machine, machine.engine.container("c"), "stat -c %u /data/y; cat /data/y") == "1000\ny"
    with pytest.raises(UsageError, match="is no directory"):
        cp(machine, "-", "c:/data/x")


def test_archive_keeps_owners(machine: Machine, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root has files of others")
    container = machine.start("echo x > /x; chown app:staff /x; chmod 4755 /x; " + SLEEP, name="c")
    cp(machine, "-a", "c:/x", str(tmp_path))
    status = (tmp_path / "x").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 50, 0o4755)
    cp(machine, "-a", str(tmp_path / "x"), "c:/y")
    cp(machine, str(tmp_path / "x"), "c:/z")
    assert inside(machine, container, "stat -c %u:%g /y /z") == "1000:50\n0:0\n"


def test_what_comes_out_becomes_nobody_who_has_not_made_it(profile: str, machine: Machine, tmp_path: Path) -> None:
    """Set-id bits speak of an owner that the files lose: others of this machine could become who copies them."""
    made = "mkdir /d; cp /bin/busybox /d/s; chown 1000:1000 /d/s; chmod 6755 /d/s; cp /d/s /d/t; chmod 4711 /d/t; "
    machine.start(made + "echo ready; " + SLEEP, name="c")
    until(lambda: machine.execute(machine.engine.container("c"), "test", "-u", "/d/t")[0] == 0)
    cp(machine, "c:/d", str(tmp_path / "d"))
    cp(machine, "c:/d/t", str(tmp_path / "t"))
    files = (tmp_path / "d/s", tmp_path / "d/t", tmp_path / "t")
    assert [stat.S_IMODE(each.stat().st_mode) for each in files] == [0o755, 0o711, 0o711]


def test_words_that_make_no_sense_are_refused(machine: Machine) -> None:
    with pytest.raises(UsageError, match="between containers"):
        cp(machine, "a:/x", "b:/y")
    with pytest.raises(UsageError, match="one of both"):
        cp(machine, "./a:x", "/b")


@pytest.mark.parametrize("rounds", [20])
def test_a_container_that_swaps_directories_for_symlinks_reaches_nothing_outside(
    machine: Machine, tmp_path: Path, rounds: int
) -> None:
    """CVE-2018-15664: what is looked at may be another thing when it is used."""
    rounds = int(os.environ.get("NBCONTAIN_RACES", rounds))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("host")
    script = (
        f"mkdir -p /w/d {outside}; echo inside > /w/d/secret; echo inside > {outside}/secret; echo ready; "
        f"while :; do mv /w/d /w/e; ln -s {outside} /w/d; rm /w/d; mv /w/e /w/d; done"
    )
    machine.start(script, name="c")
    (tmp_path / "evil").write_text("evil")
    got = tmp_path / "got"
    for number in range(rounds):
        for deed in (["c:/w/d/secret", str(got)], [str(tmp_path / "evil"), f"c:/w/d/file{number}"]):
            try:
                cp(machine, *deed)
            except NbcontainError:
                continue
    if got.exists():
        assert got.read_text() == "inside\n"
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == "host"
