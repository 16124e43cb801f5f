"""The ladder, from below: in places that refuse what real ones refuse, the rung is found that is meant for them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import boxes
import needs
import places

Run = Callable[..., tuple[int, str]]
EXPECTED = {
    ("colab", "root"): "root-noproc", ("pod", "root"): "chroot",
    ("binder", "rootless-range"): "userns-chroot", ("binder", "rootless-single"): "userns-chroot",
    ("pod", "rootless-single"): "proot", ("answered", "rootless-single"): "proot", ("bare", "rootless-single"): "none",
}  # fmt: skip
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /home/alice && echo 'root:x:0:0::/:/bin/sh' > /etc/passwd
RUN echo 'alice:x:1000:1000::/home/alice:/bin/sh' >> /etc/passwd && chown 1000:1000 /home/alice
RUN touch /agent && chown 0:101 /agent && chmod 2755 /agent
RUN su alice -c 'id -u > /home/alice/who' && test "$(cat /home/alice/who)" = 1000
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Run]]:
    """nbcontain in a terminal in one of these places: gives its exit code, and what it said."""
    with places.store_directory() as store:

        def of(name: str) -> Run:
            environ = {name: value for name, value in os.environ.items() if name != "NBCONTAIN_ISOLATION"}
            environ |= {"NBCONTAIN_ROOT": str(store / name)}

            def run(*words: str) -> tuple[int, str]:
                command = [sys.executable, boxes.__file__, name, "-m", "nbcontain", *words]
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=120, check=False, env=environ
                )  # fmt: skip
                return done.returncode, done.stdout + done.stderr

            return run

        yield of


@pytest.mark.parametrize("name", boxes.BOXES)
def test_in_each_place_the_rung_that_is_meant_for_it_is_found_and_builds(
    name: str, profile: str, place: Callable[[str], Run], tmp_path: Path
) -> None:
    """What is built there has the owners that it has everywhere, if somebody can answer for the kernel."""
    if (name, profile) not in EXPECTED:
        pytest.skip(f"no place of {profile} is like {name}")
    run, expected = place(name), EXPECTED[name, profile]
    told = json.loads(run("doctor", "--format", "json")[1])
    if expected == "proot" and told["isolation"] == "none" and not shutil.which("proot"):
        needs.proot_is_missing(told["ladder"]["isolation proot"][1])
    assert told["isolation"] == expected
    shutil.copy2(needs.program("busybox", "busybox-static"), tmp_path / "busybox")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    code, said = run("build", "--progress", "plain", "-t", "box", str(tmp_path))
    if expected == "none":
        assert code == 1 and "RUN needs a container" in said and "proot: " in said
        return
    assert code == 0, said
    assert run("save", "-o", str(tmp_path / "box.tar"), "box")[0] == 0
    found = owners(tmp_path / "box.tar")
    if name == "answered":
        # Users are pretended by PRoot itself there, and nothing of it is kept.
        assert {found[name][:2] for name in ("home/alice", "home/alice/who", "agent")} == {(0, 0)}
        return
    assert {name: found[name] for name in ("home/alice", "home/alice/who", "agent")} == {
        "home/alice": (1000, 1000, 0o755), "home/alice/who": (1000, 1000, 0o644), "agent": (0, 101, 0o2755),
    }  # fmt: skip
    assert run("run", "--rm", "box", "sh", "-c", "cat /home/alice/who; head -c 1 /dev/zero | wc -c; id -u") == (
        0, "1000\n1\n0\n",
    )  # fmt: skip


LOADED = """\
FROM host
RUN mkdir -p /home/alice /d && chown 1000:1000 /home/alice
RUN touch /agent && chown 0:101 /agent && chmod 2755 /agent && ln -s /agent /d/link && cat /d/link && ls -l /d
"""


def test_where_nobody_may_make_or_trace_anything_programs_run_for_who_asks_for_a_library(
    profile: str, place: Callable[[str], Run], tmp_path: Path
) -> None:
    if profile != "rootless-single":
        pytest.skip(f"no place of {profile} is like bare")
    run = place("bare")
    found, why = json.loads(run("doctor", "--format", "json")[1])["abilities"]["PRELOAD"]
    if not found:
        needs.missing(why)
    (tmp_path / "Dockerfile").write_text(LOADED)
    assert run("image", "from-host")[0] == 0
    code, said = run("build", "--progress", "plain", "-t", "loaded", str(tmp_path))
    assert code == 1 and "NBCONTAIN_ISOLATION=preload can be had" in said
    code, said = run("build", "--progress", "plain", "--isolation", "preload", "-t", "loaded", str(tmp_path))
    assert code == 0, said
    assert run("save", "-o", str(tmp_path / "loaded.tar"), "loaded")[0] == 0
    made = owners(tmp_path / "loaded.tar")
    assert {name: made[name] for name in ("home/alice", "agent")} == {
        "home/alice": (1000, 1000, 0o755), "agent": (0, 101, 0o2755),
    }  # fmt: skip
    words = ("run", "--rm", "--isolation", "preload", "loaded", "sh", "-c")
    assert run(*words, "readlink /d/link; head -c 1 /dev/zero | wc -c; id -u; head -c 5 /proc/self/status") == (
        0, "/agent\n1\n0\nName:",
    )  # fmt: skip


def owners(archive: Path) -> dict[str, tuple[int, int, int]]:
    """Whose what is, and its mode, as the last layer that has it says."""
    found = {}
    with tarfile.open(archive) as outer:
        [image] = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        for name in image["Layers"]:
            layer = outer.extractfile(name)
            assert layer is not None
            with tarfile.open(fileobj=io.BytesIO(layer.read())) as inner:
                found.update({each.name: (each.uid, each.gid, each.mode) for each in inner})
    return found
