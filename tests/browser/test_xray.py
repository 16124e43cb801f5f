"""Both sides of a container in JupyterLab: sections open, meters move and leave them open, and stop with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from lab import OpenLab
from nbcontain.engine import Engine

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def test_both_sides_are_live(open_lab: OpenLab, desk_engine: Engine, pictures: Path) -> None:
    spin = "%container run -d --name spin box sh -c 'sleep 60 & while :; do :; done'"
    lab = open_lab("%load_ext nbcontain", spin, "%container explain spin")
    lab.run_all()
    card = lab.card(2)
    expect(card).to_contain_text("≠ own")
    card.get_by_text("what stands in the way").click()
    expect(card.get_by_text("mount, and a hundred things more")).to_be_visible()
    lab.wait_for_text(2, r"processors\s+\d+ %")
    expect(card.get_by_text("mount, and a hundred things more")).to_be_visible()
    lab.picture(pictures / "xray-light.png")
    desk_engine.stop(desk_engine.container("spin"), 0)
    expect(card).to_contain_text("ended")
    lab.width(420)
    assert lab.output(2).evaluate("area => area.scrollWidth - area.clientWidth") <= 1
