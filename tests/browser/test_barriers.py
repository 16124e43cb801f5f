"""Barriers: what axe finds serious or critical in cards, board, explorer, both sides and a page, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from lab import Lab, OpenLab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

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
)


def barriers(lab: Lab) -> list[str]:
    """What axe says of all that is ours in the page; Lab's own is Lab's."""
    found = Axe().run(lab.page, context={"include": [[".nbc"]], "exclude": [["iframe"]]}).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_nothing_stands_in_the_way_in_light_and_dark_and_nothing_sticks_out(open_lab: OpenLab, pictures: Path) -> None:
    lab = open_lab(*CELLS)
    lab.run_all()
    lab.button(2, "Changes").click()
    explorer = lab.card(4)
    explorer.get_by_role("treeitem").filter(has_text="made").click()
    expect(explorer.get_by_role("region", name="the file that is looked into")).to_contain_text("made")
    for name in ("what stands in the way", "mounts"):
        lab.card(5).get_by_text(name).first.click()
    expect(lab.output(6).frame_locator("iframe").frame_locator("iframe").locator("body")).to_contain_text("hi")
    expect(lab.output(7).locator(".xterm-rows")).to_contain_text("#")
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.cell_picture(range(1, len(CELLS)), pictures / f"cards-{theme}.png")
        assert barriers(lab) == []
    lab.theme("light")
    lab.width(420)
    for number in range(1, len(CELLS)):
        assert lab.output(number).evaluate("area => area.scrollWidth - area.clientWidth") <= 1
