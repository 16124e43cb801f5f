"""Which manifest of an index is for which machine (image-spec image-index.md). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.errors import NoSuchPlatform, UsageError
from nbcontain.oci.image import Descriptor, Platform

_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armhf": "arm"}
_ARM = ("v8", "v7", "v6", "v5")


def parse(text: str) -> Platform:
    """os[/architecture[/variant]], or an architecture alone, as docker reads it. Raises UsageError."""
    parts = [part.lower() for part in text.split("/")]
    if (
        not text
        or len(parts) > 3
        or not all(part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in parts)
    ):
        raise UsageError(f"{text!r} is no platform", hint="linux/amd64, linux/arm64, linux/arm/v7 …")
    if len(parts) == 1:
        parts = ["linux", parts[0]] if parts[0] != "linux" else ["linux", Platform.here().architecture]
    architecture = _ALIASES.get(parts[1], parts[1])
    return normal(Platform(parts[0], architecture, parts[2] if len(parts) == 3 else ""))


def normal(platform: Platform) -> Platform:
    """arm64 is arm64/v8, arm is arm/v7, amd64/v1 is amd64."""
    variant = platform.variant
    match platform.architecture:
        case "arm64":
            variant = "" if variant in ("v8", "8") else variant
        case "arm":
            variant = variant or "v7"
        case "amd64":
            variant = "" if variant == "v1" else variant
    return Platform(platform.os, platform.architecture, variant)


def choose(entries: Sequence[Descriptor], wanted: Platform, name: str) -> Descriptor:
    """The best manifest for `wanted`: the same, or one that such a machine runs too. Raises NoSuchPlatform."""
    wanted = normal(wanted)
    ranked = []
    for position, entry in enumerate(entries):
        rank = _rank(normal(entry.platform), wanted) if entry.platform else None
        if rank is not None:
            ranked.append((rank, position, entry))
    if ranked:
        return min(ranked, key=lambda each: each[:2])[2]
    if len(entries) == 1 and entries[0].platform is None:
        return entries[0]
    there = sorted({str(entry.platform) for entry in entries if entry.platform and entry.platform.os != "unknown"})
    raise NoSuchPlatform(f"there is no {name} for {wanted}", why=f"there are: {', '.join(there) or 'none'}",
                         hint="--platform names another")  # fmt: skip


def fits(offered: Platform, wanted: Platform) -> bool:
    """Whether such a machine runs an image of that one; of one that says nothing, any does."""
    return not offered.architecture or _rank(normal(offered), normal(wanted)) is not None


def require(offered: Platform, wanted: Platform, name: str) -> None:
    """Raises NoSuchPlatform unless it fits."""
    if not fits(offered, wanted):
        raise NoSuchPlatform(f"{name} is for {offered}, and not for {normal(wanted)}",
                             hint="without --platform it is taken as it is")  # fmt: skip


def _rank(offered: Platform, wanted: Platform) -> int | None:
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    if offered.variant == wanted.variant:
        return 0
    if wanted.architecture == "arm" and offered.variant in _ARM and wanted.variant in _ARM:
        distance = _ARM.index(offered.variant) - _ARM.index(wanted.variant)
        return distance if distance > 0 else None
    if not offered.variant:
        return 1
    return None
