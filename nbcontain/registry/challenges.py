"""What registries say in headers, as values: auth challenges, links to a next page, when to come again. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from nbcontain.values import dataclass

RETRY_AFTER_LIMIT_S = 120.0
_HEADER_LIMIT = 8192
_DATE_LIMIT = 100
# Whoever answers chooses these texts, and nothing interrupts a regular expression. So each of these takes its text in
# one way only (`++` and `*+` never give back), and a time that grows with its length alone.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PARAMETER = re.compile(rf'[\s,]*+({_TOKEN})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|({_TOKEN}))')
_SCHEME = re.compile(rf"[\s,]*+({_TOKEN})(?=\s|,|$)(?!\s*+=)")
_LINK = re.compile(r'\s*+<([^<>]*+)>((?:[^,"]|"[^"]*+")*+)(?:,|$)')
_ATTRIBUTE = re.compile(r';\s*+([^=;"\s]*+)\s*+=?\s*+("[^"]*+"|[^;"\s]*+)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to say who one is (RFC 9110 § 11.6.1): a scheme in lowercase, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """`Bearer realm="…",service="…"`, several of them too. What cannot be read ends the list; never raises."""
    found: list[Challenge] = []
    position, text = 0, header[:_HEADER_LIMIT]
    while match := _SCHEME.match(text, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            quoted, plain = parameter[2], parameter[3]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(parameter[1].lower(), value)
            position = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
    return tuple(found)


def next_link(header: str) -> str | None:
    """The target of `<…>; rel="next"` (RFC 8288), not resolved."""
    position, text = 0, header[:_HEADER_LIMIT]
    while position < len(text) and (match := _LINK.match(text, position)):
        if any(name == "rel" and value.strip('"') == "next" for name, value in _ATTRIBUTE.findall(match[2])):
            return match[1]
        position = match.end()
    return None


def retry_after_s(header: str, now: datetime | None = None) -> float | None:
    """Seconds, or a date (RFC 9110 § 10.2.3), as seconds from now; at most RETRY_AFTER_LIMIT_S, None if unreadable."""
    text = header[:_DATE_LIMIT].strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), RETRY_AFTER_LIMIT_S)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, (when - (now or datetime.now(UTC))).total_seconds()), RETRY_AFTER_LIMIT_S)


def merged_scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Scopes with the actions of one resource put together: repository:a:pull and :push become one, sorted."""
    actions: dict[str, set[str]] = {}
    for scope in " ".join(scopes).split():
        resource, colon, wanted = scope.rpartition(":")
        if colon:
            actions.setdefault(resource, set()).update(wanted.split(","))
    return tuple(f"{resource}:{','.join(sorted(wanted))}" for resource, wanted in sorted(actions.items()))
