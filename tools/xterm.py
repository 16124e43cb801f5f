"""Fetch xterm.js into nbcontain/display/static/xterm/, as npm's registry has it: pinned, with its licence.

The files are checked in, so that an installation needs neither npm nor the network. To move to another release,
change the versions, run this (it asks for npm), run tests/browser, and commit what has changed.
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from pathlib import Path

PLACE = Path(__file__).resolve().parent.parent / "nbcontain" / "display" / "static" / "xterm"
PACKAGES = {
    "@xterm/xterm@6.0.0": {"lib/xterm.mjs": "xterm.mjs", "css/xterm.css": "xterm.css", "LICENSE": "LICENSE"},
    "@xterm/addon-fit@0.11.0": {"lib/addon-fit.mjs": "addon-fit.mjs"},
}


def main() -> None:
    """npm compares each archive with the digest that the registry tells."""
    PLACE.mkdir(exist_ok=True)
    for package, wanted in PACKAGES.items():
        with tempfile.TemporaryDirectory() as directory:
            asked = ["npm", "pack", "--silent", "--pack-destination", directory, package]
            subprocess.run(asked, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(directory).glob("*.tgz")
            with tarfile.open(archive) as packed:
                for inside, name in wanted.items():
                    found = packed.extractfile(f"package/{inside}")
                    assert found is not None, inside
                    lines = found.read().decode().splitlines(keepends=True)
                    kept = [line for line in lines if not _is_left_out(line)]
                    (PLACE / name).write_text("".join(kept))
        print(f"{package}: {', '.join(wanted.values())}")


def _is_left_out(line: str) -> bool:
    """A map that is pointed to and is not here, or what its authors mean to do."""
    return line.startswith("//# sourceMappingURL=") or line.strip().startswith("/* TODO")


if __name__ == "__main__":
    main()
