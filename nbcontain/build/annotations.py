"""--annotation: what is said of an image in its manifest, its index, or their descriptors, as buildx reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nbcontain.errors import UsageError
from nbcontain.oci.image import Platform
from nbcontain.values import dataclass, field

LEVELS = ("manifest", "index", "manifest-descriptor", "index-descriptor")
_LEVEL = re.compile(r"(?P<level>[a-z-]+)(?:\[(?P<platform>[A-Za-z0-9_/-]+)\])?")
_HINT = "--annotation [manifest|index|manifest-descriptor|index-descriptor][PLATFORM]:KEY=VALUE"


@dataclass(frozen=True, slots=True)
class Annotations:
    """By what they are said of."""

    manifest: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, str] = field(default_factory=dict)
    manifest_descriptor: Mapping[str, str] = field(default_factory=dict)
    index_descriptor: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_index(self) -> bool:
        return bool(self.index or self.index_descriptor)


def annotations_of(words: Sequence[str], platform: Platform) -> Annotations:
    """Read [LEVEL[[PLATFORM]],…:]KEY=VALUE, as far as it is meant for this platform. Raises UsageError."""
    found: dict[str, dict[str, str]] = {level: {} for level in LEVELS}
    for word in words:
        name, _, value = word.partition("=")
        prefix, colon, key = name.partition(":")
        levels = [_LEVEL.fullmatch(each) for each in prefix.split(",")] if colon else []
        if not levels or not all(levels):
            # No level could be written like this: the colon belongs to the key.
            levels, key = [_LEVEL.fullmatch("manifest")], name
        if not key:
            raise UsageError(f"--annotation {word!r} has no key", hint=_HINT)
        for match in levels:
            assert match is not None
            if match["level"] not in LEVELS:
                raise UsageError(f"--annotation {word}: there is no level {match['level']}", hint=_HINT)
            if match["platform"] and match["platform"] != str(platform):
                continue
            found[match["level"]][key] = value
    return Annotations(*(found[level] for level in LEVELS))
