"""Take README.md's picture anew: its own cells in JupyterLab, as they look now, into docs/cards.png."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "tests"))
CELLS = (
    "%load_ext nbcontain",
    """\
%%dockerfile -t hello
FROM host
RUN echo "made $(date)" > /when
CMD ["sh", "-c", "cat /when; while :; do date; sleep 1; done"]""",
    "%container run -d --name clock hello",
    "",  # has the focus, and is not in the picture
)


def main() -> None:
    """Run the cells in a store of their own and take the picture."""
    from lab import opened
    from nbcontain import Engine

    with tempfile.TemporaryDirectory(prefix="nbcontain-picture-") as directory:
        root = Path(directory, "store")
        with opened(CELLS, Path(directory), root=root, width=1040) as lab, Engine(root) as engine:
            for number in range(3):
                lab.run(number)
            lab.wait_for_text(2, r"(?s)(\d\d:\d\d:\d\d.*){4}")
            lab.page.evaluate("() => { nb.panel().content.activeCellIndex = 3; }")
            cells = lab.page.locator(".jp-Notebook .jp-Cell").all()[:3]
            boxes = [box for box in (cell.bounding_box() for cell in cells) if box]
            left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
            right, bottom = (max(box[a] + box[b] for box in boxes) for a, b in (("x", "width"), ("y", "height")))
            clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            lab.page.screenshot(path=str(CHECKOUT / "docs" / "cards.png"), clip=clip)
            for container in engine.containers():
                engine.remove_container(container, force=True)


if __name__ == "__main__":
    main()
