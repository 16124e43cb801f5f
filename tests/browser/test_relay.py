"""Jupyter's server leads a page to a terminal's line, and nobody else."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

import loops
from lab import Lab, OpenLab
from nbcontain.display.direct import Direct, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


class Line:
    """A line in the server's runtime directory, whose other end says twice what a page says."""

    def __init__(self, lab: Lab) -> None:
        self.directory = lab.path.parent / ".jupyter" / "runtime"
        self.direct = Direct(self._twice, self.directory)
        self.lab = lab

    def _twice(self, content: dict[str, object], page: Page) -> None:
        page.replay(2 * str(content["data"]).encode())

    def request(self, name: str, *, token: str = "", **headers: str) -> HTTPRequest:
        url = f"{self.lab._desk.url.replace('http', 'ws')}/nbcontain/lines/{name}"
        return HTTPRequest(url + (f"?token={token}" if token else ""), headers=headers)

    def cookie(self) -> str:
        """What a browser sends once somebody has logged in."""
        cookies = self.lab.page.context.cookies()
        return "; ".join(f"{each['name']}={each['value']}" for each in cookies)

    def refused(self, request: HTTPRequest) -> int:
        async def asked() -> int:
            with pytest.raises(HTTPClientError) as caught:
                await asyncio.wait_for(websocket_connect(request), 20)
            return caught.value.code

        return loops.run(asked())


def test_a_line_is_led_to_for_who_may_use_the_servers_terminals(open_lab: OpenLab) -> None:
    line = Line(open_lab("1"))
    token = line.lab._desk._token
    name = line.direct.line()
    assert line.refused(line.request(name)) == 403
    cookie, other = line.cookie(), line.direct.line()
    assert line.refused(line.request(other, Cookie=cookie, Origin="http://elsewhere.example")) == 403
    assert line.refused(line.request("0" * 32, Cookie=cookie, Origin=line.lab._desk.url)) == 404
    assert line.refused(line.request("0" * 32, token=token)) == 404
    for wrong in ("..%2Fx", "0" * 31, name.upper() + "g"):
        assert line.refused(line.request(wrong, token=token)) == 404
    assert Path(line.directory, f"nbcontain-{name}.sock").exists()

    async def said() -> list[object]:
        page = await asyncio.wait_for(websocket_connect(line.request(name, token=token)), 20)
        found: list[object] = []
        for text in ("é", "x" * 20_000):
            await page.write_message(json.dumps({"data": text}))
            found.append(await asyncio.wait_for(page.read_message(), 20))
        found.append(await asyncio.wait_for(page.read_message(), 20))
        line.direct.close()
        found.append(await asyncio.wait_for(page.read_message(), 20))
        return found

    first, *rest, end = loops.run(said())
    assert first == b"\x01" + 2 * "é".encode() and end is None
    assert b"".join(bytes(each)[1:] for each in rest) == b"x" * 40_000  # type: ignore[call-overload]
    assert line.refused(line.request(name, token=token)) == 404
    assert os.listdir(line.directory).count(f"nbcontain-{name}.sock") == 0
