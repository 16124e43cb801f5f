"""A module of the standard library that is loaded only if somebody calls it. Imported first, where starts count.

pathlib needs urllib.parse for as_uri, which nobody here calls, and which takes as long to import as pathlib itself.
"""

from __future__ import annotations

import importlib
import sys
import urllib

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NAME = "urllib.parse"
_DEFERRED = "quote_from_bytes"
"""What pathlib imports of it by name; whoever wants anything else gets the real module."""


class _Later(type(sys)):  # type: ignore[misc]
    """Stands for the module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _deferred if name == _DEFERRED else getattr(_real(), name)


def _real() -> Any:
    if isinstance(sys.modules.get(_NAME), _Later):
        del sys.modules[_NAME]
    return importlib.import_module(_NAME)


def _deferred(*arguments: Any) -> Any:
    function: Callable[..., Any] = getattr(_real(), _DEFERRED)
    return function(*arguments)


if _NAME not in sys.modules:
    sys.modules[_NAME] = urllib.parse = _Later(_NAME)  # type: ignore[attr-defined]
