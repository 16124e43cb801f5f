"""What a notebook's user waits for before anything runs: import, %load_ext, a rebuild that is cached whole.

Every figure comes from interleaved runs in one go. The yardstick is the start of a bare Python on
this machine, now: read the ratios, the milliseconds depend on the machine and its load.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 15
LOAD = """
import time
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
began = time.perf_counter()
shell.run_line_magic("load_ext", "nbcontain")
print(time.perf_counter() - began)
"""
STEPS = "\n".join(
    [
        "FROM scratch",
        "COPY busybox /bin/busybox",
        'RUN ["/bin/busybox", "--install", "-s", "/bin"]',
        "ENV PATH=/bin",
        "WORKDIR /srv",
        *(f"RUN echo {number} > {number}" for number in range(4)),
        'CMD ["sh"]',
    ]
)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def python(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Print the table."""
    from nbcontain import BuildOptions, Engine

    bare, imported, loaded, rebuilt = [], [], [], []
    with (
        tempfile.TemporaryDirectory(prefix="nbcontain-bench-") as directory,
        Engine(Path(directory, "store")) as engine,
    ):
        context = Path(directory, "context")
        context.mkdir()
        busybox = context / "busybox"
        busybox.write_bytes(Path("/bin/busybox").read_bytes())
        busybox.chmod(0o755)
        options = BuildOptions(tags=("steps",), context=context)
        first = engine.build(STEPS, options).result()
        for _ in range(ROUNDS):
            bare.append(timed(lambda: python("-c", "pass")))
            imported.append(timed(lambda: python("-c", "import nbcontain")))
            loaded.append(float(python("-c", LOAD).split()[-1]))
            rebuilt.append(timed(lambda: engine.build(STEPS, options).result()))
        assert engine.image("steps").id == first.id
        for name, _ in engine.images():
            engine.remove_image(str(name))
    yardstick = statistics.median(bare)
    rows = [
        ("bare Python", bare, ""),
        ("import nbcontain, over it", [b - a for a, b in zip(bare, imported, strict=True)], "60 ms"),
        ("%load_ext nbcontain", loaded, "150 ms"),
        ("cached rebuild of ten steps", rebuilt, "25 ms"),
    ]
    print(f"{'':<30}{'median ms':>10}{'worst ms':>10}{'x bare Python':>15}   at most")
    for name, seconds, limit in rows:
        median = statistics.median(seconds)
        print(f"{name:<30}{median * 1e3:>10.1f}{max(seconds) * 1e3:>10.1f}{median / yardstick:>15.2f}   {limit}")


if __name__ == "__main__":
    main()
