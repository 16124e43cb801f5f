"""image layers, diff, tree, cat and verify, typed as one types them; and beside what the kernel's overlay shows."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from archives import archive, directory, link, member, symlink
from nbcontain.anatomy import Layers
from nbcontain.build.plan import BuildOptions
from nbcontain.commands import parse_words, split
from nbcontain.display.explored import Explored
from nbcontain.display.filetree import FileTree
from nbcontain.display.table import Table
from nbcontain.display.values import InProgress, Raw, Verdict
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError, StoreError, UsageError
from nbcontain.oci.image import History, Image, ImageConfig
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions
from stores import add_layer

EVIL = "<img src=x onerror=alert(1)>\x1b[2J"
Typed = Callable[[str], object]


@pytest.fixture
def typed(engine: Engine) -> Typed:
    """What a command line gives, in a store with two images, the second on the first."""
    store = engine.store
    base = [add_layer(store, archive(
        directory("etc"), member("etc/conf", data=b"one\n"), member("big", data=b"x" * 100_000),
        symlink("link", "etc/conf"), directory("many"), *[member(f"many/{number:03}") for number in range(100)],
    ))]  # fmt: skip
    config = ImageConfig(env=("A=1",), labels={"x": "1"}, cmd=("sh",), history=(History("", "COPY all /"),))
    store.images.put(Image.of(config, base), Reference.parse("base"))
    second = add_layer(store, archive(
        directory("etc"), member("etc/conf", data=b"two\n", mode=0o600), member(".wh.big"), member(EVIL, data=b"hi"),
        link("hard", EVIL), member("binary", data=b"\0\1" * 50), member(".wh.many"),
    ), Image.of(ImageConfig(), base).chain_id)  # fmt: skip
    config = ImageConfig(env=("A=2", "B=3"), user="7", cmd=("sh", "-c"), history=(
        History("", "COPY all /"), History("", "ENV", empty_layer=True), History("", f"RUN {EVIL}"),
    ))  # fmt: skip
    store.images.put(Image.of(config, [*base, second]), Reference.parse("app"))

    def run(line: str) -> object:
        command, options = parse_words("image", split(line))
        value = command.function(engine, options)
        return value.task.result() if isinstance(value, InProgress) else value

    return run


def table(value: object) -> Table:
    value = value.table if isinstance(value, Explored) else value
    assert isinstance(value, Table)
    return value


def test_layers_tell_what_each_changes_and_what_is_wasted(typed: Typed, engine: Engine) -> None:
    shown = table(typed("layers app"))
    first, second = shown.records()
    assert (first["files"], first["wasted"], first["changes"]) == (100_004, 100_004, "+105")
    assert (second["changes"], second["wasted"]) == ("+3 ~1 −2", None)
    assert "100 kB wasted" in shown.footer
    assert [row[:3] for row in table(typed("layers --wasted app")).rows] == [("/big", 1, 100_000), ("/etc/conf", 1, 4)]
    found = engine.anatomy.layers("app").result()
    assert isinstance(found, Layers)
    assert found.efficiency == pytest.approx(1 - 100_004 / 100_110)
    assert typed("layers app --format '{{.Number}} {{.Added}} {{.Wasted}}'").lines == ("1 105 100004", "2 3 0")  # type: ignore[attr-defined]


def test_bytes_that_have_another_name_are_not_wasted(engine: Engine) -> None:
    files = archive(member("one", data=b"x" * 100), link("two", "one"), member("three", data=b"y"))
    first = add_layer(engine.store, files)
    base = Image.of(ImageConfig(), [first])
    second = add_layer(engine.store, archive(member(".wh.one"), member(".wh.three")), base.chain_id)
    engine.store.images.put(Image.of(ImageConfig(), [first, second]), Reference.parse("linked"))
    assert engine.anatomy.layers("linked").result().wasted() == [("/three", 1, 1)]


def test_diff_tells_config_and_files(typed: Typed) -> None:
    shown = table(typed("diff base app"))
    rows = [(row[0], row[1], row[2]) for row in shown.rows]
    assert ("~", "env A", "1 → 2") in rows
    assert ("~", "env B", "(none) → 3") in rows
    assert ("~", "label x", "1 → (none)") in rows
    assert ("~", "cmd", '["sh"] → ["sh", "-c"]') in rows
    assert ("−", "/many/  (100 entries)", "") in rows
    assert ("~", "/etc/conf", "content, mode") in rows
    assert table(typed("diff app app")).rows == []
    assert "same files" in table(typed("diff app app")).footer


def test_a_tree_is_bounded_and_can_be_seen_whole(typed: Typed) -> None:
    tree = typed("tree base")
    assert isinstance(tree, FileTree)
    assert "… 65 more, 0 B  (-a shows them)" in tree.text()
    assert "etc/" in tree.text()
    whole = typed("tree -a base /many")
    assert len(str(whole).splitlines()) == 102
    assert "link -> etc/conf" in str(typed("tree base -L 1"))
    assert "(100 entries)" in str(typed("tree base -L 1"))
    assert str(typed("tree base -L 1 --sort size")).splitlines()[1].endswith("big")
    assert "-rw-r--r--" in str(typed("tree base -l"))


def test_a_layers_tree_marks_what_it_changes(typed: Typed) -> None:
    lines = str(typed("tree app@layer2")).splitlines()
    marks = {match[2]: match[1] for line in lines if (match := re.search(r"([+~−])  [ │├└─]*([\w<].*)", line))}
    assert marks["conf"] == "~"
    assert marks["big"] == "−"
    assert marks["binary"] == "+"
    with pytest.raises(UsageError):
        typed("tree app@layer3")


def test_cat_gives_the_bytes_as_the_image_shows_them(typed: Typed, engine: Engine) -> None:
    assert repr(typed("cat app /link")) == "two"
    assert repr(typed("cat app@layer1 /link")) == "one"
    assert repr(typed("cat app hard")) == "hi"
    assert repr(typed("cat app:/link")) == repr(typed("cat app:latest:/link")) == "two"
    with pytest.raises(UsageError, match="which file"):
        typed("cat app")
    assert "is no text" in repr(typed("cat app /binary"))
    assert b"".join(engine.anatomy.read("app", "/binary")) == b"\0\1" * 50
    value = typed("cat base /big")
    assert isinstance(value, Raw)
    assert (len(value.bytes), len(value.bytes)) == (100_000, 100_000)
    for path, what in (("/etc", "is a directory"), ("/big", "there is no /big"), ("/many/1", "there is no /many")):
        with pytest.raises(StoreError) as caught:
            typed(f"cat app {path}")
        assert what in caught.value.message


@pytest.mark.parametrize("line", ["layers app", "layers --wasted app", "diff base app", "tree app", "tree app@layer2"])
def test_hostile_names_are_harmless_as_text_and_as_html(typed: Typed, line: str) -> None:
    value = typed(line)
    text, page = str(value), value._repr_html_()  # type: ignore[attr-defined]
    assert "\x1b" not in text + page
    assert "<img" not in page
    assert page.count("<details") == page.count("</details>")


def test_verify_finds_damage_and_says_how_to_mend_it_which_does(typed: Typed, engine: Engine, tmp_path: Path) -> None:
    whole = typed("verify app")
    assert isinstance(whole, Verdict)
    assert whole.exit_status == 0
    assert "is whole" in table(whole.value).footer
    engine.archives.save(("app",), str(tmp_path / "app.tar")).result()
    layer = engine.image("app").layers[1]
    path = engine.store.blobs.path(layer.descriptor.digest)
    data = path.read_bytes()
    os.chmod(path, 0o600)
    path.write_bytes(data[:-600] + b"!" + data[-599:])
    damaged = typed("verify -q app")
    assert isinstance(damaged, Verdict)
    assert damaged.exit_status == 1
    assert [row[0] for row in table(damaged.value).rows] == ["layer 2"]
    assert "system check --full --repair" in table(damaged.value).footer
    engine.soundness.look(full=True, fix=True)
    engine.archives.load(str(tmp_path / "app.tar")).result()
    mended = typed("verify app")
    assert isinstance(mended, Verdict)
    assert mended.exit_status == 0


def test_verify_tells_of_a_document_that_is_damaged(typed: Typed, engine: Engine) -> None:
    path = engine.store.blobs.path(engine.image("app").id)
    os.chmod(path, 0o600)
    path.write_bytes(path.read_bytes().replace(b"A=2", b"A=4"))
    verdict = typed("verify app")
    assert isinstance(verdict, Verdict)
    assert verdict.exit_status == 1
    with pytest.raises(NbcontainError):
        typed("verify no-such-image")


DOCKERFILE = """\
FROM busybox
RUN mkdir -p /a/b /c/d && echo 1 > /a/b/one && echo 22 > /c/d/two && ln /a/b/one /a/hard && ln -s ../a /c/up
RUN rm -r /c/d && mkdir /c/d && echo new > /c/d/three && chmod 700 /a && mv /a/b/one /a/b/moved
RUN rm /bin/yes && rm -r /a/b && echo file > /a/b && chmod 640 /a/b
"""


def test_the_tree_is_what_the_kernel_shows(profile: str, engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    engine.build(DOCKERFILE, BuildOptions(tags=("changed",))).result()
    container = engine.create(RunOptions(image="changed", command=("true",)))
    engine.archives.export(container, str(tmp_path / "out.tar")).result()
    with tarfile.open(tmp_path / "out.tar") as archive_:
        shown = {f"/{each.name.strip('./')}": each for each in archive_}
    tree = engine.anatomy.tree("changed").result()
    ours = ("/bin", "/a", "/c")
    found = {path: node.file for path, node in tree.node.walk() if node.file and path.startswith(ours)}
    assert set(found) == {path for path in shown if path.startswith(ours)}
    for path, file in found.items():
        if file.kind == "file":
            assert (file.mode, file.uid, file.gid) == (shown[path].mode, shown[path].uid, shown[path].gid), path
    assert b"".join(engine.anatomy.read("changed", "/c/up/b")) == b"file\n"
