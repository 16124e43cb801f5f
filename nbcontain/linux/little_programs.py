"""Programs of a few bytes that are made here: for where no program of this machine's may be run. Pure.

And the code of a child that is none of Python's (`linux.forks`).
"""

from __future__ import annotations

import struct

MACHINES = {"x86_64": 62, "aarch64": 183}
"""Those that they can be made for, as the head of a program calls them (elf(5), e_machine)."""
_HEAD, _SEGMENT = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_AT = 0x400000
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

CALLS = {
    "x86_64": bytes.fromhex(
        # push rbx; mov rbx, rdi; mov rdi, [rbx]; xor esi, esi; xor edx, edx; xor r10d, r10d; xor r8d, r8d; mov eax,
        # 56; syscall; test rax, rax; je CHILD; pop rbx; ret; CHILD: mov r12, rbx; NEXT: add rbx, 32; mov rax, [rbx];
        # mov rdi, [rbx + 8]; mov rsi, [rbx + 16]; mov rdx, [rbx + 24]; syscall; test rax, rax; jns NEXT; mov [r12],
        # rax; sub rbx, r12; mov [r12 + 8], rbx; mov rdi, [r12 + 16]; mov rsi, r12; mov edx, 16; mov eax, 1; syscall;
        # mov edi, 1; mov eax, 231; syscall; ud2
        "53 4889fb 488b3b 31f6 31d2 4531d2 4531c0 b838000000 0f05 4885c0 7402 5b c3 4989dc 4883c320 488b03 488b7b08"
        " 488b7310 488b5318 0f05 4885c0 79e6 49890424 4c29e3 49895c2408 498b7c2410 4c89e6 ba10000000 b801000000 0f05"
        " bf01000000 b8e7000000 0f05 0f0b"
    ),
    "aarch64": bytes.fromhex(
        # mov x9, x0; ldr x0, [x9]; mov x1, #0; mov x2, #0; mov x3, #0; mov x4, #0; mov x8, #220; svc #0; cbz x0,
        # CHILD; ret; CHILD: mov x10, x9; NEXT: add x10, x10, #32; ldp x8, x0, [x10]; ldp x1, x2, [x10, #16]; svc #0;
        # tbz x0, #63, NEXT; sub x10, x10, x9; stp x0, x10, [x9]; ldr x0, [x9, #16]; mov x1, x9; mov x2, #16; mov x8,
        # #64; svc #0; mov x0, #1; mov x8, #94; svc #0; udf #0
        "e90300aa 200140f9 010080d2 020080d2 030080d2 040080d2 881b80d2 010000d4 400000b4 c0035fd6 ea0309aa 4a810091"
        " 480140a9 410941a9 010000d4 80ffffb6 4a0109cb 202900a9 200940f9 e10309aa 020280d2 080880d2 010000d4 200080d2"
        " c80b80d2 010000d4 00000000"
    ),
}  # fmt: skip
"""clone(FLAGS), for whoever calls it with the place of a table, and is given what that gave. The child does the calls
of that, each of three arguments, until one executes a program; if one does not succeed, it writes what that gave, and
where in the table it is, to FD, and ends. The table begins with FLAGS, a word of no meaning, FD, and such a word."""

SUCCESSION = {
    "x86_64": bytes.fromhex(
        # mov rdx, rsi; xor esi, esi; xor r10d, r10d; xor r8d, r8d; mov eax, 56; syscall; test rax, rax; jle RETURN;
        # xor edi, edi; mov eax, 231; syscall; RETURN: ret
        "4889f2 31f6 4531d2 4531c0 b838000000 0f05 4885c0 7e09 31ff b8e7000000 0f05 c3"
    ),
    "aarch64": bytes.fromhex(
        # mov x2, x1; mov x1, #0; mov x3, #0; mov x4, #0; mov x8, #220; svc #0; cmp x0, #0; b.le RETURN; mov x0, #0;
        # mov x8, #94; svc #0; RETURN: ret
        "e20301aa 010080d2 030080d2 040080d2 881b80d2 010000d4 1f0000f1 8d000054 000080d2 c80b80d2 010000d4 c0035fd6"
    ),
}  # fmt: skip
"""clone(FLAGS) with the place of the child's number. It returns in the child, and where there is none; its caller ends
when it goes on, and touches nothing of the memory that both have (vfork(2))."""


def nothing(machine: str) -> bytes:
    """Ends at once, and well."""
    return program(machine, _NOTHING[machine])


def loading(machine: str, loader: str, length: int) -> bytes:
    """Has `loader` (ld.so(8)) load the program that its first argument names, and call it by that but for so many
    bytes at the beginning."""
    before, after = (bytes.fromhex(each) for each in _LOADING[machine])
    return program(machine, before + struct.pack("<I", length) + after + b"--argv0\0" + loader.encode() + b"\0")


def program(machine: str, code: bytes) -> bytes:
    """All of a program that consists of this code."""
    size = head_bytes(1) + len(code)
    return head(machine, _AT + head_bytes(1), (1, 5, 0, _AT, _AT, size, size, 0x10000)) + code


def head_bytes(segments: int) -> int:
    """How long the head of a program with so many segments is."""
    return _HEAD.size + segments * _SEGMENT.size


def head(machine: str, begin: int, *segments: tuple[int, ...]) -> bytes:
    """That of a program that begins at this address, with the fields of its segments (elf(5), Elf64_Phdr)."""
    first = _HEAD.pack(
        b"\x7fELF\x02\x01\x01", 2, MACHINES[machine], 1, begin, _HEAD.size, 0, 0, _HEAD.size, _SEGMENT.size,
        len(segments), 0, 0, 0,
    )  # fmt: skip
    return first + b"".join(_SEGMENT.pack(*each) for each in segments)
