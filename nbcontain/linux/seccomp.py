"""From a seccomp profile to the program that the kernel runs at every call (seccomp(2), classic BPF). Pure.

The program looks at the machine first, then finds the call's number in a binary tree, then compares arguments
where a rule has conditions. It is written from its end to its beginning: every jump is forward, so that where it
goes is known by then.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path

from nbcontain.errors import UsageError
from nbcontain.oci.seccomp import FLAGS, Argument, Rule, Seccomp

NEW_LISTENER = 8
"""SECCOMP_FILTER_FLAG_NEW_LISTENER: calls are told on a descriptor, which loading it gives."""
MAX_INSTRUCTIONS = 4096
"""More the kernel does not take (BPF_MAXINSNS)."""

_MACHINES = {
    "SCMP_ARCH_X86_64": ("x86_64", 0xC000003E),
    "SCMP_ARCH_X86": ("i386", 0x40000003),
    "SCMP_ARCH_AARCH64": ("aarch64", 0xC00000B7),
    "SCMP_ARCH_ARM": ("arm", 0x40000028),
}
"""The column of the numbers, and what the kernel calls the machine (AUDIT_ARCH_… of linux/audit.h)."""
MACHINES = {"x86_64": ("SCMP_ARCH_X86_64", ("SCMP_ARCH_X86",)), "aarch64": ("SCMP_ARCH_AARCH64", ("SCMP_ARCH_ARM",))}
"""Those that filters can be made for: their own name, and those of the older machine whose programs they run."""
_X32_BIT = 0x4000_0000
_LITTLE = struct.Struct("=HBBI")

_LOAD, _JUMP, _IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16

KILL_PROCESS = 0x8000_0000
_ERRNO, _TRACE = 0x0005_0000, 0x7FF0_0000
_RETURNS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_NOTIFY": 0x7FC0_0000,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_ALLOW": 0x7FFF_0000,
}
_EPERM, _ENOSYS = 1, 38

_Chain = tuple[tuple[tuple[Argument, ...], int], ...]
"""What is asked of a call's arguments, one after the other, and what follows; the last one asks nothing."""


def program(profile: Seccomp, machine: str) -> bytes:
    """The instructions for `machine` (uname's word). Raises UsageError for what is too much for the kernel.

    Names that a machine does not know are passed over, as by every runtime: profiles name calls of all machines.
    Programs of another machine than the profile's are killed at their first call.
    """
    own, others = MACHINES[machine]
    code = _Code()
    default = _verdict(profile.default_action, profile.default_errno)
    sections = [(own, True)] + [(each, False) for each in others if each in profile.architectures]
    starts = []
    for name, is_own in reversed(sections):
        column, audit = _MACHINES[name]
        table = numbers()[column]
        starts.append((audit, _section(code, profile.rules, table, default, has_x32=column == "x86_64", wide=is_own)))
    code.emit(_RETURN, KILL_PROCESS)
    for audit, start in starts:
        code.emit(_JUMP, code.distance(start))
        code.emit(_IF_EQUAL, audit, 0, 1)
    code.emit(_LOAD, _MACHINE_AT)
    if code.position > MAX_INSTRUCTIONS:
        raise UsageError(
            f"the seccomp profile is a program of {code.position} instructions",
            why=f"the kernel takes {MAX_INSTRUCTIONS}",
            hint="fewer rules with conditions on arguments",
        )
    return code.bytes()


def flags(profile: Seccomp) -> int:
    """The bits that go with it to seccomp(2)."""
    bits = sum(FLAGS[flag] for flag in profile.flags)
    actions = (profile.default_action, *(rule.action for rule in profile.rules))
    # A program of one thread has nobody to be in step with, which does not go together with a listener.
    return bits & ~FLAGS["SECCOMP_FILTER_FLAG_TSYNC"] | NEW_LISTENER if "SCMP_ACT_NOTIFY" in actions else bits


@cache
def numbers() -> Mapping[str, Mapping[str, int]]:
    """The kernel's calls by machine and name, as tools/syscall_numbers.py found them in its headers."""
    first, *rows = Path(__file__).with_name("syscall_numbers.txt").read_text(encoding="ascii").splitlines()
    tables: dict[str, dict[str, int]] = {machine: {} for machine in first.split()[1:]}
    for name, *columns in map(str.split, rows):
        for table, number in zip(tables.values(), columns, strict=True):
            if number != "-":
                table[name] = int(number)
    return tables


def _verdict(action: str, errno: int | None) -> int:
    """What the program returns for an action (SECCOMP_RET_…)."""
    if action == "SCMP_ACT_ERRNO":
        return _ERRNO | (_EPERM if errno is None else errno)
    if action == "SCMP_ACT_TRACE":
        return _TRACE | (_EPERM if errno is None else errno)
    return _RETURNS[action]


# --- from rules to chains by number ---------------------------------------------------------------


def _section(
    code: _Code, rules: Iterable[Rule], table: Mapping[str, int], default: int, *, has_x32: bool, wide: bool
) -> int:
    """The part for one machine; gives where it begins."""
    chains = _chains(rules, table, default)
    entry = _tree(code, _intervals(chains, ((), default)), wide=wide)
    if has_x32:
        # The kernel knows these by the same machine's name. Nobody has such programs, and a list of what is
        # forbidden would not hold for them.
        entry = code.branch(_IF_AT_LEAST, _X32_BIT, code.leaf(_ERRNO | _ENOSYS), entry)
    return code.emit(_LOAD, _NUMBER_AT)


