"""registries.conf, as podman, buildah and skopeo read it (containers-registries.conf(5), version 2, and version 1).

Where a name's bytes come from (`location`, mirrors), what may not be pulled (`blocked`), which registries are spoken to
without TLS, and what a name without a registry means.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from nbcontain.errors import UsageError
from nbcontain.oci.reference import Reference
from nbcontain.values import dataclass, field

When = Literal["all", "digest-only", "tag-only"]
_LIMIT = 1 << 20
_WHENS = ("all", "digest-only", "tag-only")
_PLACE = re.compile(r"[A-Za-z0-9.\-\[\]:_]+(?:/[A-Za-z0-9._/\-:@]*)?")
_SHORT = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule's names can be fetched: host[:port][/path]."""

    location: str
    insecure: bool = False
    when: When = "all"


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[registry]]: what holds for the names that begin with `prefix`, or are of a host below `*.prefix`."""

    prefix: str
    location: str = ""
    """Where they really are; empty: where their name says."""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Place, ...] = ()

    def fits(self, name: str) -> bool:
        """Whether a whole name, with its tag and digest, is one of this rule's."""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].partition(":")[0].endswith(self.prefix[1:])
        return name == self.prefix or (name.startswith(self.prefix) and name[len(self.prefix)] in "/:@")

    def moved(self, name: str, location: str) -> str:
        """The name with the rule's prefix replaced by a location."""
        if not location or self.prefix.startswith("*."):
            return location or name
        return location + name[len(self.prefix) :]


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """All that the files say, put together."""

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] | None = None
    """unqualified-search-registries; None where nobody says anything."""
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def rule_for(self, reference: Reference) -> Rule | None:
        """The rule with the longest prefix that fits."""
        name = str(reference)
        return max((each for each in self.rules if each.fits(name)), key=lambda each: len(each.prefix), default=None)

    def places(self, reference: Reference) -> list[Place]:
        """Where to fetch a name, in order: its rule's mirrors, then its location. Locations are whole names."""
        rule = self.rule_for(reference)
        if rule is None:
            return []
        is_digest = reference.digest is not None
        name = str(reference)
        return [
            *(
                Place(rule.moved(name, mirror.location), mirror.insecure)
                for mirror in rule.mirrors
                if mirror.when == "all" or (mirror.when == "digest-only") == is_digest
            ),
            Place(rule.moved(name, rule.location), rule.insecure),
        ]

    def meant(self, text: str) -> tuple[str, ...]:
        """What a name that was typed may mean, in order: itself, unless it has no registry and somebody said more.

        Aliases too hold only where there are `search` registries: distributions hand out hundreds of them, and
        without being asked names mean what they mean to docker.
        """
        repository, mark, rest = _split(text)
        first = repository.partition("/")[0]
        is_host = bool(set(first) & set(".:")) or first == "localhost" or first != first.lower()
        if self.search is None or ("/" in repository and is_host):
            return (text,)
        if alias := self.aliases.get(repository):
            return (f"{alias}{mark}{rest}",)
        return tuple(f"{host}/{text}" for host in self.search) or (text,)

    def over(self, other: RegistriesConf) -> RegistriesConf:
        """The two together, where this one is read after `other` and wins."""
        own = {each.prefix for each in self.rules}
        aliases = {name: value for name, value in {**other.aliases, **self.aliases}.items() if value}
        search = other.search if self.search is None else self.search
        return RegistriesConf(
            (*(each for each in other.rules if each.prefix not in own), *self.rules), search, aliases
        )


NOTHING = RegistriesConf()


def load(environ: Mapping[str, str], config_home: Path, system: Path = Path("/etc")) -> RegistriesConf:
    """What is configured on this machine: the user's file, or the system's; then the drop-ins of both, by name.

    Raises UsageError for a file that cannot be read: what it may forbid is not to be passed over.
    """
    named = environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH")
    if named:
        return _read(Path(named))
    own = config_home / "containers/registries.conf"
    found = _read(own if os.path.exists(own) else system / "containers/registries.conf")
    for directory in (system / "containers/registries.conf.d", config_home / "containers/registries.conf.d"):
        if os.path.isdir(directory):
            for path in sorted(directory.glob("*.conf")):
                found = _read(path).over(found)
    return found


def _read(path: Path) -> RegistriesConf:
    try:
        with path.open("rb") as file:
            return parse(file.read(_LIMIT + 1))
    except FileNotFoundError:
        return NOTHING
    except (OSError, UsageError) as error:
        why = error.message if isinstance(error, UsageError) else error.strerror or ""
        raise UsageError(f"cannot read {path}", why=why, hint="man containers-registries.conf") from error


