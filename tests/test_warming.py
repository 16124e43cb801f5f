"""What a kernel does after %load_ext, while nobody waits: then the first command finds everything there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import needs
from images import BUSYBOX
from nbcontain import Engine, warming
from nbcontain.build.plan import BuildOptions
from places import store_directory

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPT = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
shell.run_line_magic("load_ext", "nbcontain")
assert shell.nbcontain.is_warm.wait(60)
before = set(sys.modules)
shell.run_line_magic("container", "run -d --name first box sleep 600")
print("imported", sorted(name for name in set(sys.modules) - before if name.startswith(("nbcontain", "ipywidgets"))))
shell.run_line_magic("container", "rm -f first")
print(shell.nbcontain._magics["container"].getdoc())
"""
def test_all_that_is_imported_beforehand_is_there() -> None:
    names = (*warming.RUN, *warming.CARDS, *warming.BUILD, *warming.KEYS, *warming.LOOK, *warming.WIDGETS)
    assert [name for name in names if find_spec(f"nbcontain.{name}") is None] == []


WARM = "import sys; from nbcontain import warming; warming.warm(has_cards={has_cards}); print({name!r} in sys.modules)"


def test_a_package_that_is_broken_keeps_nothing_else_from_being_imported(tmp_path: Path) -> None:
    (tmp_path / "anywidget.py").write_text("raise RuntimeError('broken')")
    program = WARM.format(has_cards=True, name="nbcontain.explorer")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_where_there_are_no_cards_nothing_of_widgets_is_imported() -> None:
    program = WARM.format(has_cards=False, name="anywidget")
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_first_command_imports_nothing_once_the_kernel_is_warm(tmp_path: Path) -> None:
    shutil.copy2(needs.program("busybox"), tmp_path / "busybox")
    with store_directory() as root:
        with Engine(root) as engine:
            engine.build(BUSYBOX, BuildOptions(tags=("box",), context=tmp_path)).result()
        env = {**os.environ, "NBCONTAIN_ROOT": str(root), "NBCONTAIN_DISPLAY": "card", "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    assert "imported []" in done.stdout, done.stdout
    assert "%container COMMAND [OPTIONS]" in done.stdout
