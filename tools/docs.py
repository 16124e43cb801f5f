"""Build the documentation: its pages, the notebooks executed, and a reference made of the code. `make docs` calls it.

Sphinx with MyST and the theme furo: they come by pip alone, need no network to build or to read, and turn a link that
leads nowhere into an error. The manual pages, which a wheel has too, are beside them in man/.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
SITE = CHECKOUT / ".cache" / "site"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def main(arguments: list[str]) -> int:
    """Build it into .cache/site; with `quick`, without executing the notebooks. With `links`, ask what it links to."""
    sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tools")]
    import manual
    import reference

    with tempfile.TemporaryDirectory(prefix="nbcontain-docs-") as name:
        source = Path(name, "source")
        shutil.copytree(DOCS, source)
        for page in ("CHANGELOG.md", "CONTRIBUTING.md"):
            # Its links are meant from where it is.
            (source / page.lower()).write_text((CHECKOUT / page).read_text().replace("](docs/", "]("))
        reference.write(source / "reference")
        tutorials(source / "tutorials", Path(name, "store"), execute=not {"quick", "links"} & {*arguments})
        env = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tools'}"}
        builder, place = ("linkcheck", SITE / "links") if "links" in arguments else ("html", SITE)
        words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", builder, "-d", f"{name}/trees"]
        if code := subprocess.call([*words, str(source), str(place)], env=env):
            return code
    manual.write(SITE / "man")
    print(f"file://{SITE}/index.html")
    return 0


def tutorials(folder: Path, store: Path, *, execute: bool) -> None:
    """Each notebook as a page, with what its cells showed."""
    import nbformat

    folder.mkdir()
    for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if execute:
            _execute(notebook, path.stem, store)
        page = page_of(notebook)
        # Its number, by which others speak of it.
        (folder / f"{path.stem}.md").write_text(page.replace("# ", f"# {path.name[:2]} ", 1))


def _execute(notebook: object, name: str, store: Path) -> None:
    """In a kernel of its own. A cell that fails shows its error and is named: a machine may refuse what it asks for."""
    from nbclient import NotebookClient

    env = {**os.environ, "NBCONTAIN_ROOT": str(store), "NBCONTAIN_DISPLAY": "html", "NBCONTAIN_PULL": "never",
           "NBCONTAIN_NETWORK": os.environ.get("NBCONTAIN_NETWORK", "host"), "PYTHONPATH": str(CHECKOUT)}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix=f"nbcontain-{name}-") as directory:
        env["IPYTHONDIR"] = f"{directory}/ipython"
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", allow_errors=True,
            extra_arguments=["--log-level=ERROR"], resources={"metadata": {"path": directory}},
        )  # fmt: skip
        client.execute(env=env)
    for cell in notebook.cells:  # type: ignore[attr-defined]
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                print(f"{name}: a cell failed: {output['ename']}: {output['evalue']}", file=sys.stderr)


def page_of(notebook: object) -> str:
    """A notebook as Markdown. What is folded in it is folded there."""
    parts = []
    for cell in notebook.cells:  # type: ignore[attr-defined]
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        code = _fenced(cell.source, "docker" if cell.source.startswith("%%dockerfile") else "ipython")
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            code = f"<details><summary>the code of this cell</summary>\n\n{code}\n\n</details>"
        parts.append(code)
        parts += [_shown(output) for output in _joined(cell.outputs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _joined(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a cell printed in several goes is one text, as in a notebook."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        last = found[-1] if found else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            found[-1] = {**last, "text": last["text"] + output["text"]}
        else:
            found.append(output)
    return found


def _fenced(text: str, language: str) -> str:
    fence = "`" * (3 + max((len(run) for run in re.findall("`{3,}", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _shown(output: dict[str, Any]) -> str:
    """What a cell showed: HTML where there is some, as it would be in the notebook."""
    if output["output_type"] == "stream":
        return _fenced(_ANSI.sub("", output["text"]), "text")
    if output["output_type"] == "error":
        return _fenced(_ANSI.sub("", "\n".join(output["traceback"])), "text")
    data: dict[str, str] = output["data"]
    if html := data.get("text/html"):
        # A fence, since a blank line would end a block of HTML.
        return f'```{{raw}} html\n<div class="nb-shown">{html}</div>\n```' if "```" not in html else ""
    return _fenced(_ANSI.sub("", data.get("text/plain", "")), "text")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
