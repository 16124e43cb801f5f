"""The proxies that programs in containers and build steps are told of: docker's configuration, else this machine's own.

A proxy at this machine's loopback is somebody else's seen from a network namespace of its own; it is told only where
the network is shared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_FIELDS = {
    "httpProxy": "HTTP_PROXY", "httpsProxy": "HTTPS_PROXY", "ftpProxy": "FTP_PROXY", "noProxy": "NO_PROXY",
    "allProxy": "ALL_PROXY",
}  # fmt: skip
"""What config.json calls them below `proxies.default`, and what programs do."""
_VARIABLES = (*_FIELDS.values(), *(name.lower() for name in _FIELDS.values()))
"""The small ones last, which count."""
_AT_HOME = r"(?a)(?:\w+://)?(?:[^@/]*@)?(?:localhost|127\.[\d.]+|\[?::1\]?)(?::\d+)?/?"


def proxies(environ: Mapping[str, str], *, shares_network: bool) -> tuple[str, ...]:
    """NAME=value of each, in capitals and not, for the programs that only know one.

    A file that is damaged says nothing.
    """
    return told_of(environ, shares_network=shares_network)[0]


def told_of(environ: Mapping[str, str], *, shares_network: bool) -> tuple[tuple[str, ...], str]:
    """The same; and in words which of them are not told, "" if all are."""
    found = {each.upper(): value for each in _VARIABLES if each in environ and (value := environ[each])}
    found |= _configured(environ)
    near: list[str] = []
    if not shares_network:
        near = sorted(n for n, said in found.items() if n != "NO_PROXY" and re.fullmatch(_AT_HOME, said))
    found = {name: value for name, value in found.items() if name not in near}
    if found.keys() <= {"NO_PROXY"}:
        found = {}
    told = tuple(f"{each}={value}" for name, value in sorted(found.items()) for each in (name, name.lower()))
    if not near:
        return told, ""
    are = "is" if len(near) == 1 else "are"
    return told, f"{', '.join(near)} {are} not told: a network of its own does not reach this machine's loopback"


def with_proxies(build_args: tuple[str, ...], environ: Mapping[str, str], network: str) -> tuple[str, ...]:
    """The build arguments, and the proxies that they do not name."""
    given = {each.partition("=")[0].upper() for each in build_args}
    more = proxies(environ, shares_network=network in ("", "default", "host"))
    return (*(each for each in more if each.partition("=")[0].upper() not in given), *build_args)


def _configured(environ: Mapping[str, str]) -> dict[str, str]:
    directory = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", "/nonexistent"), ".docker")
    try:
        with open(f"{directory}/config.json", encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return {}
    import json

    try:
        said = json.loads(text)["proxies"]["default"]
        return {name: str(said[field]) for field, name in _FIELDS.items() if said.get(field)}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
