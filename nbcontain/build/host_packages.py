"""Python packages of the environment that this code runs in, for a host image: which files, and where they lie there.

Nothing is fetched: what is installed here goes in, with what it requires, in the versions that are here.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from nbcontain.errors import BuildError
from nbcontain.values import dataclass

_DEBIAN = "/usr/lib/python3/dist-packages"
"""Where Debian's own Python looks, in place of site-packages (DebianPython policy)."""
_DATA = ("share/", "etc/")
_UNWANTED = ("__pycache__", "tests", "test")


@dataclass(frozen=True, slots=True)
class HostPackages:
    """The packages asked for, and those that they require: each name with its version."""

    versions: Mapping[str, str]
    roots: tuple[str, ...]
    """The directories that hold their modules here."""
    files: tuple[tuple[str, str], ...]
    """Each as a path here, and, of what lies in share and etc, its path from the prefix; "" for modules."""
    notices: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> HostPackages:
        """Those of the running environment. Raises BuildError for one that is not installed, or not as files."""
        from packaging.utils import canonicalize_name

        found: dict[str, metadata.Distribution] = {}
        seen: set[tuple[str, tuple[str, ...]]] = set()
        notices: list[str] = []
        waiting = [(name, "") for name in reversed(names)]
        while waiting:
            asked, by = waiting.pop()
            name, extras = _split(asked)
            key = canonicalize_name(name)
            try:
                distribution = found.get(key) or metadata.distribution(name)
            except metadata.PackageNotFoundError:
                if not by:
                    raise BuildError(
                        f"there is no Python package {name} here", why="packages go in as they are installed here",
                        hint=f"%pip install {name}",
                    ) from None  # fmt: skip
                notices.append(f"{by} requires {name}, which is not installed here")
                continue
            if (key, extras) in seen or (key in found and not extras):
                continue
            seen.add((key, extras))
            found[key] = distribution
            waiting += [(each, name) for each in _requirements(distribution, extras)]
        files: dict[str, str] = {}
        for distribution in found.values():
            own = list(_files(distribution))
            if not any(path.endswith((".py", ".so")) for path, _ in own):
                notices.append(f"{distribution.name} stays out: it is installed as a link to where it is worked on")
                continue
            files.update(own)
        versions = {each.name: each.version for each in found.values()}
        roots = tuple(sorted({_root(each) for each in found.values()}))
        return cls(dict(sorted(versions.items())), roots, tuple(sorted(files.items())), tuple(notices))


def packages_directory(stdlib: str) -> str:
    """Where the Python with this standard library looks for packages that belong to it."""
    if os.path.dirname(os.path.realpath(stdlib)) == "/usr/lib" and os.path.isdir(_DEBIAN):
        return _DEBIAN
    return f"{stdlib}/site-packages"


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    """NAME or NAME[extra,…]. Raises BuildError."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        asked = Requirement(text)
    except InvalidRequirement as error:
        raise BuildError(f"{text} is no name of a Python package", why=str(error).splitlines()[0]) from error
    return asked.name, tuple(sorted(asked.extras))


def _requirements(distribution: metadata.Distribution, extras: Sequence[str]) -> list[str]:
    """What it requires here, with these extras: NAME[extras] each."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for text in distribution.requires or ():
        try:
            each = Requirement(text)
        except InvalidRequirement:
            continue
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found.append(f"{each.name}[{','.join(sorted(each.extras))}]" if each.extras else each.name)
    return found


def _root(distribution: metadata.Distribution) -> str:
    return os.path.realpath(str(distribution.locate_file("")))


def _files(distribution: metadata.Distribution) -> Iterator[tuple[str, str]]:
    """What was installed of it: modules and metadata, and what it keeps in share and etc. Scripts name this Python."""
    root, prefix = _root(distribution), os.path.realpath(sysconfig.get_path("data"))
    for each in distribution.files or ():
        path = os.path.normpath(str(each.locate()))
        if any(part in _UNWANTED for part in each.parts) or each.suffix == ".pyc" or not os.path.isfile(path):
            continue
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if real.startswith(f"{root}/"):
            yield real, ""
        elif real.startswith(tuple(f"{prefix}/{name}" for name in _DATA)):
            yield real, os.path.relpath(real, prefix)
