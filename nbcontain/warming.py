"""What a kernel's first cells need, imported while nobody waits for it: the first card is then as soon there as others.

A thread does it after %load_ext has answered. Python lets other threads run every few milliseconds meanwhile, so the
kernel's loop is not held up.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

RUN = (
    "commands.runs", "commands.containers", "cells", "bases", "consoles", "happenings", "id_ranges", "life", "making",
    "mounting", "names", "objects", "proxies", "standard_input", "linux.confine", "linux.mount_options",
    "linux.seccomp", "linux.seccomp_default", "linux.seccomp_made", "linux.watching", "oci.seccomp",
    "registry.policies", "resources", "runtime.console", "runtime.devices", "runtime.identity", "runtime.isolation",
    "runtime.other_runtime", "runtime.sources", "runtime.users",
)  # fmt: skip
"""Of `%container run` and `exec`, which import them where they begin to need them."""
CARDS = ("display.live", "commands.cards", "display.widgets", "display.terminals", "display.terminal_widget")
"""ipywidgets and anywidget are behind these; they may be missing."""
BUILD = (
    "commands.builds", "commands.contextfiles", "builder", "build.operations", "build.inputs", "build.unpacker",
    "dockerfile.hints", "store.layer_writer",
)  # fmt: skip
"""Of `%%dockerfile`."""
KEYS = ("completion",)
"""Of the Tab key."""
LOOK = ("anatomy", "explorer", "display.explored")
"""Of `%image layers`."""
WIDGETS = ("display.explorer_widget",)
"""What `%image layers` is shown by, where there are cards."""


def warm(*, has_cards: bool, give_way: Callable[[], object] = lambda: None) -> None:
    """Import it, what is needed soonest first. Whatever is wrong is told by what needs it.

    `give_way` is called now and then, and returns when nobody waits for something that only needs a moment.
    """
    cards, widgets = (CARDS, WIDGETS) if has_cards else ((), ())
    for name in (*RUN, *cards, *BUILD, *KEYS, *LOOK, *widgets):
        give_way()
        # Also what a broken package of others raises: a thread would print it into somebody's cell.
        with suppress(Exception):
            import_module(f"nbcontain.{name}")
