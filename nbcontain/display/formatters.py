"""How IPython draws our objects: registered from outside, so that the floors below know nothing of display."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nbcontain.display import looking
from nbcontain.display.live import Surroundings, show_container
from nbcontain.display.present import Mode
from nbcontain.display.surface import display
from nbcontain.display.table import Column, Table, Watched
from nbcontain.display.values import Document, Verdict
from nbcontain.display.words import ago, command_line, size

if TYPE_CHECKING:
    from nbcontain.anatomy import TreeAt
    from nbcontain.oci.image import Image
    from nbcontain.runtime.container import Container

Around = Callable[["Container"], Surroundings]


def register(
    ipython: Any, mode: Mode, around: Around, drawn: Callable[[object], bool], follow: Callable[[Watched], None]
) -> None:
    """Hand our drawings to IPython's formatters.

    `around` gives what a container's card knows and can do. `drawn` tells whether an object was just shown as the
    outcome of a command, so that a cell does not show it a second time as its value. `follow` shows a table that
    is looked at again.
    """
    formatters = ipython.display_formatter.formatters
    own = ipython.display_formatter.ipython_display_formatter

    def show_live(container: Container) -> None:
        if not drawn(container):
            show_container(container, around(container), mode=mode)

    def show_image(image: Image) -> None:
        if not drawn(image):
            table = image_table(image)
            display({"text/plain": table.text(), "text/html": table.html()})

    def show_result(result: object) -> None:
        if not drawn(result):
            display({"text/plain": str(result)})

    def show_tree(tree: TreeAt) -> None:
        from nbcontain.display.filetree import FileTree

        drawn_tree = FileTree(tree)
        display({"text/plain": drawn_tree.text(), "text/html": drawn_tree.html()})

    if mode == "plain":
        own.pop(Watched, None)
    else:
        own.for_type(Watched, follow)
    for module, name, shower in (
        ("nbcontain.runtime.container", "Container", show_live),
        ("nbcontain.oci.image", "Image", show_image),
        ("nbcontain.outcomes", "RunResult", show_result),
        ("nbcontain.anatomy", "TreeAt", show_tree),
    ):
        _register_by_name(own, module, name, shower)
    for module, name, show_it in (
        ("nbcontain.display.opened", "Opened", looking.show_opened),
        ("nbcontain.display.xrayed", "Xrayed", looking.show_xray),
        ("nbcontain.images", "Layers", looking.show_layers),
        ("nbcontain.display.explored", "Explored", looking.show_explored),
    ):
        _register_by_name(own, module, name, partial(_shown_as, show_it, mode, drawn))
    formatters["text/plain"].for_type(Document, lambda value, p, cycle: p.text(value.text()))
    formatters["text/plain"].for_type(Verdict, lambda value, p, cycle: p.text(_verdict_text(value)))
    formatters["text/html"].for_type(
        Verdict, lambda verdict: verdict.value.html() if hasattr(verdict.value, "html") else None
    )


def _register_by_name(own: Any, module: str, name: str, show: Callable[[Any], None]) -> None:
    """For a type that may not be imported yet. Of one that was shown before, IPython looks at no name any more.

    A module that another thread is about to import is there without it.
    """
    kind = getattr(sys.modules.get(module), name, None)
    if kind is not None:
        own.for_type(kind, show)
    else:
        own.for_type_by_name(module, name, show)


def _shown_as(show: Callable[[Any, Mode], None], mode: Mode, drawn: Callable[[object], bool], value: Any) -> None:
    if not drawn(value):
        show(value, mode)


def _verdict_text(verdict: Verdict) -> str:
    return verdict.value.text() if isinstance(verdict.value, Document) else str(verdict.value)


def image_table(image: Image) -> Table:
    """What there is to know of an image at a glance: its config, then its layers."""
    config = image.config
    rows = []
    for entry, layer in image.steps:
        amount = layer.descriptor.size if layer else 0
        rows.append((layer.descriptor.digest.short if layer else "", entry.created_by or entry.comment, amount, amount))
    runs = command_line((*(config.entrypoint or ()), *(config.cmd or ())))
    facts = [
        f"image {image.id.short}",
        size(image.size_bytes),
        f"{len(image.layers)} layers",
        f"made {ago(config.created)}",
    ]
    facts += [f"runs {runs}"] if runs else []
    facts += [f"user {config.user}"] if config.user else []
    columns = (
        Column("LAYER", look="code"),
        Column("CREATED BY", look="wide"),
        Column("SIZE", size, "num"),
        Column("", look="graph"),
    )
    return Table(columns, rows, " · ".join(facts), f"layers of image {image.id.short}")
