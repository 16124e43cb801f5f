"""How long each notebook of the course takes a learner, by a rule: `tools/reading.py`; with `write` its head says so.

The rule: adults read 238 words of English non-fiction a minute in their first language (Brysbaert, 2019). We count 150,
for those who have another one, in the text and in the claims that are printed. A line of code that is shown takes
3 seconds; one that is folded is not read. To run a cell and look at what it shows takes 4 seconds, or 2 where all that
it shows are claims; a question takes 35; an exercise a minute, and half a minute for each line of its solution.
What is in <details> is looked up, not read.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
TEACHING = CHECKOUT / "docs" / "teaching.md"
MOST = 20
"""Minutes: no notebook takes longer."""
WORDS_A_MINUTE, LINE_S, CELL_S, CHECK_S, QUESTION_S, EXERCISE_S, SOLUTION_LINE_S = 150, 3, 4, 2, 35, 60, 30
SAID = re.compile(r"\bIt takes about (\d+) minutes\b")
_ROW = re.compile(r"^(\| (\d\d) [^|]*\| )(\d+) min", re.MULTILINE)
_CLAIM = re.compile(r'\bcheck\(f?"([^"]*)"')


def account(notebook: dict[str, Any]) -> dict[str, float]:
    """Seconds for each kind of thing in a notebook."""
    from nbcontain.lessons import course

    seconds = dict.fromkeys(("text", "code", "claims", "cells", "questions", "exercises"), 0.0)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            seconds["text"] += 60 * words(source) / WORDS_A_MINUTE
        elif source.startswith("%quiz"):
            seconds["questions"] += QUESTION_S
        elif wanted := cell["metadata"].get("exercise"):
            lines = "\n".join(course.exercise(wanted).solution).splitlines()
            seconds["exercises"] += EXERCISE_S + SOLUTION_LINE_S * len(lines)
        else:
            is_folded = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
            seconds["cells"] += CHECK_S if is_folded else CELL_S
            seconds["claims"] += 60 * sum(words(claim) for claim in _CLAIM.findall(source)) / WORDS_A_MINUTE
            if not is_folded:
                seconds["code"] += LINE_S * sum(bool(line.strip()) for line in source.splitlines())
    return seconds


def words(text: str) -> int:
    """The words of some Markdown that are read: not where its links lead, and not what is folded away."""
    text = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    return len(re.findall(r"\w[\w'’.-]*", re.sub(r"\]\([^)]*\)", "]", text)))


def minutes(path: Path) -> int:
    """What a notebook takes, in whole minutes."""
    return math.ceil(sum(account(json.loads(path.read_text())).values()) / 60)


def write() -> None:
    """Let the heads of the notebooks, and the table for those who teach, say it."""
    taken = {path.name[:2]: minutes(path) for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        path.write_text(SAID.sub(f"It takes about {taken[path.name[:2]]} minutes", path.read_text(), count=1))
    TEACHING.write_text(_ROW.sub(lambda row: f"{row[1]}{taken[row[2]]} min", TEACHING.read_text()))


def told() -> dict[str, tuple[int, ...]]:
    """For each notebook: what the rule says, what its head says, and what the table for teachers says."""
    rows = {row[1]: int(row[2]) for row in _ROW.findall(TEACHING.read_text())}
    found = {}
    for path in NOTEBOOKS:
        head = SAID.search("".join(json.loads(path.read_text())["cells"][0]["source"]))
        found[path.name[:2]] = (minutes(path), int(head[1]) if head else 0, rows.get(path.name[:2], 0))
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(CHECKOUT))
    if "write" in sys.argv[1:]:
        write()
    for each in NOTEBOOKS:
        parts = account(json.loads(each.read_text()))
        print(f"{minutes(each):3} min  {each.stem:34}", *(f"{name} {taken / 60:.1f}" for name, taken in parts.items()))
