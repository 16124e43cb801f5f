"""What the kernel does with a seccomp filter, in Python; and libseccomp, which makes filters of the same rules."""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

from nbcontain.oci.seccomp import Seccomp

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ALLOW, ERRNO, TRACE, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x7FF00000, 0x80000000
_LOAD, _JUMP, _RETURN, _AND = 0x20, 0x05, 0x06, 0x54
_TESTS = {0x15: int.__eq__, 0x25: int.__gt__, 0x35: int.__ge__, 0x45: lambda a, k: bool(a & k)}


class Filter:
    """A program, decoded once."""

    def __init__(self, program: bytes) -> None:
        self.code = list(struct.iter_unpack("=HBBI", program))

    def verdict(self, number: int, arguments: Sequence[int] = (), machine: int = X86_64) -> int:
        """What it returns for a call (struct seccomp_data). Raises IndexError for a jump out of the program."""
        filled = [*arguments, *[0] * (6 - len(arguments))]
        data = struct.pack("=IIQ6Q", number, machine, 0, *filled)
        at = accumulator = 0
        while True:
            code, yes, no, value = self.code[at]
            at += 1
            if code == _RETURN:
                return value
            if code == _LOAD:
                (accumulator,) = struct.unpack_from("=I", data, value)
            elif code == _AND:
                accumulator &= value
            elif code == _JUMP:
                at += value
            else:
                at += yes if _TESTS[code](accumulator, value) else no


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


_OPERATORS = {name: n for n, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)}
_ARCHITECTURES = {"SCMP_ARCH_X86_64": X86_64, "SCMP_ARCH_X86": I386, "SCMP_ARCH_AARCH64": AARCH64}
_ACTIONS = {
    "KILL": 0,
    "KILL_THREAD": 0,
    "KILL_PROCESS": KILL_PROCESS,
    "TRAP": 0x30000,
    "NOTIFY": 0x7FC00000,
    "ERRNO": ERRNO,
    "TRACE": TRACE,
    "LOG": 0x7FFC0000,
    "ALLOW": ALLOW,
}


def libseccomp() -> Any:
    """The library, or None where it is not installed."""
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    return library


def _action(name: str, errno: int | None) -> int:
    short = name.removeprefix("SCMP_ACT_")
    return _ACTIONS[short] | ((1 if errno is None else errno) if short in ("ERRNO", "TRACE") else 0)


def made_by_libseccomp(profile: Seccomp, machine: str) -> bytes:
    """The filter that crun and runc would load for this profile, made as they make it."""
    library = libseccomp()
    own = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[machine]
    default = _action(profile.default_action, profile.default_errno)
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    wanted = {own, *profile.architectures} & _ARCHITECTURES.keys()
    native = library.seccomp_arch_native()
    library.seccomp_arch_add(context, ctypes.c_uint32(_ARCHITECTURES[own]))
    if _ARCHITECTURES[own] != ctypes.c_uint32(native).value:
        library.seccomp_arch_remove(context, ctypes.c_uint32(native))
    for each in wanted - {own}:
        library.seccomp_arch_add(context, ctypes.c_uint32(_ARCHITECTURES[each]))
    for rule in profile.rules:
        action = _action(rule.action, rule.errno)
        if action == default:
            continue
        groups = [rule.arguments]
        indices = [each.index for each in rule.arguments]
        if len(set(indices)) < len(indices):
            groups = [(each,) for each in rule.arguments]
        for name in rule.names:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                continue
            for group in groups:
                conditions = (_Comparison * max(1, len(group)))(*(
                    (each.index, _OPERATORS[each.operator.removeprefix("SCMP_CMP_")], each.value, each.value_two)
                    for each in group
                ))  # fmt: skip
                library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(group), conditions)
    with tempfile.TemporaryFile() as file:
        assert library.seccomp_export_bpf(context, file.fileno()) == 0
        library.seccomp_release(context)
        return os.pread(file.fileno(), 1 << 20, 0)


def installed(pid: int) -> list[bytes]:
    """The programs that decide on a process's calls, the last one first; as the kernel has them (ptrace(2)).

    Needs to be root of the machine, and a kernel with checkpoints. The process goes on afterwards.
    """
    seize, interrupt, detach, get_filter = 0x4206, 0x4207, 17, 0x420C
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def asked(request: int, index: int = 0, data: int | None = None) -> int:
        answer: int = libc.ptrace(request, pid, index, data)
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer

    asked(seize)
    try:
        asked(interrupt)
        os.waitpid(pid, 0x40000000)
        programs: list[bytes] = []
        while True:
            try:
                size = asked(get_filter, len(programs))
            except OSError as error:
                if error.errno != 2:
                    raise
                return programs
            buffer = ctypes.create_string_buffer(size * 8)
            asked(get_filter, len(programs), ctypes.addressof(buffer))
            programs.append(buffer.raw)
    finally:
        asked(detach)
