"""A server under load: nginx where there is time for it (NBCONTAIN_SOAK), else busybox's; and wrk, here or inside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import needs
from machine import Machine, until
from nbcontain.runtime.container import Container
from rounds import SOAK

LOAD_S = 20 if SOAK else 2
CACHE = Path(__file__).resolve().parent.parent / ".cache"
BUSYBOX = "mkdir -p /web; echo loaded > /web/index.html; echo ready; exec httpd -f -p 80 -h /web"
NGINX = "echo loaded > /var/www/html/index.html; echo ready; exec nginx -g 'daemon off;'"


def server(machine: Machine, **options: object) -> Container:
    """One that is started again whenever it ends."""
    image, script = "box", BUSYBOX
    if SOAK:
        # As tests/test_services.py left it.
        kept = next(iter(CACHE.glob("services-*.tar")), None)
        if kept is None or not os.access(kept, os.R_OK):
            needs.missing("there is no image with nginx: tests/test_services.py makes it")
        machine.engine.archives.load(str(kept)).result()
        image, script = "services", NGINX
    return machine.start(script, image=image, restart="always", **options)


def killed_under_load(machine: Machine, victim: Container, address: str, prefix: Sequence[str] = ()) -> int:
    """wrk asks there, and the server is killed meanwhile, several times; gives how often it was answered."""
    load = subprocess.Popen([*prefix, needs.program("wrk", "wrk"), *_words(address)], stdout=subprocess.PIPE, text=True)
    _killed(victim)
    said, _ = load.communicate(timeout=LOAD_S + 30)
    assert load.returncode == 0, said
    return _answered(said, address)


def with_wrk(machine: Machine, context: Path) -> None:
    """The image `loader`: this machine's wrk, and what it is linked with."""
    program = needs.program("wrk", "wrk")
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    place = context / "load"
    place.mkdir(exist_ok=True)
    for path in (program, *re.findall(r"(/\S+) \(0x", linked)):
        shutil.copy(path, place)
    machine.build("FROM box\nCOPY load /load\n", "loader", context)


def loading(machine: Machine, address: str, *, for_s: int = LOAD_S, **options: object) -> Container:
    """A container in which wrk has begun to ask there."""
    words = " ".join(_words(address, for_s))
    script = f"echo ready; exec /load/ld-linux-*.so.2 --library-path /load /load/wrk {words}"
    return machine.start(script, image="loader", **options)


def killed_under_load_from(load: Container, victim: Container, address: str) -> int:
    """The same for a load that comes from a container."""
    _killed(victim)
    code = load.wait(LOAD_S + 30)
    said = b"".join(getattr(each.event, "data", b"") for each in load.output()).decode()
    assert code == 0, said
    return _answered(said, address)


def _words(address: str, for_s: int = LOAD_S) -> list[str]:
    return ["-t1", "-c8", f"-d{for_s}s", "--timeout", "2s", address]


def _killed(victim: Container) -> None:
    """As whoever runs out of memory is: nobody meant it to end."""
    before = victim.state().restart_count
    # Each time it is started again it takes twice as long, as with docker.
    for _ in range(2 if SOAK else 1):
        time.sleep(LOAD_S / 8)
        os.kill(victim.state().pid, 9)
        until(lambda: victim.state().restart_count > before and victim.status == "running")  # noqa: B023
        before = victim.state().restart_count


def _answered(said: str, address: str) -> int:
    print(f"{address}: {said}")
    found = re.search(r"(\d+) requests in", said)
    if found is None:
        pytest.fail(said)
    return int(found.group(1))
