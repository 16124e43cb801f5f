"""F1 from outside: strace kills a command at its n-th call of a kind (`python tests/reliability/outside.py`).

Unlike the tests' own disk this reaches every process of a command: supervisor, stage, init, worker. Each point is a
fresh store; afterwards one repair at most, a clean check, and the same command again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
CALLS = ("rename,renameat,renameat2", "unlink,unlinkat", "mkdir,mkdirat", "write", "fsync,syncfs", "mount,move_mount")
STEP = int(os.environ.get("NBCONTAIN_OUTSIDE_STEP", "1"))


def struck(trace: str, when: int) -> bool:
    """Whether some process made its n-th call of the kind that is traced, which was its last; strace counts each apart.

    That one was killed says nothing: the end of a container kills what is left in it.
    """
    made = Counter(match[1] for match in re.finditer(r"^(\d+) +\w+\(", trace, re.MULTILINE))
    return any(count >= when for count in made.values())


def main() -> int:
    from reliability import deeds

    place = Path(tempfile.mkdtemp(prefix="nbcontain-outside-"))
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is needed"
    inputs = place / "inputs"
    deeds.inputs_of(inputs, Path(busybox))
    ended = deeds.elsewhere(lambda: deeds.template(place / "template", inputs))
    assert ended.status == 0, ended.words
    program = (
        "import sys; from pathlib import Path; from nbcontain.engine import Engine; from reliability import deeds\n"
        "with Engine(Path(sys.argv[1])) as engine: deeds.DEEDS[sys.argv[2]](engine, Path(sys.argv[3]))"
    )
    env = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE.parent.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    bad = points = 0
    for name in sys.argv[1:] or deeds.DEEDS:
        root = place / "store"
        command = [sys.executable, "-c", program, str(root), name, str(inputs)]
        for calls in CALLS:
            reached = 0
            for when in range(1, 400, STEP):
                deeds.copied(place / "template", root)
                inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={when}"]
                done = subprocess.run(
                    ["strace", "-f", "-qq", "-o", str(place / "trace"), *inject, *command], env=env,
                    capture_output=True, timeout=120, check=False,
                )  # fmt: skip
                if not struck((place / "trace").read_text(errors="replace"), when):
                    break
                reached += 1
                left = deeds.elsewhere(lambda: deeds.torn(root) + "\n".join(deeds.problems(root, fix=True)))  # noqa: B023
                again = subprocess.run(command, env=env, capture_output=True, timeout=120, check=False)
                sound = deeds.elsewhere(lambda: "\n".join(deeds.problems(root, fix=False)))  # noqa: B023
                if left.words or again.returncode or sound.words or left.status or sound.status:
                    bad += 1
                    errors = again.stderr.decode(errors="replace")[-800:]
                    print(f"BAD {name} {calls} {when} ({done.returncode}): {left.words} | {sound.words} | {errors}")
            points += reached
            print(f"{name:8} {calls:28} killed at {reached} points", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    print(f"{points} points, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
