"""What makes Jupyter know our provisioner where this checkout is not what is installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def declared(directory: Path) -> Path:
    """A directory for PYTHONPATH with the entry points that pyproject.toml declares, as an installer writes them."""
    groups = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["entry-points"]
    installed = directory / "path" / "nbcontain-0.dist-info"
    installed.mkdir(parents=True, exist_ok=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: nbcontain\nVersion: 0\n")
    lines = [f"[{group}]\n{name} = {value}" for group, each in groups.items() for name, value in each.items()]
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return installed.parent
