"""Values behave as those of dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.values import asdict, dataclass, field, fields, replace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: int
    y: int = 2
    label: str = field(default="", compare=False, repr=False)
    tags: list[str] = field(default_factory=list, hash=False)


@dataclass(frozen=True, slots=True)
class Named(Point):
    """A place with a name."""

    name: str = "somewhere"


@dataclass(frozen=True, kw_only=True)
class Words:
    """Options."""

    first: str = "a"
    second: int


@dataclass(slots=True)
class Counter:
    """Something that changes."""

    count: int = 0

    def __post_init__(self) -> None:
        self.count += 1


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """What dataclasses make of Point's annotations."""

    x: int
    y: int = 2
    label: str = dataclasses.field(default="", compare=False, repr=False)
    tags: list[str] = dataclasses.field(default_factory=list, hash=False)


ARGUMENTS = st.tuples(
    st.lists(st.integers(0, 3), max_size=5).map(tuple),
    st.dictionaries(st.sampled_from(["x", "y", "label", "tags", "z"]), st.integers(0, 3), max_size=4),
)


def outcome(cls: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        made = cls(*args, **named)
    except TypeError:
        return TypeError
    return {each: getattr(made, each) for each in ("x", "y", "label", "tags")}, repr(made).partition("(")[2]


@given(ARGUMENTS)
def test_the_same_arguments_make_the_same_value_or_none(arguments: tuple[Any, Any]) -> None:
    assert outcome(Point, *arguments) == outcome(Model, *arguments)


@given(ARGUMENTS)
def test_so_do_those_of_a_type_of_which_few_values_were_made(arguments: tuple[Any, Any]) -> None:
    fresh = dataclass(frozen=True, slots=True)(type("Point", (), {
        "__annotations__": dict(Point.__annotations__), "y": 2, "label": field(default="", compare=False, repr=False),
        "tags": field(default_factory=list, hash=False),
    }))  # fmt: skip
    assert outcome(fresh, *arguments) == outcome(Model, *arguments)


def test_equality_and_hash_leave_out_what_is_not_compared() -> None:
    assert Point(1, label="a") == Point(1, label="b")
    assert Point(1) != Point(2)
    assert hash(Point(1, 3, tags=["a"])) == hash(Point(1, 3, tags=["b"]))
    assert Point(1) != Named(1)
    with pytest.raises(TypeError):
        hash(Counter())


def test_a_frozen_value_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del Point(1).x
    with pytest.raises(AttributeError):
        Counter().other = 1  # type: ignore[attr-defined]


def test_inherited_fields_come_first() -> None:
    assert [each.name for each in fields(Named)] == ["x", "y", "label", "tags", "name"]
    assert Named(1, 2, "l", [], "n").name == "n"
    assert Named.__match_args__ == ("x", "y", "label", "tags", "name")


def test_keyword_only_fields_need_their_names() -> None:
    assert Words(second=1) == Words(first="a", second=1)
    with pytest.raises(TypeError):
        Words("a", 1)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Words()  # type: ignore[call-arg]


def test_what_comes_after_the_constructor_is_called() -> None:
    assert [Counter(n).count for n in range(40)] == list(range(1, 41))


def test_replace_and_asdict() -> None:
    assert replace(Point(1), y=5) == Point(1, 5)
    assert asdict(Named(1, tags=["a"])) == {"x": 1, "y": 2, "label": "", "tags": ["a"], "name": "somewhere"}
    with pytest.raises(TypeError):
        replace(Point(1), z=5)  # type: ignore[call-arg]


@pytest.mark.parametrize("count", [0, 40])
def test_few_and_many_values_are_made_differently_and_are_alike(count: int) -> None:
    @dataclass(frozen=True, slots=True)
    class Pair:
        first: int
        rest: list[int] = field(default_factory=list)

    @dataclass(frozen=True, slots=True)
    class Triple(Pair):
        third: int = 3

    class Nameless(Pair):
        """No dataclass, and no slots."""

    made: list[Any] = [Pair(1), *(replace(Pair(each), first=1) for each in range(count))]
    assert all(each == made[0] and type(each) is Pair for each in made)
    for first in (Pair(1), replace(Pair(0, [4]), first=1), Triple(1), replace(Triple(2), first=1), Nameless(1)):
        assert first.first == 1 and type(first).__name__ in ("Pair", "Triple", "Nameless")
        for name in ("first", "rest", "other"):
            with pytest.raises(AttributeError):
                setattr(first, name, 2)
        assert replace(first, rest=[5]).rest == [5] and first.rest in ([], [4])
        assert type(replace(first)) is type(first) and replace(first) == first
        with pytest.raises(TypeError):
            replace(first, other=1)
    assert Triple(1) == replace(Triple(1, [2], 4), rest=[], third=3)


def test_many_values_of_a_generic_type() -> None:
    @dataclass(frozen=True, slots=True)
    class Box(Generic[T]):
        inside: T

    @dataclass(frozen=True, slots=True)
    class Sealed(Box[int]):
        seal: str = ""

    assert [Box(each).inside for each in range(40)] == [replace(Box(0), inside=each).inside for each in range(40)]
    assert [Sealed(each).inside for each in range(40)] == [replace(Sealed(0), inside=each).inside for each in range(40)]


def test_many_values_of_a_type_without_fields() -> None:
    @dataclass(frozen=True, slots=True)
    class Nothing:
        """As options that there are none of."""

    @dataclass(frozen=True, kw_only=True)
    class Open:
        """The same without slots."""

    for kind in (Nothing, Open):
        assert [replace(kind()) for _ in range(40)] == [kind()] * 40
        with pytest.raises(TypeError):
            kind(1)


def test_copies_and_pickles_are_equal() -> None:
    assert copy.deepcopy(Named(1)) == Named(1) == copy.copy(Named(1)) == pickle.loads(pickle.dumps(Named(1)))


def test_others_see_a_dataclass() -> None:
    assert dataclasses.is_dataclass(Point)
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y", "label", "tags"]
    assert dataclasses.replace(Point(1), y=3) == Point(1, 3)
    assert list(inspect.signature(Point).parameters) == ["x", "y", "label", "tags"]
    assert inspect.signature(Words).parameters["first"].kind is inspect.Parameter.KEYWORD_ONLY