def parse(data: bytes) -> RegistriesConf:
    """The text of one file. Raises UsageError."""
    if len(data) > _LIMIT:
        raise UsageError("the file is larger than a megabyte")
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError("it is not TOML", why=str(error)) from error
    if isinstance(document.get("registries"), dict):
        return _version_1(document["registries"])
    tables = document.get("registry", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise UsageError("[[registry]] is an array of tables")
    rules = tuple(map(_rule, tables))
    if len({each.prefix for each in rules}) < len(rules):
        raise UsageError("two [[registry]] have one prefix")
    search = document.get("unqualified-search-registries")
    aliases = document.get("aliases", {})
    if not isinstance(aliases, dict):
        raise UsageError("[aliases] is a table")
    return RegistriesConf(
        rules, None if search is None else _hosts(search, "unqualified-search-registries"),
        {_alias(name): _alias_value(value) for name, value in aliases.items()},
    )  # fmt: skip


def _rule(table: Mapping[str, Any]) -> Rule:
    location = _place(table, "location")
    prefix = _text(table, "prefix") or location
    bare = prefix.removeprefix("*.")
    if not prefix or not _PLACE.fullmatch(bare) or (bare != prefix and "/" in bare):
        raise UsageError(f"{prefix!r} is no prefix", hint="host[:port][/namespace…] or *.host")
    by_digest = _flag(table, "mirror-by-digest-only")
    mirrors = table.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(each, dict) for each in mirrors):
        raise UsageError("[[registry.mirror]] is an array of tables")
    return Rule(
        prefix, location, _flag(table, "insecure"), _flag(table, "blocked"),
        tuple(_mirror(each, "digest-only" if by_digest else "all") for each in mirrors),
    )  # fmt: skip


def _mirror(table: Mapping[str, Any], usual: When) -> Place:
    location = _place(table, "location")
    if not location:
        raise UsageError("a [[registry.mirror]] has no location")
    when = _text(table, "pull-from-mirror") or usual
    if when not in _WHENS:
        raise UsageError(f"pull-from-mirror = {when!r}", hint=", ".join(_WHENS))
    return Place(location, _flag(table, "insecure"), "all" if when == "all" else _narrow(when))


def _narrow(when: str) -> When:
    return "digest-only" if when == "digest-only" else "tag-only"


def _version_1(registries: Mapping[str, Any]) -> RegistriesConf:
    """The old form: [registries.search], [registries.insecure] and [registries.block], each with `registries`."""

    def hosts(name: str) -> tuple[str, ...]:
        table = registries.get(name, {})
        return _hosts(table.get("registries", []) if isinstance(table, dict) else table, f"registries.{name}")

    insecure, blocked = hosts("insecure"), hosts("block")
    rules = tuple(
        Rule(host, host, host in insecure, host in blocked) for host in dict.fromkeys((*insecure, *blocked))
    )
    return RegistriesConf(rules, hosts("search") or None)


def _split(text: str) -> tuple[str, str, str]:
    """repository, the sign that ends it, and its tag or digest."""
    cut = min((at for at in (text.find("@"), text.find(":", text.rfind("/") + 1)) if at >= 0), default=len(text))
    return text[:cut], text[cut : cut + 1], text[cut + 1 :]


def _hosts(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UsageError(f"{what} is a list of hosts")
    for each in value:
        if not isinstance(each, str) or not _PLACE.fullmatch(each):
            raise UsageError(f"{what}: {each!r} is no host")
    return tuple(value)


def _place(table: Mapping[str, Any], name: str) -> str:
    text = _text(table, name)
    if text and not _PLACE.fullmatch(text):
        raise UsageError(f"{name} = {text!r} is no host[:port][/path]")
    return text.rstrip("/")


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise UsageError(f"{name} is a text")
    return value


def _flag(table: Mapping[str, Any], name: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"{name} is true or false")
    return value


def _alias(name: str) -> str:
    if not _SHORT.fullmatch(name) or "." in name.partition("/")[0]:
        raise UsageError(f"{name!r} is no short name")
    return name


def _alias_value(value: object) -> str:
    if not isinstance(value, str) or (value and ("/" not in value or not _PLACE.fullmatch(value))):
        raise UsageError(f"{value!r} is no name that an alias can mean")
    return value
