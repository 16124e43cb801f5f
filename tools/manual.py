"""Manual pages, made of the table of commands: `nbcontain(1)`, one for each group, one for each command.

They are written as man(7) macros by this file alone, so that a wheel can have them wherever it is built: man's readers
are many, and the programs that write for them are not on every machine. A short word of docker's (`nbcontain-run`) is a
page that points at the one of its command.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbcontain.commands.table import Command

_EXIT = (
    "0, or the exit code of a container that was run; or, as docker's, 1 (the engine failed; of run it is 125), 125 "
    "(the line cannot be read), 126 (the program cannot be executed), 127 (there is no such program), 130 "
    "(interrupted)."
)


def pages() -> dict[str, str]:
    """Every page by its file's name, as in nbcontain-run.1."""
    from nbcontain.commands import commands
    from nbcontain.commands.table import GROUPS

    known = sorted(commands(), key=lambda each: (each.group, each.name))
    found = {"nbcontain.1": _top(known)}
    for group, about in GROUPS.items():
        found[f"nbcontain-{group}.1"] = _group(group, about, [each for each in known if each.group == group])
    for each in known:
        found[f"{_name(each)}.1"] = _command(each)
    for each in known:
        for word in each.top:
            found.setdefault(f"nbcontain-{word}.1", f".so man1/{_name(each)}.1\n")
    return found


def write(folder: Path) -> None:
    """All of them into a directory, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="ascii")


def _name(command: Command) -> str:
    name = command.name if command.group == "nbcontain" else f"{command.group}-{command.name}"
    return f"nbcontain-{name}"


def _top(known: Sequence[Command]) -> str:
    from nbcontain.commands.table import GROUPS

    own = [(_name(each), each.help) for each in known if each.group == "nbcontain"]
    shorts = {f"nbcontain-{word}": each.help for each in known for word in each.top}
    return _page(
        "nbcontain",
        "a container engine without a daemon",
        ["\\fBnbcontain\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR ...]"],
        _text("Builds images from Dockerfiles and runs containers of them. In a notebook the same commands are magics: "
              "%load_ext nbcontain, then %nbcontain, %image, %container and others."),
        [("GROUPS OF COMMANDS", _listed((f"nbcontain-{name}", about) for name, about in GROUPS.items())),
         ("DOCKER'S SHORT WORDS", _listed(sorted(shorts.items()))),
         ("THIS MACHINE AND THIS PROGRAM", _listed(own))],
        (),
    )  # fmt: skip


def _group(group: str, about: str, known: Sequence[Command]) -> str:
    return _page(
        f"nbcontain-{group}",
        about,
        [f"\\fBnbcontain {_escaped(group)}\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR ...]"],
        _text(f"{about[:1].upper()}{about[1:]}."),
        [("COMMANDS", _listed((_name(each), each.help) for each in known))],
        ("nbcontain",),
    )


def _command(command: Command) -> str:
    from reference import written

    from nbcontain.options import parser_of

    name, *others = written(command)
    actions = parser_of(command.options, name, command.help)._actions
    positionals = [each for each in actions if not each.option_strings]
    # By their long names: in the order of the table, run's would begin with the rarest.
    flags = sorted((each for each in actions if each.option_strings), key=_long)
    above = ("nbcontain",) if command.group == "nbcontain" else (f"nbcontain-{command.group}", "nbcontain")
    return _page(
        _name(command),
        command.help,
        [" ".join([f"\\fB{_escaped(name)}\\fR", "[\\fIOPTION\\fR ...]", *map(_positional, positionals)])],
        _text(f"{command.help[:1].upper()}{command.help[1:]}.") + ".PP\n"
        + _text(f"In a cell and in short: {', '.join(others)}."),
        [("ARGUMENTS", _tagged(positionals)), ("OPTIONS", _tagged(flags))],
        above,
    )  # fmt: skip


def _page(
    name: str, about: str, usage: Sequence[str], text: str, parts: Sequence[tuple[str, str]], others: Sequence[str]
) -> str:
    from nbcontain import __version__

    seen = ", ".join(f"\\fB{_escaped(each)}\\fR(1)" for each in others)
    body = [
        f'.TH {_escaped(name.upper())} 1 "" "nbcontain {__version__}" "nbcontain"\n',
        f".SH NAME\n{_escaped(name)} \\- {_escaped(about)}\n",
        ".SH SYNOPSIS\n" + ".br\n".join(f"{line}\n" for line in usage),
        f".SH DESCRIPTION\n{text}",
        *(f".SH {title}\n{part}" for title, part in parts if part),
        f".SH EXIT STATUS\n{_text(_EXIT)}",
        f".SH SEE ALSO\n{seen}\n" if seen else "",
    ]
    return "".join(body)


def _long(action: argparse.Action) -> str:
    return max(action.option_strings, key=len)


def _positional(action: argparse.Action) -> str:
    word = f"\\fI{_escaped(str(action.metavar))}\\fR"
    return {"?": f"[{word}]", "*": f"[{word} ...]", "+": f"{word} ...", argparse.REMAINDER: f"[{word} ...]"}.get(
        str(action.nargs), word
    )


def _tagged(actions: Sequence[argparse.Action]) -> str:
    return "".join(f".TP\n{_tag(each)}\n{_text((each.help or '').replace('%%', '%'))}" for each in actions)


def _tag(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"\\fI{_escaped(str(action.metavar))}\\fR"
    value = f" \\fI{_escaped(str(action.metavar))}\\fR" if action.metavar else ""
    return ", ".join(f"\\fB{_escaped(flag)}\\fR{value}" for flag in action.option_strings)


def _listed(rows: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    return "".join(f".TP\n\\fB{_escaped(name)}\\fR(1)\n{_text(about)}" for name, about in rows)


def _text(text: str) -> str:
    """A line of text, never a macro: one begins with a dot or an apostrophe."""
    return re.sub(r"^([.'])", r"\\&\1", _escaped(text)) + "\n"


def _escaped(text: str) -> str:
    """In ASCII: whether a page that another one names is read as UTF-8 depends on the reader."""
    plain = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in plain)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
    write(Path(sys.argv[1]))
