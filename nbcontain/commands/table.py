"""The table of commands, and how words find their command. A command's function is put in by its decorator."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nbcontain.commands.index import INDEX
from nbcontain.docker_words import KNOWN_FLAGS, KNOWN_VERBS
from nbcontain.errors import ImageNotFound, NbcontainError, UsageError, VolumeNotFound, did_you_mean, together
from nbcontain.options import HelpAsked, argument, option, parse, with_defaults, words_of
from nbcontain.task import at_once
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.display.values import Verdict
    from nbcontain.engine import Engine

FORMAT_HELP = "a table of these columns, or a text for each: Go's templates, as docker's"


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. `aliases` are other names in its group, `top` its names on the terminal without the group."""

    group: str
    name: str
    help: str
    options: type
    function: Callable[[Engine, Any], object]
    aliases: tuple[str, ...] = ()
    top: tuple[str, ...] = ()
    begins: Callable[[Any], tuple[str, str] | None] = lambda options: None
    """Of what becomes a container: what its card says before it is begun with, a name and small print."""


_COMMANDS: list[Command] = []
"""Those of the modules that were imported so far."""
GROUPS = {
    "image": "images: make, list, look into, remove",
    "container": "containers: run, watch, stop, remove",
    "compose": "compose: several containers, described in one file",
    "kernel": "kernels: Jupyter's, run inside of images",
    "healthcheck": "health: check a container now",
    "network": "networks: make, join, look at",
    "volume": "volumes: directories that have names and outlive containers",
    "manifest": "manifest lists: one name for an image's platforms",
    "builder": "builder: what builds keep",
    "registry": "a registry of your own: a server for images, on this machine",
    "system": "the store itself: is it sound",
}

_OFTEN = ("run", "build", "ps", "images", "logs", "exec", "stop", "rm", "rmi", "pull", "push")
"""What people come for, first."""


def command(
    group: str, name: str, help: str, options: type, aliases: tuple[str, ...] = (), top: tuple[str, ...] = (),
    begins: Callable[[Any], tuple[str, str] | None] = lambda options: None,
) -> Callable[[Callable[[Engine, Any], object]], Callable[[Engine, Any], object]]:
    """Put the decorated function into the table."""

    def register(function: Callable[[Engine, Any], object]) -> Callable[[Engine, Any], object]:
        _COMMANDS.append(Command(group, name, help, options, function, aliases, top, begins))
        return function

    return register


def of_each(
    names: Sequence[str], act: Callable[[str], Sequence[str]], *, side_by_side: bool = False
) -> tuple[str, ...]:
    """What `act` did to each of these, by its lines. As with docker, what fails does not stop the rest.

    Raises the errors at the end, together, with what was done all the same. `side_by_side`, for what takes its time,
    none waits for another.
    """

    def outcome(name: str) -> Sequence[str] | NbcontainError:
        try:
            return act(name)
        except NbcontainError as error:
            return error

    outcomes = at_once(names, outcome, "each") if side_by_side else list(map(outcome, names))
    errors = [each for each in outcomes if isinstance(each, NbcontainError)]
    done = [line for each in outcomes if not isinstance(each, NbcontainError) for line in each]
    if errors:
        raise together(errors, done)
    return tuple(done)


def docker_line(verb: str, options: Any, *positionals: str) -> str:
    """What one types to docker for the same."""
    from nbcontain.display.words import command_line

    return f"docker {verb} {command_line((*words_of(options), *filter(None, positionals)))}".rstrip()


def commands() -> list[Command]:
    """All of them."""
    for name in sorted(os.listdir(os.path.dirname(__file__))):
        if name.endswith(".py") and not name.startswith("_"):
            import_module(f"{__package__}.{name.removesuffix('.py')}")
    return _COMMANDS


def find(group: str, word: str) -> Command | None:
    """The command that `word` means in `group`; group "" is the terminal, where docker's short words hold too."""
    module = INDEX.get(f"{group} {word}".lstrip())
    if module is not None:
        import_module(f"{__package__}.{module}")
    for each in _COMMANDS if module is not None else commands():
        if group and each.group == group and word in (each.name, *each.aliases):
            return each
        if not group and (word in each.top or (each.group == "nbcontain" and word == each.name)):
            return each
    return None


def parse_words(group: str, words: Sequence[str]) -> tuple[Command, Any]:
    """The command and its options that these words mean. Raises UsageError, and HelpAsked for --help."""
    prog = group or "nbcontain"
    if group in ("", "nbcontain") and words[:1] == ["buildx"] and len(words) > 1:
        # docker's plug-in, whose name every tutorial writes: its commands are these.
        words = [_OF_BUILDX.get(words[1], words[1]), *words[2:]]
        words = ["builder", *words] if words[0] in ("prune", "du") else words
    if group in ("", "nbcontain") and words and words[0] in GROUPS:
        group, prog, words = words[0], f"nbcontain {words[0]}", words[1:]
    if group == "nbcontain":
        group = ""
    if group == "compose":
        words = _behind(words)
    if words[:1] == ["help"] and find(group, "help") is None:
        words = [*words[1:], "--help"]
    if not words or words[0].startswith("-"):
        if words and words[0] in ("--help", "-h"):
            raise HelpAsked(told(group, prog))
        if words:
            raise UsageError(f"{prog}: {words[0]} comes before a command", hint=f"{prog} --help")
        raise UsageError(f"{prog}: which command?", why=overview(group), hint=f"{prog} COMMAND --help")
    found = find(group, words[0])
    if found is None:
        reason = KNOWN_VERBS.get(group, {}).get(words[0]) or KNOWN_VERBS["container" if not group else ""].get(words[0])
        if reason:
            raise UsageError(
                f"{prog}: docker's {words[0]} is not here", why=reason, hint=f"{prog} --help lists the commands"
            )
        own, others = _spellings(group)
        otherwise = f"did you mean {others[words[0]]}?" if words[0] in others else f"{prog} --help lists the commands"
        near = {} if words[0] in others else own
        hint = did_you_mean(words[0], near, otherwise, own.__getitem__)
        raise UsageError(f"{prog}: there is no command {words[0]!r}", hint=hint)
    options: Any = parse(
        found.options, f"{prog} {words[0]}", found.help, words[1:], KNOWN_FLAGS.get(f"{found.group} {found.name}", {})
    )
    return found, options


