"""Much at once: a hundred thousand lines, twenty cards, and how soon a line is seen. The figures are printed (-s)."""

from __future__ import annotations

import re
import statistics
import time

import pytest
from playwright.sync_api import expect

from lab import OpenLab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

LOAD = "%load_ext nbcontain"
TALKING = (
    "%container run -d --name {} box sh -c \"trap 'exit 0' TERM; n=0; "
    "while :; do n=$((n+1)); echo tick $n; sleep 0.1; done\""
)
LINES = "seq 1 100000 | sed 's/^/a line of some length, and its number /'"
FLOOD = f'%container run -d --name flood box sh -c "sleep 2; {LINES}; sleep 60"'
# The kernel's clock in hundredths of a second, which the page's own can be compared with.
CLOCK = """%container run -d --name clock box sh -c "while :; do cut -d' ' -f1 /proc/uptime; sleep 0.25; done\""""


def test_a_hundred_thousand_lines_do_not_stop_the_page(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, FLOOD)
    lab.run_all()
    lab.page.evaluate("""() => { window.gap = 0; let last = performance.now();
      const tick = () => { const now = performance.now(); window.gap = Math.max(window.gap, now - last); last = now;
        requestAnimationFrame(tick); };
      requestAnimationFrame(tick);
      const card = document.querySelector('.nbc .nbc-log');
      window.began = 0; window.took = 0;
      new MutationObserver(() => {
        if (!window.began && card.textContent) window.began = performance.now();
        if (!window.took && card.textContent.includes('number 100000')) window.took = performance.now() - window.began;
      }).observe(card, { childList: true, subtree: true }); }""")
    lab.wait_for_text(1, "number 100000", timeout_s=60)
    took, gap = lab.page.evaluate("[window.took, window.gap]")
    print(f"100,000 lines: {took / 1000:.1f} s from the first to the last, longest gap of frames {gap:.0f} ms")
    expect(lab.card(1)).to_contain_text("earlier lines")
    assert took < 30_000 and gap < 2000


def test_twenty_cards_live_beside_each_other(open_lab: OpenLab) -> None:
    said = 'sh -c "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"'
    lab = open_lab(LOAD, *[f"%container run -d --name c{n} box {said}" for n in range(20)])
    lab.run_all()
    logs = lab.page.get_by_role("log")
    expect(logs).to_have_count(20)
    before = logs.all_inner_texts()
    lab.page.wait_for_timeout(1500)
    assert all(new != old for old, new in zip(before, logs.all_inner_texts(), strict=True))
    lab.button(20, "Stop").click()
    expect(lab.card(20)).to_contain_text("Stopping")


def test_a_line_is_seen_soon_after_it_was_written(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, CLOCK)
    lab.run_all()
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    delays = lab.card(1).get_by_role("log").evaluate(
        """(log, booted) => new Promise(done => { const delays = [];
          new MutationObserver(() => {
            const written = Number(log.lastElementChild?.textContent);
            if (written) delays.push(Date.now() - 1000 * (booted + written));
            if (delays.length === 20) done(delays); }).observe(log, { childList: true }); })""",
        booted,
    )
    print(f"from a line to the page: median {statistics.median(delays):.0f} ms, longest {max(delays):.0f} ms")
    assert statistics.median(delays) < 150, delays


def test_a_board_follows_what_comes_and_goes(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, "%container board", TALKING.format("one"), TALKING.format("two"), "%container rm -f two")
    for number in range(4):
        lab.run(number)
    board = lab.card(1)
    row = board.get_by_role("row", name=re.compile("one"))
    expect(row).to_contain_text(re.compile(r"running.*%.*B.*tick \d"))
    expect(board.get_by_role("row")).to_have_count(3)
    row.get_by_role("button", name="Stop one").click()
    expect(row).to_contain_text("exited 0")
    lab.run(4)
    expect(board.get_by_role("row")).to_have_count(2)
    lab.button(1, "Stop watching").click()
    expect(board).to_contain_text("as it was")
    expect(board.get_by_role("button")).to_have_count(0)
