"""Compile what is in tools/c, and write what comes of it into nbcontain/linux/…_code.py.

`python tools/machine_code.py` needs GCC for both processors (on Debian gcc and gcc-aarch64-linux-gnu). A test says when
that is due: when a source is another one than it was.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = CHECKOUT / "tools" / "c"
MADE = CHECKOUT / "nbcontain" / "linux"
COMPILERS = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}
_FLAGS = (
    "-Os", "-std=c11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-builtin", "-fomit-frame-pointer",
    "-fno-tree-loop-distribute-patterns", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables", "-fno-pic", "-mgeneral-regs-only",
)  # fmt: skip
_OWN_FLAGS = {"x86_64": ("-fcf-protection=none",), "aarch64": ("-mno-outline-atomics",)}
_ORDER = """
SECTIONS {
    . = 0;
    .all : { *(.text.first) *(.text) *(.text.start) }
    .data : { *(.data*) *(.rodata*) *(.bss*) *(COMMON) }
    ASSERT(SIZEOF(.data) == 0, "it has data")
    /DISCARD/ : { *(.comment) *(.note*) *(.eh_frame) }
}
"""
_HEAD = '''"""The processor's own code of tools/c/{name}.c, made by tools/machine_code.py: not to be changed by hand.

Its first byte is where the function `{first}` of that begins{and_more}.
"""

SOURCE = "{source}"
"""The SHA-256 of what it was made of."""
{constants}CODE = {{
{code}}}
'''


@dataclass(frozen=True)
class Unit:
    """One source. Of its constants, `told` are handed on, each with what it means; `more` are others."""

    name: str
    first: str
    told: dict[str, str]
    more: str = ""
    is_program: bool = False
    """Whether a program can consist of it, too."""

    @property
    def source(self) -> bytes:
        """All that it is made of."""
        return b"".join((SOURCES / name).read_bytes() for name in ("kernel.h", f"{self.name}.c"))


UNITS = (
    Unit(
        "pump", "lines", {"RECORD_BYTES": "Longer output is cut into several lines of moderate size."},
        'HEAD_BYTES = 512\n"""What comes before the output in a line is at most so long."""\n'
        'GROWTH = 6\n"""A byte becomes so many at most: a backslash, u and four digits."""\n',
        is_program=True,
    ),
    Unit(
        "members", "members",
        {
            "PLACES": "So many directories are known to it.",
            "NAME_BYTES": "A member's name has so many at most.",
            "LINK_BYTES": "Where a symlink leads, too.",
        },
    ),
)  # fmt: skip


def compiled(unit: Unit, machine: str) -> tuple[bytes, int]:
    """The code for this processor, and where in it a program begins, if one does."""
    tools, flags = COMPILERS[machine], (*_FLAGS, *_OWN_FLAGS[machine])
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        script = directory / "order"
        script.write_text(_ORDER)
        one, linked, flat = (str(directory / name) for name in ("one.o", "linked", "flat"))
        run(f"{tools}gcc", *flags, "-c", "-o", one, str(SOURCES / f"{unit.name}.c"))
        run(f"{tools}ld", "-T", str(script), "-e", "_start" if unit.is_program else unit.first, "-o", linked, one)
        run(f"{tools}objcopy", "-O", "binary", "-j", ".all", linked, flat)
        places = {line.split()[-1]: line.split()[0] for line in run(f"{tools}nm", linked).splitlines()}
        if int(places[unit.first], 16):
            sys.exit(f"`{unit.first}` is not the first of it")
        return Path(flat).read_bytes(), int(places.get("_start", "0"), 16)


def run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def quoted(code: bytes) -> str:
    """As a dictionary's value, in lines of moderate length."""
    digits = code.hex()
    lines = [f'        "{digits[start : start + 104]}"\n' for start in range(0, len(digits), 104)]
    return f"bytes.fromhex(\n{''.join(lines)}    ),\n"


def write(unit: Unit) -> None:
    made = {machine: compiled(unit, machine) for machine in COMPILERS}
    constants = and_more = ""
    if unit.is_program:
        starts = ", ".join(f'"{machine}": {start}' for machine, (_, start) in made.items())
        constants, and_more = f"START = {{{starts}}}\n", ", and at START[machine] begins a program"
    text = unit.source.decode()
    for name, meaning in unit.told.items():
        constants += f'{name} = {re.findall(rf"#define {name} ([0-9]+)", text)[0]}\n"""{meaning}"""\n'
    words = {
        "name": unit.name, "first": unit.first, "and_more": and_more, "constants": constants + unit.more,
        "source": hashlib.sha256(unit.source).hexdigest(),
        "code": "".join(f'    "{machine}": {quoted(code)}' for machine, (code, _) in made.items()),
    }  # fmt: skip
    (MADE / f"{unit.name}_code.py").write_text(_HEAD.format(**words))


if __name__ == "__main__":
    for each in UNITS:
        write(each)