_OF_BUILDX = {"b": "build"}
_COMMENT = re.compile(r"\s*#")
_BEFORE = {"-f": "--file", "-p": "--project-name"}
_ALSO_BEFORE = ("--file", "--project-name", "--project-directory", "--profile", "--env-file")


def _behind(words: Sequence[str]) -> list[str]:
    """docker compose takes the flags that say which project before the command: here they come behind it."""
    rest, moved = list(words), []
    while rest and rest[0].startswith("-"):
        flag, sign, value = rest[0].partition("=")
        if flag not in _BEFORE and flag not in _ALSO_BEFORE:
            break
        if not sign and len(rest) < 2:
            break
        moved.append(f"{_BEFORE.get(flag, flag)}={value if sign else rest[1]}")
        del rest[: 1 if sign else 2]
    return [*rest[:1], *moved, *rest[1:]]


def _spellings(group: str) -> tuple[dict[str, str], dict[str, str]]:
    """Every name of a command, and how it is written where `group` is: its own, and those of other groups.

    For the terminal's first word the groups, too.
    """
    own: dict[str, str] = {} if group else {name: name for name in GROUPS}
    others: dict[str, str] = {}
    for each in commands():
        is_plain = each.group in (group, "nbcontain")
        for name in (each.name, *each.aliases):
            (own if is_plain else others).setdefault(name, name if is_plain else f"{each.group} {each.name}")
        if not group:
            own.update((name, name) for name in each.top)
    return own, {name: text for name, text in others.items() if name not in own}


def overview(group: str = "") -> str:
    """A line a command: the help of a group, or of the terminal's first word."""
    import textwrap

    rows = sorted((each.name, each.help) for each in commands() if each.group == (group or "nbcontain"))
    if group:
        return _columns(rows)
    shorts = {word: each.help for each in commands() for word in each.top}
    often = [(word, shorts.pop(word)) for word in _OFTEN]
    parts = {
        "often needed": often, "groups of commands; each has --help": list(GROUPS.items()),
        "this machine and this program": rows,
    }  # fmt: skip
    width = max(len(name) for part in parts.values() for name, _ in part)
    texts = [f"{title}\n{_columns(part, width, indent=2)}" for title, part in parts.items()]
    others = textwrap.fill(" ".join(sorted(shorts)), 80, initial_indent="  ", subsequent_indent="  ")
    return "\n\n".join([*texts, f"docker's other short words\n{others}"])


def told(group: str, prog: str) -> str:
    """What --help of a group prints."""
    return f"usage: {prog} COMMAND [OPTIONS]\n\n{overview(group)}\n\n{prog} COMMAND --help tells more.\n"


def _columns(rows: Sequence[tuple[str, str]], width: int = 0, indent: int = 0) -> str:
    width = width or max(len(name) for name, _ in rows)
    return "\n".join(f"{' ' * indent}{name:<{width}}  {text}" for name, text in rows)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Nothing:
    """No options."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ListWords:
    quiet: bool = option("-q", "--quiet", help="only names")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Names:
    names: tuple[str, ...] = argument(help="names or ids", nargs="+", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class OneName:
    name: str = argument(help="a container")


def existence(find: Callable[[], object]) -> Verdict:
    """What podman's `exists` ends with: 0 if there is what `find` gives, 1 if it is not found."""
    from nbcontain.display.values import Lines, Verdict

    try:
        find()
    except (ImageNotFound, VolumeNotFound) as error:
        return Verdict(Lines((error.message,)), 1)
    return Verdict(Lines(()), 0)


def _without_escapes(line: str) -> str:
    """Without the backslash before $ and ` in double quotes, which a shell takes away, and shlex does not."""
    found, quote, rest = [], "", iter(line)
    for character in rest:
        if character == "\\" and quote != "'":
            following = next(rest, "")
            found.append(following if quote and following and following in "$`" else character + following)
            continue
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        found.append(character)
    return "".join(found)


def split(line: str) -> list[str]:
    """A magic's line as words, by the shell's rules for quotes and comments. Raises UsageError for an open quote."""
    import shlex
    from io import StringIO

    line = _without_escapes(line)
    lexer = shlex.shlex(rest := StringIO(line), posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        # shlex's own comments begin in the middle of a word, too.
        while _COMMENT.match(line, rest.tell()) is None and (word := lexer.get_token()) is not None:
            words.append(word)
    except ValueError as error:
        hint = "close the quote, or write \\' for a lone one"
        raise UsageError(f"cannot read {line!r}", why=str(error), hint=hint) from error
    return words
