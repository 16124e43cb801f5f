"""On a kernel that lacks what others have had for long, as gVisor of 2022: a chroot is still to be had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import needs
import old_kernel
import places

Run = Callable[..., tuple[int, str]]
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /usr/lib && ln -s usr/lib /lib && chown 7:8 /usr && echo made > /made
COPY --chown=5:6 busybox /lib/copied
RUN rm /made && test -s /usr/lib/copied
"""


@pytest.fixture(scope="module")
def one_store() -> Iterator[Run]:
    with places.store_directory() as store:

        def run(*words: str) -> tuple[int, str]:
            done = subprocess.run(
                [sys.executable, old_kernel.__file__, "-m", "nbcontain", *words], capture_output=True, text=True,
                timeout=120, check=False, env=os.environ | {"NBCONTAIN_ROOT": str(store)},
            )  # fmt: skip
            return done.returncode, done.stdout + done.stderr

        yield run


@pytest.fixture(scope="module")
def one_box(one_store: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    context = tmp_path_factory.mktemp("context")
    shutil.copy2(needs.program("busybox", "busybox-static"), context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    code, said = one_store("build", "--progress", "plain", "-t", "box", str(context))
    assert code == 0, said
    return one_store


@pytest.fixture
def box(profile: str, request: pytest.FixtureRequest) -> Run:
    """nbcontain in a terminal there, with an image: gives its exit code, and what it said."""
    if profile == "rootless-range":
        pytest.skip("nothing is mounted there, so that a range of ids is of no use")
    run: Run = request.getfixturevalue("one_box")
    return run


def test_the_rung_is_named_and_so_is_what_it_takes(box: Run) -> None:
    code, said = box("doctor", "--format", "json")
    told = json.loads(said)
    assert (code, told["isolation"]) == (0, "userns-chroot")
    assert {"pid", "user"} <= set(told["namespaces"])
    assert "nothing can be started in a container that runs" in " ".join(box("doctor")[1].split())


def test_layers_are_made_of_what_a_build_does(box: Run, tmp_path: Path) -> None:
    assert box("save", "-o", str(tmp_path / "box.tar"), "box")[0] == 0
    with tarfile.open(tmp_path / "box.tar") as outer:
        [first] = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        layers = [tarfile.open(fileobj=outer.extractfile(each)).getmembers() for each in first["Layers"]]
    [copied] = [each for each in layers[3] if each.name.endswith("copied")]
    assert (copied.name, copied.uid, copied.gid) == ("usr/lib/copied", 5, 6)
    assert [each.name for each in layers[4]] == [".wh.made"]


def test_a_step_that_fails_says_that_users_are_only_pretended(profile: str, box: Run, tmp_path: Path) -> None:
    if profile == "root":
        pytest.skip("root has all ids there")
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo word; exit 3\n")
    code, said = box("build", "--progress", "plain", str(tmp_path))
    assert code == 1 and "exit code 3" in said and "-o APT::Sandbox::User=root" in said


def test_a_program_runs_and_its_end_and_its_word_are_told(box: Run) -> None:
    script = "id -u; echo word >&2; cat /proc/self/status 2>/dev/null || ulimit -n; exit 7"
    assert box("run", "--rm", "box", "sh", "-c", script) == (7, "0\n1024\nword\n")


def test_all_that_it_started_ends_with_it(box: Run) -> None:
    began = time.monotonic()
    assert box("run", "--name", "left", "box", "sh", "-c", "setsid sleep 5000 & echo out") == (0, "out\n")
    assert time.monotonic() - began < 60
    assert box("ps", "-aq", "--filter", "status=running") == (0, "")
    assert not any("sleep\x005000" in _words(each) for each in filter(str.isdecimal, os.listdir("/proc")))


def _words(pid: str) -> str:
    try:
        return Path("/proc", pid, "cmdline").read_text()
    except OSError:
        return ""


def test_it_is_stopped_and_what_cannot_be_had_is_refused_with_the_reason(box: Run) -> None:
    trap = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    assert box("run", "-d", "--name", "long", "box", "sh", "-c", trap)[0] == 0
    code, said = box("exec", "long", "true")
    assert code and "lets nobody enter namespaces" in said
    code, said = box("run", "--name", "long", "box", "true")
    assert code and "long" in said
    code, said = box("start", "long")
    assert box("stop", "long")[0] == 0
    assert box("inspect", "--format", "{{.State.ExitCode}}", "long") == (0, "3\n")
    code, said = box("run", "--rm", "-v", "/tmp:/x", "box", "true")
    assert code and "nothing can be mounted" in said
    assert box("rm", "long")[0] == 0


def test_who_is_to_run_again_does(box: Run) -> None:
    code, said = box("run", "--name", "again", "--restart", "on-failure:2", "box", "sh", "-c", "echo turn; exit 1")
    assert code == 1 and said.startswith("turn\n")
    for _ in range(100):
        code, said = box("logs", "again")
        if said.count("turn") == 3:
            break
        time.sleep(0.1)
    assert said.count("turn") == 3


LEAVES = """\
mkdir -p /deeper
seen() { for up in / /../../../../../../../../../.. "$@"; do cat "$up$0" 2>/dev/null && echo "seen through $up"; done; }
seen
cd /deeper; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do cd ..; done; seen .
chroot / /bin/true && echo chroot
unshare -r true && echo userns; unshare -m true && echo mountns
nsenter -t 1 -m true && echo entered
for kind in proc tmpfs sysfs; do mount -t $kind none /deeper && echo $kind; done; mount -o bind / /deeper && echo bound
mknod /disk b 8 0; test -b /disk && echo disk; mknod /memory c 1 1; test -c /memory && echo memory
for n in 3 4 5 6 7 8 9 10 11 12; do seen /proc/self/fd/$n /dev/fd/$n; ( cat <&$n ) 2>/dev/null && echo "fd $n"; done
echo tried
"""


def test_nobody_leaves_a_chroot_on_such_a_kernel(box: Run, tmp_path: Path) -> None:
    """No Landlock stands behind it there, and for root the same root is outside."""
    canary = tmp_path / "canary"
    canary.write_text("alive")
    assert box("run", "--rm", "box", "sh", "-c", f"({LEAVES}) 2>/dev/null", str(canary)) == (0, "tried\n")
    assert canary.read_text() == "alive"
