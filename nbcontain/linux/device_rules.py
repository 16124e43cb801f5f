"""Which devices a control group may use: rules, and the program that keeps them where version 2 has no files. Pure.

runtime-spec config-linux.md#allowed-device-list; kernel: cgroup-v1/devices, cgroup-v2 "Device controller", bpf(2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from nbcontain.errors import BadDocument
from nbcontain.oci.strict_json import Fields
from nbcontain.values import dataclass

ANY = -1
_ACCESS = {"m": 1, "r": 2, "w": 4}
"""As the kernel numbers them (BPF_DEVCG_ACC_…)."""
_EVERYTHING = 7
_TYPES = {"b": 1, "c": 2}
"""BPF_DEVCG_DEV_…"""


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """What may, or may not, be done with some devices. Of several rules the last one that speaks of a device counts."""

    allow: bool
    type: str = "a"
    """c, b, or a for all."""
    major: int = ANY
    minor: int = ANY
    access: str = "rwm"

    @property
    def is_everything(self) -> bool:
        return self.type == "a"

    def line(self) -> str:
        """As version 1 has it in devices.allow and devices.deny."""
        if self.is_everything:
            return "a"
        major, minor = ("*" if each == ANY else str(each) for each in (self.major, self.minor))
        return f"{self.type} {major}:{minor} {self.access}"

    def to_json(self) -> dict[str, object]:
        """As an entry of `resources.devices` in config.json."""
        document: dict[str, object] = {"allow": self.allow, "access": self.access}
        if not self.is_everything:
            document["type"] = self.type
        numbers = {"major": self.major, "minor": self.minor}
        return document | {name: number for name, number in numbers.items() if number != ANY}


USUAL = (
    DeviceRule(False),
    DeviceRule(True, "c", access="m"),
    DeviceRule(True, "b", access="m"),
    *(DeviceRule(True, "c", 1, minor) for minor in (3, 5, 7, 8, 9)),
    *(DeviceRule(True, "c", 5, minor) for minor in (0, 1, 2)),
    DeviceRule(True, "c", 136),
)
"""What every container may use: null, zero, full, random, urandom, tty, console, ptmx and terminals. Nodes of others
can be made, which opens nothing."""


def from_json(entries: Iterable[Fields]) -> tuple[DeviceRule, ...]:
    """`resources.devices` of config.json. Raises BadDocument."""
    return tuple(map(_rule, entries))


def _rule(fields: Fields) -> DeviceRule:
    kind, access = fields.text("type") or "a", fields.text("access") or "rwm"
    if kind not in ("a", "b", "c", "u"):
        raise BadDocument(f"{fields.place}.type must be a, b or c")
    if set(access) - set(_ACCESS):
        raise BadDocument(f"{fields.place}.access must be of r, w and m")
    numbers = [fields.number(name) for name in ("major", "minor")]
    major, minor = (ANY if number is None or number < 0 else number for number in numbers)
    return DeviceRule(fields.flag("allow"), "c" if kind == "u" else kind, major, minor, access)


def within(rules: Iterable[DeviceRule]) -> tuple[DeviceRule, ...]:
    """All that is in force for a container of which these are said: nothing but the usual devices besides."""
    rules = tuple(rules)
    if any(rule.allow and rule.is_everything and rule.access == "rwm" for rule in rules):
        return (DeviceRule(False), *rules)  # all of them are allowed, and so the usual ones
    return (DeviceRule(False), *rules, *USUAL[1:])


# --- the program of version 2 ---------------------------------------------------------------------

_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_WORD, _MOVE, _MOVE_NUMBER, _AND_NUMBER, _SHIFT_RIGHT = 0x61, 0xBF, 0xB7, 0x57, 0x77
_IF_NOT_NUMBER, _IF_NOT, _IF_NUMBER, _EXIT = 0x55, 0x5D, 0x15, 0x95
_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR, _SCRATCH = range(7)

_Key = tuple[str, int, int]


def settled(rules: Iterable[DeviceRule]) -> tuple[bool, Mapping[_Key, int]]:
    """What holds when all have been said: whether anything goes, and the exceptions from that, as bits of access.

    So it is in version 1, where the kernel does this itself.
    """
    anything, exceptions = True, dict[_Key, int]()
    for rule in rules:
        if rule.is_everything:
            anything = rule.allow
            exceptions.clear()
            continue
        key = (rule.type, rule.major, rule.minor)
        bits = sum(_ACCESS[letter] for letter in set(rule.access))
        if rule.allow == anything:
            exceptions[key] = exceptions.get(key, 0) & ~bits
        else:
            exceptions[key] = exceptions.get(key, 0) | bits
    return anything, {key: bits for key, bits in exceptions.items() if bits}


def program(rules: Iterable[DeviceRule]) -> bytes:
    """Instructions that give 1 for what is allowed and 0 for what is not (struct bpf_cgroup_dev_ctx)."""
    anything, exceptions = settled(rules)
    code = [
        _instruction(_LOAD_WORD, _TYPE, _CONTEXT, 0),
        _instruction(_MOVE, _WANTED, _TYPE),
        _instruction(_AND_NUMBER, _TYPE, number=0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, number=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for (kind, major, minor), bits in exceptions.items():
        code += _exception(kind, major, minor, bits, anything=anything)
    return b"".join([*code, *_verdict(anything)])


def _exception(kind: str, major: int, minor: int, bits: int, *, anything: bool) -> list[bytes]:
    tests: list[tuple[int, int, int, int]] = [(_IF_NOT_NUMBER, _TYPE, 0, _TYPES[kind])]
    body: list[bytes] = []
    if bits != _EVERYTHING or anything:
        body = [_instruction(_MOVE, _SCRATCH, _WANTED), _instruction(_AND_NUMBER, _SCRATCH, number=bits)]
        # An allowance has to be of all that is wanted at once, a ban of any of it.
        tests.append((_IF_NUMBER, _SCRATCH, 0, 0) if anything else (_IF_NOT, _SCRATCH, _WANTED, 0))
    tests += [(_IF_NOT_NUMBER, _MAJOR, 0, major)] * (major != ANY)
    tests += [(_IF_NOT_NUMBER, _MINOR, 0, minor)] * (minor != ANY)
    verdict = _verdict(not anything)
    code = list(body)
    for number, (test, left, right, value) in enumerate(tests):
        # To the next exception: over the tests that follow, and the verdict.
        code.append(_instruction(test, left, right, len(tests) - number - 1 + len(verdict), value))
    return code + verdict


def _verdict(allowed: bool) -> list[bytes]:
    return [_instruction(_MOVE_NUMBER, _RESULT, number=int(allowed)), _instruction(_EXIT)]


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | to, offset, number)
