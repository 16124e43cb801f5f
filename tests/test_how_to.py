"""docs/how-to/: its blocks are run as they stand, with small images in place of the large ones that they name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from traitlets.config import Config

import notebooks
import places
from notebooks import Notebook

PAGES = Path(__file__).resolve().parent.parent / "docs" / "how-to"
PROGRAM = "FROM box\nRUN printf '#!/bin/sh\\n%s\\n' '{script}' > /bin/{name} && chmod 755 /bin/{name}\n"
CDI = """\
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
- {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0, hostPath: /dev/null}]}}
- {name: all, containerEdits: {deviceNodes: [{path: /dev/nvidia0, hostPath: /dev/null}]}}
"""


def put(reader: Notebook, image: str, program: str, script: str, more: str = "") -> None:
    """An image of this name, with a program that does as much as the page needs."""
    reader.run(f"%%dockerfile -q -t {image}\n{PROGRAM.format(name=program, script=script)}{more}")


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with places.store_directory() as root:
        yield root


@pytest.fixture
def reader(root: Path, busybox_context: Path) -> Iterator[Notebook]:
    """Somebody who types what a page says."""
    environ = {"NBCONTAIN_DISPLAY": "plain", "NBCONTAIN_CDI_DIRS": str(busybox_context / "cdi")}
    with notebooks.notebook(busybox_context, NBCONTAIN_ROOT=str(root), **environ) as opened:
        yield opened


def test_a_database_for_a_test(reader: Notebook) -> None:
    put(reader, "postgres:16", "pg_isready", "exit 0", 'CMD ["sleep", "60"]\n')
    begin, end = blocks("database")
    assert reader.run(begin).status == "running"
    reader.run(end)
    assert "pg" not in repr(reader.run("%container ps -a")) and "pgdata" not in repr(reader.run("%volume ls"))


def test_a_gpu(reader: Notebook, busybox_context: Path) -> None:
    (busybox_context / "cdi").mkdir()
    (busybox_context / "cdi/nvidia.yaml").write_text(CDI)
    put(reader, "my-cuda-image", "nvidia-smi", "test -c /dev/nvidia0 && echo it is there")
    [block] = blocks("gpu")
    assert [reader.run(line).stdout for line in block.splitlines()] == ["it is there\n"] * 2


def test_a_proxy(reader: Notebook) -> None:
    put(reader, "debian:12-slim", "apt-get", "echo $HTTP_PROXY $HTTPS_PROXY $NO_PROXY >> /asked")
    [block] = blocks("proxy")
    reader.run(block)
    said = reader.run("%container run --rm tool cat /asked").stdout.splitlines()
    assert said == ["http://proxy.example:3128 http://proxy.example:3128 localhost"] * 2
    assert reader.run("%container run --rm tool sh -c 'echo [$HTTP_PROXY]'").stdout == "[]\n"


def test_a_hosted_notebook(reader: Notebook) -> None:
    [block] = blocks("colab")
    assert "%pip install" in block
    reader.run(block)


def typed(script: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A script of a shell, run where `nbcontain` is installed."""
    (directory / "nbcontain").write_text(f'#!/bin/sh\nexec {sys.executable} -m nbcontain "$@"\n')
    (directory / "nbcontain").chmod(0o755)
    env = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "PYTHONPATH": str(PAGES.parent.parent), **environ}
    return subprocess.run(["bash", "-ec", script], cwd=directory, env=env, capture_output=True, text=True)


def test_a_hub(reader: Notebook, root: Path, tmp_path: Path) -> None:
    config, cell = blocks("jupyterhub")
    told = Config()
    exec(config, {"c": told})
    spawner = SimpleNamespace(user=SimpleNamespace(name="ada"))
    assert told.Spawner.environment["NBCONTAIN_ROOT"](spawner) == "/tmp/nbcontain-ada"
    put(reader, "course", "true-tool", "exit 0")
    reader.run(f"%image save -o {tmp_path}/course.tar course")
    reader.run("%image rm course")
    [hook] = blocks("jupyterhub", "bash")
    here = hook.replace("/srv/course", str(tmp_path)).replace("/tmp/doctor.json", f"{tmp_path}/doctor.json")
    for _ in range(2):
        done = typed(here, tmp_path, NBCONTAIN_ROOT=str(root))
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "doctor.json").read_text())["isolation"]
    reader.run(cell)
    assert reader["_run"].stdout == "ready\n"


def test_a_batch_job(reader: Notebook, root: Path, tmp_path: Path) -> None:
    put(reader, "tool", "true-tool", "exit 0")
    reader.run(f"%image save -o {tmp_path}/tool.tar tool")
    (tmp_path / "analyse").write_text("#!/bin/sh\nwc -l < $1 > result; exit 3\n")
    (tmp_path / "analyse").chmod(0o755)
    (tmp_path / "input.csv").write_text("a\nb\n")
    [script] = blocks("cluster", "bash")
    done = typed(script, tmp_path, TMPDIR=str(root))
    assert (done.returncode, (tmp_path / "result").read_text()) == (3, "2\n"), done.stderr
