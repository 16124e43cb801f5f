"""F7: many processes work on one store, and some are killed: no deadlock, no corruption, each blob made once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.runtime.generate import RunOptions
from nbcontain.store.layer_forms import form_of
from reliability import deeds
from rounds import SOAK

SECONDS = float(os.environ.get("NBCONTAIN_SOAK_S", "300")) if SOAK else 5.0
WORKERS = 8 if SOAK else 4
LEAST = 3
"""So many deeds each does that is not killed, however long they take."""
DEADLOCK_S = 60
DEEDS = (
    "build", "own", "import", "run", "tag", "rmi", "prune", "check", "create", "pull", "push", "load", "commit",
    "push_plain", "convert",
)  # fmt: skip


def worker(root: Path, inputs: Path, seed: int, until: float, tally: Path) -> None:
    """Random deeds; an error is one of the typed ones, for a name that somebody else took away."""
    choose = random.Random(seed)

    def one(engine: Engine) -> None:
        match choose.choice(DEEDS):
            case "pull" | "push" | "load" | "commit" as name:
                deeds.DEEDS[name](engine, inputs)
            case "push_plain":
                # Compressed by one, loaded again as it was by another, at the same time.
                [saved] = engine.archives.load(str(inputs / "plain.tar")).result()
                engine.registry.push(str(saved.names[0])).result()
            case "build":
                deeds.build(engine, inputs)
            case "own":
                text = f'FROM box\nWORKDIR /own{choose.randrange(50)}\nCMD ["/bin/busybox", "true"]\n'
                engine.build(text, deeds.BuildOptions(tags=(f"own{seed}",), context=inputs)).result()
            case "import":
                deeds.import_(engine, inputs)
            case "run":
                deeds.run(engine, inputs)
            case "tag":
                engine.tag("box", f"tag{choose.randrange(5)}")
            case "rmi":
                engine.remove_image(f"tag{choose.randrange(5)}")
            case "convert":
                form = form_of(choose.choice(("zstd", "gzip", "uncompressed")))
                name, target = choose.choice([(f"own{choose.randrange(WORKERS)}", ""), ("box", f"tag{seed}")])
                engine.archives.convert(name, form, target).result()
            case "prune":
                engine.prune()
            case "check":
                report = engine.soundness.look()
                assert report.is_clean or any(
                    # Whoever was killed left this; it is nobody's, and the next collection's.
                    each.kind in ("leftover", "layer-of-nobody", "container-unfinished", "container-lost")
                    for each in report.findings
                ), report
            case _:
                name = f"c{seed}"
                for each in engine.containers():
                    if each.name == name:
                        engine.remove_container(each, force=True)
                engine.create(RunOptions(image="box", name=name))

    with Engine(root) as engine:
        done = 0
        while time.time() < until or done < LEAST:
            done += 1
            try:
                one(engine)
            except NbcontainError as error:
                if "damaged" in error.message or "missing" in error.message:
                    raise
            with open(tally, "ab") as file:
                file.write(b".")


@pytest.mark.slow
@pytest.mark.timeout(int(SECONDS) + 180)
@pytest.mark.parametrize("killing", [False, True], ids=["all live", "some are killed"])
def test_many_processes_on_one_store_neither_wait_for_ever_nor_hurt_it(
    killing: bool, template: Path, inputs: Path, place: Path
) -> None:
    root = deeds.copied(template, place / "many")
    tally = place / f"tally-{killing}"
    tally.write_bytes(b"")
    until = time.time() + SECONDS
    program = (
        "import sys; from pathlib import Path; from reliability.test_many import worker\n"
        "worker(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))"
    )
    checkout = Path(__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": f"{checkout}:{checkout.parent}", "no_proxy": "127.0.0.1"}

    def begin(seed: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", program, str(root), str(inputs), str(seed), str(until), str(tally)]
        return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, start_new_session=True)

    workers = [begin(seed) for seed in range(WORKERS)]
    choose, killed = random.Random(0), 0
    while killing and time.time() < until - 1:
        time.sleep(2.0 if SOAK else 0.7)
        number = choose.randrange(WORKERS)
        if workers[number].poll() is None:
            workers[number].send_signal(signal.SIGKILL)
            killed += 1
        workers[number].communicate()
        workers[number] = begin(number)
    for each in workers:
        _, errors = each.communicate(timeout=SECONDS + DEADLOCK_S)
        assert each.returncode == 0, errors.decode()[-3000:]
    print(f"{tally.stat().st_size} operations by {WORKERS} processes, {killed} killed")
    assert tally.stat().st_size >= WORKERS * LEAST
    time.sleep(0.5)  # the supervisors of killed ones end their containers
    left = deeds.elsewhere(lambda: "\n".join(deeds.problems(root, fix=killing)))
    assert (left.status, left.words) == (0, "")
