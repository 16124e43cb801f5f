"""The parts of an engine that have names of their own, `engine.anatomy`: imported and made when first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class Noun(Generic[T]):
    """An attribute whose value is made by the class of that name in a module, out of the engine, and kept."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, engine: None, owner: type) -> Noun[T]: ...
    @overload
    def __get__(self, engine: object, owner: type) -> T: ...
    def __get__(self, engine: object, owner: type) -> T | Noun[T]:
        if engine is None:
            return self
        made: Any = getattr(import_module(self._module), self._name.capitalize())(engine)
        # From now on it is found before this is asked.
        engine.__dict__[self._name] = made
        found: T = made
        return found
