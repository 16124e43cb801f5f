"""Modules of the standard library that the zygote loads only if somebody calls them. Imported first, in the zygote.

dataclasses needs inspect for classes without docstring, and pathlib needs urllib.parse for as_uri: both take a
fifth of the zygote's start and a tenth of its memory, and neither is ever called in a container's processes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module; each of its functions imports the real one when it is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Any:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
            return getattr(importlib.import_module(self.__name__), name)(*arguments, **named)

        return call


for _name in ("inspect", "urllib.parse"):
    if _name not in sys.modules:
        sys.modules[_name] = _Later(_name)
