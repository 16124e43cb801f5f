"""The badges of Binder, Colab and Kaggle, for the address that pyproject.toml says this repository has.

`python tools/badges.py https://github.com/WHO/WHAT` once it is known: writes the address into pyproject.toml, the
badges into README.md, and the address in the place of OWNER/REPOSITORY everywhere. Without an address there is none to
show, and README.md has no badges. tests/architecture/test_docs.py keeps them together.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
UNKNOWN = "OWNER/REPOSITORY"
NOTEBOOK = "notebooks/01-image-or-container.ipynb"
PAGES = ("README.md", "binder/README.md", "docs/how-to/colab.md")
"""Where an address of this repository stands."""
BEGIN, END = "<!-- badges: tools/badges.py -->", "<!-- end of badges -->"


def repository(checkout: Path = CHECKOUT) -> str:
    """WHO/WHAT, of project.urls of pyproject.toml; "" where there is no address yet."""
    urls = tomllib.loads((checkout / "pyproject.toml").read_text())["project"].get("urls", {})
    return str(urls.get("Repository", "")).removeprefix("https://github.com/").strip("/")


def badges(name: str) -> str:
    """Markdown; nothing for no repository."""
    if not name:
        return ""
    places = {
        "Binder": ("https://mybinder.org/badge_logo.svg",
                   f"https://mybinder.org/v2/gh/{name}/HEAD?labpath={NOTEBOOK.replace('/', '%2F')}"),
        "Open in Colab": ("https://colab.research.google.com/assets/colab-badge.svg",
                          f"https://colab.research.google.com/github/{name}/blob/HEAD/{NOTEBOOK}"),
        "Open in Kaggle": ("https://kaggle.com/static/images/open-in-kaggle.svg",
                           f"https://kaggle.com/kernels/welcome?src=https://github.com/{name}/blob/HEAD/{NOTEBOOK}"),
    }  # fmt: skip
    return "".join(f"[![{title}]({picture})]({address})\n" for title, (picture, address) in places.items())


def page(text: str, name: str) -> str:
    """A page as it is for this repository: with the badges, where it has a place for them, and the address."""
    before, begin, rest = text.partition(BEGIN)
    if begin:
        text = f"{before}{BEGIN}\n{badges(name)}{END}{rest.partition(END)[2]}"
    return text.replace(UNKNOWN, name) if name else text


def main(address: str = "") -> None:
    """Write them all."""
    project = CHECKOUT / "pyproject.toml"
    if address:
        if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
            sys.exit(f"{address} is no https://github.com/WHO/WHAT")
        text = re.sub(r"\[project\.urls\]\n(?:.+\n)*\n", "", project.read_text())
        table = f'[project.urls]\nRepository = "{address}"\n\n'
        project.write_text(text.replace("[project.optional-dependencies]", f"{table}[project.optional-dependencies]"))
    for each in PAGES:
        place = CHECKOUT / each
        place.write_text(page(place.read_text(), repository()))


if __name__ == "__main__":
    main(*sys.argv[1:])
