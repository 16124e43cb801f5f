"""Take pictures of every card in JupyterLab, light and dark and narrow. Look at each of them.

The few that the documentation shows go into docs/images/, all others into .cache/pictures/, with whole notebooks of the
course among them: lesson-01-light-1.png and so on.

tools/pictures.py [NAME…] takes only those whose name begins so, and every lesson that is named: lesson-03.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "tests"))

from lab import Desk, Lab, desk  # noqa: E402
from nbcontain import Engine  # noqa: E402

IMAGES, OTHERS = CHECKOUT / "docs" / "images", CHECKOUT / ".cache" / "pictures"
SHOWN = {"notebook-light", "container-dark", "board-light", "terminal-dark", "layers-light", "xray-light"}
LOAD = "%load_ext nbcontain"
BASE = "%%dockerfile -t base\nFROM host\n"
SHOP = """\
%%dockerfile -t shop
FROM base
RUN echo "made $(date)" > /when
CMD ["sh", "-c", "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo \\"GET /cart/$n 200\\"; \\
     if [ $((n % 7)) = 0 ]; then echo \\"slow answer: $n\\" >&2; seq 30000 > /dev/null; \\
     echo $n >> /orders; fi; sleep 0.3; done"]"""


@dataclass(frozen=True)
class Scene:
    """Cells, which of them is in the picture, and what is done before it is taken."""

    cells: tuple[str, ...]
    ready: Callable[[Lab], object] = field(default=lambda lab: None)
    width: int = 900
    shown: int = -1
    """The first cell that is in the picture; those before it are not."""
    is_held: bool = False
    """Whether the last cell cannot go on, since nobody may use the store meanwhile."""


LAST = -2
"""The last cell that is run."""


def _lines(lab: Lab) -> None:
    lab.wait_for_text(LAST, r"cart/\d\d\b", timeout_s=60)
    lab.page.wait_for_timeout(4000)


def _told(lab: Lab) -> None:
    lab.wait_for_text(LAST, r"(?s)(\d\d:\d\d:\d\d.*){5}")


def _filtered(lab: Lab) -> None:
    _lines(lab)
    lab.output(LAST).get_by_role("searchbox").fill("slow")


def _changes(lab: Lab) -> None:
    _lines(lab)
    lab.button(LAST, "Changes").click()
    lab.wait_for_text(LAST, "/orders")


def _stopped(lab: Lab) -> None:
    _lines(lab)
    lab.button(LAST, "Stop").click()
    lab.wait_for_text(LAST, "exited 0")
    lab.page.wait_for_timeout(3000)


def _board(lab: Lab) -> None:
    lab.wait_for_text(LAST, r"cart/\d\d\b.*", timeout_s=60)
    lab.page.wait_for_timeout(6000)


def _typed(lab: Lab) -> None:
    screen = lab.output(LAST).locator(".xterm")
    screen.click()
    for line in ("ls -l --color /", "cat /when", "head -3 /proc/meminfo"):
        lab.page.keyboard.type(f"{line}\n")
        lab.page.wait_for_timeout(500)


def _metered(lab: Lab) -> None:
    lab.wait_for_text(LAST, r"processors\s+\d+", timeout_s=30)


def _looked(lab: Lab) -> None:
    rows = lab.output(LAST).get_by_role("treeitem")
    rows.filter(has_text="app/").first.click()
    rows.filter(has_text="settings").first.click()
    lab.wait_for_text(LAST, r"debug = true")


def _page(lab: Lab) -> None:
    lab.output(LAST).frame_locator("iframe").frame_locator("iframe").get_by_role("heading").wait_for()


RUN = "%container run -d --name shop --memory 64m shop"
MORE = (
    "%container run -d --name worker base sh -c 'while :; do seq 20000 > /dev/null; sleep 0.05; done'",
    "%container run -d --name job base sh -c 'echo 120 rows written'",
    "%container run -d --name broken base sh -c 'echo no such table: orders >&2; exit 3'",
)
LAYERED = """\
%%dockerfile -t layered
FROM base
RUN mkdir /app; printf 'debug = true\\nport = 80\\n' > /app/settings; seq 100000 > /app/data
RUN sed -i s/80/8080/ /app/settings
RUN rm /app/data; echo 1.2 > /app/version
"""
SITE = "%container run -d --name site --network none base python3 -m http.server 80 --directory /usr"
# README.md's own cells.
HELLO = """\
%%dockerfile -t hello
FROM host
RUN echo "made $(date)" > /when
CMD ["sh", "-c", "cat /when; while :; do date; sleep 1; done"]"""
SCENES = {
    "notebook": Scene((LOAD, HELLO, "%container run -d --name clock hello"), _told, width=1040, shown=0),
    "board": Scene((LOAD, BASE, SHOP, RUN, *MORE, "%container board"), _board),
    "board-narrow": Scene((LOAD, BASE, SHOP, RUN, *MORE, "%container board"), _board, width=420),
    "terminal": Scene((LOAD, BASE, SHOP, RUN, "%container terminal shop"), _typed),
    "terminal-narrow": Scene((LOAD, BASE, SHOP, RUN, "%container terminal shop"), _typed, width=420),
    "xray": Scene((LOAD, BASE, SHOP, RUN, "%container explain shop"), _metered),
    "xray-narrow": Scene((LOAD, BASE, SHOP, RUN, "%container explain shop"), _metered, width=420),
    "layers": Scene((LOAD, BASE, LAYERED, "%image layers layered"), _looked),
    "layers-narrow": Scene((LOAD, BASE, LAYERED, "%image layers layered"), _looked, width=420),
    "open": Scene((LOAD, BASE, SITE, "import time; time.sleep(3)", "%container open site:80 /"), _page),
    "build": Scene((LOAD, BASE, SHOP)),
    "container": Scene((LOAD, BASE, SHOP, RUN), _lines),
    "container-filtered": Scene((LOAD, BASE, SHOP, RUN), _filtered),
    "container-changes": Scene((LOAD, BASE, SHOP, RUN), _changes),
    "container-ended": Scene((LOAD, BASE, SHOP, RUN), _stopped),
    "container-narrow": Scene((LOAD, BASE, SHOP, RUN), _lines, width=420),
    "starting": Scene((LOAD, BASE, SHOP, RUN), is_held=True),
    "starting-narrow": Scene((LOAD, BASE, SHOP, RUN), width=420, is_held=True),
    "starting-layers": Scene((LOAD, BASE, SHOP, "%image layers shop"), is_held=True),
    "failed": Scene((LOAD, BASE, "%container run -d --name job base no-such-program")),
    "tables": Scene((LOAD, BASE, SHOP, "%image ls", "%container ps -a"), shown=3),
}


LESSONS = ("00", "01", "02", "04", "07")
"""Those that show most of what there is to be seen."""


def main(names: list[str]) -> None:
    """Run the scenes in stores of their own and take the pictures."""
    with tempfile.TemporaryDirectory(prefix="nbcontain-pictures-") as directory:
        root = Path(directory, "store")
        with desk(Path(directory), root=root) as opened, Engine(root) as engine:
            for name, scene in SCENES.items():
                if names and not name.startswith(tuple(names)):
                    continue
                # The last cell has the focus, and is not in the picture.
                with opened.open((*scene.cells, ""), width=scene.width) as lab, ExitStack() as held:
                    for number in range(len(scene.cells) - scene.is_held):
                        lab.run(number)
                    if scene.is_held:
                        held.enter_context(engine.store.exclusive())
                        lab.start(len(scene.cells) - 1)
                        lab.card(len(scene.cells) - 1).wait_for()
                    scene.ready(lab)
                    for theme in ("light", "dark"):
                        lab.theme(theme)
                        lab.page.wait_for_timeout(300)
                        shown = range(scene.shown % len(scene.cells), len(scene.cells))
                        picture = f"{name}-{theme}"
                        lab.cell_picture(shown, (IMAGES if picture in SHOWN else OTHERS) / f"{picture}.png")
                    lab.theme("light")
                for container in engine.containers():
                    engine.remove_container(container, force=True)
            for number in _lessons(names):
                _lesson(opened, number)


def _lessons(names: list[str]) -> list[str]:
    """The numbers of those that are wanted: any that is named."""
    every = sorted(path.name[:2] for path in (CHECKOUT / "notebooks").glob("*.ipynb"))
    return [number for number in every if f"lesson-{number}".startswith(tuple(names))] if names else [*LESSONS]


def _lesson(opened: Desk, number: str) -> None:
    """A notebook of the course, run to its end. A cell that fails is seen in the picture."""
    [path] = (CHECKOUT / "notebooks").glob(f"{number}-*.ipynb")
    shutil.copy(path, opened.directory)
    with opened.opened(path.name, width=900) as lab:
        lab.run_all()
        for theme in ("light", "dark"):
            lab.theme(theme)
            lab.page.wait_for_timeout(300)
            lab.whole_picture(OTHERS / f"lesson-{number}-{theme}.png")
        lab.theme("light")


if __name__ == "__main__":
    main(sys.argv[1:])
