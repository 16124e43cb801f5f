"""Python packages of this environment for a host image: which there are, and what they bring."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from nbcontain.build.host_packages import HostPackages, packages_directory
from nbcontain.errors import BuildError


def test_a_package_brings_what_it_requires_and_no_bytecode() -> None:
    found = HostPackages.of(["jupyter_client"])
    assert {"jupyter_client", "traitlets", "pyzmq"} <= set(found.versions)
    modules = [path for path, place in found.files if not place]
    assert any(path.endswith("/traitlets/config/loader.py") for path in modules)
    assert not [path for path in modules if "__pycache__" in path or "/tests/" in path]
    assert found.roots == (os.path.realpath(sysconfig.get_path("purelib")),)


def test_packages_that_require_each_other_with_extras_come_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, other in (("hen", "egg"), ("egg", "hen")):
        about = tmp_path / f"{name}-1.dist-info"
        about.mkdir()
        said = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\nProvides-Extra: more\n"
        (about / "METADATA").write_text(f"{said}Requires-Dist: {other}[more]; extra == 'more'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert HostPackages.of(["hen[more]"]).versions == {"egg": "1", "hen": "1"}


def test_what_a_package_keeps_in_share_lies_below_the_prefix() -> None:
    places = [place for _, place in HostPackages.of(["ipykernel"]).files if place]
    assert "share/jupyter/kernels/python3/kernel.json" in places


def test_a_package_that_is_not_here_or_is_no_name_is_refused() -> None:
    with pytest.raises(BuildError, match="no Python package not-there-at-all here"):
        HostPackages.of(["not-there-at-all"])
    with pytest.raises(BuildError, match="no name of a Python package"):
        HostPackages.of(["a b"])


def test_debians_python_has_its_packages_elsewhere(tmp_path: Path) -> None:
    assert packages_directory(str(tmp_path / "lib/python3.12")) == f"{tmp_path}/lib/python3.12/site-packages"
