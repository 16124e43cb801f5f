"""Compile tools/pump.c, and write what comes of it into nbcontain/linux/pump_code.py.

`python tools/pump_code.py` needs GCC for both processors (on Debian gcc and gcc-aarch64-linux-gnu). A test says when
that is due: when the source is another one than it was.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCE = CHECKOUT / "tools" / "pump.c"
MADE = CHECKOUT / "nbcontain" / "linux" / "pump_code.py"
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
    .all : { *(.text.lines) *(.text) *(.text.start) }
    .data : { *(.data*) *(.rodata*) *(.bss*) *(COMMON) }
    ASSERT(SIZEOF(.data) == 0, "it has data")
    /DISCARD/ : { *(.comment) *(.note*) *(.eh_frame) }
}
"""
_HEAD = '''"""The processor's own code of tools/pump.c, made by tools/pump_code.py: not to be changed by hand.

Its first byte is where the function `lines` of that begins, and at START[machine] begins a program.
"""

SOURCE = "{source}"
"""The SHA-256 of the source."""
START = {start}
RECORD_BYTES = {record}
"""Longer output is cut into several lines of moderate size."""
HEAD_BYTES = 512
"""What comes before the output in a line is at most so long."""
GROWTH = 6
"""A byte becomes so many at most: a backslash, u and four digits."""
CODE = {{
{code}}}
'''


def compiled(machine: str) -> tuple[bytes, int]:
    """The code for this processor, and where in it a program begins."""
    tools, flags = COMPILERS[machine], (*_FLAGS, *_OWN_FLAGS[machine])
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        script = directory / "order"
        script.write_text(_ORDER)
        one, linked, flat = (str(directory / name) for name in ("pump.o", "pump", "flat"))
        run(f"{tools}gcc", *flags, "-c", "-o", one, str(SOURCE))
        run(f"{tools}ld", "-T", str(script), "-e", "_start", "-o", linked, one)
        run(f"{tools}objcopy", "-O", "binary", "-j", ".all", linked, flat)
        places = {line.split()[-1]: line.split()[0] for line in run(f"{tools}nm", linked).splitlines()}
        if int(places["lines"], 16):
            sys.exit("`lines` is not the first of it")
        return Path(flat).read_bytes(), int(places["_start"], 16)


def run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def quoted(code: bytes) -> str:
    """As a dictionary's value, in lines of moderate length."""
    digits = code.hex()
    lines = [f'        "{digits[start : start + 104]}"\n' for start in range(0, len(digits), 104)]
    return f"bytes.fromhex(\n{''.join(lines)}    ),\n"


def main() -> None:
    made = {machine: compiled(machine) for machine in COMPILERS}
    starts = ", ".join(f'"{machine}": {start}' for machine, (_, start) in made.items())
    code = "".join(f'    "{machine}": {quoted(code)}' for machine, (code, _) in made.items())
    source = SOURCE.read_bytes()
    record = re.findall(rb"#define RECORD_BYTES (\d+)", source)[0].decode()
    words = {"source": hashlib.sha256(source).hexdigest(), "start": f"{{{starts}}}", "record": record, "code": code}
    MADE.write_text(_HEAD.format(**words))


if __name__ == "__main__":
    main()
