"""The whole suite in two halves side by side, since much of it waits: one is seen live, the other is shown after it.

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
from pathlib import Path

PATIENT = (
    "tests/oci_runtime", "tests/registry", "tests/reliability", "tests/store", "tests/test_debian.py",
    "tests/test_real.py", "tests/test_services.py",
)  # fmt: skip
"""About half of the time: kills, power cuts, full disks, and packages that are fetched and installed."""


CACHES = (".pytest_cache/others", ".pytest_cache/patient")
FEW = 3
"""More than these are no accident."""


def main(arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.call([*pytest, *arguments])
    began = time.monotonic()
    others, patient = ([*pytest, "--cache-clear", "-o", f"cache_dir={cache}"] for cache in CACHES)
    with tempfile.TemporaryFile() as log:
        beside = subprocess.Popen([*patient, *PATIENT], stdout=log, stderr=subprocess.STDOUT)
        try:
            codes = [subprocess.call([*others, "tests", *(f"--ignore={path}" for path in PATIENT)]), beside.wait()]
        except KeyboardInterrupt:
            codes = [130, beside.wait()]
        log.seek(0)
        print(f"\n{'=' * 20} {' '.join(PATIENT)} {'=' * 20}", flush=True)
        sys.stdout.buffer.write(log.read())
    words = "both halves passed" if not any(codes) else f"the halves ended with {codes[0]} and {codes[1]}"
    print(f"\n{words}, after {time.monotonic() - began:.0f} s", flush=True)
    failed = [test for cache in CACHES for test in failures(Path(cache))]
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
    missing = [path for path in PATIENT if not Path(path).exists()]
    sys.exit(f"{missing} are not here" if missing else main(sys.argv[1:]))
