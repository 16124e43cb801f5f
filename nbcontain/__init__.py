"""A container engine that lives in a notebook: build, run and look at containers without a daemon.

`%load_ext nbcontain` gives the magics; the names below are the same engine for Python.
Everything is imported when it is first used, so that `import nbcontain` costs next to nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from nbcontain import aio as aio
    from nbcontain.api import build as build
    from nbcontain.api import check as check
    from nbcontain.api import container as container
    from nbcontain.api import create as create
    from nbcontain.api import df as df
    from nbcontain.api import doctor as doctor
    from nbcontain.api import engine as engine
    from nbcontain.api import explain as explain
    from nbcontain.api import login as login
    from nbcontain.api import logout as logout
    from nbcontain.api import pull as pull
    from nbcontain.api import push as push
    from nbcontain.api import run as run
    from nbcontain.build.plan import BuildOptions as BuildOptions
    from nbcontain.builder import BuildResult as BuildResult
    from nbcontain.engine import Engine as Engine
    from nbcontain.errors import NbcontainError as NbcontainError
    from nbcontain.handles import Container as Container
    from nbcontain.image_list import images as images
    from nbcontain.image_list import manifests as manifests
    from nbcontain.images import Image as Image
    from nbcontain.listing import containers as containers
    from nbcontain.listing import networks as networks
    from nbcontain.listing import volumes as volumes
    from nbcontain.outcomes import RunResult as RunResult
    from nbcontain.pool import map as map
    from nbcontain.runtime.generate import RunOptions as RunOptions
    from nbcontain.system import system as system
    from nbcontain.task import Task as Task

else:
    ModuleType = type(sys)

__version__ = "0.1.0"

_HOMES = {
    "BuildOptions": "build.plan", "BuildResult": "builder", "Container": "handles", "Engine": "engine",
    "Image": "images", "NbcontainError": "errors", "RunOptions": "runtime.generate", "RunResult": "outcomes",
    "Task": "task", "build": "api", "check": "api", "container": "api", "containers": "listing", "create": "api",
    "df": "api", "doctor": "api", "engine": "api", "explain": "api", "images": "image_list", "login": "api",
    "logout": "api", "manifests": "image_list", "map": "pool", "networks": "listing", "pull": "api", "push": "api",
    "run": "api", "system": "system", "volumes": "listing",
}  # fmt: skip
"""Public names, and the modules that have them."""

__all__ = [*sorted(_HOMES), "__version__", "aio", "load_ipython_extension", "unload_ipython_extension"]


class _Package(ModuleType):
    """This package. Some of its public names are those of modules in it too: `nbcontain.build` is the function.

    The import system sets every module that it has loaded as an attribute; what has been imported by its full name
    does not need that.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "aio":
        return import_module(f"{__name__}.aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(ipython: Any) -> None:
    """Called by IPython for `%load_ext nbcontain`."""
    import_module("nbcontain.magics").load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Called by IPython for `%unload_ext nbcontain`."""
    import_module("nbcontain.magics").unload(ipython)
