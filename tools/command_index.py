"""Write nbcontain/commands/index.py: which module has the function of which command.

`python tools/command_index.py` when commands come or go; tests/architecture/test_cold_path.py says when that is due.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
INDEX = CHECKOUT / "nbcontain" / "commands" / "index.py"
HEAD = '''"""Which module of this folder has a command, by its words as they are typed after `nbcontain`.

Written by tools/command_index.py. A word that is missing here is found all the same, by importing all modules.
"""

INDEX = {
'''


def written() -> str:
    """The module as it should be."""
    from nbcontain.commands import commands
    from nbcontain.commands.table import GROUPS

    found: dict[str, str] = {}
    for each in commands():
        module = each.function.__module__.rpartition(".")[2]
        is_top = each.group not in GROUPS
        words = [name if is_top else f"{each.group} {name}" for name in (each.name, *each.aliases)]
        for word in (*words, *each.top):
            found.setdefault(word, module)
    return HEAD + "".join(f'    "{word}": "{found[word]}",\n' for word in sorted(found)) + "}\n"


if __name__ == "__main__":
    sys.path.insert(0, str(CHECKOUT))
    INDEX.write_text(written())
