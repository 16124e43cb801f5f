"""A container from both sides: what /proc says, what is said of what is not kept apart, pictures of hostile names."""

from __future__ import annotations

import json
import os

import pytest

from machine import until
from nbcontain.commands import parse_words, split
from nbcontain.display.xrayed import CAPABILITY_WORDS, Xrayed, picture
from nbcontain.engine import Engine
from nbcontain.errors import NotRunning, UsageError
from nbcontain.linux import procfs
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.oci.spec import IdMapping
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.values import replace

EVIL = "<img src=x onerror=alert(1)>\u202e"


def test_texts_of_proc_are_read() -> None:
    mounts = procfs.mounts_of(
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "30 22 0:5 / /a\\040b ro,nosuid shared:3 - tmpfs none rw\nnonsense\n"
    )
    assert [(each.destination, each.kind, each.is_readonly) for each in mounts] == [
        ("/", "ext4", False), ("/a b", "tmpfs", True),
    ]  # fmt: skip
    mappings = procfs.id_map_of("         0       1000          1\n         1     100000      65536\n")
    assert mappings == (IdMapping(0, 1000, 1), IdMapping(1, 100000, 65536))
    assert [procfs.inside(number, mappings) for number in (1000, 100006, 7)] == [0, 7, None]
    assert procfs.capabilities_of("0000000000000005") == ("CHOWN", "DAC_READ_SEARCH")
    trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.2\n        /32 host LOCAL\n"
    trie += "     |-- 10.0.0.0\n        /24 link UNICAST\n"
    assert procfs.addresses_of(trie, "00000000000000000000000000000001 01 80 10 80 lo\n") == ("10.0.0.2", "::1")


def test_every_capability_has_words() -> None:
    assert set(CAPABILITY_WORDS) == set(CAPABILITIES)


@pytest.fixture
def running(engine: Engine, busybox_image: str) -> Container:
    options = RunOptions(
        image=busybox_image, command=("sh", "-c", "sleep 100 & exec sleep 99"), name="web", detach=True, network="none",
        cap_drop=("ALL",), cap_add=("NET_RAW",), security_opt=("no-new-privileges",),
    )  # fmt: skip
    container = engine.run(options).result()
    assert isinstance(container, Container)
    # The shell has done what it does: made one, and become the other.
    until(lambda: [each.args.split()[0] for each in engine.processes.of(container)] == ["sleep"] * 2)
    return container


def test_both_sides_are_what_the_kernel_says(engine: Engine, running: Container) -> None:
    found = engine.sides.of(running)
    pairs = {each.what: (each.outside, each.inside) for each in found.pairs}
    assert pairs["process"] == (str(running.pid), "1")
    assert pairs["host name"] == (os.uname().nodename, running.id[:12])
    for each in found.namespaces:
        file = procfs.NAMESPACES[each.kind]
        assert each.outside == os.stat(f"/proc/self/ns/{file}").st_ino
        assert each.inside == os.stat(f"/proc/{running.pid}/ns/{file}").st_ino
        assert each.why
    assert [each.inside for each in found.seen] == [1, 2]
    assert found.kept == ("NET_RAW",)
    assert len(found.kept) + len(found.dropped) == len(CAPABILITIES)
    assert dict(found.gates)["no_new_privs"].startswith("set")
    assert dict(found.network)["interfaces"] == "lo"
    assert next(each for each in found.mounts if each.destination == "/").purpose == "its root"
    assert found.layers[0][1] == -1
    assert found.meters.processes == 2 and found.meters.memory > 0


def test_what_is_shared_is_said_with_the_reason(engine: Engine, busybox_image: str) -> None:
    options = RunOptions(
        image=busybox_image, command=("sleep", "99"), name="open", detach=True, network="host", pid="host"
    )
    container = engine.run(options).result()
    assert isinstance(container, Container)
    shared = {each.kind: each.why for each in engine.sides.of(container).namespaces if each.is_shared}
    assert shared["pid"] == "--pid host"
    assert "network" in shared and shared["network"]
    assert "clocks" in shared["time"]


def test_the_command_gives_text_a_document_and_parts(engine: Engine, running: Container) -> None:
    def typed(line: str) -> object:
        command, words = parse_words("container", split(line))
        return command.function(engine, words)

    text = repr(typed("explain web"))
    assert "≠ own" in text and "make raw packets (ping)" in text and "clocks are this machine's" in text
    some = repr(typed("explain web --only namespaces"))
    assert "pid" in some and "capabilities" not in some
    document = json.loads(json.dumps(typed("explain web --format json").value))  # type: ignore[attr-defined]
    assert document["pid"] == running.pid
    for wrong in ("explain web --only nothing", "explain web --format yaml"):
        with pytest.raises(UsageError):
            typed(wrong)
    engine.stop(running, 0)
    with pytest.raises(NotRunning):
        typed("explain web")


def test_pictures_are_harmless_and_meters_move(engine: Engine, running: Container) -> None:
    found = engine.sides.of(running)
    seen = (replace(found.seen[0], command=EVIL), *found.seen[1:])
    evil = replace(found, name=EVIL, seen=seen, layers=((f"RUN {EVIL}", 3),), network=((EVIL, EVIL),))
    kept = Xrayed(evil, engine.sides)._repr_html_()
    assert "<img" not in kept and "\u202e" not in kept
    later = replace(found.meters, at_s=found.meters.at_s + 2, cpu_s=found.meters.cpu_s + 1)
    assert "50 %" in picture(replace(found, meters=later), found.meters)
