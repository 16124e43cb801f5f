"""Who a program runs as: docker's USER words and the image's own /etc/passwd and /etc/group. Pure.

The host's name services are never asked: they would load libraries, and answer for the wrong machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from nbcontain.errors import UserNotFound
from nbcontain.oci.spec import Process, User
from nbcontain.runtime.annotations import GROUPS, USER
from nbcontain.values import dataclass, replace


@dataclass(frozen=True, slots=True)
class Identity:
    """A user in the container's numbers, and where it lives."""

    user: User
    home: str = "/"


def resolve(words: str, passwd: str, group: str, more_groups: str = "") -> Identity:
    """`words` is USER's `name|uid[:name|gid]`, "" for root; the texts are those of the image's files.

    A number need not be in the files. A given group replaces the user's own and its further ones; those of
    `more_groups`, with commas between them, are added. Raises UserNotFound.
    """
    who, _, with_group = words.partition(":")
    who = who or "0"
    row = next((fields for fields in _rows(passwd, 7) if _means(who, fields)), None)
    if row is None and not _is_number(who):
        raise UserNotFound(
            f"there is no user {who!r} in the image",
            path="/etc/passwd",
            why="/etc/passwd does not list it",
            hint="A number needs no entry (1000); in a Dockerfile, RUN useradd or adduser -D makes one.",
        )
    uid = int(row[2]) if row else int(who)
    gid = int(row[3]) if row else 0
    more: tuple[int, ...] = ()
    if with_group:
        gid = _group(with_group, group)
    elif row:
        more = tuple(int(fields[2]) for fields in _rows(group, 4) if row[0] in fields[3].split(","))
    more += tuple(_group(each, group) for each in more_groups.split(",") if each)
    return Identity(User(uid, gid, tuple(dict.fromkeys(more))), (row[5] if row else "") or "/")


def of_process(process: Process, annotations: Mapping[str, str], passwd: str, group: str) -> Identity:
    """Who a program runs as: whoever its annotations name, with its own umask; its own numbers where they name nobody.
    """
    words, groups = annotations.get(USER, ""), annotations.get(GROUPS, "")
    who = resolve(words, passwd, group, groups)
    user = replace(who.user, umask=process.user.umask) if words or groups else process.user
    return replace(who, user=user)


def owner(words: str, passwd: str, group: str) -> User:
    """Whom COPY, ADD and WORKDIR mean: a bare number is the group's number too."""
    return resolve(f"{words}:{words}" if words.isascii() and words.isdecimal() else words, passwd, group).user


def with_own_group(user: User) -> User:
    """Whoever is in a group is in it also where the primary one is changed (CVE-2022-36109)."""
    return replace(user, additional_gids=tuple(dict.fromkeys((user.gid, *user.additional_gids))))


def _group(word: str, group: str) -> int:
    found = next((fields for fields in _rows(group, 4) if _means(word, fields)), None)
    if found is None and not _is_number(word):
        raise UserNotFound(
            f"there is no group {word!r} in the image",
            path="/etc/group",
            why="/etc/group does not list it",
            hint="A number needs no entry (1000); RUN groupadd, or addgroup, makes one.",
        )
    return int(found[2]) if found else int(word)


def _rows(text: str, columns: int) -> list[list[str]]:
    """The well-formed lines: so many columns, and numbers where ids belong."""
    rows = [line.split(":") for line in text.splitlines()]
    numbers = (2, 3) if columns == 7 else (2,)
    return [row for row in rows if len(row) == columns and row[0] and all(_is_number(row[n]) for n in numbers)]


def _means(word: str, fields: list[str]) -> bool:
    # A number is an id, also where somebody has a number for a name (CVE-2016-3697).
    return int(fields[2]) == int(word) if _is_number(word) else fields[0] == word


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 2**32 - 1
