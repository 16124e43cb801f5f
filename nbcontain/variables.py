"""The notebook's variables, as command lines name them.

`{name}` becomes that variable's text, in this one word; of a list, where it stands alone, a word each. For `cp` it is
the variable itself, unless that is a path. `{{` and `}}` are left alone, as docker's formats have them, and so are
`$name` and `${name}`, which are the shell's inside. A name that there is not is an error, not a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from nbcontain.commands import split
from nbcontain.display.values import Lines
from nbcontain.errors import UsageError, did_you_mean
from nbcontain.exchange import FileNames

_BRACES = re.compile(r"\$\{|\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.\[\]'\"]*)\}")
_OF_OBJECTS = ("--put", "--stdin")
"""Flags that name a variable for what it is, and not for its text."""


class Variables(FileNames):
    """What names mean where a command stands: in a cell, or in a function with variables of its own."""

    def __init__(self, shared: dict[str, Any], own: Mapping[str, Any] | None = None) -> None:
        """`shared` are the notebook's, `own` the function's."""
        self._shared, self._own = shared, own or {}

    def words(self, line: str) -> list[str]:
        """A magic's line as words, with the variables in them. Raises UsageError."""
        found: list[str] = []
        for word in split(line):
            names_object = word.partition("=")[0] in _OF_OBJECTS or (found and found[-1] in _OF_OBJECTS)
            names_object = names_object or (found[:1] == ["cp"] and self._is_object(word))
            if not names_object and (several := self._several(word)) is not None:
                found += several
            else:
                found.append(word if names_object else self.text(word))
        return found

    def _several(self, word: str) -> list[str] | None:
        """The words of {NAME} that stands alone for a list, as of ids that `ps -q` gave; None for another word."""
        match = _BRACES.fullmatch(word)
        if match is None or match[1] is None:
            return None
        value = self._value(match[1])
        value = value.lines if isinstance(value, Lines) else value
        return [str(each) for each in value] if isinstance(value, list | tuple) else None

    def _is_object(self, word: str) -> bool:
        """Whether this is {NAME} of something that is no path: what `cp` copies for what it is, or a name to come."""
        match = _BRACES.fullmatch(word)
        if match is None or match[1] is None or not match[1].isidentifier():
            return False
        value = self._own.get(match[1], self._shared.get(match[1]))
        return not isinstance(value, str | PathLike | int | float)

    def text(self, word: str) -> str:
        """A word with the text of the variables in it. Raises UsageError."""
        return _BRACES.sub(lambda match: match[0] if match[1] is None else str(self._value(match[1])), word)

    def named(self, name: str) -> Any:
        """What a name stands for: a variable, `{an.expression}` of one, else a file. Raises UsageError."""
        match = _BRACES.fullmatch(name)
        if match is not None and match[1] is not None:
            return self._value(match[1])
        if not name.isidentifier():
            return super().named(name)
        if name not in self._own and name not in self._shared:
            otherwise = f"define it in a cell before; a file is ./{name}"
            data = [known for known, value in {**self._shared, **self._own}.items() if is_data(known, value)]
            hint = did_you_mean(name, data, otherwise)
            raise UsageError(f"there is no variable {name}", hint=hint)
        return self._own.get(name, self._shared.get(name))

    def require(self, name: str, path: str) -> None:
        """Raises Unavailable where no variable can hold what a file called `path` would be."""
        from nbcontain import objects

        if name.isidentifier():
            objects.require(path)

    def give(self, name: str, path: str, data: bytes) -> None:
        """Make a variable of that name hold what a file held; what is no name is a file.

        Raises UsageError, Unavailable.
        """
        from nbcontain import objects

        if name.isidentifier():
            self._shared[name] = objects.read(path, data)
        else:
            super().give(name, path, data)

    def _value(self, expression: str) -> Any:
        scope = {**self._shared, **self._own}
        try:
            return eval(expression, {"__builtins__": {}}, scope)  # noqa: S307 - names, attributes and items only
        except Exception as error:  # noqa: BLE001 - whatever the user's own object raised
            hint = f"define it in a cell before; ${{{expression}}} and {{{{{expression}}}}} are left as they stand"
            raise UsageError(f"{{{expression}}}: {error}", hint=hint) from None


def is_data(name: str, value: object) -> bool:
    """Whether a variable is somebody's data, and nothing of the language's or of the notebook's own."""
    return not name.startswith("_") and not callable(value) and type(value).__name__ != "module"
