"""Much at once: many lines, many cards, and how soon a line is seen. The figures are printed (-s).

`make soak` takes a hundred thousand lines and twenty cards: the figures of docs/notebook.md.
"""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lab import OpenLab
from machine import until
from rounds import SOAK

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

LOAD = "%load_ext nbcontain"
LINE_COUNT, CARD_COUNT, DELAY_COUNT = (100_000, 20, 20) if SOAK else (20_000, 6, 8)
TALKING = (
    "%container run -d --name {} box sh -c \"trap 'exit 0' TERM; n=0; "
    "while :; do n=$((n+1)); echo tick $n; sleep 0.1; done\""
)
LINES = f"seq 1 {LINE_COUNT} | sed 's/^/a line of some length, and its number /'"
FLOOD = f'%container run -d --name flood box sh -c "sleep 1; {LINES}; sleep 60"'
# The kernel's clock in hundredths of a second, which the page's own can be compared with.
CLOCK = """%container run -d --name clock box sh -c "while :; do cut -d' ' -f1 /proc/uptime; sleep 0.25; done\""""


def test_very_many_lines_do_not_stop_the_page(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, FLOOD)
    lab.run_all()
    lab.page.evaluate(
        """last_line => { window.gap = 0; let last = performance.now();
      const tick = () => { const now = performance.now(); window.gap = Math.max(window.gap, now - last); last = now;
        requestAnimationFrame(tick); };
      requestAnimationFrame(tick);
      window.began = 0; window.took = 0;
      new MutationObserver(() => {
        // The card may come only now.
        const text = document.querySelector('.nbc .nbc-log')?.textContent;
        if (!window.began && text) window.began = performance.now();
        if (!window.took && text?.includes(last_line)) window.took = performance.now() - window.began;
      }).observe(document.body, { childList: true, subtree: true }); }""",
        f"number {LINE_COUNT}",
    )
    lab.wait_for_text(1, f"number {LINE_COUNT}", timeout_s=60)
    took, gap = lab.page.evaluate("[window.took, window.gap]")
    print(f"{LINE_COUNT:,} lines: {took / 1000:.1f} s from the first to the last, longest gap of frames {gap:.0f} ms")
    expect(lab.card(1)).to_contain_text("earlier lines")
    assert took < 30_000 and gap < 2000


def test_many_cards_live_beside_each_other(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, *[TALKING.format(f"c{n}") for n in range(CARD_COUNT)])
    lab.run_all()
    logs = lab.page.get_by_role("log")
    expect(logs).to_have_count(CARD_COUNT)
    before = logs.all_inner_texts()
    until(lambda: all(new != old for old, new in zip(before, logs.all_inner_texts(), strict=True)))
    # By the keyboard: with so many logs that grow above it, a pointer may find the button moved on.
    lab.button(CARD_COUNT, "Stop").press("Enter")
    expect(lab.card(CARD_COUNT)).to_contain_text("exited 0")


def test_a_line_is_seen_soon_after_it_was_written(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, CLOCK)
    lab.run_all()
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    delays = lab.card(1).get_by_role("log").evaluate(
        """(log, [booted, count]) => new Promise(done => { const delays = [];
          new MutationObserver(() => {
            const written = Number(log.lastElementChild?.textContent);
            if (written) delays.push(Date.now() - 1000 * (booted + written));
            if (delays.length === count) done(delays); }).observe(log, { childList: true }); })""",
        [booted, DELAY_COUNT],
    )
    print(f"from a line to the page: median {statistics.median(delays):.0f} ms, longest {max(delays):.0f} ms")
    assert statistics.median(delays) < (150 if SOAK else 1000), delays


def test_a_board_follows_what_comes_and_goes(open_lab: OpenLab, pictures: Path) -> None:
    lab = open_lab(LOAD, "%container board", TALKING.format("one"), TALKING.format("two"), "%container rm -f two")
    for number in range(4):
        lab.run(number)
    board = lab.card(1)
    row = board.get_by_role("row", name=re.compile("one"))
    expect(row).to_contain_text(re.compile(r"running.*%.*B.*tick \d"))
    expect(board.get_by_role("row")).to_have_count(3)
    lab.width(420)
    expect(board.get_by_role("row")).to_have_count(3)
    assert board.get_by_role("region", name="containers").evaluate("area => area.scrollWidth - area.clientWidth") <= 1
    lab.picture(pictures / "board-420.png")
    lab.width(1100)
    row.get_by_role("button", name="Stop one").click()
    expect(row).to_contain_text("exited 0")
    lab.run(4)
    expect(board.get_by_role("row")).to_have_count(2)
    lab.button(1, "Stop watching").click()
    expect(board).to_contain_text("as it was")
    expect(board.get_by_role("button")).to_have_count(0)
