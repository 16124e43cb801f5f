"""A container engine that lives in a notebook: build, run and look at containers without a daemon.

`%load_ext nbcontain` gives the magics; the names below are the same engine for Python.
Everything is imported when it is first used, so that `import nbcontain` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

    from nbcontain.build.plan import BuildOptions as BuildOptions
    from nbcontain.engine import Engine as Engine
    from nbcontain.errors import NbcontainError as NbcontainError
    from nbcontain.oci.image import Image as Image
    from nbcontain.outcomes import RunResult as RunResult
    from nbcontain.runtime.container import Container as Container
    from nbcontain.runtime.generate import RunOptions as RunOptions
    from nbcontain.task import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "BuildOptions": "nbcontain.build.plan",
    "Container": "nbcontain.runtime.container",
    "Engine": "nbcontain.engine",
    "Image": "nbcontain.oci.image",
    "NbcontainError": "nbcontain.errors",
    "RunOptions": "nbcontain.runtime.generate",
    "RunResult": "nbcontain.outcomes",
    "Task": "nbcontain.task",
}

__all__ = [*sorted(_HOMES), "__version__", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(ipython: Any) -> None:
    """Called by IPython for `%load_ext nbcontain`."""
    import_module("nbcontain.magics").load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Called by IPython for `%unload_ext nbcontain`."""
    import_module("nbcontain.magics").unload(ipython)
