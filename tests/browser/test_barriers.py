"""Barriers: what axe finds serious or critical in cards, board, explorer, both sides and a page, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from lab import Lab, OpenLab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

SERVING = 'sh -c "echo hi | tee /index.html; httpd -f -p 80 -h / & while :; do sleep 0.2; done"'
CELLS = (
    "%load_ext nbcontain",
    "%%dockerfile -t built\nFROM box\nRUN echo made > /made\n",
    f"%container run -d --name web box {SERVING}",
    "%container board",
    "%image layers built",
    "%container explain web",
    "%container open web:80",
    "%container terminal web",
    "%container ps -a",
    "%container ps -a --filter name=nobodys",
)
RINGS = """async number => {
  const area = document.querySelectorAll('.jp-Notebook .jp-Cell')[number].querySelector('.jp-Cell-outputArea');
  const ends = 'a[href], button, input, summary, iframe, [tabindex="0"]';
  const found = [];
  for (const each of area.querySelectorAll(ends)) {
    if (!each.checkVisibility() || !each.closest('.nbc')) continue;
    each.focus({ focusVisible: true });
    await new Promise(requestAnimationFrame);
    const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(each);
    found.push([each.outerHTML.slice(0, 60), `${outlineStyle} ${outlineWidth}`, outlineColor]);
  }
  return found;
}"""
"""What can be reached by the keyboard in a cell's outputs, and how one sees that it was."""


def barriers(lab: Lab) -> list[str]:
    """What axe says of all that is ours in the page; Lab's own is Lab's."""
    found = Axe().run(lab.page, context={"include": [[".nbc"]], "exclude": [["iframe"]]}).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def edges_below_titles(lab: Lab) -> set[str]:
    """How wide the lines are that stand above an empty table's foot, besides the foot's own."""
    heads = lab.page.locator(".nbc-table:has(tbody:empty) :is(thead, thead th, tbody)")
    return set(heads.evaluate_all("found => found.map(each => getComputedStyle(each).borderBottomWidth)"))


def test_nothing_stands_in_the_way_in_light_and_dark_and_nothing_sticks_out(open_lab: OpenLab, pictures: Path) -> None:
    lab = open_lab(*CELLS)
    lab.run_all()
    lab.button(2, "Changes").click()
    explorer = lab.card(4)
    explorer.get_by_role("treeitem").filter(has_text="made").click()
    expect(explorer.get_by_role("region", name="the file that is looked into")).to_contain_text("made")
    assert edges_below_titles(lab) == {"0px"}
    for name in ("what stands in the way", "mounts"):
        lab.card(5).get_by_text(name).first.click()
    expect(lab.output(6).frame_locator("iframe").frame_locator("iframe").locator("body")).to_contain_text("hi")
    # xterm.js draws what is in sight.
    lab.output(7).locator(".xterm").scroll_into_view_if_needed()
    expect(lab.output(7).locator(".xterm-rows")).to_contain_text("#")
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.cell_picture(range(1, len(CELLS)), pictures / f"cards-{theme}.png")
        assert barriers(lab) == []
    lab.theme("light")
    lab.width(420)
    for number in range(1, len(CELLS)):
        assert lab.output(number).evaluate("area => area.scrollWidth - area.clientWidth") <= 1


def test_in_colours_of_the_users_own_what_is_chosen_and_how_much_it_is_are_still_seen(open_lab: OpenLab) -> None:
    lab = open_lab(*CELLS[:2], "%image layers built")
    lab.run_all()
    lab.page.emulate_media(forced_colors="active")
    edges = lab.output(2).get_by_role("option").evaluate_all(
        "found => found.map(each => [each.ariaSelected, getComputedStyle(each).borderLeftColor])"
    )
    chosen, others = ({edge for said, edge in edges if (said == "true") is is_it} for is_it in (True, False))
    assert len(chosen) == len(others) == 1 and chosen != others
    bar = lab.output(2).locator(".nbx-bar > span").last
    of_card = lab.card(2).evaluate("each => getComputedStyle(each).color")
    assert bar.evaluate("each => getComputedStyle(each).backgroundColor") == of_card
    lab.page.emulate_media(forced_colors="none")


def test_what_the_keyboard_has_reached_has_a_ring_of_the_cards(open_lab: OpenLab) -> None:
    lab = open_lab(*CELLS)
    lab.run_all()
    # xterm.js draws what is in sight.
    lab.output(7).locator(".xterm").scroll_into_view_if_needed()
    expect(lab.output(7).locator(".xterm-rows")).to_contain_text("#")
    reached = [each for number in range(1, len(CELLS)) for each in lab.page.evaluate(RINGS, number)]
    assert len(reached) > 30
    assert [each for each in reached if each[1] != "solid 2px" and "xterm" not in each[0]] == []
    assert len({colour for _, ring, colour in reached if ring == "solid 2px"}) == 1
