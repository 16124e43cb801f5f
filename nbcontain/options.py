"""What a command can be told, written once: frozen dataclasses from which parsers, help and completion are made.

A field made by `option` becomes a flag, one made by `argument` a positional. The field's type says
how often and as what: bool is a switch, tuple may be given many times, int is a number.
Options that are made of others are helped with in their groups: a class's own fields first, then those
of its bases, in their order, each under its `heading`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from nbcontain.errors import UsageError, did_you_mean
from nbcontain.truth import truth
from nbcontain.values import MISSING, Field, field, fields, is_dataclass

T = TypeVar("T")
REST = argparse.REMAINDER


def option(
    *flags: str, help: str, default: Any = MISSING, metavar: str = "", bare: tuple[str, str] = ("", "")
) -> Any:
    """A field given by one of these flags. Without a default it is "", (), False or 0, as its type says.

    `bare` is what the flag means alone, and the pattern of the words that may be its value all the same.
    """
    return _field(default, {"flags": flags, "help": help, "metavar": metavar, "bare": bare})


def argument(*, help: str, nargs: str | None = None, default: Any = MISSING, metavar: str = "") -> Any:
    """A positional field; `nargs` as argparse knows it ("?", "*", "+"), or `REST` for all that follows."""
    return _field(default, {"positional": True, "help": help, "nargs": nargs, "metavar": metavar})


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    # Every field needs a default, so that options can be made in Python by keyword; parsing fills the rest.
    return field(default=_Unset() if default is MISSING else default, metadata=metadata)


class _Unset:
    """Stands for "the empty value of the field's type" until `with_defaults` has seen the type."""

    __hash__ = object.__hash__


def with_defaults(options_type: type[T]) -> type[T]:
    """Class decorator, below `@dataclass`'s: give each option the empty value of its type as default."""
    for name, hint in options_type.__annotations__.items():
        value = options_type.__dict__.get(name)
        if isinstance(value, Field) and isinstance(value.default, _Unset):
            value.default = _empty(hint)
    return options_type


def _empty(hint: str) -> Any:
    """Annotations stay text: to have them evaluated takes longer than all the rest of a command's parsing."""
    return () if hint.startswith("tuple[") else {"bool": False, "str": "", "int": 0}.get(hint)


def flags_of(options_type: type) -> list[str]:
    """All flags of these options, and --help."""
    return [flag for each in fields(options_type) for flag in each.metadata.get("flags", ())] + ["--help"]


def labels_of(texts: Sequence[str]) -> dict[str, str]:
    """NAME=value each, or NAME, as labels are given. Raises UsageError for one without a name."""
    for text in texts:
        if not text.partition("=")[0]:
            raise UsageError(f"invalid label {text!r}: empty name", hint="NAME=value")
    return dict(text.partition("=")[::2] for text in texts)


def words_of(options: Any) -> tuple[str, ...]:
    """The flags that say what these options say, as `parse` takes them; defaults and positionals are left out."""
    words: list[str] = []
    for each in fields(options):
        value = getattr(options, each.name)
        if "flags" not in each.metadata or value == each.default:
            continue
        flag = max(each.metadata["flags"], key=len)
        values = value if isinstance(value, tuple) else (value,)
        words += [flag] if value is True else [f"{flag}={one}" for one in values]
    return tuple(words)


class HelpAsked(Exception):
    """--help was among the words; the text is its argument."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=f"{self.prog} --help")


class _Formatter(argparse.HelpFormatter):
    """As wide as the terminal. argparse makes one for every flag, and would import shutil to find that out."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        raise HelpAsked(parser.format_help())


def parser_of(options_type: type, prog: str, description: str) -> argparse.ArgumentParser:
    """The argparse parser of these options."""
    groups = _groups(options_type)
    parser = _Parser(
        prog=prog, usage=_usage(prog, options_type) if len(groups) > 1 else None, description=description,
        add_help=False, allow_abbrev=False, formatter_class=_Formatter,
    )  # fmt: skip
    for heading, found in groups:
        group = parser.add_argument_group(heading) if heading else parser
        for each in found:
            if "flags" in each.metadata:
                _add(group, each)
        if group is parser:
            parser.add_argument("--help", action=_Help, nargs=0, help="show this")
    for each in _positionals(options_type):
        _add(parser, each)
    return parser


def _positionals(options_type: type) -> list[Field[Any]]:
    """In the order in which they are typed: those of bases come first, whatever is helped with first."""
    return [each for each in fields(options_type) if "positional" in each.metadata]


def _groups(options_type: type) -> list[tuple[str, list[Field[Any]]]]:
    """Headings and what is told of under them; what has none comes first, and is there whatever it has."""
    owners: dict[str, type] = {}
    known = [each for each in options_type.__mro__ if is_dataclass(each)]
    for owner in reversed(known):
        for each in fields(owner):
            owners.setdefault(each.name, owner)
    found: dict[str, list[Field[Any]]] = {"": []}
    for owner in known:
        own = [each for each in fields(options_type) if owners[each.name] is owner and each.metadata]
        found.setdefault(owner.__dict__.get("heading", ""), []).extend(own)
    return [each for each in found.items() if each[1] or not each[0]]


