"""How long Debian's apt-get takes to install openssh-client, on each rung of the ladder that this user can have.

python benchmarks/packages.py [DEBIAN.tar [TURNS]]: the root of a minimal Debian, as `debootstrap --variant=minbase`
makes one; the one that the tests have made, unless it is named. What is to be installed is downloaded beforehand, since
a network has hours of its own. Ratios of the same turn to the first rung, without what starting a container takes.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.outcomes import RunResult
from nbcontain.runtime.generate import RunOptions

CHECKOUT = Path(__file__).resolve().parent.parent
_DOCKERFILE = "FROM debian\nRUN apt-get update -qq && apt-get install -y -qq --download-only openssh-client\n"
_SCRIPT = (
    "date +%s%N; apt-get install -y -qq --no-download openssh-client >/dev/null 2>&1 && test -x /usr/bin/ssh-add;"
    " echo $?; date +%s%N"
)


def seconds(engine: Engine) -> float:
    """How long one installation takes."""
    options = RunOptions(image="ready", command=("sh", "-c", _SCRIPT), network="host", remove=True)
    result = engine.run(options).result()
    assert isinstance(result, RunResult)
    began, status, ended = map(int, result.stdout.split())
    assert status == 0, "it was not installed"
    return (ended - began) / 1e9


def main() -> None:
    """Measure the rungs in turn."""
    debian = sys.argv[1] if len(sys.argv) > 1 else str(CHECKOUT / ".cache" / "debian-minbase.tar")
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    if not Path(debian).exists():
        print(f"there is no {debian}: the tests make it, where debootstrap is installed")
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("NBCONTAIN_BENCH_DIR")) as root, Engine(root) as engine:
        engine.archives.import_image(debian, "debian").result()
        engine.build(_DOCKERFILE, BuildOptions(tags=("ready",), network="host")).result()
        engines = {engine.profile.name: engine}
        for rung in ("rootless-single", "root-noproc", "userns-chroot", "chroot"):
            with suppress(NbcontainError):
                other = engine.isolated(rung)
                engines[other.profile.name] = other
        found: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(turns + 1):
            for name, each in engines.items():
                taken = seconds(each)
                if number:
                    found[name].append(taken)
        first = found[engine.profile.name]
        for name, times in found.items():
            ratio = statistics.median(a / b for a, b in zip(times, first, strict=True))
            print(f"{name:16} median {statistics.median(times):.2f} s, best {min(times):.2f} s, ×{ratio:.2f}")


if __name__ == "__main__":
    main()
