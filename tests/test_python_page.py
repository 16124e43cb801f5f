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
