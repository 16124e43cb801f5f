"""rmi, the prunes, and system df: what goes, what stays, what is asked, and what is told."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from nbcontain.commands import parse_words, split
from nbcontain.display.table import Table
from nbcontain.display.values import Confirm, InProgress, Lines, Sections
from nbcontain.draw import draw
from nbcontain.engine import Engine
from nbcontain.errors import ImageNotFound, InUse, UsageError
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from stores import add_image

Typed = Callable[[str], object]


@pytest.fixture
def typed(engine: Engine) -> Typed:
    """What a command line gives in the end."""

    def run(line: str) -> object:
        command, options = parse_words("", split(line))
        value = command.function(engine, options)
        return value.task.result() if isinstance(value, InProgress) else value

    return run


def lines(value: object) -> list[str]:
    assert isinstance(value, Lines), value
    return list(value.lines)


def names(engine: Engine) -> list[str]:
    return sorted(name.familiar if name else "<none>" for name, _ in engine.images())


@pytest.fixture
def container(engine: Engine) -> Iterator[Container]:
    """One that never ran, of an image `used`."""
    add_image(engine.store, "used", name="used")
    yield engine.create(RunOptions(image="used", command=("sh",), name="holder"))


def test_rmi_tells_what_it_untagged_and_deleted(engine: Engine, typed: Typed) -> None:
    image = add_image(engine.store, "a", name="one:1")
    engine.tag("one:1", "one:2")
    assert lines(typed("rmi one:1")) == ["Untagged: one:1"]
    assert lines(typed("rmi one:2")) == ["Untagged: one:2", f"Deleted: {image.id}"]
    assert not list(engine.store.blobs.walk())


def test_rmi_by_id_takes_all_names_but_not_of_several_repositories(engine: Engine, typed: Typed) -> None:
    image = add_image(engine.store, "a", name="one:1")
    engine.tag("one:1", "one:2")
    assert lines(typed(f"rmi {image.id.short}"))[:2] == ["Untagged: one:1", "Untagged: one:2"]
    image = add_image(engine.store, "a", name="one:1")
    engine.tag("one:1", "other")
    with pytest.raises(InUse) as caught:
        typed(f"rmi {image.id.short}")
    assert "one:1, other:latest" in caught.value.why
    assert len(lines(typed(f"rmi -f {image.id.short}"))) == 3


def test_rmi_of_several_goes_on_and_loses_nothing_of_what_it_did(engine: Engine, typed: Typed) -> None:
    add_image(engine.store, "a", name="one")
    add_image(engine.store, "b", name="two")
    with pytest.raises(ImageNotFound) as caught:
        typed("rmi one missing two")
    assert "Untagged: one:latest" in caught.value.done
    assert "Untagged: two:latest" in caught.value.done
    assert names(engine) == []
    assert lines(typed("rmi -f missing")) == []


def test_rmi_of_one_image_leaves_the_nameless_ones_alone(engine: Engine, typed: Typed) -> None:
    add_image(engine.store, "a", name="one")
    add_image(engine.store, "b", name=None)
    typed("rmi one")
    assert names(engine) == ["<none>"]


def test_rmi_says_who_uses_an_image(engine: Engine, container: Container, typed: Typed) -> None:
    with pytest.raises(InUse) as caught:
        typed("rmi used")
    assert "holder (created)" in caught.value.why
    assert "%container rm holder" in caught.value.hint
    assert lines(typed("rmi -f used")) == ["Untagged: used:latest"]
    assert names(engine) == ["<none>"]


def test_image_prune_takes_what_has_no_name_and_all_takes_what_is_unused(
    engine: Engine, container: Container, typed: Typed
) -> None:
    nameless = add_image(engine.store, "a", name=None)
    unused = add_image(engine.store, "b", name="unused:1")
    engine.tag("unused:1", "unused:2")
    told = lines(typed("image prune -f"))
    assert told[:2] == ["Deleted Images:", f"deleted: {nameless.id}"]
    assert told[-1].startswith("Total reclaimed space: ")
    assert not told[-1].endswith(" 0B")
    assert names(engine) == ["unused:1", "unused:2", "used:latest"]
    told = lines(typed("image prune -af"))
    assert sorted(told[1:4]) == [f"deleted: {unused.id}", "untagged: unused:1", "untagged: unused:2"]
    assert names(engine) == ["used:latest"]
    assert lines(typed("image prune -f")) == ["Total reclaimed space: 0B"]
    assert engine.soundness.look().is_clean


def test_prunes_take_only_what_their_filters_mean(engine: Engine, typed: Typed) -> None:
    for name, created, label in (("old", "2020-01-01T00:00:00Z", {"keep": "1"}), ("older", "2019-01-01T00:00:00Z", {})):
        image = add_image(engine.store, name, name=None)
        engine.store.images.forget(image)
        config = replace(image.config, created=created, labels=label)
        engine.store.images.put(Image.of(config, image.layers), Reference.parse(name))
    typed("image prune -af --filter label!=keep --filter until=2019-06-01")
    assert names(engine) == ["old:latest"]
    typed("image prune -af --filter label=keep=2")
    assert names(engine) == ["old:latest"]
    with pytest.raises(UsageError):
        typed("image prune -f --filter dangling=true")
    typed("image prune -af --filter label=keep")
    assert names(engine) == []


def test_container_prune_takes_what_does_not_run(engine: Engine, container: Container, typed: Typed) -> None:
    assert lines(typed("container prune -f --filter label=x")) == ["Total reclaimed space: 0B"]
    assert lines(typed("container prune -f"))[:2] == ["Deleted Containers:", container.id]
    assert engine.containers() == []


def test_system_prune_takes_containers_images_and_what_builds_keep(
    engine: Engine, busybox_image: str, typed: Typed
) -> None:
    engine.create(RunOptions(image="busybox", command=("sh",), name="idle"))
    told = lines(typed("system prune -af"))
    assert told[0] == "Deleted Containers:"
    assert "untagged: busybox:latest" in told
    assert names(engine) == []
    assert not list(engine.store.blobs.walk())
    assert not list(engine.store.snapshots.walk())
    assert not list(engine.store.cache.walk())


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("Y", True), ("", False), ("n", False), (None, False)])
def test_a_terminal_asks_as_docker_does(
    engine: Engine, typed: Typed, answer: str | None, goes: bool, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    add_image(engine.store, "a", name=None)
    asked: list[str] = []

    def reply(text: str) -> str:
        asked.append(text)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr(builtins, "input", reply)
    assert draw(typed("image prune")) == (0 if goes else 1)
    assert asked == ["Are you sure you want to continue? [y/N] "]
    said = capsys.readouterr()
    assert said.out.startswith("WARNING! This will remove all dangling images.\n")
    assert ("image prune was cancelled" in said.err) is not goes
    assert names(engine) == ([] if goes else ["<none>"])


def test_a_notebook_shows_what_would_go_and_removes_nothing(engine: Engine, container: Container, typed: Typed) -> None:
    add_image(engine.store, "a", name="unused")
    question = typed("system prune -a")
    assert isinstance(question, Confirm)
    assert [row[:2] for row in question.plan.rows] == [("container", "holder"), ("image", "unused:latest")]
    assert "Nothing was removed: %nbcontain system prune -a -f" in repr(question)
    assert "<table" in question._repr_html_()
    assert names(engine) == ["unused:latest", "used:latest"]
    add_image(engine.store, "z", name="other")
    assert "There is nothing to remove" in repr(typed("image prune"))


def test_df_tells_what_takes_room_and_what_may_go(engine: Engine, container: Container, typed: Typed) -> None:
    add_image(engine.store, "a" * 5000, "b" * 3000, name="one")
    (engine.layout.active(container.id) / "fs" / "written").write_bytes(b"x" * 50_000)
    table = typed("system df")
    assert isinstance(table, Table)
    rows = {row["type"]: row for row in table.records()}
    assert (rows["Images"]["total"], rows["Images"]["active"]) == (2, 1)
    assert 0 < rows["Images"]["reclaimable"] < rows["Images"]["size"]
    assert rows["Containers"]["size"] >= 50_000
    assert "free there" in table.footer
    stored = re.search(r"layers on disk ([\d.]+ \w+)", typed("image ls").footer)  # type: ignore[attr-defined]
    assert stored is not None and f"images: {stored[1]} of layers as image ls counts them" in table.footer
    counts = lines(typed("system df --format '{{.Type}} {{.TotalCount}} {{.Active}}'"))
    assert counts[:2] == ["Images 2 1", "Containers 1 0"]
    whole = typed("system df -v")
    assert isinstance(whole, Sections)
    assert "holder" in repr(whole)
    assert whole._repr_html_().count("<table") == 5
    with pytest.raises(UsageError):
        typed("system df -v --format json")
    engine.store.images.forget(engine.image("one"))
    rows = {row["type"]: row for row in typed("system df").records()}  # type: ignore[attr-defined]
    assert rows["Unused Layers"]["size"] > 8000


def test_a_container_that_was_created_and_never_ran_can_be_removed_and_can_be_started(
    profile: str, engine: Engine, busybox_image: str
) -> None:
    made = engine.create(RunOptions(image="busybox", command=("sh", "-c", "exit 4"), name="later"))
    engine.start(engine.container("later"))
    assert made.wait(10) == 4
    engine.remove_container(engine.create(RunOptions(image="busybox", name="never")))
    assert [each.name for each in engine.containers()] == ["later"]
