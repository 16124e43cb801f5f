"""docs/conformance.md: what agrees, what differs and why, and what of the peers' own suites is shown by which case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from cases import Case

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
LIST = Path(__file__).with_name("suites.txt")


def named() -> dict[str, dict[str, str]]:
    """By suite, each name it has, and "" or why or where (`- reason`, `= place`)."""
    found: dict[str, dict[str, str]] = {}
    suite: dict[str, str] = {}
    for line in LIST.read_text().splitlines():
        if line.startswith("["):
            suite = found.setdefault(line.strip("[]"), {})
        elif line.startswith(("- ", "= ")):
            said, _, names = line.partition(": ")
            suite.update(dict.fromkeys(names.split(), said))
        elif not line.startswith("#"):
            suite.update(dict.fromkeys(line.split(), ""))
    return found


def write_page(
    cases: Sequence[Case], states: Mapping[str, str], of_buildah: Counter[str], everywhere: Sequence[tuple[str, ...]],
    suite: Mapping[str, bool],
) -> None:  # fmt: skip
    """Write the page from one run of all builders; `suite` says of peers' cases whether they are strictly the same."""
    counts = Counter(states.values())
    topics = sorted({case.topic for case in cases})
    kinds = ("agree", "explained", "documented", "open")
    lines = [
        "# Conformance", "",
        "Written by `make conformance`: the same Dockerfiles built here, with Debian's docker (BuildKit) and buildah,",
        "and compared: every entry of the file system (type, mode, owner, size, content, symlink, hard links, xattrs,",
        "devices, and time stamps that something set), config, history and which steps have a layer. Steps that change",
        "nothing have none here and an empty one in BuildKit; history is compared without the mark `# buildkit`.",
        "Every fifth case is built by an ordinary user with a range of ids too, and gives the same",
        "(tests/conformance/test_rootless.py). Cases called real-… are Dockerfiles as people write them, on bases that",
        "look like those they write them for.",
        "",
        f"{len(cases)} cases: **{counts['agree']} agree, {counts['explained']} differ for a reason that is given,",
        f"{counts['documented']} show what the documentation says** (docker 20.10 does not know it),",
        f"**{counts['open']} open**. Tree and config of {of_buildah['all']} cases: buildah as docker in",
        f"{of_buildah['docker']}, as here in {of_buildah['ours']}.", "",
        f"All builders were run on {date.today():%-d %B %Y}. Cases that are newer are not counted above:",
        "what docker makes of them is in tests/conformance/expected. The list of BuildKit's names is also",
        "written by `tests/conformance/compare.py names`, which runs nothing.",
        "", "| | agree | explained | documented | open |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for topic in topics:
        each = Counter(states[case.name] for case in cases if case.topic == topic)
        lines.append(f"| {topic} | " + " | ".join(str(each[kind]) for kind in kinds) + " |")
    lines += ["", "## Differences that are meant", ""]
    lines += [f"- everywhere: {reason}" for *_, reason in everywhere]
    reasons: dict[str, list[str]] = {}
    for case in cases:
        for reason in case.differs.values():
            reasons.setdefault(reason, []).append(case.name)
    lines += [f"- {reason} ({', '.join(names)})" for reason, names in reasons.items()]
    still_open = [f"- {name}" for name, state in states.items() if state == "open"]
    lines += ["", "## Open", "", *(still_open or ["None."])]
    for name, names in named().items():
        lines += _suite(name, names, cases, states, suite)
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


def write_names(cases: Sequence[Case], still_open: Sequence[str]) -> None:
    """Write anew what the page says of BuildKit's names. `make test` keeps all cases but those that are open as docker
    was recorded."""
    states = {case.name: "open" if case.name in still_open else "agree" for case in cases}
    page = PAGE.read_text()
    begin, end = (page.index(f"\n## {title}") for title in ("BuildKit's", "buildah's"))
    section = "\n".join(_suite("buildkit", named()["buildkit"], cases, states, {}))
    PAGE.write_text(f"{page[:begin]}{section}\n{page[end:]}")


def _suite(
    suite: str, names: Mapping[str, str], cases: Sequence[Case], states: Mapping[str, str], same: Mapping[str, bool]
) -> list[str]:
    prefix = "" if suite == "buildkit" else f"{suite}:"
    shown: dict[str, list[str]] = {}
    for case in cases:
        for name in case.shows:
            if name.startswith("buildah:") == bool(prefix):
                shown.setdefault(name.removeprefix(prefix), []).append(case.name)
    unknown = set(shown) - set(names)
    assert not unknown, f"suites.txt does not have {unknown}"
    rows = []
    counts: Counter[str] = Counter()
    for name, said in names.items():
        good = [each for each in shown.get(name, []) if states[each] != "open"]
        if good:
            state, where = "shown", ", ".join(good)
        elif said.startswith("= "):
            state, where = "shown elsewhere", said[2:]
        elif said.startswith("- "):
            state, where = "not applicable", said[2:]
        else:
            state, where = "no case yet" if name not in shown else "open", ", ".join(shown.get(name, []))
        counts[state] += 1
        rows.append(f"| {name} | {state} | {where} |")
    told = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    title = "BuildKit's integration tests" if suite == "buildkit" else "buildah's conformance cases"
    lines = ["", f"## {title}", "", f"{len(names)} names: {told}.", ""]
    if prefix:
        agreed = [same[prefix + name] for name in names if prefix + name in same]
        others = ", ".join(name for name in names if not same.get(prefix + name, True))
        lines += [
            "Compared as that suite does it, strictly and without any reason given: config and the metadata of every",
            "file, neither history nor, of directories that were copied, their times (docker 20.10 does not keep them,",
            f"and newer BuildKit does): **{sum(agreed)} of {len(agreed)} agree with docker,",
            f"{sum(agreed) / len(agreed):.1%}**. The others: {others or 'none'}.", "",
        ]  # fmt: skip
    return [*lines, "| name | | by |", "|---|---|---|", *rows]