def _usage(prog: str, options_type: type) -> str:
    """In short, where there are groups of flags: nobody finds what is wanted among eighty in brackets."""
    words = []
    for each in _positionals(options_type):
        word = each.metadata["metavar"] or each.name.upper()
        wanted = each.metadata["nargs"]
        words.append({None: word, "+": f"{word} ...", "?": f"[{word}]"}.get(wanted, f"[{word} ...]"))
    return _percent(" ".join([prog, "[OPTIONS]", *words]))


def _add(group: Any, each: Field[Any]) -> None:
    meta = each.metadata
    if "flags" in meta:
        how = _how(str(each.type), meta)
        group.add_argument(*meta["flags"], dest=each.name, help=_percent(meta["help"]), **how)
    elif "positional" in meta:
        added = group.add_argument(
            each.name,
            help=_percent(meta["help"]),
            nargs=meta["nargs"],
            metavar=meta["metavar"] or each.name.upper(),
            default=None if meta["nargs"] in (None, "+") else each.default,
        )
        if meta["nargs"] == REST:
            # Of no words, too; argparse names it among what is missing.
            added.required = False


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _how(hint: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    if hint == "bool":
        return {"action": "store_true", "default": None}
    metavar = meta["metavar"] or meta["flags"][-1].lstrip("-").upper().replace("-", "_")
    if hint.startswith("tuple["):
        return {"action": "append", "default": None, "metavar": metavar}
    return {"type": int if hint in ("int", "int | None") else str, "default": None, "metavar": metavar}


def parse(options_type: type[T], prog: str, description: str, words: Sequence[str], known: Mapping[str, str]) -> T:
    """The options that these words say; raises UsageError, and HelpAsked for --help.

    `known` names flags that docker has and this command has not, each with the reason that the error gives.
    """
    # The parser is made per call: it is cheap, and argparse parsers hold state.
    parser = parser_of(options_type, prog, description)
    try:
        words, values = _switched(parser, options_type, words)
        namespace = parser.parse_args(_with_values(options_type, words))
    except UsageError as error:
        raise _explained(error, parser, words, known) from None
    for each in fields(options_type):  # type: ignore[arg-type]
        if not each.metadata:
            continue
        value = getattr(namespace, each.name)
        if isinstance(value, list):
            value = tuple(value)
        if value is not None:
            values.setdefault(each.name, value)
    return options_type(**values)


def _switched(
    parser: argparse.ArgumentParser, options_type: type, words: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """Switches that are told what to be, as Go's flags can be (--human=false): the other words, and what they say."""
    left: list[str] = list(words)
    said: dict[str, Any] = {}
    if not any("=" in word for word in words):
        return left, said
    switches = {
        flag: each.name
        for each in fields(options_type)
        if each.type == "bool"
        for flag in each.metadata.get("flags", ())
    }
    while True:
        place = next((n for n, word in enumerate(left) if (w := word.partition("="))[1] and w[0] in switches), None)
        if place is None:
            return left, said
        try:
            parser.parse_args(left)
        except UsageError:
            # It is argparse that does not know them: so this one stands where flags stand.
            flag, _, text = left[place].partition("=")
            told = truth(text)
            if told is None:
                raise UsageError(f"{parser.prog}: {flag}={text}: true or false", hint=f"{parser.prog} --help") from None
            said[switches[flag]] = told
            del left[place]
        else:
            # It is a word of the program's that is to be run.
            return left, said
def _with_values(options_type: type, words: Sequence[str]) -> list[str]:
    """The words, with a value for each flag that can stand alone and does."""
    alone = {
        flag: each.metadata["bare"]
        for each in fields(options_type)
        for flag in each.metadata.get("flags", ())
        if each.metadata["bare"][0]
    }
    return [
        f"{word}={alone[word][0]}" if word in alone and not re.fullmatch(alone[word][1], following) else word
        for word, following in zip(words, (*words[1:], ""), strict=False)
    ]


def _explained(
    error: UsageError, parser: argparse.ArgumentParser, words: Sequence[str], known: Mapping[str, str]
) -> UsageError:
    own = set(parser._option_string_actions)
    if any(word.startswith(("$(", "`")) for word in words):
        hint = "ids = %container ps -aq   and then   {ids}, a word for each"
        return UsageError(error.message, why="no shell reads this line, and so nothing puts $(…) in", hint=hint)
    for word in words:
        flag = word.partition("=")[0]
        if not flag.startswith("-") or flag in own:
            continue
        if flag in known:
            return UsageError(
                f"{parser.prog}: docker's {flag} is not here",
                why=known[flag],
                hint=f"{parser.prog} --help shows what is",
            )
        if flag.startswith("--") and (near := did_you_mean(flag, own)):
            return UsageError(error.message, hint=f"{near}   {parser.prog} --help")
    return error
