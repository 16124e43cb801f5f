"""Programs of a few bytes that are made here: for where no program of this machine's may be run. Pure."""

from __future__ import annotations

import struct

MACHINES = {"x86_64": 62, "aarch64": 183}
"""Those that they can be made for, as the head of a program calls them (elf(5), e_machine)."""
_HEAD, _AT = 64 + 56, 0x400000
_NOTHING = {
    "x86_64": bytes.fromhex("31ff b83c000000 0f05"),  # xor edi, edi; mov eax, 60; syscall
    "aarch64": bytes.fromhex("000080d2 a80b80d2 010000d4"),  # mov x0, #0; mov x8, #93; svc #0
}
_LOADING = {
    # mov rcx, [rsp]; lea rdx, [rsp + rcx * 8 + 16]; mov rax, [rsp + 16]; add rax, LENGTH; mov [rsp + 8], rax;
    # lea rax, OPTION; mov [rsp], rax; lea rdi, LOADER; push rdi; mov rsi, rsp; mov eax, 59; syscall;
    # mov edi, 127; mov eax, 60; syscall
    "x86_64": (
        "488b0c24 488d54cc10 488b442410 4805", "4889442408 488d0522000000 48890424 488d3d1f000000 57 4889e6"
        " b83b000000 0f05 bf7f000000 b83c000000 0f05",
    ),
    # ldr x1, [sp]; add x2, sp, #16; add x2, x2, x1, lsl #3; ldr x3, [sp, #16]; ldr w4, LENGTH; add x3, x3, x4;
    # str x3, [sp, #8]; adr x5, OPTION; str x5, [sp]; adr x0, LOADER; stur x0, [sp, #-8]; sub x1, sp, #8;
    # mov x8, #221; svc #0; mov x0, #127; mov x8, #93; svc #0
    "aarch64": (
        "e10340f9 e2430091 420c018b e30b40f9 a4010018 6300048b e30700f9 65010010 e50300f9 60010010 e0831ff8 e12300d1"
        " a81b80d2 010000d4 e00f80d2 a80b80d2 010000d4", "",
    ),
}  # fmt: skip
"""execve(LOADER, {LOADER, "--argv0", argv[1] + LENGTH, argv[1], …}, envp): what comes before LENGTH, and after it."""


def nothing(machine: str) -> bytes:
    """Ends at once, and well."""
    return _program(machine, _NOTHING[machine])


def loading(machine: str, loader: str, length: int) -> bytes:
    """Has `loader` (ld.so(8)) load the program that its first argument names, and call it by that but for so many
    bytes at the beginning."""
    before, after = (bytes.fromhex(each) for each in _LOADING[machine])
    return _program(machine, before + struct.pack("<I", length) + after + b"--argv0\0" + loader.encode() + b"\0")


def _program(machine: str, code: bytes) -> bytes:
    size = _HEAD + len(code)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, MACHINES[machine], 1, _AT + _HEAD, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, _AT, _AT, size, size, 0x10000) + code
