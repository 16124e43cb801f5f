"""What differs between an image of ours and docker's; and what `make conformance` and `conformance-record` run.

`compare.py record [NAME…]` runs docker and writes expected/; `compare.py live` runs all three builders, compares, and
writes docs/conformance.md. Names, which may be patterns, choose cases; then no page is written, and with any other
word in place of `live` buildah is left out. `compare.py names` runs nothing, and writes the page's list of BuildKit's
names.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import suites  # noqa: E402
from cases import Case, all_cases  # noqa: E402
from facts import Facts  # noqa: E402

EXPECTED = HERE / "expected"
Differences = dict[str, tuple[str, str]]
"""By key: what is here, and what is there."""

DIRECTORY_TIMES = (
    r"tree:.*", r"(?<=^dir)(.*) mtime=981\d+$", "newer BuildKit keeps time stamps of directories, as of files",
)  # fmt: skip
EVERYWHERE: tuple[tuple[str, str, str], ...] = (
    (r"history:.*", r"(?<=empty ARG ).*", "newer BuildKit notes an argument with its value, 20.10 its default"),
    (r"history:.*", r"(?<=empty EXPOSE ).*", "BuildKit since 0.13 lists ports; 20.10 printed a Go map"),
    (r"history:.*", r"(?<=empty HEALTHCHECK ).*", "BuildKit prints a Go struct, which nobody can type again"),
    (r"history:.*", r" --(chown|chmod)=\S+", "the flags of a step are a part of how it was made"),
    DIRECTORY_TIMES,
)
"""Differences that are meant wherever they show: key, what of both sides does not count, and the reason."""


def recorded() -> dict[str, Facts]:
    """What docker made of each case when it was last asked."""
    found: dict[str, Facts] = {}
    for path in sorted(EXPECTED.glob("*.json")):
        found |= json.loads(path.read_text())
    return found


def differences(ours: Facts, theirs: Facts) -> Differences:
    """By key, what each says. That both refuse is agreement, whatever words they do it in."""
    if "fails" in ours or "fails" in theirs:
        if "fails" in ours and "fails" in theirs:
            return {}
        return {"fails": (ours.get("fails", "an image")[:400], theirs.get("fails", "an image")[-400:])}
    return {
        key: (ours.get(key, "nothing"), theirs.get(key, "nothing"))
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    }


def unexplained(case: Case, found: Differences) -> dict[str, str]:
    """The differences that nobody gave a reason for."""
    return {
        key: f"here {here!r}, there {there!r}"
        for key, (here, there) in found.items()
        if not any(fnmatchcase(key, pattern) for pattern in case.differs) and not _is_meant(key, here, there)
    }


def agrees_for_buildahs_suite(ours: Facts, theirs: Facts) -> bool:
    """Whether they are the same to buildah's conformance suite: config and files, no history, no reasons.

    It lists the times of copied directories among what it leaves out.
    """
    found = differences(ours, theirs)
    return all(
        key.startswith(("history", "layers")) or _is_meant(key, here, there, (DIRECTORY_TIMES,))
        for key, (here, there) in found.items()
    )


def _is_meant(key: str, here: str, there: str, rules: Sequence[tuple[str, str, str]] = EVERYWHERE) -> bool:
    for pattern, ignored, _ in rules:
        if re.fullmatch(pattern, key):
            kept = r"\1" if "(.*)" in ignored else ""
            here, there = re.sub(ignored, kept, here), re.sub(ignored, kept, there)
    return here == there


def unmet(case: Case, ours: Facts) -> dict[str, str]:
    """What a documented case expects and does not find."""
    if case.fails:
        return {} if "fails" in ours else {"fails": "here an image, there must be none"}
    if "fails" in ours:
        return {"fails": ours["fails"][:400]}
    found = {}
    for key, words in case.expects.items():
        said = ours.get(key, "absent")
        missing = [word for word in _words(words) if word not in said]
        if missing:
            found[key] = f"here {said!r}, without {' '.join(missing)}"
    return found


def _words(text: str) -> list[str]:
    return [text] if ": " in text else text.split()


def verdict(case: Case, ours: Facts, theirs: Facts | None) -> dict[str, str]:
    """What is wrong with a case here; nothing is what we want."""
    if case.is_documented:
        return unmet(case, ours)
    assert theirs is not None, f"docker was never asked about {case.name}: make conformance-record"
    if case.fails and "fails" not in theirs:
        return {"fails": "the case says that docker refuses, and it does not"}
    return unexplained(case, differences(ours, theirs))


# --- the command ------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; the number of cases that are open."""
    what, *names = arguments or ["live"]
    if what == "names":
        suites.write_names(all_cases(), (HERE / "open.txt").read_text().split())
        return 0
    import peers

    import needs

    cases = [case for case in all_cases() if not names or any(fnmatchcase(case.name, name) for name in names)]
    asked = [case for case in cases if not case.is_documented]
    busybox = Path(needs.program("busybox", "busybox-static"))
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-conformance-", dir=needs.scratch()))
    try:
        with peers.docker(directory / "docker") as docker:
            docker.import_base(busybox)
            theirs = docker.facts_of_all(asked)
        if what == "record":
            _record(asked, theirs, is_whole=not names)
            return 0
        (directory / "ours").mkdir()
        ours = peers.Ours(directory / "ours", busybox)
        try:
            made = {case.name: ours.facts(case) for case in cases}
        finally:
            ours.close()
        others: dict[str, Facts] = {}
        if what == "live":
            buildah = peers.Buildah(directory / "buildah", busybox)
            try:
                with ThreadPoolExecutor(4) as pool:
                    others = dict(zip([case.name for case in cases], pool.map(buildah.facts, cases), strict=True))
            finally:
                buildah.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return _told(cases, made, theirs, others, is_whole=what == "live" and not names)


