"""What the documentation says of itself: each command that it shows is one, each link within it leads somewhere.

A command is one if its noun, its verb and its flags are in the table of commands.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nbcontain.commands import parse_words, split
from nbcontain.commands.builds import DockerfileWords
from nbcontain.docker_words import KNOWN_FLAGS
from nbcontain.errors import UsageError
from nbcontain.options import HelpAsked, parse

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])
GROUPS = "compose|container|image|kernel|network|nbcontain|volume"
_FENCED = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf"(?<!`)`(%{{0,2}}(?:{GROUPS}|dockerfile) [^`]+)`(?!`)")
_MAGIC = re.compile(rf"^(?:[\w.]+\s*=\s*)?(%%?(?:{GROUPS}|dockerfile)\b.*)", re.MULTILINE)
_TYPED = re.compile(r"^\s*(?:\$ |\w+=\S+ )*(nbcontain .*)", re.MULTILINE)


def shown(text: str) -> list[str]:
    """The commands of a page: `%container …` or `nbcontain …`, from its blocks and from within its sentences."""
    found: list[str] = []
    for block in _FENCED.finditer(text):
        body = block["body"].replace("\\\n", " ")
        found += _MAGIC.findall(body)
        found += [each for line in _TYPED.findall(body) for each in simple_commands(line)]
    rest = _FENCED.sub("", text)
    found += re.findall(rf"^    (%%?(?:{GROUPS}|dockerfile) .*)", rest, re.MULTILINE)
    return found + [part for each in _INLINE.findall(" ".join(rest.split())) for part in alternatives(each)]


def simple_commands(line: str) -> list[str]:
    """The commands of a shell's line that are ours."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|()<>"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [shlex.join(words) for words in commands if words[:1] == ["nbcontain"]]


def alternatives(command: str) -> list[str]:
    """`kernel add|ls|rm NAME` is three; what stands in brackets of its own may be there, so it is."""
    command = re.sub(r"\|…|(?<=\w)\[[^\]]*\]", "", command).replace("[", " ").replace("]", " ")
    verbs = re.search(r"(?<= )\w+(?:\|\w+)+", command)
    return [command.replace(verbs[0], each, 1) for each in verbs[0].split("|")] if verbs else [command]


def understood(command: str) -> str:
    """Why a command cannot be parsed, or "". A name that stands for any verb, and words left out, are no mistakes."""
    try:
        name, *words = split(command.replace("…", "X"))
        noun = name.lstrip("%")
        if noun == "dockerfile":
            parse(DockerfileWords, "%%dockerfile", "", words, KNOWN_FLAGS["image build"])
        elif name.startswith("%%") and noun == "compose":
            parse_words("compose", words if words and not words[0].startswith("-") else ["up", *words])
        elif not any(word.isupper() for word in words[:2]) and words[:1] not in ([], ["alias"], ["shim"]):
            parse_words("" if noun == "nbcontain" else noun, words)
    except UsageError as error:
        if not re.search("the following arguments are required|which command", str(error)):
            return str(error)
    except HelpAsked:
        pass
    return ""


def dead_links(path: Path, text: str) -> list[str]:
    """The links of a page to files that there are not, or to headings that they do not have."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", _FENCED.sub("", text))):
        name, _, part = link.partition("#")
        target = path.parent / name if name else path
        if re.match(r"[a-z]+:", link) or (target.exists() and not part):
            continue
        if not target.exists() or part not in headings(text if not name else target.read_text()):
            dead.append(link)
    return dead


def headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub and MyST make them of its headings."""
    found = re.findall(r"^#+ (.*)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in found}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_commands_of_a_page_are_commands(path: Path) -> None:
    wrong = {each: said for each in shown(path.read_text()) if (said := understood(each))}
    assert wrong == {}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_links_of_a_page_lead_somewhere(path: Path) -> None:
    assert dead_links(path, path.read_text()) == []


def test_a_link_that_leads_nowhere_is_seen() -> None:
    text = "[a](docs/nothing.md) [b](docs/python.md#no-such-part) [c](#here) [d](https://x.test) `[e](no.md)`\n# Here"
    assert dead_links(CHECKOUT / "README.md", text) == ["docs/nothing.md", "docs/python.md#no-such-part"]


def test_what_is_no_command_is_seen() -> None:
    page = (
        "```console\n$ nbcontain ps --al && nbcontain fly web\n```\n"
        "```python\nc = %container run --no-such \\\n  host\n%%dockerfile --oops\n```\n"
        "and `%image lss` or `nbcontain volume ls|sl` or `image layers --deeply NAME`\n"
    )
    assert [each for each in shown(page) if not understood(each)] == ["nbcontain volume ls"]
    assert len(shown(page)) == 8
