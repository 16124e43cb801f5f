"""docker loads what we save, and we load what it saves: the same image, byte for byte where docker keeps the bytes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

import needs
from nbcontain.engine import Engine
from nbcontain.runtime.generate import RunOptions

sys.path.insert(0, str(Path(__file__).parent))

import peers  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="dockerd runs only as root")]


def test_docker_loads_our_archives_and_we_load_dockers(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    engine.archives.save(("busybox",), str(tmp_path / "ours.tar")).result()
    ours = engine.image("busybox")
    with (
        tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch(), ignore_cleanup_errors=True) as name,
        peers.docker(Path(name, "docker")) as docker,
    ):
        assert "busybox:latest" in docker("load", "-i", str(tmp_path / "ours.tar"))
        [seen] = json.loads(docker("image", "inspect", "busybox"))
        assert seen["Id"] == str(ours.id)
        assert seen["RootFS"]["Layers"] == [str(layer.diff_id) for layer in ours.layers]
        docker("tag", "busybox", "back:1")
        docker("save", "-o", str(tmp_path / "theirs.tar"), "back:1")
    engine.archives.load(str(tmp_path / "theirs.tar")).result()
    back = engine.image("back:1")
    assert back.id == ours.id
    assert [layer.diff_id for layer in back.layers] == [layer.diff_id for layer in ours.layers]
    result = engine.run(RunOptions(image="back:1", remove=True, command=("sh", "-c", "echo runs"))).result()
    assert result.stdout == "runs\n"  # type: ignore[union-attr]
