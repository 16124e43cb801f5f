"""Which calls of the kernel a container may make, as OCI (runtime-spec config-linux.md#seccomp) and docker write it.

Loaded by no process that a container is forked from: those only ever see the compiled filter.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from nbcontain.errors import BadDocument
from nbcontain.oci.strict_json import Fields
from nbcontain.values import dataclass

ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
)
OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
"""Their bits (seccomp(2))."""
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OWN_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_MAX_ERRNO = 4095


@dataclass(frozen=True, slots=True)
class Argument:
    """A condition on one argument of a call. For MASKED_EQ `value` is the mask and `value_two` what has to be left."""

    index: int
    value: int
    operator: str = "SCMP_CMP_EQ"
    value_two: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to calls of these names. Conditions on different arguments all have to hold.

    Several conditions on one and the same argument are alternatives, as every runtime has it.
    """

    names: tuple[str, ...]
    action: str
    errno: int | None = None
    """Only of ERRNO and TRACE; EPERM where it is None."""
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class Seccomp:
    """A whole profile, for one machine and one set of capabilities."""

    default_action: str
    default_errno: int | None = None
    architectures: tuple[str, ...] = ()
    """Besides the machine's own."""
    flags: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


def to_json(profile: Seccomp) -> dict[str, object]:
    """`linux.seccomp` of config.json."""
    document: dict[str, object] = {
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno,
        "architectures": list(profile.architectures),
        "flags": list(profile.flags),
        "syscalls": [_rule_json(rule) for rule in profile.rules],
    }
    return {key: value for key, value in document.items() if value not in (None, [])}


def _rule_json(rule: Rule) -> dict[str, object]:
    document: dict[str, object] = {"names": list(rule.names), "action": rule.action}
    if rule.errno is not None:
        document["errnoRet"] = rule.errno
    if rule.arguments:
        document["args"] = [
            {"index": each.index, "value": each.value, "valueTwo": each.value_two, "op": each.operator}
            for each in rule.arguments
        ]
    return document


def from_json(document: object) -> Seccomp:
    """The inverse of `to_json`; raises BadDocument."""
    top = Fields(document, "seccomp")
    return _profile(top, top.texts("architectures") or (), top.objects("syscalls"))


def from_docker(document: object, capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> Seccomp:
    """Docker's form of it, whose rules may hang on capabilities, machines and kernels. Raises BadDocument.

    `machine` is uname's word, `kernel` the first two numbers of its release.
    """
    top = Fields(document, "seccomp")
    architectures = top.texts("architectures") or ()
    maps = top.objects("archMap")
    if architectures and maps:
        raise BadDocument("seccomp has both architectures and archMap", hint="docker takes one of them only")
    own = _OWN_ARCHITECTURES.get(machine, "")
    for each in maps:
        if each.text("architecture") == own:
            architectures = (own, *(each.texts("subArchitectures") or ()))
    world = _World(frozenset(capabilities), _GO_ARCHITECTURES.get(machine, machine), kernel)
    return _profile(top, architectures, [each for each in top.objects("syscalls") if world.has(each)])


@dataclass(frozen=True, slots=True)
class _World:
    """What `includes` and `excludes` of docker's rules are about."""

    capabilities: frozenset[str]
    architecture: str
    kernel: tuple[int, int]

    def has(self, rule: Fields) -> bool:
        excludes, includes = rule.object("excludes"), rule.object("includes")
        if self.architecture in (excludes.texts("arches") or ()) or self._is_newer(excludes, otherwise=False):
            return False
        if self.capabilities & frozenset(excludes.texts("caps") or ()):
            return False
        if (arches := includes.texts("arches")) and self.architecture not in arches:
            return False
        return self._is_newer(includes, otherwise=True) and self.capabilities >= frozenset(includes.texts("caps") or ())

    def _is_newer(self, condition: Fields, *, otherwise: bool) -> bool:
        text = condition.text("minKernel")
        if not text:
            return otherwise
        if not (match := re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text)):
            raise BadDocument(f"{condition.place}.minKernel must be like 4.8")
        return self.kernel >= (int(match[1]), int(match[2]))


def _profile(top: Fields, architectures: tuple[str, ...], rules: list[Fields]) -> Seccomp:
    flags = top.texts("flags") or ()
    if unknown := [flag for flag in flags if flag not in FLAGS]:
        raise BadDocument(f"seccomp.flags: {unknown[0]} is not known")
    return Seccomp(
        default_action=_word(top, "defaultAction", ACTIONS),
        default_errno=_errno(top, "defaultErrnoRet"),
        architectures=architectures,
        flags=flags,
        rules=tuple(map(_rule, rules)),
    )


def _rule(fields: Fields) -> Rule:
    names = fields.texts("names") or ()
    if name := fields.text("name"):
        if names:
            raise BadDocument(f"{fields.place} has both name and names")
        names = (name,)
    return Rule(
        names,
        _word(fields, "action", ACTIONS),
        _errno(fields, "errnoRet"),
        tuple(_argument(each) for each in fields.objects("args")),
    )


def _argument(fields: Fields) -> Argument:
    index = fields.count("index")
    if index > 5:
        raise BadDocument(f"{fields.place}.index: a call has six arguments, from 0 on")
    operator = _word(fields, "op", OPERATORS)
    return Argument(index, _number(fields, "value"), operator, _number(fields, "valueTwo"))


def _word(fields: Fields, key: str, known: Collection[str]) -> str:
    text = fields.text(key, required=True)
    if text not in known:
        raise BadDocument(f"{fields.place}.{key}: {text!r} is not known", hint=", ".join(sorted(known)))
    return text


def _errno(fields: Fields, key: str) -> int | None:
    if fields.values.get(key) is None:
        return None
    if (number := fields.count(key)) > _MAX_ERRNO:
        raise BadDocument(f"{fields.place}.{key} must be at most {_MAX_ERRNO}")
    return number


def _number(fields: Fields, key: str) -> int:
    """Any 64 bits: other than elsewhere, the highest one may be set."""
    value = fields.values.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise BadDocument(f"{fields.place}.{key} must be a number of 64 bits")
    return value
