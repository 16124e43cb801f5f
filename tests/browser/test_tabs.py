"""One notebook in two tabs of the browser, on one kernel: both live, both act, and a program is answered once."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from lab import OpenLab
from nbcontain.engine import Engine

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

CELLS = (
    "%load_ext nbcontain",
    "%container run -d --name web box sh -c \"trap 'exit 0' TERM; n=0; "
    "while :; do n=$((n+1)); echo tick $n; sleep 0.2; done\"",
    "%container exec -it web sh",
    "%image layers box",
    "%container ps -a",
)


def test_two_tabs_see_and_do_the_same(open_lab: OpenLab, desk_engine: Engine) -> None:
    lab = open_lab(*CELLS)
    lab.run_all()
    table = lab.card(4)
    expect(table).to_contain_text(re.compile(r"Up .*web.*≡ docker ps --all", re.DOTALL))
    expect(lab.output(2).locator(".xterm-rows")).to_contain_text("#")
    # What was said before the other tab came, and answered then.
    lab.output(2).locator(".xterm").click()
    lab.page.keyboard.type("PS1=; echo be''fore; printf '\\033[6n\\n'; cat\n")
    expect(lab.output(2).locator(".xterm-rows")).to_contain_text(re.compile(r"before.*;1R", re.DOTALL))
    lab.save()
    with lab.another_tab() as other:
        expect(other.card(1).get_by_role("log")).to_contain_text(re.compile(r"tick \d\d"))
        there = other.output(2).locator(".xterm-rows")
        expect(there).to_contain_text("before")
        assert len(re.findall(r"\d+;\d+R", there.inner_text())) == 1
        # What is typed in one is seen in both; what a program asks is answered by one of them.
        other.output(2).locator(".xterm").click()
        other.page.keyboard.press("Control+c")
        other.page.keyboard.type("echo be''hind; printf '\\033[6n\\n'; cat\n")
        for rows in (there, lab.output(2).locator(".xterm-rows")):
            expect(rows).to_contain_text(re.compile(r"behind.*;1R", re.DOTALL))
        other.page.wait_for_timeout(300)  # a second answer would have come by then
        assert len(re.findall(r"\d+;\d+R", there.inner_text())) == 2
        # Each asks the explorer for itself.
        other.output(3).get_by_role("treeitem").filter(has_text="bin/").click()
        expect(other.output(3).get_by_role("treeitem").filter(has_text="busybox").first).to_be_visible()
        expect(lab.output(3).get_by_role("treeitem").filter(has_text="busybox")).to_have_count(0)
        # A drawer is the card's, a click acts once.
        other.button(1, "Changes").click()
        for each in (lab, other):
            expect(each.card(1).get_by_role("region", name="Changes", exact=True)).to_be_visible()
        lab.button(1, "Close Changes").click()
        expect(other.card(1).get_by_role("region", name="Changes", exact=True)).to_be_hidden()
        other.button(1, "Restart").click()
        for each in (lab, other):
            expect(each.card(1)).to_contain_text("started 2 times")
        lab.button(1, "Stop").click()
        for each in (lab, other):
            expect(each.card(1)).to_contain_text("exited")
    # No cell was run meanwhile: the table followed all of it, and what is saved is that.
    expect(table).to_contain_text("Exited (0)")
    lab.run(0)
    desk_engine.remove_container(desk_engine.container("web"))
    lab.save()
    assert "Exited (0)" in lab.path.read_text()


TOO_LATE = """() => {
  const outputs = nb.panel().content.widgets[1].outputArea.widgets;
  const shown = outputs.flatMap(each => each.widgets).filter(each => each._manager);
  for (const each of shown) each.node.textContent = 'Error displaying widget: model not found';
  return shown.length;
}"""


def test_a_card_whose_model_came_a_moment_too_late_lives(open_lab: OpenLab) -> None:
    """ipywidgets waits two seconds for what a kernel has to say; on a slow computer that can be just too short."""
    lab = open_lab(*CELLS[:2])
    lab.run_all()
    log = lab.card(1).get_by_role("log")
    expect(log).to_contain_text("tick")
    assert lab.page.evaluate(TOO_LATE) == 1
    expect(log).to_contain_text(re.compile(r"tick \d\d"))
    lab.button(1, "Stop").click()
    expect(lab.card(1)).to_contain_text("exited")