def _record(cases: Sequence[Case], theirs: Mapping[str, Facts], *, is_whole: bool) -> None:
    EXPECTED.mkdir(exist_ok=True)
    before = recorded()
    topics = {case.name: case.topic for case in all_cases()}
    for topic in sorted({case.topic for case in cases}):
        entries = {name: facts for name, facts in theirs.items() if topics[name] == topic}
        for facts in entries.values():
            if "fails" in facts:
                # Without where this machine keeps docker's files.
                said = re.sub(r"/\S*nbcontain-conformance-\w+", "", facts["fails"])
                facts["fails"] = said.strip().splitlines()[-1][-200:]
        if not is_whole:
            entries = {name: facts for name, facts in before.items() if topics.get(name) == topic} | entries
        text = json.dumps(dict(sorted(entries.items())), indent=1, sort_keys=True, ensure_ascii=False)
        (EXPECTED / f"{topic}.json").write_text(text + "\n")
    print(f"{len(cases)} cases recorded")


def _told(
    cases: Sequence[Case],
    made: Mapping[str, Facts],
    theirs: Mapping[str, Facts],
    others: Mapping[str, Facts],
    *,
    is_whole: bool,
) -> int:
    states: dict[str, str] = {}
    of_buildah: Counter[str] = Counter()
    suite: dict[str, bool] = {}
    for case in cases:
        for name in case.shows if not case.is_documented else ():
            suite[name] = suite.get(name, True) and agrees_for_buildahs_suite(made[case.name], theirs[case.name])
        wrong = verdict(case, made[case.name], theirs.get(case.name))
        found = {} if case.is_documented else differences(made[case.name], theirs[case.name])
        agreed = "documented" if case.is_documented else "explained" if found else "agree"
        states[case.name] = "open" if wrong else agreed
        for key, said in wrong.items():
            print(f"{case.name}: {key}: {said}")
        if others and not case.is_documented:
            kept = [{k: v for k, v in each.items() if not k.startswith(("history", "layers"))}
                    for each in (others[case.name], theirs[case.name], made[case.name])]  # fmt: skip
            of_buildah["docker"] += not unexplained(case, differences(kept[0], kept[1]))
            of_buildah["ours"] += not unexplained(case, differences(kept[0], kept[2]))
            of_buildah["all"] += 1
    counts = Counter(states.values())
    print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    if others:
        as_docker, as_here = of_buildah["docker"], of_buildah["ours"]
        print(f"tree and config of {of_buildah['all']}: buildah as docker in {as_docker}, as here in {as_here}")
    if is_whole:
        suites.write_page(cases, states, of_buildah, EVERYWHERE, suite)
    return counts["open"]


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
