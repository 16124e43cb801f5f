"""A terminal's keys and what its program says, through Jupyter's server past its kernels. Runs in the server's process.

A page that has been told the name of a line (`display/direct.py`) opens a websocket here, and packets go both ways as
they are. Who may open one is asked as for Jupyter's own terminals; where a line lies and who made it is checked, too.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from pathlib import Path

from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.web import Application, HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from nbcontain.display.direct import connect

_PATH = "nbcontain/lines/([0-9a-f]{32})"
_PACKET_BYTES = 1 << 16


def install(application: Application, directory: Path) -> None:
    """Lead pages to the lines in this directory, and have them know it."""
    base = application.settings.get("base_url", "/").rstrip("/")
    application.add_handlers(".*", [(f"{base}/{_PATH}", Relay, {"directory": directory})])
    application.settings.setdefault("page_config_data", {})["nbcontainLines"] = True


class Relay(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One page's websocket, and the line that it leads to."""

    auth_resource = "terminals"

    def initialize(self, directory: Path) -> None:
        self._directory = directory

    async def get(self, name: str) -> None:
        """Asked to become a websocket; lasts as long as it is one."""
        user = self.current_user
        if not user:
            raise HTTPError(403)
        if self.authorizer is not None:
            allowed = self.authorizer.is_authorized(self, user, "execute", self.auth_resource)
            if not await ensure_async(allowed):
                raise HTTPError(403)
        try:
            line = connect(self._directory, name).socket
        except OSError as error:
            raise HTTPError(404) from error
        with socket.socket(fileno=line.detach()) as self._line:
            self._line.setblocking(False)
            self._listening: asyncio.Task[None] | None = None
            try:
                await super().get(name)
            finally:
                if self._listening is not None:
                    self._listening.cancel()
                    await asyncio.gather(self._listening, return_exceptions=True)

    def set_default_headers(self) -> None:
        """Jupyter's are for pages."""

    def open(self, *args: str, **kwargs: str) -> None:
        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self._listening = asyncio.create_task(self._listen())

    async def on_message(self, message: str | bytes) -> None:
        """What the page says: a text is a packet."""
        # Jupyter's own terminals do the same: who types is no idle server.
        self.settings["terminal_last_activity"] = datetime.now(UTC)
        data = message.encode() if isinstance(message, str) else message
        try:
            await asyncio.get_running_loop().sock_sendall(self._line, data)
        except OSError:
            self.close()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while packet := await loop.sock_recv(self._line, _PACKET_BYTES):
                await self.write_message(packet, binary=True)
        except (OSError, WebSocketClosedError):
            pass
        self.close()
