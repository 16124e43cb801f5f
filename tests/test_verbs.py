"""Each verb on images and the store is a terminal's command, a magic, and a method."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest

from nbcontain.commands import parse_words
from nbcontain.display.values import Verdict
from nbcontain.engine import Engine
from nbcontain.errors import UsageError, together
from nbcontain.events import Started
from nbcontain.task import Task

VERBS: dict[str, tuple[str, str]] = {
    "image pull x": ("pull x", "registry.pull"), "image push x": ("push x", "registry.push"),
    "nbcontain login r": ("login r", "registry.login"), "nbcontain logout r": ("logout r", "registry.logout"),
    "image ls": ("images", "images"), "image inspect x": ("inspect x", "image"),
    "image history x": ("history x", "image"), "image layers x": ("image layers x", "anatomy.layers"),
    "image diff a b": ("image diff a b", "anatomy.diff"), "image tree x": ("image tree x", "anatomy.tree"),
    "image cat x /f": ("image cat x /f", "anatomy.read"), "image verify x": ("image verify x", "anatomy.verify"),
    "image tag a b": ("tag a b", "tag"), "image rm x": ("rmi x", "remove_image"),
    "image save x": ("save x", "archives.save"), "image load": ("load", "archives.load"),
    "image import f": ("import f", "archives.import_image"), "container export c": ("export c", "archives.export"),
    "container commit c": ("commit c", "archives.commit"), "image prune": ("image prune", "housekeeping.prune"),
    "image search-tags x": ("image search-tags x", "registry.tags"),
    "image referrers x": ("image referrers x", "registry.referrers"),
    "nbcontain system df": ("system df", "housekeeping.usage"),
    "nbcontain system prune": ("system prune", "housekeeping.prune"),
    "nbcontain system check --repair": ("system check --repair", "soundness.check"),
    "nbcontain manifest create a b": ("manifest create a b", "manifests.create"),
    "nbcontain manifest add a b": ("manifest add a b", "manifests.add"),
    "nbcontain manifest inspect a": ("manifest inspect a", "manifests.document"),
    "nbcontain manifest push a": ("manifest push a", "registry.push"),
    "nbcontain registry start": ("registry start", "serving.start"),
    "nbcontain registry stop": ("registry stop", "serving.stop"),
    "nbcontain registry serve": ("registry serve", "serving.open"),
    "nbcontain registry ls": ("registry ls", "serving.repositories.listed"),
    "nbcontain registry logs": ("registry logs", "serving.heard"),
}
"""By what stands behind the % of a magic: what a terminal is told, and the method."""


@pytest.mark.parametrize("magic", VERBS)
def test_a_verb_is_a_magic_a_command_and_a_method(engine: Engine, magic: str) -> None:
    terminal, method = VERBS[magic]
    name, *words = magic.split()
    by_magic, _ = parse_words("" if name == "nbcontain" else name, words)
    by_terminal, _ = parse_words("", terminal.split())
    assert by_magic.name == by_terminal.name
    assert callable(attrgetter(method)(engine))


@pytest.mark.parametrize(("typed", "meant"), [("conainer", "container"), ("imges", "images")])
def test_a_mistyped_word_is_recognized_be_it_a_command_or_a_group(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_words("", [typed])
    assert raised.value.hint == f"did you mean {meant}?"


@pytest.mark.parametrize(("group", "typed", "meant"), [("container", "rmm", "rm"), ("image", "lss", "ls")])
def test_what_a_group_has_itself_is_meant_before_what_others_have(group: str, typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_words(group, [typed])
    assert raised.value.hint == f"did you mean {meant}?"


@pytest.mark.parametrize("group", ["image", "manifest", "volume"])
def test_what_does_not_exist_is_no_error_but_an_exit_status(engine: Engine, group: str) -> None:
    command, options = parse_words("", [group, "exists", "nothing"])
    no = command.function(engine, options)
    assert isinstance(no, Verdict) and no.exit_status == 1
    if group == "volume":
        engine.volumes.create("nothing")
        yes = command.function(engine, options)
        assert isinstance(yes, Verdict) and yes.exit_status == 0


def test_a_cell_shows_what_was_done_before_what_went_wrong() -> None:
    error = together([UsageError("the first"), UsageError("the second")], ["one", "two"])
    assert error._render_traceback_() == ["one", "two", "UsageError: the first", "UsageError: the second"]


@pytest.mark.parametrize("line", ["container stop a b", "container rm a b", "container pause a b"])
def test_what_is_asked_of_containers_says_what_it_does_while_it_does_it(engine: Engine, line: str) -> None:
    """One that does not heed its signal has ten seconds: a card says so."""
    command, words = parse_words(*line.split(maxsplit=1)[:1], line.split()[1:])
    task: Task[Any] = command.function(engine, words).task  # type: ignore[attr-defined]
    task.wait()
    assert Started(line.split()[1], line.removeprefix("container ")) in [each.event for each in task.journal.read()]
