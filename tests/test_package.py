"""What people install: a wheel made of the source archive, with nothing but Python, has all that the checkout has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from nbcontain.commands import commands
from nbcontain.commands.table import GROUPS

CHECKOUT = Path(__file__).resolve().parent.parent
HOOK = "import sys; from hatchling import build; build.build_{kind}(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made as pip does it, of the source archive, where no other program can be found: not git, not node."""
    directory = tmp_path_factory.mktemp("package")
    made("sdist", CHECKOUT, directory)
    [archive] = directory.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    made("wheel", directory / archive.name.removesuffix(".tar.gz"), directory)
    [wheel] = directory.glob("*.whl")
    return wheel


def made(kind: str, source: Path, directory: Path) -> None:
    command = [sys.executable, "-c", HOOK.format(kind=kind), str(directory)]
    subprocess.run(command, cwd=source, env={"PATH": "/nowhere"}, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(directory)
    return directory


def test_the_wheel_has_each_file_of_the_package_the_course_and_the_extension(installed: Path) -> None:
    sources = [each for each in (CHECKOUT / "nbcontain").rglob("*") if each.is_file() and each.suffix != ".pyc"]
    wanted = {each.relative_to(CHECKOUT): each for each in sources}
    for each in (CHECKOUT / "notebooks").glob("*.ipynb"):
        wanted[Path("nbcontain", "notebooks", each.name)] = each
    [data] = installed.glob("*.data")
    for each in (CHECKOUT / "nbcontain" / "labextension").rglob("*"):
        if each.is_file():
            place = each.relative_to(CHECKOUT / "nbcontain" / "labextension")
            wanted[data.relative_to(installed) / "data/share/jupyter/labextensions/nbcontain" / place] = each
    place = data.relative_to(installed) / "data/etc/jupyter/jupyter_server_config.d/nbcontain.json"
    wanted[place] = CHECKOUT / "nbcontain" / "websockets.json"
    missing = [name for name in wanted if not (installed / name).is_file()]
    assert missing == []
    assert [name for name, each in wanted.items() if (installed / name).read_bytes() != each.read_bytes()] == []
    assert_manual(data / "data/share/man")
    [points] = installed.glob("*.dist-info/entry_points.txt")
    assert {"nbcontain = nbcontain.__main__:main", "nbcontain-runtime = nbcontain.oci_runtime:main"} <= set(
        points.read_text().splitlines()
    )


def assert_manual(folder: Path) -> None:
    """A page for each command, each group and each of docker's short words, which a reader of man's can read."""
    groups = {f"nbcontain-{group}" for group in GROUPS}
    own = {f"nbcontain-{each.group}-{each.name}".replace("nbcontain-nbcontain", "nbcontain") for each in commands()}
    shorts = {f"nbcontain-{word}" for each in commands() for word in each.top}
    assert not groups & own
    assert {each.stem for each in (folder / "man1").iterdir()} == {"nbcontain"} | groups | own | shorts
    if (groff := shutil.which("groff")) is None:
        return
    for page in ("nbcontain.1", "nbcontain-run.1", "nbcontain-image-build.1"):
        command = [groff, "-s", "-man", "-Tutf8", "-P-bcou", "-ww", f"man1/{page}"]
        read = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert read.stderr == "" and "SYNOPSIS" in read.stdout


def test_the_course_is_copied_out_of_it_and_what_was_worked_in_is_left_alone(installed: Path, tmp_path: Path) -> None:
    def tutorials(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(installed), "NBCONTAIN_ROOT": str(tmp_path / "store")}
        command = [sys.executable, "-P", "-m", "nbcontain", "tutorials", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    first = tutorials()
    originals = {each.name: each.read_bytes() for each in (CHECKOUT / "notebooks").glob("*.ipynb")}
    copies = tmp_path / "nbcontain-tutorials"
    assert {each.name: each.read_bytes() for each in copies.iterdir()} == originals
    assert "Image or container?" in first.stdout and "begin with nbcontain-tutorials/00-" in first.stdout
    (copies / "01-image-or-container.ipynb").write_text("my work")
    (copies / "02-layer-cake.ipynb").unlink()
    again = tutorials(str(copies))
    assert (copies / "01-image-or-container.ipynb").read_text() == "my work"
    assert (copies / "02-layer-cake.ipynb").read_bytes() == originals["02-layer-cake.ipynb"]
    assert again.stdout.count("left as it is") == len(originals) - 1
    refused = tutorials("/proc/nowhere")
    assert (refused.returncode, refused.stderr.count("\n")) != (0, 0) and "Traceback" not in refused.stderr
    assert "cannot write notebooks to /proc/nowhere" in refused.stderr


FIRST_CELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
cell, installed = sys.argv[1:]
asked = []
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "nbcontain" and not asked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
def pip(line):
    asked.append(line)
    sys.path.insert(0, installed)
sys.meta_path.insert(0, Missing())
shell = InteractiveShell.instance()
shell.register_magic_function(pip, "line", "pip")
for _ in range(2):
    shell.run_cell(cell).raise_error()
print(asked, sys.modules["nbcontain"].__file__.startswith(installed), "image" in shell.magics_manager.magics["line"])
"""


def test_the_first_cell_of_the_course_installs_what_is_missing_and_nothing_where_it_is_there(
    installed: Path, tmp_path: Path
) -> None:
    notebooks = [json.loads(each.read_bytes()) for each in sorted((CHECKOUT / "notebooks").glob("*.ipynb"))]
    codes = [[each["source"] for each in one["cells"] if each["cell_type"] == "code"] for one in notebooks]
    [cell] = {"".join(sources[0]) for sources in codes}
    page = (CHECKOUT / "docs" / "how-to" / "colab.md").read_text()
    assert cell in page
    env = {**os.environ, "NBCONTAIN_ROOT": str(tmp_path / "store"), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-P", "-c", FIRST_CELL, cell, str(installed)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["['install -q nbcontain'] True True"], done.stdout + done.stderr
