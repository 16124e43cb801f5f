"""Write the list of modules into docs/architecture.md, each with the first line of its docstring.

`python tools/module_list.py` replaces the list; tests/architecture/test_docs.py says when that is due.
"""

from __future__ import annotations

import ast
import re
from itertools import groupby
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "docs" / "architecture.md"
_SECTION = re.compile(r"(?<=## Where things are\n\n).*?(?=\n## )", re.DOTALL)


def listed() -> str:
    """The list as Markdown: a table per folder."""
    package = CHECKOUT / "nbcontain"
    paths = sorted(package.rglob("*.py"), key=lambda path: (path.parent, path))
    parts = []
    for folder, group in groupby(paths, key=lambda path: path.parent):
        modules = {path.name: said(path) for path in group}
        title = modules.pop("__init__.py", "")
        where = folder.relative_to(CHECKOUT)
        rows = "\n".join(f"| `{name}` | {text} |" for name, text in modules.items())
        parts.append(f"**`{where}/`** {title}\n\n| | |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def said(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def written(page: str) -> str:
    """The page with the list as it should be."""
    return _SECTION.sub(lambda _: listed(), page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
