"""Write the numbers of the kernel's calls into nbcontain/linux/syscall_numbers.txt, from the kernel's own headers.

`python tools/syscall_numbers.py DIRECTORY`, where DIRECTORY holds <triplet>/asm/unistd_64.h and its like, as Debian's
package linux-libc-dev of any kernel from 6.18 on has them for all machines below usr/include.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "nbcontain" / "linux" / "syscall_numbers.txt"
HEADERS = {
    "x86_64": ("x86_64-linux-gnu/asm/unistd_64.h",),
    "i386": ("x86_64-linux-gnu/asm/unistd_32.h",),
    "aarch64": ("aarch64-linux-gnu/asm/unistd_64.h",),
    "arm": ("arm-linux-gnueabihf/asm/unistd-eabi.h", "arm-linux-gnueabihf/asm/unistd.h"),
}
_NUMBER = re.compile(
    r"#define __(?:NR|ARM_NR)_(\w+)\s+(?:\((__NR_SYSCALL_BASE|__ARM_NR_BASE)\s*\+\s*(\d+)\)|(\d+))\s*$"
)
_ARM_BASE = 0xF0000
_NO_CALLS = {"SYSCALL_BASE", "SYSCALL_MASK", "BASE", "syscalls"}


def numbers(paths: list[Path]) -> dict[str, int]:
    """Every call that these headers define."""
    found = {}
    for line in "\n".join(path.read_text() for path in paths).splitlines():
        match = _NUMBER.match(line)
        if match and match[1] not in _NO_CALLS:
            base = _ARM_BASE if match[2] == "__ARM_NR_BASE" else 0
            found[match[1]] = base + int(match[3] or match[4])
    return found


def written(include: Path) -> str:
    """The whole file."""
    tables = {machine: numbers([include / name for name in names]) for machine, names in HEADERS.items()}
    names = sorted(set().union(*tables.values()))
    rows = [" ".join([name, *(str(table.get(name, "-")) for table in tables.values())]) for name in names]
    return "\n".join(["name " + " ".join(tables), *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(Path(sys.argv[1])))
