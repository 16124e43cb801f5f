"""What a container may do: capabilities, the kernel's calls, and what is hidden – from what `run` was told. Pure."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import MappingProxyType

from nbcontain.errors import BadDocument, UsageError, did_you_mean
from nbcontain.linux.capabilities import CAPABILITIES as EVERY
from nbcontain.oci import strict_json
from nbcontain.oci.spec import SharedDocument
from nbcontain.options import option, with_defaults
from nbcontain.runtime.filters import filter_of
from nbcontain.runtime.hidden import MASKED, READONLY, thermal
from nbcontain.values import dataclass, field

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
"""Podman's eleven: Docker's fourteen without MKNOD, NET_RAW and AUDIT_WRITE."""

_ANCESTORS = {"x86_64": "386", "aarch64": "arm"}
_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ConfinementOptions:
    """What `run` and `create` can be told of it."""

    heading = "power and protection"

    cap_add: tuple[str, ...] = option("--cap-add", help="a capability more: NET_RAW, or ALL", metavar="CAPABILITY")
    cap_drop: tuple[str, ...] = option("--cap-drop", help="a capability less: CHOWN, or ALL", metavar="CAPABILITY")
    security_opt: tuple[str, ...] = option(
        "--security-opt",
        help="seccomp=unconfined|FILE.json, no-new-privileges, systempaths=unconfined, mask=PATHS, unmask=PATHS|ALL,"
        " apparmor=PROFILE, label=…",
        metavar="OPTION",
    )
    privileged: bool = option("--privileged", help="all power over this machine: no protection is left")


@dataclass(frozen=True, slots=True)
class Confinement:
    """All of that as the runtime specification has it."""

    capabilities: tuple[str, ...] = CAPABILITIES
    seccomp: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    no_new_privileges: bool = False
    masked: tuple[str, ...] = MASKED
    readonly: tuple[str, ...] = READONLY
    apparmor: str = ""
    label: str = ""


def confinement(options: ConfinementOptions, architecture: str, kernel: str, machine: str | None = None) -> Confinement:
    """What these options mean for an image of `architecture` (Go's word). Raises UsageError.

    `kernel` is the release of this machine's, `machine` uname's word for it.
    """
    machine = machine or os.uname().machine
    given = _Given.parse(options.security_opt)
    capabilities = capabilities_of(options.cap_add, options.cap_drop, privileged=options.privileged)
    masked, readonly = (MASKED + thermal(), READONLY)
    if options.privileged or given.shows_all:
        masked, readonly = (), ()
    profile = given.seccomp or ("unconfined" if options.privileged else "")
    return Confinement(
        capabilities=capabilities,
        seccomp=_seccomp(profile, capabilities, architecture, kernel, machine),
        no_new_privileges=given.no_new_privileges,
        masked=tuple(dict.fromkeys((*(each for each in masked if not given.shows(each)), *given.mask))),
        readonly=tuple(each for each in readonly if not given.shows(each)),
        apparmor=given.apparmor,
        label=_label(given.label),
    )


def capabilities_of(add: Sequence[str], drop: Sequence[str], *, privileged: bool = False) -> tuple[str, ...]:
    """The names, in the kernel's order, of what --cap-add and --cap-drop leave of the eleven. Raises UsageError.

    What is added stays, also where it is dropped; ALL is everything there is (docker's rules).
    """
    more, less = {_capability(each) for each in add}, {_capability(each) for each in drop}
    if "ALL" in more and "ALL" in less:
        raise UsageError("--cap-add ALL and --cap-drop ALL at once", hint="one of them")
    every = {f"CAP_{name}" for name in EVERY}
    if privileged:
        chosen = every
    elif "ALL" in less:
        chosen = more
    elif "ALL" in more:
        chosen = every - less
    else:
        chosen = {*CAPABILITIES} - less | more
    return tuple(f"CAP_{name}" for name in EVERY if f"CAP_{name}" in chosen)


def _capability(word: str) -> str:
    name = word.upper().removeprefix("CAP_")
    if name == "ALL":
        return name
    if name not in EVERY:
        hint = did_you_mean(name, EVERY, "NET_RAW, SYS_PTRACE … (capabilities(7)), or ALL")
        raise UsageError(f"there is no capability {word!r}", hint=hint)
    return f"CAP_{name}"


class _Given:
    """What --security-opt said, word by word."""

    def __init__(self) -> None:
        self.seccomp = self.apparmor = ""
        self.no_new_privileges = self.shows_all = False
        self.label: list[str] = []
        self.mask: list[str] = []
        self.unmask: list[str] = []

    @classmethod
    def parse(cls, words: Sequence[str]) -> _Given:
        given = cls()
        for word in words:
            given._take(word)
        return given

    def shows(self, path: str) -> bool:
        """Whether a path is to be as the kernel shows it."""
        return any(each in ("ALL", "all") or fnmatchcase(path, each) for each in self.unmask)

    def _take(self, word: str) -> None:
        # docker took NAME:VALUE as well, long ago; a path may hold both signs.
        match = re.fullmatch(r"([a-z-]+)(?:[=:](.*))?", word, re.DOTALL)
        name, value = (match[1], match[2]) if match else (word, None)
        match name:
            case "no-new-privileges" if value in (None, "true", "false"):
                self.no_new_privileges = value != "false"
            case "seccomp" if value:
                self.seccomp = value
            case "apparmor" if value:
                self.apparmor = _apparmor(value)
            case "label" if value:
                self.label.append(value)
            case "systempaths" if value == "unconfined":
                self.shows_all = True
            case "mask" if value:
                self.mask += [_absolute(each) for each in value.split(":")]
            case "unmask" if value:
                self.unmask += value.split(":")
            case _:
                raise UsageError(
                    f"--security-opt {word!r} is not known",
                    hint="seccomp=unconfined|FILE.json, no-new-privileges, systempaths=unconfined, mask=/a:/b, "
                    "unmask=ALL, apparmor=PROFILE, label=disable",
                )


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise UsageError(f"--security-opt mask={path}: {path!r} is not absolute")
    return path


def _apparmor(profile: str) -> str:
    if profile == "unconfined":
        return ""
    if not Path("/sys/kernel/security/apparmor").is_dir():
        raise UsageError(f"--security-opt apparmor={profile}: this kernel has no AppArmor", hint="leave it out")
    return profile


def _label(words: Sequence[str]) -> str:
    """SELinux's label of the program: label=type:… and so on change parts of the usual one."""
    parts = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}
    for word in words:
        name, _, value = word.partition(":")
        if word == "disable":
            return ""
        if name not in parts or not re.fullmatch(r"[\w.:,-]+", value):
            raise UsageError(
                f"--security-opt label={word}: that is no part of a label", hint="label=type:NAME, or disable"
            )
        parts[name] = value
    if words and not Path("/sys/fs/selinux/enforce").exists():
        raise UsageError(f"--security-opt label={words[0]}: this kernel has no SELinux", hint="leave it out")
    return ":".join(parts.values()) if words else ""


# --- the kernel's calls ---------------------------------------------------------------------------


def _seccomp(
    word: str, capabilities: tuple[str, ...], architecture: str, kernel: str, machine: str
) -> Mapping[str, object]:
    """`linux.seccomp` of config.json; an empty one where nothing is filtered."""
    if word == "unconfined":
        return _NOTHING
    if word in ("", "builtin", "default"):
        return _default(capabilities, machine, with_32_bit=architecture == _ANCESTORS.get(machine))
    from nbcontain.oci import seccomp as profiles

    try:
        with Path(word).expanduser().open("rb") as file:
            document = strict_json.load(file.read(strict_json.DOCUMENT_LIMIT + 1), "profile").values
        profile = profiles.from_docker(document, capabilities, machine, _version(kernel))
    except (OSError, BadDocument) as error:
        raise UsageError(
            f"--security-opt seccomp={word}: that is no profile",
            why=getattr(error, "strerror", None) or str(error),
            hint="unconfined, or a file of docker's form: {"
            + '"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}',
        ) from error
    if any(each == "SCMP_ACT_NOTIFY" for each in (profile.default_action, *(rule.action for rule in profile.rules))):
        raise UsageError(
            f"--security-opt seccomp={word}: nobody would answer SCMP_ACT_NOTIFY",
            why="it hands calls to a program that listens, and there is none",
            hint="SCMP_ACT_ERRNO refuses, SCMP_ACT_LOG lets through and writes it to the kernel's log",
        )
    written = profiles.to_json(profile)
    filter_of(written, machine)  # what is too much for the kernel is told now
    return written


@cache
def _default(capabilities: tuple[str, ...], machine: str, *, with_32_bit: bool) -> Mapping[str, object]:
    # Only now: what no container has been made of yet, no kernel waits for.
    from nbcontain.linux.seccomp_made import MADE

    if capabilities == capabilities_of((), ()) and not with_32_bit and machine in MADE:
        profile, packed = MADE[machine]
        document = SharedDocument(json.loads(profile))
        document.made = machine, bytes.fromhex(packed)
        return document
    from nbcontain.linux import seccomp, seccomp_default
    from nbcontain.oci import seccomp as profiles

    if machine not in seccomp.MACHINES:
        return _NOTHING
    return SharedDocument(profiles.to_json(seccomp_default.default(capabilities, machine, with_32_bit=with_32_bit)))


def _version(kernel: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", kernel)
    return (int(match[1]), int(match[2])) if match else (0, 0)
