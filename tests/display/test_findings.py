"""What a check found, drawn."""

from __future__ import annotations

from nbcontain.build.lint import CheckReport
from nbcontain.display.findings import Findings
from nbcontain.dockerfile import parse
from nbcontain.dockerfile.checks import checks
from nbcontain.dockerfile.hints import hints

SOURCE = "FROM <b>x AS A\nCMD '\x1b[2J</pre><script>'\n"


def test_findings_are_told_apart_and_hostile_text_stays_text() -> None:
    parsed = parse(SOURCE)
    drawn = Findings(CheckReport(SOURCE, (*checks(parsed, {}), *hints(parsed))))
    assert "check  StageNameCasing" in drawn.text()
    assert "hint  UnpinnedTag" in drawn.text()
    assert "\x1b" not in drawn.text()
    assert "<script>" not in drawn.html()
    assert "\x1b" not in drawn.html()
    assert 'nbc-is-cancelled">check</span>' in drawn.html()
    assert 'nbc-is-running">hint</span>' in drawn.html()


def test_nothing_found_is_said() -> None:
    assert Findings(CheckReport("FROM scratch\n", ())).text() == "nothing found"
