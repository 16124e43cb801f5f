"""What a container's own processes import stays small: it is their memory and their start-up time."""

from __future__ import annotations

import json
import subprocess
import sys

from package_source import PACKAGE

# inspect and urllib.parse are not among them: dataclasses and pathlib bring them in.
HEAVY = {
    "asyncio", "subprocess", "logging", "http", "ssl", "pyroute2", "httpx", "tempfile", "shutil",
    "IPython", "ipywidgets", "anywidget", "traitlets",
}  # fmt: skip


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


def test_the_supervisor_and_the_zygote_import_nothing_heavy() -> None:
    loaded = loaded_by("nbcontain.runtime.zygote", "nbcontain.runtime.supervisor")
    assert loaded & HEAVY == set()


def test_what_is_loaded_later_is_not_loaded_by_the_zygote_itself() -> None:
    """inspect by a dataclass without a docstring, a parser or a decompressor by an import too many: every fork pays."""
    loaded = loaded_by(
        "nbcontain.runtime.later", "nbcontain.runtime.zygote", "nbcontain.runtime.rootfs", "nbcontain.build.copier"
    )
    unwanted = {"dis", "ast", "tokenize", "csv", "bz2", "lzma", "isal", "backports", "nbcontain.dockerfile"}
    assert loaded & unwanted == set()


def test_the_cold_path_reaches_no_further_than_floor_three() -> None:
    loaded = loaded_by("nbcontain.runtime.zygote", "nbcontain.runtime.supervisor")
    parts = {name.split(".")[1] for name in loaded if name.startswith("nbcontain.")}
    assert parts & {"build", "engine", "profiles", "display", "commands", "magics", "dockerfile", "registry"} == set()


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
