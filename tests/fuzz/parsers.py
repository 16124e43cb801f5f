"""Coverage-guided fuzzing of every reader of foreign bytes (atheris): `tests/fuzz/parsers.py SECONDS [NAME…]`, or
`tests/fuzz/parsers.py --runs COUNT [NAME…]`.

Each reader runs in a process of its own, for its share of the time or COUNT executions. What it raises besides its
typed errors, a run of more than 5 s, or more than 300 MB ends it with the bytes that did it. Prints executions and
executions/s.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]


def fuzz(name: str, limit: str, corpus: Path) -> None:
    """In a process of its own: never returns."""
    import atheris

    readers = [
        "nbcontain.oci", "nbcontain.registry", "nbcontain.build.cache_document", "nbcontain.store", "nbcontain.events",
        "nbcontain.display",
    ]  # fmt: skip
    with atheris.instrument_imports(include=readers):
        from reliability.parsers import PARSERS

    parser = PARSERS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "seed").write_bytes(parser.seed)
    flags = [limit, "-timeout=5", "-rss_limit_mb=300", "-max_len=8192", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *flags, f"-artifact_prefix={corpus}/"], lambda data: parser.read(data))
    atheris.Fuzz()


def main() -> int:
    import tempfile

    from reliability.parsers import PARSERS

    arguments = sys.argv[1:]
    runs = 0
    if arguments[:1] == ["--runs"]:
        runs, names = int(arguments[1]), arguments[2:] or list(PARSERS)
        limit = f"-runs={runs}"
    else:
        seconds, names = int(arguments[0]) if arguments else 60, arguments[1:] or list(PARSERS)
        limit = f"-max_total_time={max(1, seconds // len(names))}"
    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="nbcontain-fuzz-") as directory:
        for name in names:
            command = [sys.executable, __file__, "--one", name, limit, f"{directory}/{name.replace(' ', '-')}"]
            began = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            took_s = time.monotonic() - began
            text = done.stdout + done.stderr
            match = re.search(r"number_of_executed_units: (\d+)", text)
            count = int(match[1]) if match else 0
            total += count
            whole = not done.returncode and count >= runs
            rate = int(count / took_s)
            print(f"{name:15} {count:>10} executions  {rate:>7}/s  {'ok' if whole else 'FAILED'}", flush=True)
            if not whole:
                failed += 1
                print(text[-3000:])
    print(f"{'all':15} {total:>10} executions, {failed} readers failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        sys.exit(main())
