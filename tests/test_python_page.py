"""docs/python.md does what it says: its blocks are run from top to bottom, as a reader would run them."""

from __future__ import annotations

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import nbcontain as nb
import needs
from images import BUSYBOX
from nbcontain import api
from nbcontain.listing import Listing

PAGE = Path(__file__).resolve().parent.parent / "docs" / "python.md"


def test_the_blocks_of_the_page_run(busybox_context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    with tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch()) as root, nb.Engine(root) as engine:
        monkeypatch.setattr(api, "_own_engine", lambda: engine)
        nb.build(busybox_context, dockerfile=BUSYBOX, tag="box")
        names: dict[str, Any] = {}
        # On a thread of its own: once a browser was opened, playwright's loop runs in the main one.
        with ThreadPoolExecutor(1) as pool:
            for block in blocks:
                pool.submit(exec, compile(block, str(PAGE), "exec"), names).result()
        assert engine.containers() == []


def test_the_table_of_verbs_names_what_there_is() -> None:
    rows = re.findall(r"^\| (`%.*?) \| (`nbcontain .*?) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 30
    roots = {"nb": nb, "image": nb.Image, "container": nb.Container}
    for _, _, python in rows:
        named = re.findall(r"`(nb|image|container)((?:\.\w+)*)", python)
        assert named, python
        for root, path in named:
            follow(roots[root], path)


def follow(found: Any, path: str) -> None:
    """What a dotted path leads to; of a property no further."""
    for name in filter(None, path.split(".")):
        if isinstance(found, property):
            return
        assert hasattr(type(found) if isinstance(found, Listing) else found, name), f"{found}.{name}"
        found = getattr(type(found) if isinstance(found, Listing) else found, name)
