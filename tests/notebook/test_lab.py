"""Cards in JupyterLab, in Chromium: seen live, clicked, reloaded, in the dark, on a phone's width."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import expect

from kernels import BUSYBOX_CELL
from lab import Lab, opened
from nbcontain.engine import Engine

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

LOAD = "%load_ext nbcontain"
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


@pytest.fixture
def open_lab(root: Path, busybox: Path, tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Open a notebook of some cells; what the page complains about fails the test at its end."""
    with ExitStack() as stack:
        labs: list[Lab] = []
        shutil.copy2(busybox, tmp_path / "busybox")

        def open_(*cells: str, width: int = 1100) -> Lab:
            lab = stack.enter_context(opened(cells, tmp_path, root=root, width=width))
            labs.append(lab)
            return lab

        yield open_
        assert [complaint for lab in labs for complaint in lab.complaints] == []


def test_a_build_card_and_a_live_card_are_seen_and_stop_is_clicked(open_lab: Callable[..., Lab], root: Path) -> None:
    lab = open_lab(LOAD, BUSYBOX_CELL, DETACHED, "%container ps -a")
    lab.run(0)
    lab.run(1)
    built = lab.card(1)
    expect(built).to_be_visible()
    expect(built.locator("tr")).not_to_have_count(0)
    expect(built).to_contain_text("COPY busybox /bin/busybox")

    lab.run(2)
    card = lab.card(2)
    expect(card).to_contain_text("running")
    lab.wait_for_text(2, r"line 10\b")
    lab.button(2, "Stop").click()
    expect(card).to_contain_text("exited", timeout=5000)
    assert Engine(root).container("web").status == "exited"
    lab.run(3)
    lab.wait_for_text(3, r"Exited \(0\)")


def test_a_build_is_seen_while_it_goes_on(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(LOAD, BUSYBOX_CELL, "%%dockerfile -t slow\nFROM box\nRUN echo at work; sleep 3\nRUN echo over\n")
    lab.run(0)
    lab.run(1)
    lab.start(2)
    expect(lab.card(2)).to_contain_text("at work", timeout=2500)
    expect(lab.card(2)).to_contain_text("building")
    expect(lab.card(2)).to_contain_text("built", timeout=8000)


def test_stop_ends_an_attached_container_while_its_cell_runs(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(LOAD, BUSYBOX_CELL, ATTACHED, "%container ps -aq")
    lab.run(0)
    lab.run(1)
    lab.start(2)
    lab.wait_for_text(2, "ready")
    lab.button(2, "Stop").click()
    lab.wait_for_text(2, "Interrupted", timeout_s=3)


def test_a_reloaded_page_shows_the_container_and_its_buttons_still_work(
    open_lab: Callable[..., Lab], root: Path
) -> None:
    lab = open_lab(LOAD, BUSYBOX_CELL, DETACHED)
    lab.run(0)
    lab.run(1)
    lab.run(2)
    lab.wait_for_text(2, r"line 5\b")
    lab.reload()
    expect(lab.card(1)).to_contain_text("COPY busybox /bin/busybox")
    expect(lab.card(2)).to_contain_text("web")
    lab.wait_for_text(2, r"line \d\d")
    lab.button(2, "Stop").click()
    expect(lab.card(2)).to_contain_text("exited", timeout=5000)
    assert Engine(root).container("web").status == "exited"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_words_of_the_cards_can_be_read(
    open_lab: Callable[..., Lab], theme: str, request: pytest.FixtureRequest
) -> None:
    lab = open_lab(LOAD, BUSYBOX_CELL, DETACHED)
    lab.theme(theme)
    for number in range(3):
        lab.run(number)
    lab.wait_for_text(2, r"line 3\b")
    lab.picture(request.config.rootpath / ".cache" / "pictures" / f"cards-{theme}.png")
    for number in (1, 2):
        worst, words = lab.card(number).evaluate(CONTRAST)
        assert worst >= 4.5, f"{words!r} has a contrast of {worst:.1f}"


def test_nothing_sticks_out_of_a_narrow_window(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(LOAD, BUSYBOX_CELL, DETACHED, "%container ps -a", width=420)
    for number in range(4):
        lab.run(number)
    for number in (1, 2, 3):
        area = lab.output(number)
        assert area.evaluate("area => area.scrollWidth - area.clientWidth") <= 1


def test_what_a_container_prints_is_never_run(open_lab: Callable[..., Lab]) -> None:
    hostile = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"
    lab = open_lab(
        LOAD,
        BUSYBOX_CELL,
        f"%container run -d --name bad box sh -c \"echo '{hostile}'; sleep 60\"",
        f"%container run --rm box echo '{hostile}'",
        f"%%dockerfile\nFROM box\nRUN echo '{hostile}'\n",
    )
    for number in range(5):
        lab.run(number)
    lab.wait_for_text(2, "onerror")
    lab.wait_for_text(3, "onerror")
    assert lab.page.evaluate("window.hit") is None


def test_every_button_has_a_name_and_can_be_reached_by_keyboard(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(LOAD, BUSYBOX_CELL, DETACHED)
    for number in range(3):
        lab.run(number)
    buttons = lab.card(2).get_by_role("button")
    expect(buttons).not_to_have_count(0)
    names = [button.get_attribute("aria-label") or button.inner_text() for button in buttons.all()]
    assert {name.split()[0] for name in names} >= {"Stop", "Restart", "Remove"}
    lab.button(2, "Stop").focus()
    lab.page.keyboard.press("Enter")
    expect(lab.card(2)).to_contain_text("exited", timeout=5000)
