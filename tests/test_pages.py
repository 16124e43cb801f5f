"""Pages of servers in containers, asked for inside of their network: redirects, cookies, limits, what is refused."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from nbcontain import pages
from nbcontain.commands import parse_words, split
from nbcontain.display.opened import Opened
from nbcontain.engine import Engine
from nbcontain.errors import ContainerError, NotRunning, UsageError
from nbcontain.network.model import PortMapping
from nbcontain.pages import Visit
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions

CGI = r"""#!/bin/sh
case "$QUERY_STRING" in
away) printf 'Status: 302 Found\r\nLocation: http://198.51.100.1/\r\n\r\n';;
on) printf 'Status: 302 Found\r\nSet-Cookie: seen=yes; Path=/\r\nLocation: /cgi-bin/x?who\r\n\r\n';;
lost) printf 'Status: 302 Found\r\nLocation: http://[::1\r\n\r\n';;
far) printf 'Status: 302 Found\r\nLocation: http://localhost:99999/\r\n\r\n';;
home) printf 'Status: 302 Found\r\nLocation: http://localhost:80\r\n\r\n';;
round) printf 'Status: 302 Found\r\nLocation: /cgi-bin/x?round\r\n\r\n';;
much) printf 'Content-Type: text/plain\r\n\r\n'; head -c 9000000 /dev/zero;;
*) printf 'Content-Type: text/plain\r\n\r\n'; echo "cookie: $HTTP_COOKIE, from $REMOTE_ADDR, host $HTTP_HOST";;
esac
"""
SETUP = f"mkdir -p /w/cgi-bin; cat > /w/cgi-bin/x <<'END'\n{CGI}END\nchmod 755 /w/cgi-bin/x; exec httpd -f -p 80 -h /w"


@pytest.fixture
def visit(engine: Engine, busybox_image: str) -> Visit:
    options = RunOptions(image=busybox_image, command=("sh", "-c", SETUP), name="web", detach=True, network="none")
    container = engine.run(options).result()
    assert isinstance(container, Container)
    found = engine.pages.visit(container, 80)
    end = time.monotonic() + 5
    while True:
        try:
            found.fetch("/")
            return found
        except ContainerError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_an_unpublished_port_answers_and_nothing_leads_out(engine: Engine, visit: Visit) -> None:
    assert visit.fetch("/nothing").status == 404
    page = visit.fetch("/cgi-bin/x?on")
    assert (page.path, page.status, page.kind) == ("/cgi-bin/x?who", 200, "text/plain")
    assert page.data.startswith(b"cookie: seen=yes, from")
    much = visit.fetch("/cgi-bin/x?much")
    assert (len(much.data), much.is_cut) == (pages.LIMIT_BYTES, True)
    with pytest.raises(ContainerError, match="another server"):
        visit.fetch("/cgi-bin/x?away")
    for wrong in ("lost", "far"):
        with pytest.raises(ContainerError, match="no address"):
            visit.fetch(f"/cgi-bin/x?{wrong}")
    assert visit.fetch("/cgi-bin/x?home").path == "/"
    with pytest.raises(ContainerError, match="goes on leading"):
        visit.fetch("/cgi-bin/x?round")
    with pytest.raises(ContainerError, match="does not answer"):
        engine.pages.visit(visit.container, 81).fetch("/")
    with pytest.raises(ContainerError):
        visit.fetch("/x\r\nEvil: 1")
    engine.stop(visit.container, 0)
    with pytest.raises(NotRunning):
        visit.fetch("/")


def test_who_asks_for_a_page_has_nothing_of_this_environment(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asker = tmp_path / "python"
    asker.write_text(f'#!/bin/sh\n/usr/bin/env > {tmp_path}/seen\nexec {sys.executable} "$@"\n')
    asker.chmod(0o755)
    monkeypatch.setenv("SECRET", "told to nobody")
    monkeypatch.setattr(sys, "executable", str(asker))
    assert visit.fetch("/nothing").status == 404
    assert "SECRET" not in (tmp_path / "seen").read_text()


def test_a_port_published_on_an_ipv6_address_has_an_address_that_browsers_read(
    engine: Engine, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = (PortMapping(80, host_address="::1", host_port=8080), PortMapping(81, host_address="::", host_port=8081))
    monkeypatch.setattr(engine.networks, "ports", lambda container: ports)
    assert engine.pages.address(visit.container, 80) == "http://[::1]:8080"
    assert engine.pages.address(visit.container, 81) == "http://127.0.0.1:8081"


def test_the_command_says_how_a_port_is_reached(engine: Engine, visit: Visit) -> None:
    def typed(line: str) -> object:
        command, words = parse_words("container", split(line))
        return command.function(engine, words)

    opened = typed("open web:80 docs")
    assert isinstance(opened, Opened)
    assert (opened.path, opened.address) == ("/docs", "")
    assert "is not published" in repr(opened)
    assert "web:80/docs" in opened._repr_html_()
    for wrong in ("open web:nothing", "open web:0", "open web:80 --external"):
        with pytest.raises(UsageError):
            typed(wrong)
    with pytest.raises(ContainerError, match="which port"):
        typed("open web")


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, ""),
        ({"CODESPACE_NAME": "calm-cat", "GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN": "app.github.dev"},
         "https://calm-cat-8080.app.github.dev"),
        ({"CODESPACE_NAME": "calm-cat"}, ""),
        ({"VSCODE_PROXY_URI": "https://{{port}}.code.example.com/"}, "https://8080.code.example.com"),
        # Under the notebook's own address: a container's page would have its rights.
        ({"VSCODE_PROXY_URI": "https://code.example.com/proxy/{{port}}/"}, ""),
        ({"VSCODE_PROXY_URI": "https://code.example.com:{{port}}/"}, ""),
        ({"VSCODE_PROXY_URI": "https://{{port}}@code.example.com/"}, ""),
        ({"VSCODE_PROXY_URI": "./proxy/{{port}}"}, ""),
        ({"VSCODE_PROXY_URI": "javascript:{{port}}"}, ""),
        ({"VSCODE_PROXY_URI": "http://[{{port}}"}, ""),
    ],
)  # fmt: skip
def test_a_port_that_a_host_forwards_is_told_where_it_has_a_name_of_its_own(
    environ: dict[str, str], address: str
) -> None:
    assert pages.forwarded(environ, 8080) == address


def test_where_it_is_forwarded_to_is_said(
    engine: Engine, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = (PortMapping(53, "udp", host_port=8053), PortMapping(80, host_port=8080))
    monkeypatch.setattr(engine.networks, "ports", lambda container: ports)
    monkeypatch.setenv("VSCODE_PROXY_URI", "https://{{port}}.code.example.com")
    command, words = parse_words("container", split("open web:80 docs"))
    assert repr(command.function(engine, words)).endswith("from elsewhere at https://8080.code.example.com/docs")
