"""The whole suite in two halves side by side, since much of it waits: one is seen live, the other is shown after it.

tools/tests.py [ARGUMENTS…] hands all arguments to pytest instead, in one process.
"""

from __future__ import annotations

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


def main(arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.call([*pytest, *arguments])
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        half = [*pytest, "-o", "cache_dir=.pytest_cache/patient", *PATIENT]
        patient = subprocess.Popen(half, stdout=log, stderr=subprocess.STDOUT)
        try:
            others = subprocess.call([*pytest, "tests", *(f"--ignore={path}" for path in PATIENT)])
            codes = [others, patient.wait()]
        except KeyboardInterrupt:
            codes = [130, patient.wait()]
        log.seek(0)
        print(f"\n{'=' * 20} {' '.join(PATIENT)} {'=' * 20}", flush=True)
        sys.stdout.buffer.write(log.read())
    words = "both halves passed" if not any(codes) else f"the halves ended with {codes[0]} and {codes[1]}"
    print(f"\n{words}, after {time.monotonic() - began:.0f} s")
    return max(codes)


if __name__ == "__main__":
    missing = [path for path in PATIENT if not Path(path).exists()]
    sys.exit(f"{missing} are not here" if missing else main(sys.argv[1:]))
