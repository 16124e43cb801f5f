"""The extension of JupyterLab: cells of ours are coloured as what they hold."""

from __future__ import annotations

import json
import re

import pytest

import nbcontain
from lab import EXTENSION, OpenLab

DOCKERFILE = "text/x-ipython-dockerfile"
CELL = """%%dockerfile -t hello
# a comment
FROM --platform=$P host AS base
RUN echo 'don"t' && \\
    # another comment
    echo "${X}"
COPY <<EOF /etc/conf
FROM is text here
EOF
CMD ["true"]"""


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cells_are_coloured_as_what_they_hold(open_lab: OpenLab) -> None:
    held = {
        CELL: DOCKERFILE,
        "%%contextfile --chmod 755 src/app.py\nprint(1)": "text/x-python",
        "%%contextfile conf.yaml\na: 1": "text/x-yaml",
        "%%contextfile Dockerfile.dev\nFROM host": DOCKERFILE,
        "%%contextfile LICENSE\nas it is": "text/plain",
        "%%container run hello\necho hi": "text/x-sh",
        "%%container exec web\n#!/usr/bin/env python3\nprint(1)": "text/x-ipython",
        "%%container run --interpreter node hello\nlet a = 1": "text/javascript",
        "x = 1  # %%dockerfile": "text/x-ipython",
    }
    lab = open_lab(*held)
    lab.page.wait_for_function(f"nb.panel().content.widgets[0].model.mimeType === '{DOCKERFILE}'")
    lab.page.wait_for_function("nb.panel().content.widgets[8].model.mimeType === 'text/x-ipython'")
    assert {source: lab.language(number) for number, source in enumerate(held)} == held

    colour = {word: lab.coloured(0, word) for word in ("FROM", "RUN", "CMD", "# a comment", "# another comment")}
    assert colour["FROM"] == colour["RUN"] == colour["CMD"] != colour["# a comment"] == colour["# another comment"]
    assert lab.coloured(0, "FROM is text here") not in (colour["FROM"], colour["# a comment"])
    paper = "() => getComputedStyle(document.querySelector('.jp-InputArea-editor')).backgroundColor"
    for theme in ("dark", "light"):
        lab.theme(theme)
        assert contrast(lab.coloured(0, "%%dockerfile -t hello"), lab.page.evaluate(paper)) >= 4.5, theme

    # typed, and taken back; what is saved says nothing of it
    lab.write(8, "%%dockerfile\nFROM host")
    lab.page.wait_for_function(f"nb.panel().content.widgets[8].model.mimeType === '{DOCKERFILE}'")
    lab.write(8, "FROM = 1")
    lab.page.wait_for_function("nb.panel().content.widgets[8].model.mimeType === 'text/x-ipython'")
    lab.reload()
    assert DOCKERFILE not in lab.path.read_text()


def contrast(one: str, other: str) -> float:
    """Of two colours as CSS says them (WCAG 2.1, contrast ratio)."""
    dark, bright = sorted(map(_luminance, (one, other)))
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_extension_says_the_package_s_name_and_version() -> None:
    package = json.loads((EXTENSION / "package.json").read_text())
    assert (package["name"], package["version"]) == ("nbcontain", nbcontain.__version__)
    assert (EXTENSION / package["jupyterlab"]["_build"]["load"]).exists()
