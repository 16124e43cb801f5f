"""How long a rebuild takes that is cached whole: ten steps, in a process that has built before.

Counted is Engine.build(…).result(): parsing, the plan, the digests of the context's files (by their stats),
a look-up for each step, the config and the manifest, the tag.
"""

from __future__ import annotations

import shutil
import statistics
import sys

from measuring import heading, interleaved, private_disk, row, spawned

from nbcontain import BuildOptions, Engine

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
LIMIT_MS = 25
STEPS = "\n".join(
    [
        "FROM scratch",
        "COPY busybox /bin/busybox",
        'RUN ["/bin/busybox", "--install", "-s", "/bin"]',
        "ENV PATH=/bin",
        "WORKDIR /srv",
        *(f"RUN echo {number} > {number}" for number in range(6)),
        "COPY files /srv/files",
        'CMD ["sh"]',
    ]
)
"""Ten that change files: two COPY, seven RUN, a WORKDIR."""


def main() -> None:
    """Print the table."""
    with private_disk() as disk, Engine(disk / "store") as engine:
        context = disk / "context"
        (context / "files").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", context / "busybox")
        for number in range(100):
            (context / "files" / f"{number}.txt").write_text(f"{number}\n")
        options = BuildOptions(tags=("steps",), context=context)
        first = engine.build(STEPS, options).result()

        def rebuild() -> None:
            assert engine.build(STEPS, options).result().id == first.id

        times = interleaved(ROUNDS, {"bare": lambda: spawned([sys.executable, "-c", "pass"]), "rebuild": rebuild})
    heading("cached rebuild")
    row("bare Python, for comparison", times["bare"])
    best = statistics.median(times["rebuild"])
    row("ten cached steps", times["rebuild"], f"{best:.1f} ms, at most {LIMIT_MS}")


if __name__ == "__main__":
    main()
