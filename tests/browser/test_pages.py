"""A container's page in JupyterLab, from a network that nothing leads into: links, forms, styles, and hostile pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from lab import OpenLab
from nbcontain.engine import Engine
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

INDEX = """<title>t</title><link rel=stylesheet href=style.css><h1>first page</h1><a href=/two.html>two</a>
<form action=/cgi-bin/echo method=post><input name=word value="a&amp;b"><button>send</button></form>
<p id=got></p><p id=reach></p>
<script>fetch('data.json').then(r => r.json()).then(d => { document.getElementById('got').textContent = d.said; });
let tried = [];
for (const what of ['parent.document.body', 'top.jupyterapp.commands', 'localStorage.length', 'document.cookie.length'])
  try { eval(what); tried.push('REACHED ' + what); } catch (e) { tried.push(e.name); }
document.getElementById('reach').textContent = tried.join();</script>
<img src=http://198.51.100.1/leak.png>
<button onclick="location = 'http://198.51.100.1/gone'">go away</button>"""
ECHO = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\nposted: '; head -c "$CONTENT_LENGTH"
"""
LATE = """#!/bin/sh
sleep 1; printf 'Content-Type: text/html\\r\\n\\r\\n<h1>late page</h1>'
"""
SETUP = f"""mkdir -p /w/cgi-bin
cat > /w/index.html <<'END'
{INDEX}
END
cat > /w/cgi-bin/late <<'END'
{LATE}
END
cat > /w/cgi-bin/echo <<'END'
{ECHO}
END
echo 'h1 {{ color: rgb(1, 2, 3) }}' > /w/style.css
echo '<h1>second page</h1>' > /w/two.html; echo '{{"said": "by fetch"}}' > /w/data.json
chmod 755 /w/cgi-bin/*; exec httpd -f -p 80 -h /w
"""


def test_a_page_of_an_unpublished_port_is_opened_and_shut_in(
    open_lab: OpenLab, desk_engine: Engine, pictures: Path
) -> None:
    options = RunOptions(image="box", command=("sh", "-c", SETUP), name="web", detach=True, network="none")
    assert isinstance(desk_engine.run(options).result(), Container)
    lab = open_lab("%load_ext nbcontain", "%container open web:80")
    lab.run_all()
    frame = lab.output(1).frame_locator("iframe").frame_locator("iframe")
    expect(frame.get_by_role("heading")).to_have_text("first page")
    expect(frame.get_by_role("heading")).to_have_css("color", "rgb(1, 2, 3)")
    expect(frame.locator("#got")).to_have_text("by fetch")
    expect(frame.locator("#reach")).to_have_text("SecurityError,SecurityError,SecurityError,SecurityError")
    lab.picture(pictures / "page-light.png")
    frame.get_by_role("button", name="send").click()
    expect(frame.locator("body")).to_contain_text("posted: word=a%26b")
    lab.button(1, "back").click()
    frame.get_by_role("link", name="two").click()
    expect(frame.get_by_role("heading")).to_have_text("second page")
    address = lab.output(1).get_by_label("path on web:80")
    for path in ("/cgi-bin/late", "/two.html"):
        address.fill(path)
        address.press("Enter")
    lab.page.wait_for_timeout(1500)
    # What was asked for first and came last does not take the place of what was wanted then.
    expect(frame.get_by_role("heading")).to_have_text("second page")
    address.fill("/")
    address.press("Enter")
    with lab.page.expect_console_message(lambda message: "frame-src" in message.text):
        frame.get_by_role("button", name="go away").click()
    # Another host is never reached: the policy refuses it.
    assert any("leak.png" in each and "violates" in each for each in lab.complaints)
    lab.complaints.clear()
    desk_engine.stop(desk_engine.container("web"), 0)
    lab.button(1, "load again").click()
    expect(frame.locator("body")).to_contain_text("is not running")
    lab.complaints.clear()
