"""Layers that are looked into: files read and compared, a container's own layer, what a page asks for and gets."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable

import pytest

from archives import archive, directory, layer_of, member, symlink
from machine import until
from nbcontain.commands import parse_words, split
from nbcontain.display.explored import Answers, Explored
from nbcontain.display.values import InProgress
from nbcontain.engine import Engine
from nbcontain.errors import DigestMismatch, StoreError
from nbcontain.explorer import SHOWN_BYTES, Exploration
from nbcontain.oci.digest import ChainID, Digest, chain_id
from nbcontain.oci.image import LAYER_TAR, LAYER_TAR_GZIP, Descriptor, History, Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from stores import add_layer

EVIL = "<img src=x onerror=alert(1)>\x1b[2J\u202e"
RAW = os.fsdecode(b"\xff\xfe")


def put(engine: Engine, name: str, *layers: bytes) -> Image:
    """An image of these tars."""
    made: list[Layer] = []
    below: ChainID | None = None
    for data in layers:
        made.append(add_layer(engine.store, data, below))
        below = chain_id(below, made[-1].diff_id)
    history = tuple(History("", f"RUN step {number} {EVIL} # buildkit") for number, _ in enumerate(made, 1))
    image = Image.of(ImageConfig(cmd=("sh",), history=history), made)
    engine.store.images.put(image, Reference.parse(name))
    return image


@pytest.fixture
def explored(engine: Engine) -> Exploration:
    """An image with hostile names and contents, of two layers."""
    put(
        engine, "evil",
        archive(directory("etc"), member("etc/conf", data=b"debug = false\nname = web\n"),
                member("blob", data=b"\0\1" * 50),
                member("big", data=b"x" * (SHOWN_BYTES + 5)), symlink("link", EVIL), member("empty")),
        archive(member("etc/conf", data=b"debug = true\nname = web\n", mode=0o600), member(EVIL, data=EVIL.encode()),
                member(os.fsencode(RAW), data=b"raw"), member(".wh.big"), member("blob", data=b"\0\2")),
    )  # fmt: skip
    return engine.explorer.image("evil").result()


def test_a_file_is_read_compared_and_traced_to_the_line_that_wrote_it(explored: Exploration) -> None:
    look = explored.look("/etc/conf", 2)
    assert look.text == "debug = true\nname = web\n"
    assert [line for line in look.difference if line.startswith(("+d", "-d"))] == ["-debug = false", "+debug = true"]
    told = [(each.number, each.letter, each.what) for each in look.told]
    assert told == [(1, "A", ()), (2, "C", ("content", "mode"))]
    assert explored.part(look.row.number).instruction.startswith("RUN step 2")
    # As the layer below leaves it.
    assert explored.look("/etc/conf", 1).text.startswith("debug = false")
    assert explored.look("/etc/conf", 1).difference == ()


def test_what_is_no_text_is_shown_as_bytes_and_what_is_large_in_part(explored: Exploration) -> None:
    look = explored.look("/blob", 1)
    assert (look.is_text, look.text) == (False, "")
    assert look.hex.splitlines()[0] == "00000000  00 01 00 01 00 01 00 01  00 01 00 01 00 01 00 01  |................|"
    assert explored.look("/blob", 2).difference == ()
    gone = explored.look("/big", 2)
    assert gone.row.letter == "D"
    assert (len(gone.text), gone.is_cut) == (SHOWN_BYTES, True)
    assert explored.look("/empty", 2).data == b""
    assert explored.look("/link", 2).note.startswith("a symbolic link to <img")
    assert explored.look("/etc", 2).note == "a directory"
    with pytest.raises(StoreError):
        explored.look("/nothing", 2)


def test_a_page_gets_rows_by_numbers_and_nothing_for_nonsense(explored: Exploration) -> None:
    answers = Answers(explored)
    begun = answers.begun()
    rows = {row[1]: row for row in begun["first"]["rows"]}
    # Everything can travel: names that are no text, and controls, are written out.
    assert json.dumps(begun, ensure_ascii=False).encode()
    assert "\\udcff\\udcfe" in rows
    assert rows["etc/"][2:7] == [1, "", "24 B", 1, 1]
    assert rows["big"][3] == "D"
    assert begun["wasted"][0][1:] == ["/big", "131 kB", 1]
    raw = rows["\\udcff\\udcfe"][0]
    assert answers.answer({"ask": "look", "key": raw, "number": 2})["look"]["text"] == "raw"
    changed = answers.answer({"ask": "rows", "key": 0, "number": 2, "changed": True})["rows"]
    assert {row[1] for row in changed} >= {"etc/", "big", "blob"} and "empty" not in {row[1] for row in changed}
    assert [row[1] for row in answers.answer({"ask": "find", "text": "CONF", "number": 1})["rows"]] == ["/etc/conf"]
    assert answers.answer({"ask": "rows", "key": 0, "number": 2, "sort": "size"})["rows"][0][1] == "big"
    for nonsense in ({}, {"ask": "rows"}, {"ask": "rows", "key": -1}, {"ask": "look", "key": 10**9, "number": 1},
                     {"ask": "look", "key": "/etc/passwd", "number": "x"}, {"ask": "rows", "key": 0, "number": [1]},
                     {"ask": "system"}, {"ask": "rows", "key": True, "number": 9**9}):  # fmt: skip
        answer = answers.answer(nonsense)
        assert "error" in answer or "rows" in answer


@pytest.mark.parametrize(("media_type", "compress"), [(LAYER_TAR, bytes), (LAYER_TAR_GZIP, gzip.compress)])
def test_a_layer_that_was_altered_is_never_shown(
    engine: Engine, media_type: str, compress: Callable[[bytes], bytes]
) -> None:
    files = [member(f"f{number}", data=os.urandom(1 << 20)) for number in range(9)]
    tarred = archive(*files)
    data = compress(tarred)
    engine.store.blobs.put([data], "")
    diff_id = layer_of(tarred).diff_id
    layer = Layer(Descriptor(media_type, Digest.of(data), len(data)), diff_id)
    engine.store.images.put(Image.of(ImageConfig(), [layer]), Reference.parse("altered"))
    assert engine.explorer.image("altered").result().row("/f8", 1).size_bytes == 1 << 20
    path = engine.store.blobs.path(layer.descriptor.digest)
    path.chmod(0o600)
    # Each tar is whole, and so are its headers: of one file another byte is there.
    other = tarred.replace(tarred[512 : 512 + 64], bytes(64))
    path.write_bytes(compress(other))
    assert other != tarred
    again = Engine(engine.layout.root)
    with pytest.raises(DigestMismatch):
        again.explorer.image("altered").result()
    with pytest.raises(DigestMismatch):
        again.anatomy.layers("altered").result()


def test_an_image_that_was_explored_is_compared_with_another_by_content(engine: Engine) -> None:
    put(engine, "one", archive(member("conf", data=b"a = 1")))
    put(engine, "two", archive(member("conf", data=b"a = 2")))
    assert engine.explorer.image("one").result().row("/conf", 1).size_bytes == 5
    assert engine.explorer.image("two").result().row("/conf", 1).size_bytes == 5
    (change,) = engine.anatomy.diff("one", "two").result().changes
    assert (change.letter, change.path, change.what) == ("C", "/conf", ("content",))


def test_what_a_container_writes_over_its_images_file_is_compared_by_content(
    engine: Engine, busybox_image: str
) -> None:
    lowest = add_layer(engine.store, archive(member("conf", data=b"a = 1"), member("same", data=b"b = 1")))
    base = engine.image(busybox_image)
    engine.store.images.put(Image.of(base.config, [lowest, *base.layers]), Reference.parse("conf"))
    command = ("sh", "-c", "printf 'a = 2' > /conf; printf 'b = 1' > /same")
    container = engine.create(RunOptions(image="conf", command=command, name="writes"))
    engine.explorer.image("conf").result()  # keeps what is hashed in part
    engine.start(container)
    until(lambda: container.status == "exited")
    found = engine.explorer.container(container).result()
    changed = {change.path: change.what for change in found.part(found.top).changes if change.letter == "C"}
    assert "content" in changed["/conf"] and "content" not in changed["/same"]


def test_a_text_is_called_cut_only_where_lines_are_missing(engine: Engine) -> None:
    put(engine, "long", archive(member("whole", data=b"x\n" * 4000), member("more", data=b"x\n" * 4001)))
    answers = Answers(engine.explorer.image("long").result())
    keys = {row[1]: row[0] for row in answers.begun()["first"]["rows"]}
    cut = {name: answers.answer({"ask": "look", "key": key, "number": 1})["look"]["cut"] for name, key in keys.items()}
    assert cut == {"whole": False, "more": True}


def test_a_large_directory_comes_in_parts(engine: Engine) -> None:
    put(engine, "many", archive(*[member(f"f{number:04}") for number in range(1000)]))
    answers = Answers(engine.explorer.image("many").result())
    first = answers.begun()["first"]
    assert (len(first["rows"]), first["more"]) == (400, 600)
    last = answers.answer({"ask": "rows", "key": 0, "number": 1, "start": 800})
    assert (len(last["rows"]), last["more"], last["rows"][-1][1]) == (200, 0, "f0999")
    found = answers.answer({"ask": "find", "text": "f0", "number": 1})
    assert (len(found["rows"]), found["more"]) == (400, 600)


def test_what_a_notebook_keeps_is_small_and_harmless(engine: Engine, explored: Exploration) -> None:
    kept = Explored(explored)._repr_html_()
    assert "<img" not in kept and "\u202e" not in kept and "\x1b" not in kept
    assert "RUN step 2 &lt;img" in kept
    assert len(kept) < 40_000
    files = [member(f"d{number % 200:03}/a/long/way/down/f{number:05}.py") for number in range(20_000)]
    put(engine, "large", archive(*files))
    large = engine.explorer.image("large").result()
    assert len(Explored(large)._repr_html_()) + len(json.dumps(Answers(large).begun())) < 150_000
    pytest.importorskip("anywidget")
    from nbcontain.display.explorer_widget import ExplorerWidget

    # With the widget's state too, which some front ends keep in the notebook.
    widget = ExplorerWidget()
    widget.look_into(large, lambda: large)
    state = widget.get_state()
    assert len(Explored(large)._repr_html_()) + len(json.dumps(state, default=str)) < 300_000
    assert len(large.rows("/", 1)) == 200


def test_files_come_as_a_table_with_their_layer(explored: Exploration) -> None:
    records = {each["path"]: each for each in Explored(explored).records()}
    assert "/big" not in records
    conf = records["/etc/conf"]
    assert (conf["layer"], conf["size"], conf["mode"], conf["kind"]) == (2, 24, "-rw-------", "file")
    assert conf["changed"] == 1
    assert records["/etc"]["mode"] == "drwxr-xr-x"
    assert re.fullmatch(r"\d+:\d+", str(conf["owner"]))


def test_a_containers_own_layer_lies_on_top_running_or_not(engine: Engine, busybox_image: str) -> None:
    script = "echo one > /made; rm /bin/vi; ln -s /etc/passwd /escape; echo ready; sleep 100"
    options = RunOptions(image=busybox_image, command=("sh", "-c", script), name="web", detach=True)
    container = engine.run(options).result()
    assert isinstance(container, Container)
    next(each for each in container.follow() if b"ready" in getattr(each.event, "data", b""))
    command, words = parse_words("container", split("layers web"))
    value = command.function(engine, words)
    assert isinstance(value, InProgress)
    explored = value.task.result()
    assert isinstance(explored, Explored)
    assert "written by the container" in repr(explored)
    found = explored.exploration
    own = found.part(found.top)
    assert (own.is_stored, [own.count(letter) for letter in "ACD"]) == (False, [2, 0, 1])
    assert found.look("/made", found.top).text == "one\n"
    assert found.row("/bin/vi", found.top).letter == "D"
    assert found.look("/escape", found.top).note == "a symbolic link to /etc/passwd"
    container.exec(("sh", "-c", "echo two >> /made; rm /escape; mkfifo /escape"))
    # What it is by now, not what it was when the layers were opened.
    assert found.look("/made", found.top).text == "one\ntwo\n"
    engine.stop(container, 0)
    again = found.again().result()
    assert again.look("/made", again.top).text == "one\ntwo\n"
    assert again.look("/escape", again.top).note == "a fifo"


def test_a_container_that_wrote_nothing_has_an_empty_layer(engine: Engine, busybox_image: str) -> None:
    container = engine.create(RunOptions(image=busybox_image, name="idle"))
    found = engine.explorer.container(container).result()
    assert found.part(found.top).changes == ()
    assert [row.path for row in found.rows("/", found.top)] == ["/bin"]


def test_layers_of_a_container_are_a_command_with_formats(engine: Engine, busybox_image: str) -> None:
    engine.create(RunOptions(image=busybox_image, name="idle"))
    command, words = parse_words("container", split("layers idle --format '{{.Number}} {{.Layer}} {{.Added}}'"))
    lines = command.function(engine, words).task.result().lines  # type: ignore[attr-defined]
    assert lines[-1] == f"{len(lines)}  0"
