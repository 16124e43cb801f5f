"""Write nbcontain/linux/seccomp_made.py: the default profile of the kernel's calls, and its filter, made beforehand.

`python tools/seccomp_made.py` when seccomp_default.py or the compiler have changed; tests/linux/test_seccomp_made.py
says when that is due.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
MADE = CHECKOUT / "nbcontain" / "linux" / "seccomp_made.py"
HEAD = '''"""The default profile of the kernel's calls for the usual capabilities, and its filter, by machine.

Written by tools/seccomp_made.py: to make them takes a terminal's command as long as a tenth of a container's start. The
profile is the JSON of config.json's `linux.seccomp`, the filter as `linux.filter_bytes` packs it, in hexadecimal.
"""

MADE = {
'''
_WIDTH = 110


def written() -> str:
    """The module as it should be."""
    from nbcontain.linux import filter_bytes, seccomp, seccomp_default
    from nbcontain.oci import seccomp as profiles
    from nbcontain.runtime.confinement import capabilities_of

    names = capabilities_of((), ())
    text = HEAD
    for machine in sorted(seccomp.MACHINES):
        document = profiles.to_json(seccomp_default.default(names, machine, with_32_bit=False))
        profile = profiles.from_json(document)
        packed = filter_bytes.packed(seccomp.program(profile, machine), seccomp.flags(profile))
        text += f'    "{machine}": (\n'
        for value in (json.dumps(document, separators=(",", ":")), packed.hex()):
            parts = [value[at : at + _WIDTH] for at in range(0, len(value), _WIDTH)]
            text += "".join(f"        {part!r}\n" for part in parts)[:-1] + ",\n"
        text += "    ),\n"
    return text + "}\n"


if __name__ == "__main__":
    sys.path.insert(0, str(CHECKOUT))
    MADE.write_text(written())
