"""The whole suite in four parts side by side, since much of it waits: one is seen live, the others are shown after it.

A few tests that failed are then run once more with nothing beside them. What passes alone is named as such at the end:
there is a race to be found, in the test or in what it tests, but this run is not lost for it.

tools/tests.py [ARGUMENTS…] hands all arguments to pytest instead, in one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

PARTS = (
    ("tests/oci_runtime", "tests/reliability", "tests/test_debian.py", "tests/test_real.py", "tests/test_services.py"),
    ("tests/build", "tests/hostile"),
    ("tests/conformance", "tests/notebook", "tests/registry", "tests/store"),
)
"""About a quarter of the time each, on two processors, which all of them together keep busy for half of it: kills,
power cuts, full disks and installed packages; builds; kernels, peers and registries. What is left is seen live."""
FEW = 6
"""More than these are no accident."""


def main(arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.call([*pytest, *arguments])
    began = time.monotonic()
    left = ["tests", *(f"--ignore={path}" for part in PARTS for path in part)]
    caches = [f".pytest_cache/{number}" for number in range(len(PARTS) + 1)]
    live, *others = (
        [*pytest, "--cache-clear", "-o", f"cache_dir={cache}", *part]
        for cache, part in zip(caches, (left, *PARTS), strict=True)
    )
    with ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        beside = [
            subprocess.Popen(each, stdout=log, stderr=subprocess.STDOUT) for each, log in zip(others, logs, strict=True)
        ]
        try:
            code = subprocess.call(live)
        except KeyboardInterrupt:
            code = 130
        # One that was killed by a signal has its number, with a minus.
        codes = [abs(each) for each in (code, *(each.wait() for each in beside))]
        for part, log in zip(PARTS, logs, strict=True):
            log.seek(0)
            print(f"\n{'=' * 20} {' '.join(part)} {'=' * 20}", flush=True)
            sys.stdout.buffer.write(log.read())
    words = "all parts passed" if not any(codes) else f"the parts ended with {', '.join(map(str, codes))}"
    print(f"\n{words}, after {time.monotonic() - began:.0f} s", flush=True)
    failed = [test for cache in caches for test in failures(Path(cache))]
    if max(codes) == 1 and 0 < len(failed) <= FEW:
        print(f"\nonce more, alone: {' '.join(failed)}", flush=True)
        codes = [subprocess.call([*pytest, *failed])]
        if codes == [0]:
            print("\npassed alone, and not beside others; there is a race to be found:", *failed, sep="\n  ")
    return max(codes)


def failures(cache: Path) -> list[str]:
    """The tests that a run with this cache left as failed. An empty list where it left nothing."""
    try:
        return list(json.loads((cache / "v/cache/lastfailed").read_bytes()))
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    missing = [path for part in PARTS for path in part if not Path(path).exists()]
    sys.exit(f"{missing} are not here" if missing else main(sys.argv[1:]))
