"""What a Dockerfile can be told from outside: --build-arg, and the arguments that every build has."""

from __future__ import annotations

from collections.abc import Mapping

from nbcontain.build.graph import Sandbox
from nbcontain.dockerfile.lines import is_own_syntax
from nbcontain.dockerfile.nearest import nearest
from nbcontain.dockerfile.words import expand
from nbcontain.errors import DockerfileError, UsageError
from nbcontain.oci.image import Platform
from nbcontain.oci.spec import Rlimit
from nbcontain.runtime import hosts, limits

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXIES = (*_PROXIES, *map(str.lower, _PROXIES))
"""Predefined: usable without ARG, part neither of the history nor of a cache key."""

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "i386": "386",
    "i686": "386",
}

_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_KNOWN = frozenset({
    "386", "amd64", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc",
    "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm",
})  # fmt: skip
"""Go's: what may stand without linux/ in front, as only then it is clear what it is."""


def parse_platform(text: str) -> Platform:
    """Read os[/architecture[/variant]] or an architecture alone. Raises UsageError."""
    here = Platform.here()
    parts = text.lower().split("/")
    if not all(part.replace("-", "").replace("_", "").isalnum() for part in parts) or len(parts) > 3:
        raise UsageError(f"{text!r} is no platform", hint="It reads linux/amd64, or linux/arm64/v8.")
    if len(parts) == 1 and _ARCHITECTURES.get(parts[0], parts[0]) in _KNOWN:
        parts.insert(0, "linux")
    elif len(parts) == 1 and parts[0] not in _SYSTEMS:
        near = nearest(parts[0], sorted({*_KNOWN, *_ARCHITECTURES}))
        hint = f"did you mean {near}?" if near else "It reads linux/amd64, or linux/arm64/v8."
        raise UsageError(f"{text!r} is no platform", why="there is no such system or architecture", hint=hint)
    os, architecture, variant = (*parts, "", "")[:3]
    if os != "linux":
        raise UsageError(f"the platform {text!r} is not Linux", why="nbcontain runs Linux containers only")
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if not architecture:
        return here
    # arm64 means v8 and amd64 means v1: said or not, it is the same platform.
    if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    if architecture == "arm" and not variant:
        variant = "v7"
    return Platform("linux", architecture, variant)


def build_arguments(words: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    """The values of --build-arg K=V, and of --build-arg K from the environment. Raises UsageError."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or "\0" in word:
            raise UsageError(f"--build-arg {word!r} has no name", hint="--build-arg NAME=VALUE")
        if equals:
            values[name] = value
        elif name in environ:
            values[name] = environ[name]
    if not is_own_syntax(values.get("BUILDKIT_SYNTAX", "")):
        raise UsageError(
            f"BUILDKIT_SYNTAX={values['BUILDKIT_SYNTAX']} is refused",
            why="it names a program to read the Dockerfile with; nbcontain reads docker/dockerfile itself",
        )
    return values


def explain_empty(error: DockerfileError, word: str, values: Mapping[str, str]) -> None:
    """Say of a word that came to nothing good which of its variables have no value."""
    missing: set[str] = set()
    expand(word, {name: value for name, value in values.items() if value}, missing=missing)
    if missing:
        first, verb = min(missing), "have" if len(missing) > 1 else "has"
        error.why = f"it reads {word}, and {' and '.join(sorted(missing))} {verb} no value"
        error.hint = f"ARG {first}=… before the first FROM, or --build-arg {first}=…"


def sandbox_of(add_hosts: tuple[str, ...], shm_size: str, ulimits: tuple[str, ...]) -> Sandbox | None:
    """What --add-host, --shm-size and --ulimit say; None where that is nothing. Raises UsageError."""
    made = Sandbox(
        hosts=tuple(hosts.added(each)[0] for each in add_hosts),
        shm_bytes=limits.size_bytes(shm_size, "--shm-size") if shm_size else 0,
        ulimits=tuple(sorted(_shown(each) for each in limits.ulimits(ulimits))),
    )
    return made if made != Sandbox() else None


def _shown(limit: Rlimit) -> str:
    soft, hard = (-1 if each == limits.UNLIMITED else each for each in (limit.soft, limit.hard))
    return f"{limit.type.removeprefix('RLIMIT_').lower()}={soft}:{hard}"


def allowed(words: tuple[str, ...]) -> tuple[str, ...]:
    """What --allow grants. Raises UsageError for what nobody can have."""
    known = ("device", "network.host", "onbuild.secrets")
    if unknown := [word for word in words if word not in known and not word.startswith("device=")]:
        raise UsageError(
            f"--allow {unknown[0]} cannot be given",
            why="no step has power over this machine" if unknown[0] == "security.insecure" else "",
            hint="There is device, device=NAME, network.host and onbuild.secrets.",
        )
    return words


def platform_arguments(build: Platform, target: Platform) -> dict[str, str]:
    """The arguments BUILDPLATFORM, TARGETARCH and their like; a stage sees them after ARG."""
    values: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        values |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": "",
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return values


def proxy_environment(values: Mapping[str, str]) -> tuple[str, ...]:
    """NAME=value of the given proxies, in both cases, for the programs that only know one."""
    found: dict[str, str] = {}
    for name in PROXIES:
        if name in values:
            found |= {name.upper(): values[name], name.lower(): values[name]}
    return tuple(f"{name}={value}" for name, value in sorted(found.items()))
