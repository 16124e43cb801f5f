"""podman with our runtime in place of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import needs
from bundles import CHECKOUT, Bundle

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.getuid() != 0, reason="containers of whole machines need root")]

Podman = Callable[..., subprocess.CompletedProcess[str]]
# A machine may not let root raise what podman asks for by itself.
LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1000:1000", "--network", "none")


@pytest.fixture
def podman(directory: Path, bundle: Bundle) -> Iterator[Podman]:
    """podman on a store of its own, with the image box."""
    program = needs.program("podman")
    needs.program("conmon")
    runtime = directory / "nbcontain-runtime"
    runtime.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from nbcontain.oci_runtime import main\nsys.exit(main())\n"
    )
    runtime.chmod(0o755)
    own = [program, "--root", str(directory / "store"), "--runroot", str(directory / "run"), "--runtime", str(runtime),
           "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--tmpdir", str(directory / "tmp")]  # fmt: skip

    def call(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*own, *words], capture_output=True, text=True, timeout=100, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    with (directory / "root.tar").open("wb") as tar:
        subprocess.run(["tar", "-C", bundle.root, "-c", "."], stdout=tar, check=True)
    call("import", str(directory / "root.tar"), "box")
    yield call
    call("rm", "-af", "-t", "0", check=False)
    call("system", "reset", "-f", check=False)


def test_podman_runs_containers(podman: Podman) -> None:
    assert podman("run", "--rm", *LIMITS, "box", "/bin/echo", "hello").stdout == "hello\n"
    assert podman("run", "--rm", *LIMITS, "box", "/bin/sh", "-c", "exit 9", check=False).returncode == 9
    assert podman("run", "--rm", *LIMITS, "box", "/bin/nothing", check=False).returncode == 127
    assert podman("run", "--rm", *LIMITS, "box", "/etc", check=False).returncode == 126
    assert "/dev/pts/0" in podman("run", "--rm", "-t", *LIMITS, "box", "/bin/tty").stdout


def test_podman_has_a_life_of_a_container(podman: Podman) -> None:
    podman("run", "-d", "--name", "a", "--memory", "64m", *LIMITS, "box", "/bin/sleep", "100")
    assert podman("exec", "-e", "A=b", "-u", "5:6", "a", "/bin/sh", "-c", "id -u; echo $A").stdout == "5\nb\n"
    assert podman("exec", "a", "/bin/nothing", check=False).returncode == 127
    podman("pause", "a")
    assert "Paused" in podman("ps", "-a").stdout
    podman("unpause", "a")
    assert "sleep 100" in podman("top", "a").stdout
    podman("stop", "-t", "0", "a")
    podman("start", "a")
    podman("kill", "a")
    podman("rm", "-f", "a")
