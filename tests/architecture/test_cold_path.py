"""What a container's own processes import stays small: it is their memory and their start-up time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from package_source import PACKAGE

HEAVY = {
    "asyncio", "subprocess", "logging", "http", "ssl", "pyroute2", "httpx", "tempfile", "shutil", "socket",
    "dataclasses", "inspect", "IPython", "ipywidgets", "anywidget", "traitlets",
}  # fmt: skip
TERMINAL = HEAVY | {"concurrent", "csv", "email", "hashlib", "html", "importlib.resources",
                    "random", "secrets", "tarfile", "urllib.request"}  # fmt: skip
"""What no short command of a terminal has a use for."""


def loaded_by(*names: str, code: str = "") -> set[str]:
    """The top-level modules that a bare interpreter has after importing these."""
    program = f"""
import sys, importlib, json
sys.path.insert(0, {str(PACKAGE.parent)!r})
for name in {names!r}:
    importlib.import_module(name)
{code}
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def loaded_by_command(store: Path, *words: str) -> set[str]:
    """The modules that a terminal's command has loaded when it is over."""
    program = f"""
import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
from nbcontain.__main__ import main
status = main({list(words)!r})
print("\\n", *sorted(sys.modules))
sys.exit(status)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True, cwd=store.parent,
        env=os.environ | {"NBCONTAIN_ROOT": str(store)},
    )  # fmt: skip
    return set(done.stdout.splitlines()[-1].split())


def parts(loaded: set[str]) -> set[str]:
    """The folders and top-level modules of this package among these modules."""
    return {name.split(".")[1] for name in loaded if name.startswith("nbcontain.")}


@pytest.mark.parametrize("words", [("ps", "-a"), ("images",), ("inspect",)])
def test_a_command_on_a_terminal_imports_what_it_needs_and_no_more(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV a=b\n")
    store = tmp_path / "store"
    loaded_by_command(store, "build", "-q", "-t", "small", str(tmp_path))
    loaded = loaded_by_command(store, *words, *(["small"] if words == ("inspect",) else []))
    assert loaded & TERMINAL == set()
    assert parts(loaded) & {"build", "builder", "dockerfile", "archives", "soundness", "magics"} == set()
    names = {"registry.registries", "runtime.launcher", "runtime.init", "linux.syscalls"}
    assert loaded & {f"nbcontain.{name}" for name in names} == set()
    others = {"anatomy", "archives", "builds", "housekeeping", "registries"}
    assert loaded & {f"nbcontain.commands.{name}" for name in others} == set()


def test_a_kernels_first_card_waits_for_nothing_that_it_does_not_show() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
import nbcontain.session, nbcontain.commands.runs
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    parts_loaded = parts(set(done.stdout.split()))
    assert "session" in parts_loaded
    late = {"build", "builder", "cells", "completion", "containers", "dockerfile", "engine", "handles", "host",
            "images", "network", "networks", "resources", "shim", "store"}  # fmt: skip
    assert parts_loaded & late == set()


def test_a_cached_build_imports_nothing_that_would_execute_it(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV a=b\nCMD a\n")
    for _ in range(2):
        loaded = loaded_by_command(tmp_path / "store", "build", "-t", "small", str(tmp_path))
    assert loaded & TERMINAL == set()
    assert parts(loaded) & {"archives", "soundness", "magics"} == set()
    names = {"registry.registries", "runtime.launcher", "runtime.init", "build.operations.run",
             "build.operations.copy", "build.lint", "build.git", "build.http", "build.finish", "build.importer",
             "store.stacks"}  # fmt: skip
    assert loaded & {f"nbcontain.{name}" for name in names} == set()


def test_what_decides_on_mounts_and_volumes_loads_nothing_that_performs_them() -> None:
    loaded = loaded_by("nbcontain.mounting", "nbcontain.volumes", "nbcontain.transfers")
    names = {"runtime.isolation", "runtime.init", "runtime.stage", "runtime.calls", "linux.syscalls"}
    assert loaded & {"ctypes", *(f"nbcontain.{name}" for name in names)} == set()


def test_the_index_of_commands_is_as_its_tool_writes_it() -> None:
    tool = PACKAGE.parent / "tools" / "command_index.py"
    program = f"import runpy; print(runpy.run_path({str(tool)!r})['written'](), end='')"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout == (PACKAGE / "commands" / "index.py").read_text(), "python tools/command_index.py"


def test_the_supervisor_and_the_zygote_import_nothing_heavy() -> None:
    loaded = loaded_by("nbcontain.runtime.zygote", "nbcontain.runtime.supervisor")
    assert loaded & HEAVY == set()


def test_what_is_loaded_later_is_not_loaded_by_the_zygote_itself() -> None:
    """A parser or a decompressor by an import too many: every fork pays."""
    loaded = loaded_by(
        "nbcontain.runtime.later", "nbcontain.runtime.zygote", "nbcontain.runtime.rootfs", "nbcontain.runtime.groups",
        "nbcontain.build.copier", "nbcontain.build.survey",
    )
    unwanted = {
        "dis", "ast", "tokenize", "csv", "bz2", "lzma", "isal", "backports", "nbcontain.dockerfile",
        "threading", "random", "logging", "typing", "argparse", "gettext",
    }  # fmt: skip
    assert loaded & unwanted == set()


def test_the_cold_path_reaches_no_further_than_floor_three() -> None:
    loaded = loaded_by("nbcontain.runtime.zygote", "nbcontain.runtime.supervisor")
    above = {"build", "engine", "profiles", "display", "commands", "magics", "dockerfile", "registry"}
    assert parts(loaded) & above == set()


def test_importing_the_package_imports_nothing_of_it() -> None:
    loaded = loaded_by("nbcontain")
    assert {name for name in loaded if name.startswith("nbcontain.")} == set()
    assert loaded & HEAVY == set()


def test_the_engine_does_not_need_the_notebook() -> None:
    program = "import sys, nbcontain; nbcontain.Engine; nbcontain.RunOptions; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert {name.split(".")[0] for name in done.stdout.split()} & {
        "IPython",
        "ipywidgets",
        "anywidget",
        "pyroute2",
    } == set()
