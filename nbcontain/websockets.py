"""A small part of Jupyter's server: what a kernel says reaches the page at once. Runs in the server's own process.

jupyter_server leaves its websockets as sockets come: what is small waits there until the page's machine has told that
it got what went before, which that does up to 40 ms later (Nagle's rule, and acknowledgements that are delayed). An
echo behind "the kernel is idle" came 50 ms after its key by that. And a terminal's keys need not come as kernel
messages: `relay.py` leads pages to it. The extension is enabled where the package is installed, by `websockets.json`;
`jupyter server extension disable nbcontain.websockets` undoes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SETTING = "kernel_websocket_connection_class"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "nbcontain.websockets"}]


def _load_jupyter_server_extension(server: Any) -> None:
    settings = server.web_app.settings
    # None before jupyter_server 2.0: then it stays as it is.
    if (connection := settings.get(_SETTING)) is not None:
        settings[_SETTING] = prompt(connection)
        if (directory := getattr(server, "runtime_dir", "")):
            from nbcontain import relay

            relay.install(server.web_app, Path(directory))


def prompt(connection: Any) -> Any:
    """The same class of connections, whoever's it is; nothing waits in their websockets."""

    class Prompt(connection):  # type: ignore[misc]
        def connect(self) -> Any:
            self.websocket_handler.set_nodelay(True)
            return super().connect()

    return Prompt
