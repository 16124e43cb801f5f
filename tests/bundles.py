"""Bundles with busybox in them, and runtimes that run them: ours, and its peers as oracles."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import needs
from machine import until
from nbcontain.runtime.oci_report import example

CHECKOUT = Path(__file__).resolve().parents[1]
OURS = "nbcontain-runtime"
_IN_VERSION_1 = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
"""crun knows control groups of version 1 or 2, and not the mixture of both: all are shown the same."""
_IN_VERSION_2 = 'umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'


class Runtime:
    """A runtime's command line."""

    def __init__(self, name: str, directory: Path, *, version_2: bool = False) -> None:
        self.name, self.root = name, directory / f"root-{name}"
        self._view = _IN_VERSION_2 if version_2 else _IN_VERSION_1
        if name == OURS:
            program = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from nbcontain.oci_runtime import main; "
            self._words = [sys.executable, "-I", "-S", "-c", program + "sys.exit(main())"]
        else:
            self._words = [needs.program(name)]

    def words(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """The whole command."""
        view = ["unshare", "-m", "--propagation", "private", "sh", "-c", self._view, "sh"]
        return [*view, *self._words, "--root", str(self.root), *options, *words]

    def __call__(
        self, *words: str, check: bool = True, options: Sequence[str] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Do one thing. What a container is to outlive writes to files: a pipe would be awaited to its end."""
        more = {"stdin": subprocess.DEVNULL, "capture_output": True, **more}
        done = subprocess.run(
            self.words(*words, options=options), text=True, timeout=60, check=False, errors="replace", **more
        )
        if check:
            assert done.returncode == 0, f"{self.name} {' '.join(words)}: {done.stderr}"
        return done

    def run(self, bundle: Bundle, *, check: bool = True, **more: Any) -> str:
        """Run a container to its end; gives what it said."""
        return self("run", "-b", str(bundle.path), bundle.name, check=check, **more).stdout

    def create(self, bundle: Bundle, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        with (bundle.path / "said").open("wb") as said:
            done = self(
                "create", "-b", str(bundle.path), *words, bundle.name, check=False, capture_output=False, stdout=said,
                stderr=said, **more,
            )  # fmt: skip
        assert done.returncode == 0 or not check, f"{self.name} create: {(bundle.path / 'said').read_text()}"
        return done

    def status(self, name: str) -> str:
        return str(json.loads(self("state", name).stdout)["status"])

    def await_status(self, name: str, wanted: str) -> None:
        until(lambda: self.status(name) == wanted, 20, lambda: f"{name} {wanted}")

    def clear(self) -> None:
        """Remove all containers."""
        if self.root.exists():
            for name in os.listdir(self.root):
                self("delete", "--force", name, check=False)
            shutil.rmtree(self.root, ignore_errors=True)


class Bundle:
    """A directory with a root file system and a config.json that is changed freely."""

    def __init__(self, path: Path, busybox: Path) -> None:
        self.path, self.name = path, f"test-{os.urandom(6).hex()}"
        self.root = path / "rootfs"
        (self.root / "bin").mkdir(parents=True)
        for name in ("proc", "sys", "dev", "tmp", "etc"):
            (self.root / name).mkdir()
        shutil.copy2(busybox, self.root / "bin" / "busybox")
        subprocess.run(["chroot", self.root, "/bin/busybox", "--install", "-s", "/bin"], check=True)
        self.config: dict[str, Any] = example()
        self.process: dict[str, Any] = self.config["process"]
        self.linux: dict[str, Any] = self.config["linux"]
        self.process |= {"terminal": False, "noNewPrivileges": False, "env": ["PATH=/bin"]}
        self.process.pop("rlimits")
        self.config["root"]["readonly"] = False
        self.linux["cgroupsPath"] = f"/nbcontain-tests/{self.name}"

    def sh(self, script: str) -> Bundle:
        """Let it run a script."""
        self.process["args"] = ["sh", "-c", script]
        return self.written()

    def written(self) -> Bundle:
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self

    def twin(self) -> Bundle:
        """The same once more, under another name."""
        other = copy.copy(self)
        other.name = f"test-{os.urandom(6).hex()}"
        return other

    def without(self, namespace: str) -> None:
        self.linux["namespaces"] = [each for each in self.linux["namespaces"] if each["type"] != namespace]

    def mount(self, destination: str, kind: str, source: str | Path, *options: str, **more: object) -> None:
        self.config["mounts"].append(
            {"destination": destination, "type": kind, "source": str(source), "options": list(options), **more}
        )

    def capabilities(self, *names: str, sets: Sequence[str] = ("bounding", "effective", "permitted")) -> None:
        for each in sets:
            held = self.process["capabilities"].setdefault(each, [])
            held.extend(f"CAP_{name}" for name in names if f"CAP_{name}" not in held)


class Deviation(NamedTuple):
    """What a runtime is known to do otherwise than a test wants of it."""

    instead: str
    seen: str
    """A pattern of what the test then fails with."""

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Pass what fails in this way. Whatever else happens fails: another assertion, another error, and nothing."""
        try:
            yield
        except AssertionError as error:
            assert re.search(self.seen, str(error)), f"wanted is {self.seen!r} ({self.instead}), and not: {error}"
        else:
            raise AssertionError(f"not so any more: {self.instead}")


def sections(text: str) -> Mapping[str, list[str]]:
    """Lines by the last "== name" before them."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("== "):
            name = line[3:]
        found.setdefault(name, []).append(line)
    return {key: lines[1:] for key, lines in found.items()}