def _chains(rules: Iterable[Rule], table: Mapping[str, int], default: int) -> dict[int, _Chain]:
    """What is asked of each call that a rule names. A rule without conditions makes those with conditions moot."""
    chains: dict[int, list[tuple[tuple[Argument, ...], int]]] = {}
    for rule in rules:
        verdict = _verdict(rule.action, rule.errno)
        if verdict == default:
            continue  # as in libseccomp: what happens anyway is no rule
        for name in rule.names:
            if name in table:
                chains.setdefault(table[name], []).extend((each, verdict) for each in _alternatives(rule.arguments))
    return {number: _settled(chain, default) for number, chain in chains.items()}


def _alternatives(arguments: tuple[Argument, ...]) -> list[tuple[Argument, ...]]:
    indices = [each.index for each in arguments]
    if len(set(indices)) < len(indices):
        return [(each,) for each in arguments]
    return [arguments]


def _settled(chain: list[tuple[tuple[Argument, ...], int]], default: int) -> _Chain:
    for arguments, verdict in chain:
        if not arguments:
            return (((), verdict),)
    return (*dict.fromkeys(chain), ((), default))


def _intervals(chains: Mapping[int, _Chain], otherwise: tuple[tuple[Argument, ...], int]) -> list[tuple[int, _Chain]]:
    """Where each stretch of numbers with one and the same chain begins, from 0 on."""
    every: list[tuple[int, _Chain]] = [(0, (otherwise,))]
    for number in sorted(chains):
        if every[-1][0] == number:
            every.pop()
        every += [(number, chains[number]), (number + 1, (otherwise,))]
    return [next(group) for _, group in groupby(every, key=lambda each: each[1])]


# --- from chains to instructions ------------------------------------------------------------------


def _tree(code: _Code, intervals: list[tuple[int, _Chain]], *, wide: bool) -> int:
    """A binary search; gives where it begins."""
    if len(intervals) == 1:
        return _chain(code, intervals[0][1], wide=wide)
    middle = len(intervals) // 2
    right = _tree(code, intervals[middle:], wide=wide)
    left = _tree(code, intervals[:middle], wide=wide)
    return code.branch(_IF_AT_LEAST, intervals[middle][0], right, left)


def _chain(code: _Code, chain: _Chain, *, wide: bool) -> int:
    *conditional, (_, otherwise) = chain
    if not conditional:
        return code.leaf(otherwise)
    entry = code.emit(_RETURN, otherwise)
    for arguments, verdict in reversed(conditional):
        fail, entry = entry, code.emit(_RETURN, verdict)
        for argument in reversed(arguments):
            entry = _condition(code, argument, entry, fail, wide=wide)
    return entry


def _condition(code: _Code, argument: Argument, yes: int, no: int, *, wide: bool) -> int:
    """Go to `yes` if it holds and to `no` if not. `wide`: arguments have 64 bits, which are compared by halves."""
    match argument.operator:
        case "SCMP_CMP_NE" | "SCMP_CMP_LT" | "SCMP_CMP_LE":
            yes, no = no, yes
    high, low = argument.value >> 32, argument.value & 0xFFFF_FFFF
    at = _ARGUMENTS_AT + 8 * argument.index
    match argument.operator:
        case "SCMP_CMP_MASKED_EQ":
            # What lies outside the mask can never be left, and is no part of the condition.
            left = argument.value_two & argument.value
            left_high, left_low = left >> 32, left & 0xFFFF_FFFF
            code.branch(_IF_EQUAL, left_low, yes, no)
            code.emit(_AND, low)
            entry = code.emit(_LOAD, at)
            if wide:
                code.branch(_IF_EQUAL, left_high, entry, no)
                code.emit(_AND, high)
                entry = code.emit(_LOAD, at + 4)
            return entry
        case "SCMP_CMP_EQ" | "SCMP_CMP_NE":
            code.branch(_IF_EQUAL, low, yes, no)
            entry = code.emit(_LOAD, at)
            if wide:
                code.branch(_IF_EQUAL, high, entry, no)
                entry = code.emit(_LOAD, at + 4)
            return entry
        case operator:
            code.branch(_IF_AT_LEAST if operator in ("SCMP_CMP_GE", "SCMP_CMP_LT") else _IF_GREATER, low, yes, no)
            entry = code.emit(_LOAD, at)
            if wide:
                equal = code.branch(_IF_EQUAL, high, entry, no)
                code.branch(_IF_GREATER, high, yes, equal)
                entry = code.emit(_LOAD, at + 4)
            return entry


class _Code:
    """A program that grows towards its beginning. Places in it are counted from its end, the last one being 1."""

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int]] = []
        self._leaves: dict[int, int] = {}

    @property
    def position(self) -> int:
        """The place of the instruction that was written last, which is the first one to be run."""
        return len(self._instructions)

    def emit(self, code: int, value: int, yes: int = 0, no: int = 0) -> int:
        self._instructions.append((code, yes, no, value))
        return self.position

    def distance(self, place: int) -> int:
        """How far it is to `place` from the instruction that is written next."""
        return self.position - place

    def branch(self, code: int, value: int, yes: int, no: int) -> int:
        no, yes = self._near(no), self._near(yes)
        return self.emit(code, value, self.distance(yes), self.distance(no))

    def _near(self, place: int) -> int:
        """`place`, or a jump to it where a branch, which reaches 255 instructions, would come too far away for it."""
        # Between here and the branch there may be one more such jump.
        return place if self.distance(place) < 255 else self.emit(_JUMP, self.distance(place))

    def leaf(self, verdict: int) -> int:
        """A return of this verdict: one that is near, or a new one."""
        place = self._leaves.get(verdict, 0)
        if not place or self.position - place > 200:
            place = self._leaves[verdict] = self.emit(_RETURN, verdict)
        return place

    def bytes(self) -> bytes:
        return b"".join(_LITTLE.pack(code, yes, no, value) for code, yes, no, value in reversed(self._instructions))
