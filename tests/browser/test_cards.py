"""Cards in JupyterLab, in Chromium: seen live, clicked, reloaded, in the dark, on a phone's width."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from lab import OpenLab
from nbcontain.engine import Engine

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]

LOAD = "%load_ext nbcontain"
BUILD = "%%dockerfile -t built\nFROM box\nRUN echo made > /made\nRUN echo at work; sleep 1\nRUN echo over\n"
COUNTING = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done"
DETACHED = f'%container run -d --name web box sh -c "{COUNTING}"'
ATTACHED = "%container run --rm --name front box sh -c \"trap '' TERM; echo ready; while :; do sleep 0.1; done\""
# Text against what is behind it, by WCAG 2: 4.5 is what small text needs.
CONTRAST = """card => {
  const rgb = c => (c.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = rgb(c).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    const [, , , a] = rgb(c); if (a === undefined || a > 0.5) return c; } return 'rgb(255, 255, 255)'; };
  let worst = 21, words = '';
  for (const e of [card, ...card.querySelectorAll('*')]) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst) { worst = ratio; words = e.textContent.trim().slice(0, 40); }
  }
  return [worst, words];
}"""


def test_a_build_is_seen_while_it_goes_on_and_when_it_is_over(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, BUILD)
    lab.run(0)
    lab.start(1)
    card = lab.card(1)
    expect(card).to_contain_text("at work", timeout=2500)
    expect(card).to_contain_text("building")
    expect(card).to_contain_text("built", timeout=8000)
    expect(card.locator("tbody tr")).to_have_count(4)
    expect(card).to_contain_text("RUN echo made > /made")


def test_a_live_card_is_reloaded_and_stopped(open_lab: OpenLab, desk_engine: Engine) -> None:
    lab = open_lab(LOAD, DETACHED, "%container ps -a")
    lab.run(0)
    lab.run(1)
    expect(lab.card(1)).to_contain_text("running")
    lab.wait_for_text(1, r"line 5\b")
    lab.reload()
    expect(lab.card(1)).to_contain_text("web")
    lab.wait_for_text(1, r"line \d\d")
    lab.button(1, "Stop").click()
    expect(lab.card(1)).to_contain_text("exited", timeout=5000)
    assert desk_engine.container("web").status == "exited"
    lab.run(2)
    lab.wait_for_text(2, r"Exited \(0\)")


def test_stop_ends_an_attached_container_while_its_cell_runs(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, ATTACHED)
    lab.run(0)
    lab.start(1)
    lab.wait_for_text(1, "ready")
    lab.button(1, "Stop").click()
    lab.wait_for_text(1, "Interrupted", timeout_s=3)


def test_all_words_can_be_read_in_light_and_dark_and_nothing_sticks_out(open_lab: OpenLab, pictures: Path) -> None:
    lab = open_lab(LOAD, BUILD, DETACHED, "%container ps -a")
    lab.run_all()
    lab.wait_for_text(2, r"line 3\b")
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.picture(pictures / f"cards-{theme}.png")
        for number in (1, 2):
            worst, words = lab.card(number).evaluate(CONTRAST)
            assert worst >= 4.5, f"{words!r} has a contrast of {worst:.1f}"
    lab.width(420)
    for number in (1, 2, 3):
        assert lab.output(number).evaluate("area => area.scrollWidth - area.clientWidth") <= 1


def test_what_a_container_prints_is_never_run(open_lab: OpenLab) -> None:
    hostile = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"
    lab = open_lab(
        LOAD,
        f"%container run -d --name bad box sh -c \"echo '{hostile}'; sleep 60\"",
        f"%container run --rm box echo '{hostile}'",
        f"%%dockerfile\nFROM box\nRUN echo '{hostile}'\n",
    )
    lab.run_all()
    lab.wait_for_text(1, "onerror")
    lab.wait_for_text(2, "onerror")
    assert lab.page.evaluate("window.hit") is None


def test_every_button_has_a_name_and_can_be_reached_by_keyboard(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, DETACHED)
    lab.run_all()
    buttons = lab.card(1).get_by_role("button")
    expect(buttons).not_to_have_count(0)
    names = [button.get_attribute("aria-label") or button.inner_text() for button in buttons.all()]
    assert {name.split()[0] for name in names} >= {"Stop", "Restart", "Remove"}
    lab.button(1, "Stop").focus()
    lab.page.keyboard.press("Enter")
    expect(lab.card(1)).to_contain_text("exited", timeout=5000)
