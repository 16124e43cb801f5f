"""The extension of Jupyter's server: it is found and loaded, and what it makes of websockets."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from jupyter_server.extension.manager import ExtensionPackage
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect

import loops
import nbcontain

SETTING = "kernel_websocket_connection_class"


class Connection:
    """As jupyter_server's: made by the handler, connected once it is open."""

    def __init__(self, websocket_handler: WebSocketHandler) -> None:
        self.websocket_handler = websocket_handler

    def connect(self) -> str:
        return "connected"


class Kernel(WebSocketHandler):
    """Says what came of connecting, and whether its socket lets what is small wait."""

    async def open(self, *args: str, **kwargs: str) -> None:
        said = self.settings[SETTING](websocket_handler=self).connect()
        stream: Any = self.ws_connection.stream  # type: ignore[union-attr]
        await self.write_message(f"{said} {stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)}")


async def said_by(application: Application) -> str:
    listening, port = bind_unused_port()
    server = HTTPServer(application)
    server.add_sockets([listening])
    try:
        page = await asyncio.wait_for(websocket_connect(f"ws://127.0.0.1:{port}/"), 20)
        said = await asyncio.wait_for(page.read_message(), 20)
        page.close()
        return str(said)
    finally:
        server.stop()


def loaded_into(application: Application) -> None:
    """As jupyter_server does it, by the file that comes with the package."""
    file = Path(nbcontain.__file__).parent / "websockets.json"
    (name,) = json.loads(file.read_text())["ServerApp"]["jpserver_extensions"]
    package = cast("Any", ExtensionPackage)(name=name, enabled=True)
    assert package.validate()
    package.load_point(name, SimpleNamespace(web_app=application))


def test_what_is_small_does_not_wait_in_a_kernels_websocket() -> None:
    application = Application([("/", Kernel)], kernel_websocket_connection_class=Connection)
    assert loops.run(said_by(application)) == "connected 0"
    loaded_into(application)
    assert loops.run(said_by(application)) == "connected 1"


def test_a_server_that_makes_its_connections_otherwise_is_left_alone() -> None:
    application = Application([])
    loaded_into(application)
    assert SETTING not in application.settings
