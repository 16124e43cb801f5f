"""A store on a file system as those of a network are: no attributes, no other owners, names for what is still open.

bindfs shows a directory so, by FUSE. To root it is a server that takes root for nobody (exports(5), root_squash), to
others one where everything is theirs (sshfs, SMB).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import as_user
import needs
from images import BUSYBOX
from nbcontain.engine import Engine
from nbcontain.values import dataclass
from reliability import deeds

NOBODY = 65534
STEPS = "RUN mkdir -m 750 /made && echo x > /made/file && ln -s file /made/link && mkfifo /made/pipe && rm /bin/vi\n"
GIVEN = "RUN chown 7:8 /made/file && stat -c %u:%g /made/file > /made/said\n"
SAID = "files of other owners, on the file system of the store (chown)"


@dataclass(frozen=True, slots=True)
class Desk:
    """Somebody at a terminal, whose store is on it."""

    who: str
    directory: Path

    @property
    def store(self) -> Path:
        return self.directory / "seen" / "store"

    def tried(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        home = Path(tempfile.mkdtemp(dir=self.directory))
        environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(as_user.CHECKOUT), "NBCONTAIN_NETWORK": "host",
            "HOME": str(home),
        }  # fmt: skip
        program: tuple[str | Path, ...] = (sys.executable, "-B", "-m", "nbcontain", *words)
        if self.who != "root":
            os.chown(home, *[as_user.USERS[self.who][1]] * 2)
            within = (sys.executable, "-I", as_user.__file__, self.who, home, "env", f"NBCONTAIN_ROOT={self.store}")
            program = (*within, *program)
        environ["NBCONTAIN_ROOT"] = str(self.store)
        return subprocess.run(program, env=environ, capture_output=True, text=True, timeout=120, check=False)

    def __call__(self, *words: str | Path) -> str:
        done = self.tried(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def owners(self, image: str) -> dict[str, tuple[int, int]]:
        """Whose each file is, as the image's layers say."""
        saved = self.directory / "inputs" / "saved.tar"
        self("save", "-q", "-o", saved, image)
        found = {}
        with tarfile.open(saved) as archive:
            [described] = json.load(archive.extractfile("manifest.json") or io.BytesIO())
            for name in described["Layers"]:
                with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                    found |= {each.name: (each.uid, each.gid) for each in layer}
        saved.unlink()
        return found


@pytest.fixture
def registry() -> Iterator[deeds.Registry]:
    made = deeds.Registry()
    yield made
    made.close()


