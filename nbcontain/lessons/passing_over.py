"""Cells that need what this computer does not give, as a container: they say so, and the notebook goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nbcontain.engine import Engine
from nbcontain.values import dataclass

CONTAINER, PROGRAM = "a container", "a further program in a container"
VOLUME, NETWORK = "a volume", "a network"
_ALL = (CONTAINER, PROGRAM, VOLUME, NETWORK)
"""In the order in which a lack is told: who has no container has none of the others."""
_MARKED = re.compile(rf"^# .*\bneeds ({'|'.join(_ALL)})\b", re.MULTILINE)
_CALL = re.compile(r"^\s*(?:\w+\s*=\s*)?%%?container\s+(?!ps\b|ls\b)(?P<words>.*)$", re.MULTILINE)
_ENTERS = re.compile(r"exec\b|(?:.*\s)?--health-cmd\b")
_MOUNTS = re.compile(r"(?:^|\s)(?:-v|--volume|--mount|--tmpfs)(?:\s|=)")
_NETWORK = re.compile(
    r"^\s*(?:%network\s+(?!ls\b|list\b)|%%?compose\s|%%?container\s.*\s--net(?:work)?[\s=](?!none\b|host\b))",
    re.MULTILINE,
)
_STEP = re.compile(r"^\s*RUN\s", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PassingOver:
    """An input transformer of IPython's: instead of a cell that needs something of `missing`, a sentence is run."""

    missing: frozenset[str]

    def __call__(self, lines: list[str]) -> list[str]:
        wanted = needs("".join(lines)) & self.missing
        lacks = next((each for each in _ALL if each in wanted), "")
        if not lacks:
            return lines
        said = f"not run: it needs {lacks}, and this computer gives none (%nbcontain doctor tells why)"
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
    if _NETWORK.search(cell):
        found.add(NETWORK)
    return found


def missing(engine: Engine, wanted: Sequence[str] = _ALL) -> frozenset[str]:
    """What of the `wanted` cannot be had here."""
    can = {
        CONTAINER: lambda: engine.profile.runs,
        PROGRAM: lambda: engine.profile.runs and engine.profile.rung.joins,
        VOLUME: lambda: engine.profile.runs and engine.profile.rung.mounts,
        NETWORK: engine.networks.can_bridge,
    }
    return frozenset(what for what in wanted if not can[what]())


def pass_over(ipython: Any, engine: Engine, *wanted: str) -> str:
    """From here on pass over the cells that need what this computer does not give; what the reader is told of it.

    `wanted` says what the lesson needs, all but a network unless told. Idempotent; "" where everything is given.
    """
    transformers = ipython.input_transformers_cleanup
    transformers[:] = [each for each in transformers if not isinstance(each, PassingOver)]
    lacks = missing(engine, wanted or (CONTAINER, PROGRAM, VOLUME))
    if not lacks:
        return ""
    transformers.append(PassingOver(lacks))
    what = CONTAINER if CONTAINER in lacks else " and ".join(each for each in _ALL if each in lacks)
    return (
        f"Nobody can have {what} on this computer; %nbcontain doctor tells why.\n"
        f"Cells that need {what} say so and are passed over. All others show what they show everywhere.\n"
    )
