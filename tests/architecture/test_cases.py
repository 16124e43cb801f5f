"""Where newcomers add a case, none may be forgotten; and what is public says what it is."""

from __future__ import annotations

import ast
import sys
import typing
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from nbcontain import events
from package_source import Module, modules


def without_case(function: typing.Any, kinds: typing.Any) -> set[str]:
    """Members of a union, or subclasses of a type, for which a singledispatch function would have none."""
    members = typing.get_args(kinds) or [
        # A dataclass with slots is a second class in place of the first, which lingers among the subclasses; and one
        # of which many were made has a twin, whose fields can be set (values.py).
        each
        for each in kinds.__subclasses__()
        if getattr(sys.modules[each.__module__], each.__name__, None) is each
    ]
    assert members
    return {member.__name__ for member in members if function.dispatch(member) is function.dispatch(object)}


def matched_in(module: str, function: str) -> set[str]:
    """The class names that a function's `match` statements have a case for."""
    tree = modules()[module].tree
    (found,) = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == function]
    return {ast.unparse(node.cls) for node in ast.walk(found) if isinstance(node, ast.MatchClass)}


def test_every_instruction_has_a_meaning() -> None:
    from nbcontain.build.instructions import apply
    from nbcontain.dockerfile.ast import Instruction

    # FROM begins a stage: that is the plan's own business.
    assert without_case(apply, Instruction) - {"From"} == set()


def test_every_operation_has_a_cache_key_and_can_be_executed() -> None:
    from nbcontain.build.graph import Operation
    from nbcontain.build.operations import cache_key, copy, execute, run  # noqa: F401 - which execute imports

    assert without_case(cache_key, Operation) == set()
    assert without_case(execute, Operation) == set()


def test_every_event_changes_the_view() -> None:
    assert matched_in("nbcontain.display.view", "update") == {each.__name__ for each in typing.get_args(events.Event)}


def test_every_event_survives_the_journal() -> None:
    assert set(events._KINDS.values()) == set(typing.get_args(events.Event))


def test_every_command_says_what_it_does() -> None:
    from nbcontain.commands import commands

    assert commands()
    assert [each.name for each in commands() if not each.help] == []


def registered(node: ast.AST) -> bool:
    """Whether this is a command, or the words of one: their help is their description; or an overload."""
    decorators = {ast.unparse(each).split("(")[0] for each in getattr(node, "decorator_list", [])}
    return bool(decorators & {"command", "with_defaults", "overload"})


def public(module: Module) -> Iterator[tuple[str, ast.AST]]:
    yield module.name, module.tree
    for node in module.tree.body:
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        # A case of a singledispatch function is called _ by custom; what a decorator registers says it there (help=).
        if is_definition and not node.name.startswith("_") and not registered(node):
            yield f"{module.name}.{node.name}", node


def test_public_names_say_what_they_are() -> None:
    silent = [
        name
        for module in modules().values()
        for name, node in public(module)
        if not ast.get_docstring(node)  # type: ignore[arg-type]
    ]
    assert silent == []


def test_no_directory_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    tests = Path(__file__).parents[1]
    directories = {each for path in tests.rglob("test_*.py") for each in path.relative_to(tests).parts[:-1]}
    patterns = pytestconfig.getini("norecursedirs")
    assert "build" in directories
    assert {name for name in directories if any(fnmatch(name, pattern) for pattern in patterns)} == set()
