"""What nbcontain can do in this very place: python trial.py PYTHON [--debian TAR] [--tests CHECKOUT] …

PYTHON is one that has nbcontain installed, TAR the root of a minimal Debian, CHECKOUT has the project's tests in it.
What is built on that Debian is pushed to the first of the names of --push NAME,… whose registry answers, without TLS;
where none does, it is left in the file that --image names. JSON comes out.
Nothing else is needed, so that it can be run in any hosted notebook; where PYTHON has nbclient too, the first notebook
is run from top to bottom. `tools/environments.py` makes the table of docs/environments.md of it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

WORK = """\
FROM debian
RUN apt-get {option} update -qq && apt-get {option} install -y -qq openssh-client hello && hello && useradd -m alice
"""
OPTION = "-o APT::Sandbox::User=root"
"""What apt-get needs where nobody answers for the kernel: users are only pretended there."""
OWNERS = {"usr/bin/ssh-agent": (0, 101), "home/alice": (1000, 1000)}
PORTABLE = (
    "tests/dockerfile", "tests/display", "tests/oci", "tests/store", "tests/build/test_plan.py",
    "tests/build/test_patterns.py", "tests/build/test_context.py", "tests/registry/test_parsing.py",
    "tests/test_diagnosis.py", "tests/test_options.py", "tests/test_journal.py", "tests/test_events.py",
)  # fmt: skip
"""Tests that ask for nothing but Python and a disk."""


def main() -> None:
    """Try everything, in a store of its own; print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python")
    parser.add_argument("--debian", default="")
    parser.add_argument("--image", default="")
    parser.add_argument("--push", default="")
    parser.add_argument("--tests", default="")
    given = parser.parse_args()

    def run(*command: str, timeout_s: float = 400) -> tuple[bool, str]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return False, "it took too long"
        return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr + done.stdout).strip()

    def nbcontain(*words: str) -> tuple[bool, str]:
        return run(given.python, "-m", "nbcontain", *words)

    found: dict[str, object] = {}
    began = time.perf_counter()
    ok, said = nbcontain("doctor", "--format", "json")
    found["doctor"] = json.loads(said) if ok else {"isolation": "?", "why": said[-300:]}
    found["doctor_ms"] = round((time.perf_counter() - began) * 1000)
    found["image"] = nbcontain("image", "from-host")[0]
    script = "head -c 1 /dev/urandom >/dev/null && echo x >/dev/null && echo fine"
    found["run"] = nbcontain("run", "--rm", "host", "sh", "-c", script)[1][-300:]
    script = "grep -q ^Name /proc/self/status && grep -q ^MemTotal /proc/meminfo && echo fine"
    found["proc"] = nbcontain("run", "--rm", "host", "sh", "-c", script)[1][-300:]
    ok, _ = nbcontain("run", "-d", "--name", "trial", "host", "sleep", "60")
    found["exec"] = nbcontain("exec", "trial", "sh", "-c", "echo fine")[1][-300:] if ok else ""
    nbcontain("rm", "-f", "trial")
    found["network_none"] = nbcontain("run", "--rm", "--network", "none", "host", "echo", "fine")[1][-300:]
    found["network"] = _network(nbcontain)
    with tempfile.TemporaryDirectory() as directory:
        if not nbcontain("tutorials", directory)[0]:
            found["notebook"] = "no notebooks"
        elif run(given.python, "-c", "import nbclient")[0]:
            notebook = str(Path(directory, "01-image-or-container.ipynb"))
            ok, said = run(given.python, "-c", "from nbclient.cli import main; main()", "--timeout=120", notebook)
            found["notebook"] = "fine" if ok else said[-600:]
    if given.tests:
        words = ("-q", "-p", "no:cacheprovider", "--rootdir", given.tests, "-m", "not slow and not network")
        tests = [str(Path(given.tests, each)) for each in PORTABLE]
        # Their images are for the rung that is found here.
        ok, said = run("env", "-u", "NBCONTAIN_ISOLATION", given.python, "-m", "pytest", *words, *tests, timeout_s=590)
        found["tests"] = _counts(said)
        found["tests_said"] = "" if ok else said[-3000:]
    if given.debian:
        found.update(_debian(nbcontain, given.debian, given.image, given.push))
    print(json.dumps(found))


def _counts(said: str) -> str:
    """How many tests passed, "of" how many where some did not."""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", said.splitlines()[-1])}
    passed, ran = counts.get("passed", 0), sum(counts.values())
    return str(passed) if passed == ran else f"{passed} of {ran}"


def _network(nbcontain: object) -> str:
    """Whether two containers on a network find each other by name and talk."""
    assert callable(nbcontain)
    ok, said = nbcontain("network", "create", "trial")
    if ok:
        server = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=80, bind='0.0.0.0')"
        client = (
            "import time, urllib.request as u\n"
            "for _ in range(100):\n"
            "    try: u.urlopen('http://server/', timeout=20).close(); print('fine'); break\n"
            "    except OSError as error: why = error; time.sleep(0.2)\n"
            "else: raise why\n"
        )
        ok, said = nbcontain("run", "-d", "--name", "server", "--network", "trial", "host", "python3", "-c", server)
    if ok:
        _, said = nbcontain("run", "--rm", "--network", "trial", "host", "python3", "-c", client)
    nbcontain("rm", "-f", "server")
    nbcontain("network", "rm", "trial")
    return str(said[-300:])


def _debian(nbcontain: object, debian: str, image: str, push: str) -> dict[str, object]:
    assert callable(nbcontain)
    nbcontain("import", debian, "debian")
    with tempfile.TemporaryDirectory() as directory:
        for option in ("", OPTION):
            Path(directory, "Dockerfile").write_text(WORK.format(option=option))
            began = time.perf_counter()
            ok, said = nbcontain("build", "--progress", "plain", "-t", "work", directory)
            seconds = time.perf_counter() - began
            if ok:
                break
        else:
            return {"apt": said[-400:]}
        archive = image or str(Path(directory, "work.tar"))
        nbcontain("save", "-o", archive, "work")
        pushed = _pushed(nbcontain, push, Path(directory, "config.toml")) if push else "–"
        found = {"apt": "fine", "apt_option": option, "apt_s": round(seconds, 1), "pushed": pushed}
        return found | {"owners": _owners(archive)}


def _pushed(nbcontain: object, names: str, config: Path) -> str:
    """Whether a push to the first registry that answers went well."""
    assert callable(nbcontain)
    for name in names.split(","):
        host, _, port = name.partition("/")[0].rpartition(":")
        try:
            socket.create_connection((host, int(port)), 5).close()
        except OSError:
            continue
        config.write_text(f'[registries]\ninsecure = ["{host}:{port}"]\n')
        os.environ["NBCONTAIN_CONFIG"] = str(config)
        try:
            ok, said = nbcontain("push", "-q", "work", name)
        finally:
            del os.environ["NBCONTAIN_CONFIG"]
        return "fine" if ok else str(said[-300:])
    return "no registry is in reach"


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
    main()