@pytest.fixture(params=["root", *as_user.USERS])
def desk(request: pytest.FixtureRequest, busybox: Path) -> Iterator[Desk]:
    if os.geteuid() != 0:
        needs.missing("a file system is mounted for somebody, which only root may")
    who, bindfs = request.param, needs.program("bindfs")
    if not Path("/dev/fuse").exists():
        pytest.skip("this kernel has no FUSE, or this place no /dev/fuse")
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-squashed-", dir="/var/tmp"))
    directory.chmod(0o755)
    below, seen, inputs = (directory / name for name in ("below", "seen", "inputs"))
    for each in (below, seen, inputs):
        each.mkdir()
    inputs.chmod(0o777)
    shutil.copy2(busybox, inputs / "busybox")
    (inputs / "busybox").chmod(0o755)
    words = ["--xattr-none", "--chown-deny", "--chgrp-deny"]
    if who == "root":
        words += [f"--create-for-user={NOBODY}", f"--create-for-group={NOBODY}"]
    else:
        uid = as_user.USERS[who][1]
        words += [f"--force-user={uid}", f"--force-group={uid}", "--create-as-mounter"]
    server = subprocess.Popen([bindfs, "-f", *words, below, seen], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 10
        while not os.path.ismount(seen):
            if server.poll() is not None or time.monotonic() > until:
                assert server.stderr is not None
                server.kill()
                pytest.skip(f"bindfs: {server.stderr.read().strip()}")
            time.sleep(0.02)
        yield Desk(who, directory)
    finally:
        subprocess.run(["umount", "-l", str(seen)], check=False, capture_output=True)
        server.terminate()
        server.wait()
        shutil.rmtree(directory)


@pytest.mark.slow
def test_all_is_done_there_that_is_done_elsewhere_and_nothing_is_left(desk: Desk) -> None:
    inputs = desk.directory / "inputs"
    (inputs / "Dockerfile").write_text(BUSYBOX + STEPS + (GIVEN if desk.who != "root" else ""))
    desk("build", "-q", "-t", "box", inputs)
    assert desk("run", "--rm", "box", "cat", "/made/link") == "x\n"
    desk("run", "--name", "changed", "box", "sh", "-c", "echo y > /made/file; rm /made/link; touch /new")
    assert set(desk("diff", "changed").splitlines()) == {"C /made", "C /made/file", "D /made/link", "A /new"}
    desk("commit", "changed", "changed-image")
    container = desk("run", "-d", "--name", "waits", "box", "sleep", "1000").strip()
    assert desk("exec", "waits", "cat", "/made/file") == "x\n"
    desk("cp", inputs / "Dockerfile", "waits:/made/brought")
    assert desk("exec", "waits", "head", "-n1", "/made/brought") == "FROM scratch\n"
    refused = desk.tried("rmi", "box")
    assert refused.returncode == 1
    assert "waits" in refused.stderr
    assert len(container) == 64
    desk("rm", "-f", "waits", "changed")
    assert "is whole" in desk("image", "verify", "changed-image")
    desk("rmi", "box", "changed-image")
    desk("system", "prune", "-af")
    assert desk("system", "check", "--full").startswith("clean: 0 images, 0 blobs, 0 layers, 0 containers")
    left = [each for each in (desk.directory / "below").rglob("*") if each.name.startswith(".fuse_hidden")]
    assert left == []
    assert os.listdir(desk.store / "tmp") == []


@pytest.mark.slow
def test_a_pull_and_what_is_made_of_it_keep_their_owners_or_it_is_told(
    desk: Desk, registry: deeds.Registry, engine: Engine
) -> None:
    inputs, name = desk.directory / "inputs", f"{registry.host}/team/app:1"
    with tarfile.open(inputs / "root.tar", "w") as tar:
        tar.add(inputs / "busybox", "bin/busybox")  # which is root's
        theirs = tarfile.TarInfo("home/anna")
        theirs.uid, theirs.gid, theirs.mode, theirs.type = 1000, 1001, 0o700, tarfile.DIRTYPE
        tar.addfile(theirs)
    engine.archives.import_image(str(inputs / "root.tar"), name).result()
    engine.registry.push(name).result()
    desk("pull", "-q", name)
    shell = ["/bin/busybox", "sh", "-c"]
    run = json.dumps([*shell, "b=/bin/busybox; $b mkdir /own; $b touch /home/anna/more"])
    (inputs / "Dockerfile").write_text(f"FROM {name}\nCOPY --chown=5:6 busybox /copied\nRUN {run}\n")
    done = desk.tried("build", "--progress", "plain", "-t", "more", inputs)
    assert done.returncode == 0, done.stderr
    owners = desk.owners("more")
    assert owners["copied"] == (5, 6)
    if desk.who == "root":
        assert "what RUN makes and changes has not the owners in the image that it should have" in done.stderr
        assert owners["own"] == owners["home/anna"] == (NOBODY, NOBODY)
        return
    assert owners["home/anna"] == (1000, 1001)
    assert owners["own"] == owners["home/anna/more"] == (0, 0)
    # Nothing else of these changes: the disk does not tell.
    script = "/bin/busybox chown 7:8 /bin/busybox /bin && /bin/busybox chown 9:1001 /home/anna"
    (inputs / "Dockerfile").write_text(f"FROM {name}\nRUN {json.dumps([*shell, script])}\n")
    desk("build", "-q", "-t", "given", inputs)
    owners = desk.owners("given")
    assert (owners["bin/busybox"], owners["bin"], owners["home/anna"]) == ((7, 8), (7, 8), (9, 1001))


def test_doctor_says_what_is_so_there(desk: Desk) -> None:
    told = " ".join(desk("doctor").split())
    if desk.who == "root":
        assert f"no {SAID} why: Operation not permitted; what RUN makes has other owners in its image" in told
    else:
        assert "isolation rootless-single (taken)" in told
    if desk.who == "rootless-range":
        assert f"partly {SAID} why:" in told
        assert "Operation not permitted; so one id alone is used" in told
    assert "storage driver copy: whole trees" in told
