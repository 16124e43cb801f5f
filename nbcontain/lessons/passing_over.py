"""Cells that need what this computer does not give, as a container: they say so, and the notebook goes on."""

from __future__ import annotations

import re
from typing import Any

from nbcontain.engine import Engine
from nbcontain.profiles import Profile
from nbcontain.values import dataclass

CONTAINER, PROGRAM, VOLUME = "a container", "a further program in a container", "a volume"
_MARKED = re.compile(rf"^# .*\bneeds ({CONTAINER}|{PROGRAM}|{VOLUME})\b", re.MULTILINE)
_CALL = re.compile(r"^\s*(?:\w+\s*=\s*)?%%?container\s+(?!ps\b|ls\b)(?P<words>.*)$", re.MULTILINE)
_ENTERS = re.compile(r"exec\b|(?:.*\s)?--health-cmd\b")
_MOUNTS = re.compile(r"(?:^|\s)(?:-v|--volume|--mount|--tmpfs)(?:\s|=)")
_STEP = re.compile(r"^\s*RUN\s", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PassingOver:
    """An input transformer of IPython's: instead of a cell that needs something of `missing`, a sentence is run."""

    missing: frozenset[str]

    def __call__(self, lines: list[str]) -> list[str]:
        lacks = sorted(needs("".join(lines)) & self.missing)
        if not lacks:
            return lines
        said = f"not run: it needs {lacks[0]}, and this computer gives none (%nbcontain doctor tells why)"
        return [f"print({said!r})\n"]


def needs(cell: str) -> set[str]:
    """What a cell asks of the computer: as its magics and its Dockerfile tell, or a comment `# … needs a container`."""
    found = set(_MARKED.findall(cell))
    calls = _CALL.findall(cell)
    if calls or (cell.startswith("%%dockerfile") and "--check" not in cell.split("\n", 1)[0] and _STEP.search(cell)):
        found.add(CONTAINER)
    if any(_ENTERS.match(words) for words in calls):
        found.add(PROGRAM)
    if any(_MOUNTS.search(words) for words in calls):
        found.add(VOLUME)
    return found


def missing(profile: Profile) -> frozenset[str]:
    """What cells may need and cannot have on this rung."""
    if not profile.runs:
        return frozenset((CONTAINER, PROGRAM, VOLUME))
    given = {PROGRAM: profile.rung.joins, VOLUME: profile.rung.mounts}
    return frozenset(each for each, is_given in given.items() if not is_given)


def pass_over(ipython: Any, engine: Engine) -> str:
    """From here on pass over the cells that need what this computer does not give; what the reader is told of it.

    Idempotent; "" where everything is given.
    """
    transformers = ipython.input_transformers_cleanup
    transformers[:] = [each for each in transformers if not isinstance(each, PassingOver)]
    lacks = missing(engine.profile)
    if not lacks:
        return ""
    transformers.append(PassingOver(lacks))
    what = CONTAINER if CONTAINER in lacks else " or ".join(sorted(lacks))
    return (
        f"Nobody can have {what} on this computer; %nbcontain doctor tells why.\n"
        f"Cells that need {what} say so and are passed over. All others show what they show everywhere.\n"
    )
