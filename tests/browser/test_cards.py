"""Cards in JupyterLab, in Chromium: seen live, clicked, reloaded, in the dark, on a phone's width."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lab import OpenLab
from nbcontain.engine import Engine
from nbcontain.runtime.generate import RunOptions

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

LOAD = "%load_ext nbcontain"
BUILD = "%%dockerfile -t built\nFROM box\nRUN echo made > /made\nRUN echo at work; sleep 2\nRUN echo over\n"
COUNTING = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done"
DETACHED = f'%container run -d --name web box sh -c "{COUNTING}"'
ATTACHED = "%container run --rm --name front box sh -c \"trap '' TERM; echo ready; while :; do sleep 0.1; done\""


def test_a_build_is_seen_while_it_goes_on_and_when_it_is_over(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, BUILD)
    lab.run(0)
    lab.start(1)
    card = lab.card(1)
    expect(card).to_contain_text("at work")
    expect(card).to_contain_text("building")
    expect(card).to_contain_text("built")
    expect(card.locator("tbody tr")).to_have_count(4)
    expect(card).to_contain_text("RUN echo made > /made")


TICKING = "%%dockerfile -t told\nFROM box\nRUN echo one; echo two; echo three; echo four; echo five\nRUN {}\n".format(
    "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo tick $i; sleep 0.2; done"
)


def test_a_step_that_is_unfolded_stays_so_while_its_build_goes_on(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, TICKING)
    lab.run(0)
    lab.start(1)
    lab.wait_for_text(1, "tick 3")
    said = lab.card(1).locator("details.nbc-output").first
    said.locator("summary").click()
    expect(said).to_have_attribute("open", "")
    lab.wait_for_text(1, "tick 12")
    expect(said).to_have_attribute("open", "")
    expect(said).to_contain_text("one")
    expect(lab.card(1)).to_contain_text("building")
    lab.wait_for_text(1, "tick 40")
    expect(lab.card(1)).to_contain_text("built")
    expect(said).to_have_attribute("open", "")


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
    expect(lab.card(1)).to_contain_text("exited")
    assert desk_engine.container("web").status == "exited"
    # The page forgot which output was the card's, and what is left in it is the widget: it looks as it did.
    look = "e => { const style = getComputedStyle(e); return [style.borderTopWidth, style.fontFamily]; }"
    ended = lab.card(1).evaluate(look)
    lab.reload()
    expect(lab.card(1)).to_contain_text("exited")
    expect(lab.card(1)).to_have_css("border-top-width", ended[0])
    assert lab.card(1).evaluate(look) == ended and ended[0] != "0px"
    lab.run(2)
    lab.wait_for_text(2, r"Exited \(0\)")


def test_a_card_is_there_while_its_container_is_still_being_made(open_lab: OpenLab, desk_engine: Engine) -> None:
    lab = open_lab(LOAD, DETACHED)
    lab.run(0)
    with desk_engine.store.exclusive():
        # Nothing can be made meanwhile.
        lab.start(1)
        expect(lab.card(1)).to_contain_text("starting")
        lab.page.wait_for_timeout(700)
        expect(lab.card(1)).to_contain_text("starting")
    expect(lab.card(1)).to_contain_text("running")
    expect(lab.card(1).locator("button", has_text="Stop")).to_be_visible()
    assert lab.output(1).locator(".nbc").count() == 1


def test_stop_ends_an_attached_container_while_its_cell_runs(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, ATTACHED)
    lab.run(0)
    lab.start(1)
    lab.wait_for_text(1, "ready")
    lab.button(1, "Stop").click()
    lab.wait_for_text(1, "Interrupted", timeout_s=3)


# Ends what it stands in, restyles the page, runs in each way that a page knows; no quotes: a shell takes it.
HOSTILE = (
    "</pre></td></div><style>*{outline-color:rgb(1,2,3)!important}</style><img src=x onerror=window.hit=1>"
    "<script>window.hit=1</script><a href=javascript:window.hit=1>a</a>\u202e{{7*7}}${7*7}"
)
FILE = HOSTILE.replace("/", "\\")
LITERAL = HOSTILE.replace("$", "$$")
"""As Compose files have it."""
EVERYWHERE = (
    LOAD,
    f"%container run -d --name bad -l 'a={HOSTILE}' -e 'A={HOSTILE}' box sh -c \"echo '{HOSTILE}'; touch '/{FILE}'; "
    f"sleep 60 & exec sh -c 'sleep 60; :' '{HOSTILE}'\"",
    f"%container run --rm box echo '{HOSTILE}'",
    f"%%dockerfile -t evil\nFROM box\nLABEL a='{HOSTILE}'\nENV A='{HOSTILE}'\nRUN echo '{HOSTILE}'; touch '/{FILE}'\n",
    "%container board",
    "%container explain bad",
    "%image layers evil",
    "%container ps -a --no-trunc",
    "%image history --no-trunc evil",
    f"%container logs {HOSTILE.replace(' ', '')}",
    f"%%dockerfile -t evil\nFROM box\nRUN --bad={HOSTILE}\n",
    f"%container exec -it bad sh -c \"echo '{HOSTILE}'; sleep 60\"",
    f"%container open bad:80 '/{HOSTILE}'",
    "%%compose -p evil up\n" + json.dumps({"services": {"one": {"image": "box", "command": ["echo", LITERAL],
                                                              "labels": {"a": LITERAL}}}}),
    f"%volume create --label 'a={HOSTILE}' evil\n%volume inspect evil",
    "%compose -p evil logs",
)
HARMLESS = {7: "bad"}
"""Cells that show nothing of it, and what they show."""


def test_nothing_that_a_container_or_an_image_says_runs_or_restyles(open_lab: OpenLab) -> None:
    lab = open_lab(*EVERYWHERE)
    for number in range(len(EVERYWHERE)):
        lab.run(number)
    lab.button(1, "Changes").click()
    for section in lab.output(5).locator("summary").all():
        if section.evaluate("each => !each.parentElement.open"):
            section.click()
    for number in range(1, len(EVERYWHERE)):
        if number != 12:
            lab.wait_for_text(number, HARMLESS.get(number, "onerror"))
    expect(lab.output(12).get_by_label("path on bad:80")).to_have_value(re.compile("onerror"))
    lab.output(6).get_by_role("treeitem").filter(has_text="onerror").first.click()
    lab.output(6).get_by_role("region", name="the file that is looked into").wait_for()
    assert lab.page.evaluate("window.hit") is None
    assert lab.page.locator(".jp-Cell-outputArea").locator("img, script, [href^=javascript], [onerror]").count() == 0
    assert lab.output(1).evaluate("area => getComputedStyle(area).outlineColor") != "rgb(1, 2, 3)"
    shown = lab.page.evaluate("""() => [...document.querySelectorAll('.jp-Cell-outputArea')].map(area => {
      const copy = area.cloneNode(true);
      copy.querySelector('.xterm')?.remove();  // a terminal shows what a program writes
      return copy.textContent; }).join()""")
    assert "onerror" in shown
    assert re.findall("(?s).{0,200}\u202e.{0,20}", shown) == []


TALKING = (
    "%container run -d --name talk box sh -c \"trap 'exit 0' TERM; for i in $(seq 1 900); do echo line $i; done; "
    "echo oh no >&2; n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done\""
)


def test_a_log_is_filtered_searched_held_still_and_downloaded(open_lab: OpenLab) -> None:
    lab = open_lab(LOAD, TALKING)
    lab.run_all()
    card = lab.card(1)
    log, box = card.get_by_role("log"), card.get_by_role("searchbox")
    expect(log).to_contain_text("tick 1")
    expect(log).to_contain_text("earlier lines")

    box.fill("LINE 77")
    expect(card).to_contain_text("11 of the last")
    assert log.inner_text().split("\n") == ["line 77", *(f"line {n}" for n in range(770, 780))]
    expect(log.locator("mark").first).to_have_text("line 77")
    box.fill(r"^line [12]00$")
    expect(card).to_contain_text("0 of the last")
    card.get_by_label("regex").check()
    expect(log).to_have_text(re.compile("line 100.*line 200", re.DOTALL))
    box.fill("[")
    expect(box).to_have_attribute("aria-invalid", "true")
    box.fill("")
    card.get_by_label("stderr only").check()
    expect(log).to_have_text("oh no")
    card.get_by_label("stderr only").uncheck()
    box.fill("tick")
    expect(log).to_contain_text("tick 3")
    box.press("Escape")

    # scrolled up it stands still, and says what has come meanwhile
    expect(log).to_contain_text("line 900")
    log.hover()
    lab.page.mouse.wheel(0, -200)
    follow = card.get_by_role("button", name=re.compile("new line"))
    expect(follow).to_be_visible()
    place = log.evaluate("log => log.scrollTop")
    before = log.inner_text()
    expect(follow).to_have_text(re.compile(r"[3-9] new lines"))
    assert (log.evaluate("log => log.scrollTop"), log.inner_text()) == (place, before)
    follow.click()
    expect(follow).to_be_hidden()
    assert log.evaluate("log => log.scrollTop + log.clientHeight >= log.scrollHeight - 2")

    with lab.page.expect_download() as waited:
        card.get_by_role("button", name="Download the whole log of talk").click()
    assert waited.value.suggested_filename == "talk.log"
    text = Path(waited.value.path()).read_text()
    assert text.startswith("line 1\nline 2\n") and "line 900\n" in text and "oh no\n" in text and "tick 3\n" in text


def test_every_button_does_what_it_says_and_says_what_one_would_type(open_lab: OpenLab, desk_engine: Engine) -> None:
    lab = open_lab(LOAD, f'%container run -d --name web box sh -c "echo hi > /new; {COUNTING}"')
    lab.run_all()
    card = lab.card(1)
    web = desk_engine.container("web")
    expect(card).to_contain_text("docker logs -f web")
    expect(card).to_contain_text("processes")
    lab.button(1, "Changes").hover()
    expect(card).to_contain_text("≡ docker diff web")
    lab.button(1, "Changes").click()
    drawer = card.get_by_role("region", name="Changes", exact=True)
    expect(drawer).to_contain_text("/new")
    expect(card.get_by_role("status").first).to_have_text("Changes: shown below")
    card.get_by_role("button", name="Close Changes").focus()
    lab.page.keyboard.press("Enter")
    expect(drawer).to_be_hidden()
    expect(lab.button(1, "Changes")).to_be_focused()

    lab.button(1, "Pause").focus()
    lab.page.keyboard.press("Enter")
    expect(card).to_contain_text("paused")
    assert web.is_paused
    # the button that was pressed is gone; the keyboard is not lost with it
    assert card.evaluate("card => card.contains(document.activeElement)")
    lab.button(1, "Go on").click()
    expect(card).to_contain_text("running")
    pid = web.pid
    lab.button(1, "Restart").click()
    expect(card).to_contain_text("started 2 times")
    assert web.pid != pid
    lab.button(1, "Remove").click()
    lab.button(1, "Stop and remove").click()
    expect(card).to_contain_text("removed")
    assert desk_engine.containers() == []


def test_nothing_travels_while_nothing_happens_and_the_time_goes_on(open_lab: OpenLab) -> None:
    # Its lines move for as long as there is less than a minute to be seen: here that is over sooner.
    hasty = "get_ipython().nbcontain.session.cards.lookout.every_s = 0.01"
    lab = open_lab(LOAD, hasty, "%container run -d --name quiet box sleep 100")
    lab.run_all()
    expect(lab.card(2)).to_contain_text("memory")
    before = lab.card(2).inner_text()
    lab.page.evaluate("""() => { window.heard = Date.now();
      nb.panel().sessionContext.session.kernel.anyMessage.connect(() => { window.heard = Date.now(); }); }""")
    lab.page.wait_for_function("Date.now() - window.heard > 1500")
    assert lab.card(2).inner_text() != before


def test_on_the_board_the_keyboard_stays_at_the_container_that_it_is_at(open_lab: OpenLab, desk_engine: Engine) -> None:
    lab = open_lab(LOAD, "%container run -d --name first box sleep 600", "%container run -d --name last box sleep 600",
                   "%container board")  # fmt: skip
    lab.run_all()
    lab.button(3, "Stop first").focus()
    desk_engine.run(RunOptions(image="box", command=("sleep", "600"), name="newest", detach=True)).result()
    expect(lab.button(3, "Stop newest")).to_be_visible(timeout=20_000)
    expect(lab.button(3, "Stop first")).to_be_focused()
    desk_engine.remove_container(desk_engine.container("last"), force=True)
    expect(lab.button(3, "Stop last")).to_have_count(0)
    expect(lab.button(3, "Stop first")).to_be_focused()
    desk_engine.remove_container(desk_engine.container("first"), force=True)
    expect(lab.button(3, "Stop first")).to_have_count(0)
    expect(lab.button(3, "Stop watching")).to_be_focused()
