"""The layer explorer in JupyterLab: clicked, typed into, walked by keys, reloaded, with hostile names and contents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from archives import archive, directory, member
from lab import Lab, OpenLab
from nbcontain.engine import Engine
from nbcontain.oci.digest import ChainID, chain_id
from nbcontain.oci.image import History, Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from stores import add_layer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

LOAD = "%load_ext nbcontain"
EVIL = "<img src=x onerror=window.hit=1>"
TREE = "[role=tree]"


@pytest.fixture
def layered(desk_engine: Engine) -> Iterator[str]:
    """An image of three layers, with hostile names, contents and instructions."""
    made: list[Layer] = []
    below: ChainID | None = None
    for data in (
        archive(directory("etc"), directory("etc/app"), member("etc/app/conf", data=b"debug = false\n"),
                member("cache", data=b"x" * 50_000), member("blob", data=b"\0\1\2" * 20)),
        archive(member("etc/app/conf", data=b"debug = true\n"), member(".wh.cache")),
        archive(member(EVIL, data=f"<script>window.hit=2</script>{EVIL}\x1b[31m".encode()), member("zz", data=b"z")),
    ):  # fmt: skip
        made.append(add_layer(desk_engine.store, data, below))
        below = chain_id(below, made[-1].diff_id)
    history = tuple(History("", text) for text in ("COPY app /", "RUN sed -i s/false/true/ conf", f"RUN {EVIL}"))
    desk_engine.store.images.put(Image.of(ImageConfig(history=history), made), Reference.parse("layered"))
    yield "layered"
    desk_engine.remove_image("layered")


def row(lab: Lab, cell: int, name: str):  # type: ignore[no-untyped-def]
    """The row of a name in the tree of files."""
    return lab.output(cell).locator(f"{TREE} [role=treeitem]").filter(has_text=name).first


def test_layers_are_explored_with_the_mouse_and_after_a_reload_with_keys(
    open_lab: OpenLab, layered: str, pictures: Path
) -> None:
    lab = open_lab(LOAD, f"%image layers {layered}")
    lab.run_all()
    card = lab.card(1)
    expect(card.get_by_role("option")).to_have_count(3)
    row(lab, 1, "etc/").click()
    row(lab, 1, "app/").click()
    row(lab, 1, "conf").click()
    file = card.get_by_role("region", name="the file that is looked into")
    expect(file).to_contain_text("+debug = true")
    expect(file).to_contain_text("RUN sed -i s/false/true/ conf")
    lab.picture(pictures / "explorer-light.png")
    # The layer that made it first, from the file's own story.
    file.get_by_role("button", name="go to layer 1").click()
    expect(card.get_by_role("option", selected=True)).to_contain_text("COPY app /")
    expect(file).to_contain_text("debug = false")
    expect(row(lab, 1, "cache")).to_be_visible()
    row(lab, 1, "blob").click()
    expect(file).to_contain_text("00000000  00 01 02 00")
    file.get_by_role("button", name="close the file").click()
    expect(file).to_be_hidden()

    card.get_by_role("option").nth(1).click()
    card.get_by_label("only what it changes").check()
    expect(card.get_by_role("treeitem")).to_have_count(4)  # cache, and etc/app/conf, which stay open
    card.get_by_label("only what it changes").uncheck()
    card.get_by_label("filter files").fill("conf")
    expect(card.get_by_role("treeitem")).to_have_count(1)
    expect(row(lab, 1, "/etc/app/conf")).to_be_visible()
    lab.button(1, "show the files on which").click()
    expect(card.get_by_role("treeitem").first).to_contain_text("/cache")

    lab.reload()
    keys = lab.page.keyboard
    card.get_by_role("option").first.focus()
    keys.press("ArrowDown")
    expect(card.get_by_role("option", selected=True)).to_contain_text("RUN sed")
    expect(card.get_by_role("option").nth(1)).to_be_focused()
    expect(card.get_by_role("treeitem")).to_have_count(3)  # those of layer 2 have come
    row(lab, 1, "blob").click()
    keys.type("et")
    expect(row(lab, 1, "etc/")).to_be_focused()
    keys.press("ArrowRight")
    expect(row(lab, 1, "app/")).to_be_visible()
    expect(row(lab, 1, "etc/")).to_have_attribute("aria-expanded", "true")
    for key in ("ArrowRight", "ArrowRight"):
        keys.press(key)
    expect(row(lab, 1, "conf")).to_be_visible()
    for key in ("ArrowRight", "Enter"):
        keys.press(key)
    expect(card.get_by_role("region", name="the file that is looked into")).to_contain_text("+debug = true")
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
        keys.press(key)
    expect(row(lab, 1, "etc/")).to_have_attribute("aria-expanded", "false")
    expect(row(lab, 1, "etc/")).to_be_focused()
    # One stop for the Tab key each.
    assert card.locator(f"{TREE} [tabindex='0']").count() == 1


def test_nothing_of_a_layer_is_run_and_all_of_it_can_be_seen(open_lab: OpenLab, layered: str, pictures: Path) -> None:
    lab = open_lab(LOAD, f"%image layers {layered}", width=420)
    lab.theme("dark")
    lab.run_all()
    expect(lab.card(1).get_by_role("option").first).to_contain_text(f"RUN {EVIL}")
    row(lab, 1, EVIL).click()
    expect(lab.card(1)).to_contain_text("<script>window.hit=2</script>")
    assert lab.page.evaluate("window.hit") is None
    assert lab.output(1).evaluate("area => area.scrollWidth - area.clientWidth") <= 1
    lab.picture(pictures / "explorer-dark.png")
    lab.theme("light")
    # What the notebook keeps, on a kernel that knows nothing of it.
    lab.reopen()
    expect(lab.output(1)).to_contain_text("COPY app /")
    assert lab.page.evaluate("window.hit") is None
    lab.complaints.clear()


def test_what_a_container_wrote_is_looked_at_again(open_lab: OpenLab, desk_engine: Engine) -> None:
    run = "%container run -d --name writer box sh -c 'echo 1 > /first; sleep 60'"
    lab = open_lab(LOAD, run, "%container layers writer")
    lab.run_all()
    expect(row(lab, 2, "first")).to_be_visible()
    desk_engine.container("writer").exec(("sh", "-c", "echo 2 > /second"))
    lab.button(2, "see what the container").click()
    row(lab, 2, "second").click()
    expect(lab.card(2)).to_contain_text("written by the container: sh -c")
    expect(lab.card(2).locator("pre")).to_contain_text("2")
