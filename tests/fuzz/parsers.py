"""Coverage-guided fuzzing of every reader of foreign bytes (atheris): `tests/fuzz/parsers.py SECONDS [NAME…]`.

Each reader runs in a process of its own, for its share of the time. What it raises besides its typed errors, a run
of more than 5 s, or more than 300 MB ends it with the bytes that did it. Prints executions and executions/s.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """In a process of its own: never returns."""
    import atheris

    readers = ["nbcontain.oci", "nbcontain.store", "nbcontain.events", "nbcontain.display"]
    with atheris.instrument_imports(include=readers):
        from reliability.parsers import PARSERS

    parser = PARSERS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "seed").write_bytes(parser.seed)
    flags = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=300", "-max_len=8192", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *flags, f"-artifact_prefix={corpus}/"], lambda data: parser.read(data))
    atheris.Fuzz()


def main() -> int:
    import tempfile

    from reliability.parsers import PARSERS

    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    names = sys.argv[2:] or list(PARSERS)
    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="nbcontain-fuzz-") as directory:
        for name in names:
            share = max(1, seconds // len(names))
            command = [sys.executable, __file__, "--one", name, str(share), f"{directory}/{name.replace(' ', '-')}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            text = done.stdout + done.stderr
            match = re.search(r"number_of_executed_units: (\d+)", text)
            count = int(match[1]) if match else 0
            total += count
            print(
                f"{name:15} {count:>10} executions  {count // share:>7}/s  {'ok' if not done.returncode else 'FAILED'}"
            )
            if done.returncode:
                failed += 1
                print(text[-3000:])
    print(f"{'all':15} {total:>10} executions, {failed} readers failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        sys.exit(main())
