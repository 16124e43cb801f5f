"""The --name=value behind an instruction's keyword, checked against what the instruction takes (BuildKit: BFlags)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from nbcontain.dockerfile.lines import Line
from nbcontain.dockerfile.nearest import nearest
from nbcontain.errors import DockerfileError
from nbcontain.values import dataclass

Known = Mapping[str, type[object]]
"""What an instruction takes: names, with `str` for a value, `bool` for a switch, `tuple` for values given often."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of one line, as given."""

    values: Mapping[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """The value, "" where it is not given."""
        return self.values.get(name, ("",))[-1]

    def many(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())

    def truth(self, name: str) -> bool | None:
        """A switch: --name, --name=true or --name=false; None where it is not given."""
        return self.text(name) == "true" if name in self.values else None

    def is_set(self, name: str) -> bool:
        return self.truth(name) is True


def read_flags(line: Line, known: Known) -> Flags:
    """The flags of a line. Raises DockerfileError for one that the instruction does not take, or not so."""
    given: dict[str, tuple[str, ...]] = {}
    for flag in line.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in known:
            near = nearest(name, known)
            takes = ", ".join(f"--{each}" for each in known)
            listed = f"{line.keyword} takes {takes}." if known else f"{line.keyword} takes no flags."
            _refuse(line, f"unknown flag --{name}", f"did you mean --{near}?" if near else listed)
        if name in given and known[name] is not tuple:
            _refuse(line, f"--{name} is given twice")
        if known[name] is bool:
            value = _switch(line, name, value if equals else "true")
        elif not equals:
            _refuse(line, f"--{name} has no value", f"Write --{name}=… with an equals sign and no space.")
        given[name] = (*given.get(name, ()), value)
    return Flags(given)


def _switch(line: Line, name: str, value: str) -> str:
    if value.lower() not in ("true", "false"):
        what = f"--{name}={value} is neither true nor false" if value else f"--{name}= has no value"
        _refuse(line, what, f"--{name}, --{name}=true or --{name}=false")
    return value.lower()


def _refuse(line: Line, message: str, hint: str = "") -> NoReturn:
    raise DockerfileError(message, line.span, hint=hint)
