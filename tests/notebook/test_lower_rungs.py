"""Lessons on computers that give no volumes, or no containers: they show what can be shown, and stop nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import old_kernel
import places
from nbcontain.lessons.passing_over import CONTAINER, NETWORK, PROGRAM, VOLUME, PassingOver
from nbcontain.lessons.passing_over import needs as asked_for

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = {path.name[:2]: str(path) for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb"))}
BELOW = "chroot" if os.geteuid() == 0 else "userns-chroot"


@pytest.fixture(scope="module")
def shared_root() -> Iterator[Path]:
    """A store for both rungs: its images, and the one of this computer's programs, are made once."""
    with places.store_directory(needs.memory()) as root:
        yield root


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("rung", "display", "numbers"),
    [
        ("none", "plain", ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10")),
        # There each container has a copy of its image's files: few of them.
        (BELOW, "card", ("00", "04", "06", "08", "10")),
        # Nobody enters a container that runs.
        ("old kernel", "plain", ("01",)),
    ],
)
def test_no_lesson_stops(
    shared_root: Path, tmp_path: Path, rung: str, display: str, numbers: tuple[str, ...]
) -> None:
    needs.program("ip", "iproute2")
    env = {**os.environ, "NBCONTAIN_ROOT": str(shared_root), "NBCONTAIN_DISPLAY": display}
    before = [old_kernel.__file__] if rung == "old kernel" else []
    if not before:
        env["NBCONTAIN_ISOLATION"] = rung
    # Kernels that a lesson makes known are not this user's.
    env.update(IPYTHONDIR=str(tmp_path / "ipython"), JUPYTER_DATA_DIR=str(tmp_path / "jupyter"))
    env.update(PYTHONPATH=str(CHECKOUT))
    shell, paths = CHECKOUT / "tests" / "notebook_shell.py", [NOTEBOOKS[each] for each in numbers]
    program = [sys.executable, *before, shell, *paths]
    done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Cards of what still runs are drawn a last time when the shell ends.
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith(f'{{"{numbers[0]}": ')))
    assert {number: each["error"] for number, each in told.items() if each["error"]} == {}
    if rung == "none":  # images, layers, tags and registries are shown there as everywhere
        assert told["01"]["proved"] >= 25 and told["01"]["proved"] + told["01"]["passed_over"] >= 53
        assert told["05"]["proved"] >= 20 and told["05"]["judged"].keys() == {"05-1", "05-2"}
    if before:
        assert told["01"]["proved"] >= 45 and told["01"]["passed_over"] == 4, told
    assert list(tmp_path.glob("*.tar")) == [] and list(tmp_path.glob("no-container-*")) == []


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("%container run --rm host ls\n", {CONTAINER}),
        ("c = %container run -d -v data:/data host\n", {CONTAINER, VOLUME}),
        ("%container ps -a\n", set()),
        ("%%container exec web\necho -v x\n", {CONTAINER, PROGRAM}),
        ("%container run -d --health-cmd true host sleep 9\n", {CONTAINER, PROGRAM}),
        ("%container run host sh -c 'exec sleep 1'\n", {CONTAINER}),
        ("%%dockerfile -t a\nFROM host\n  run ls\n", {CONTAINER}),
        ("%%dockerfile -t a\nFROM host\nCOPY a b\n", set()),
        ("%%dockerfile --check\nFROM host\nRUN ls\n", set()),
        ("# The same in Python. It needs a container.\nx = 1\n", {CONTAINER}),
        ("# needs a volume\nx = 1\n", {VOLUME}),
        ("# needs a further program in a container\nx = 1\n", {PROGRAM}),
        ("print('needs a container')\n", set()),
        ("%network create lab\n", {NETWORK}),
        ("%network ls\n", set()),
        ("%container run --rm --network lab kiosk\n", {CONTAINER, NETWORK}),
        ("%container run --rm --net=lab kiosk\n", {CONTAINER, NETWORK}),
        ("%container run --rm --network none kiosk\n", {CONTAINER}),
        ("# needs a network\n%container port page\n", {CONTAINER, NETWORK}),
        ("%%compose -p lesson up -d\nservices: {}\n", {NETWORK}),
    ],
)
def test_what_a_cell_needs(cell: str, wanted: set[str]) -> None:
    assert asked_for(cell) == wanted
    lines = cell.splitlines(keepends=True)
    assert (PassingOver(frozenset((CONTAINER, PROGRAM, VOLUME, NETWORK)))(lines) == lines) is not bool(wanted)
    assert PassingOver(frozenset())(lines) == lines
