"""What Jupyter kernels in images need done where an image's names mean what they say. Run by init, as functions.

Imported by whoever calls them (`Launcher.call(…, imports=…)`). What is read here is the image's own: whoever made it
wrote it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Any

from nbcontain.errors import StoreError
from nbcontain.runtime.rootfs import function
from nbcontain.store import files

NAME = __name__
_SPEC_BYTES = 64 << 10
_MOST = 64


@function
def find_kernels(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """The kernelspecs of the image, which is the root, and its Pythons: in these `directories`, of these `programs`.

    A spec comes with its directory, its text and, where there is one, the Python of its own prefix.
    """
    specs: list[dict[str, str]] = []
    for directory in arguments["directories"]:
        for name in _names(directory):
            with suppress(OSError, StoreError):
                text = files.read(os.path.realpath(f"{directory}/{name}/kernel.json"), _SPEC_BYTES)
                above = directory.removesuffix("/share/jupyter/kernels")
                own = f"{above}/bin/python"
                specs.append({
                    "name": name, "directory": f"{directory}/{name}", "text": text.decode("utf-8", "replace"),
                    "python": own if above != directory and os.access(own, os.X_OK) else "",
                })  # fmt: skip
    pythons = [
        {"path": path, "kernel": _has_kernel(os.path.dirname(os.path.dirname(path)))}
        for path in arguments["programs"] if os.path.isfile(path) and os.access(path, os.X_OK)
    ]  # fmt: skip
    return {"specs": specs[:_MOST], "pythons": pythons}


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))[:_MOST]
    except OSError:
        return []


def _has_kernel(prefix: str) -> bool:
    """Whether the Python that has this prefix, or what a distribution keeps beside it, can import ipykernel."""
    for library in (f"{prefix}/lib", "/usr/local/lib") if prefix == "/usr" else (f"{prefix}/lib",):
        for python in _names(library):
            if python.startswith("python3"):
                for packages in ("site-packages", "dist-packages"):
                    if os.path.isfile(f"{library}/{python}/{packages}/ipykernel_launcher.py"):
                        return True
    return False


@function
def open_sockets(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Let everybody who comes as far as the root, which holds them, connect to its sockets."""
    for name in _names("/"):
        with suppress(OSError):
            if stat.S_ISSOCK(os.lstat(f"/{name}").st_mode):
                os.chmod(f"/{name}", 0o666)
    return {}
