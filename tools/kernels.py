"""Make the kernels of the test matrix: one small environment per ipykernel release, in .cache/kernels.

Buttons and interrupts work differently in these releases, so the notebook tests run in each of
them. An environment holds only its ipykernel; everything else it sees through .venv.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

RELEASES = ("6.30.*", "7.3.*", "7.4.*")
KERNELS = Path(__file__).resolve().parent.parent / ".cache" / "kernels"


def make(release: str) -> None:
    """Make the environment of one release, unless it is there and still belongs to this .venv."""
    home = KERNELS / release.removesuffix(".*")
    site = str(Path(sysconfig.get_path("purelib")).resolve())
    stamp = home / "made-from"
    if stamp.exists() and stamp.read_text() == site and (home / "bin/python").exists():
        return
    print(f"making a kernel with ipykernel {release}", file=sys.stderr)
    venv.create(home, with_pip=False, clear=True, symlinks=True)
    own_site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    # addsitedir, so that the .pth file of the editable install counts too.
    (own_site / "shared.pth").write_text(f"import site; site.addsitedir({site!r})\n")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(home / "bin/python")]
    # Its own copy, even where .venv happens to have this release today; then what only it needs.
    subprocess.run([*pip, "install", "--no-deps", "--ignore-installed", f"ipykernel=={release}"], check=True)
    subprocess.run([*pip, "install", f"ipykernel=={release}"], check=True)
    stamp.write_text(site)


if __name__ == "__main__":
    for each in RELEASES:
        make(each)
