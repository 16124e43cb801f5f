"""What nbcontain can do in this very place, as one JSON object: python trial.py PYTHON [DEBIAN.tar]

PYTHON is one that has nbcontain installed, DEBIAN.tar the root of a minimal Debian. Nothing else is needed, so that it
can be run in any hosted notebook. `tools/environments.py` makes the table of docs/environments.md of it.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

WORK = """\
FROM debian
RUN apt-get update -qq && apt-get install -y -qq openssh-client hello && hello && useradd -m alice
"""
OWNERS = {"usr/bin/ssh-agent": (0, 101), "home/alice": (1000, 1000)}


def main(python: str, debian: str = "") -> None:
    """Try everything, in a store of its own; print what came of it."""

    def nbcontain(*words: str, timeout_s: float = 400) -> tuple[bool, str]:
        try:
            done = subprocess.run(
                [python, "-m", "nbcontain", *words], capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return False, "it took too long"
        return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr + done.stdout).strip()

    found: dict[str, object] = {}
    began = time.perf_counter()
    ok, said = nbcontain("doctor", "--format", "json")
    found["doctor"] = json.loads(said) if ok else {"isolation": "?", "why": said[-300:]}
    found["doctor_ms"] = round((time.perf_counter() - began) * 1000)
    found["image"] = nbcontain("image", "from-host")[0]
    script = "grep -q ^Name /proc/self/status && head -c 1 /dev/urandom >/dev/null && echo x >/dev/null && echo fine"
    found["run"] = nbcontain("run", "--rm", "host", "sh", "-c", script)[1][-300:]
    ok, _ = nbcontain("run", "-d", "--name", "trial", "host", "sleep", "60")
    found["exec"] = nbcontain("exec", "trial", "sh", "-c", "echo fine")[1][-300:] if ok else ""
    nbcontain("rm", "-f", "trial")
    found["network_none"] = nbcontain("run", "--rm", "--network", "none", "host", "echo", "fine")[1][-300:]
    if debian:
        found.update(_debian(nbcontain, debian))
    print(json.dumps(found))


def _debian(nbcontain: object, debian: str) -> dict[str, object]:
    assert callable(nbcontain)
    nbcontain("import", debian, "debian")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "Dockerfile").write_text(WORK)
        began = time.perf_counter()
        ok, said = nbcontain("build", "--progress", "plain", "-t", "work", directory)
        seconds = time.perf_counter() - began
        if not ok:
            return {"apt": said[-400:]}
        archive = str(Path(directory, "work.tar"))
        nbcontain("save", "-o", archive, "work")
        return {"apt": "fine", "apt_s": round(seconds, 1), "owners": _owners(archive)}


def _owners(archive: str) -> str:
    found: dict[str, tuple[int, int]] = {}
    with tarfile.open(archive) as outer:
        manifest = outer.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"]:
            layer = outer.extractfile(name)
            assert layer is not None
            with tarfile.open(fileobj=io.BytesIO(layer.read())) as inner:
                found.update({each.name: (each.uid, each.gid) for each in inner})
    wrong = [f"{name} {found.get(name)}" for name, owner in OWNERS.items() if found.get(name) != owner]
    return ", ".join(wrong) or "fine"


if __name__ == "__main__":
    main(*sys.argv[1:])
