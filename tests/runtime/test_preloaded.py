"""Programs into which a library is loaded that translates their paths: what they see, and what is in layers."""

from __future__ import annotations

import gzip
import io
import os
import platform
import shutil
import tarfile
from pathlib import Path

import pytest

from machine import SLEEP, Machine, preloaded, said, until
from nbcontain.engine import Engine
from nbcontain.errors import CommandNotExecutable, NbcontainError, SetupFailed
from nbcontain.profiles import ISOLATION

pytestmark = pytest.mark.of_users
LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}


@pytest.fixture
def machine(profile: str, request: pytest.FixtureRequest) -> Machine:
    if profile != "rootless-single":
        pytest.skip(f"{profile} has better rungs")
    loaded: Machine = request.getfixturevalue("preload_machine")
    loaded.clear()
    return loaded


def layers(machine: Machine, name: str) -> list[bytes]:
    """As they are without compression, the lowest first."""
    found = []
    for layer in machine.engine.image(name).layers:
        with machine.engine.store.blobs.open(layer.descriptor.digest) as blob:
            data = blob.read()
        found.append(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return found


def links(tar: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {each.name: each.linkname for each in archive if each.issym()}


@pytest.fixture
def linked(machine: Machine, tmp_path: Path) -> Machine:
    """With an image of links of every kind, some of which climb above the root."""
    places = {"absolute": "/etc/group", "up": "../../../etc/group", "deep/er/up": "../../../../etc/group",
              "near": "etc/group", "deep/absolute": "/deep/../absolute", "self": "/proc/self/comm"}  # fmt: skip
    for name, target in places.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).symlink_to(target)
    machine.build("FROM box\nCOPY tree /\n", "linked", tmp_path)
    return machine


def test_an_images_links_lead_to_its_own_files(linked: Machine) -> None:
    script = "cd /; for each in absolute up deep/er/up near deep/absolute; do head -n 1 $each; done; readlink absolute"
    said = linked.run("sh", "-c", f"{script} deep/absolute near; head -c 3 /self", image="linked").stdout.split()
    assert said == ["root:x:0:"] * 5 + ["/etc/group", "/deep/../absolute", "etc/group"] + said[-1:]
    assert len(said) == 9


def test_layers_have_links_as_they_were_and_as_programs_have_made_them(linked: Machine, tmp_path: Path) -> None:
    dockerfile = (
        "FROM linked\n"
        "RUN ln -s /etc/passwd /made && ln -s ../etc/passwd /etc/beside && ln -s ../../../x /climbs"
        " && mkdir /d && mv /absolute /up /d/ && touch -h -d @7 /near && ln -s / /top\n"
        "RUN readlink /made /top > /said; head -n 1 /d/absolute /d/up >> /said\n"
    )
    linked.build(dockerfile, "made", tmp_path)
    *_, first, second = layers(linked, "made")
    assert links(first) == {
        "made": "/etc/passwd", "etc/beside": "../etc/passwd", "climbs": "../../../x", "near": "etc/group", "top": "/",
        "d/absolute": "/etc/group", "d/up": "../../../etc/group",
    }  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(second)) as archive:
        assert archive.getnames() == ["said"]
        said = archive.extractfile("said")
        assert said is not None and said.read().split(b"\n")[:2] == [b"/etc/passwd", b"/"]
    store = os.fsencode(linked.engine.layout.root)
    assert not any(store in layer for layer in (first, second))


def test_what_a_container_changed_is_told_and_kept_with_its_links_as_they_are(
    linked: Machine, tmp_path: Path
) -> None:
    container = linked.start(f"ln -s /etc/group /new; rm /near; {SLEEP}", image="linked")
    assert sorted(linked.engine.diff(container)) == [("A", "/new"), ("D", "/near")]
    linked.engine.archives.commit(container, "kept").result()
    assert links(layers(linked, "kept")[-1]) == {"new": "/etc/group"}
    linked.engine.archives.export(container, str(tmp_path / "whole.tar")).result()
    whole = (tmp_path / "whole.tar").read_bytes()
    found = links(whole)
    assert (found["absolute"], found["up"], found["new"]) == ("/etc/group", "../../../etc/group", "/etc/group")
    assert os.fsencode(linked.engine.layout.root) not in whole


def test_a_container_that_runs_again_finds_its_links(linked: Machine) -> None:
    linked.run("sh", "-c", "ln -s /etc/group /new || head -n 1 /new", image="linked", remove=False, name="twice")
    container = linked.engine.container("twice")
    linked.engine.life.start(container)
    until(lambda: container.status == "exited")
    assert "root:x:0:" in said(container) and linked.engine.diff(container) == [("A", "/new")]


def test_a_store_that_is_reached_by_a_link_is_one(machine: Machine, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(machine.engine.layout.root)
    with Engine(link, {**os.environ, ISOLATION: "preload"}) as engine:
        assert Machine.on(engine).sh("pwd; cat /proc/self/cwd/etc/group | head -n 1").split() == ["/", "root:x:0:"]


def test_a_script_has_all_its_arguments(machine: Machine) -> None:
    script = "printf '#!/bin/sh -e\\necho $0 $# $*\\n' > /s && chmod 755 /s && /s a b c d e f g"
    assert machine.sh(script).split() == ["/s", "7", "a", "b", "c", "d", "e", "f", "g"]


def test_files_of_ours_are_seen_in_the_place_of_the_images_and_are_in_no_layer(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("127.0.0.9 images\n")
    machine.build("FROM box\nCOPY hosts /etc/hosts\n", "hosts", tmp_path)
    machine.build("FROM hosts\nRUN cp /etc/hosts /seen && echo 127.0.0.8 mine >> /etc/hosts\n", "seen", tmp_path)
    with tarfile.open(fileobj=io.BytesIO(layers(machine, "seen")[-1])) as archive:
        assert archive.getnames() == ["seen"]
        seen = archive.extractfile("seen").read()  # type: ignore[union-attr]
    assert b"images" not in seen and b"localhost" in seen


@pytest.mark.parametrize("target", ["usr/elsewhere", "/usr/elsewhere"])
def test_nor_are_they_where_an_image_has_its_settings_elsewhere(
    target: str, machine: Machine, tmp_path: Path
) -> None:
    dockerfile = f"FROM box\nRUN mv /etc /usr/elsewhere && ln -s {target} /etc\nRUN echo x > /etc/y; cat /etc/hosts\n"
    machine.build(dockerfile, "elsewhere", tmp_path)
    with tarfile.open(fileobj=io.BytesIO(layers(machine, "elsewhere")[-1])) as archive:
        assert [each.name for each in archive if each.isfile()] == ["usr/elsewhere/y"]


def test_variables_of_an_image_are_not_the_loaders_and_ours_are_in_no_image(machine: Machine, tmp_path: Path) -> None:
    machine.build("FROM box\nENV LD_PRELOAD=/evil.so FAKECHROOT_BASE=/ LD_AUDIT=/evil.so KEPT=yes\n", "told", tmp_path)
    said = machine.run("sh", "-c", "env; ls -d /etc/group", image="told").stdout
    assert "evil" not in said and "KEPT=yes" in said and "FAKECHROOT_BASE=/\n" not in said
    container = machine.start(SLEEP)
    machine.engine.archives.commit(container, "again").result()
    assert not any("FAKECHROOT" in each or "LD_" in each for each in machine.engine.image("again").config.env)


def test_a_static_program_is_refused_with_the_reason(machine: Machine, busybox: Path, tmp_path: Path) -> None:
    shutil.copy2(busybox, tmp_path / "static")
    machine.build("FROM box\nCOPY static /bin/static\n", "static", tmp_path)
    with pytest.raises(CommandNotExecutable, match="/bin/static") as error:
        machine.run("static", "true", image="static")
    assert "static program" in error.value.why
    with pytest.raises(NbcontainError, match="static") as failed:
        machine.build('FROM static\nRUN ["/bin/static", "true"]\n', "x", tmp_path)
    assert "static program" in failed.value.why


def test_a_static_program_that_another_starts_reads_the_containers_files_and_none_of_the_machines(
    machine: Machine, busybox: Path, tmp_path: Path
) -> None:
    shutil.copy2(busybox, tmp_path / "busybox")
    (tmp_path / "secret").write_text("do not touch")
    machine.build("FROM box\nCOPY busybox /bin/busybox\n", "static", tmp_path)
    secret = tmp_path / "secret"
    ways = (f"cat {secret}", f"touch {tmp_path}/made", f"rm {secret}", f"chmod 777 {secret}", f"cp {secret} /tmp/x")
    script = "; ".join(f"busybox {each}" for each in ("head -n 1 /etc/group", *ways))
    assert machine.run("sh", "-c", script, image="static", no_raise=True).stdout == "root:x:0:\n"
    assert sorted(os.listdir(tmp_path)) == ["busybox", "secret"] and secret.stat().st_mode & 0o777 != 0o777


def test_what_makes_the_loaders_cache_does_nothing_and_nobody_fails_for_it(machine: Machine) -> None:
    assert machine.exit_code("sh", "-c", "/sbin/ldconfig -v && /usr/sbin/ldconfig") == 0


@pytest.mark.parametrize(
    ("kind", "why"), [("musl", "musl"), ("old", "the image's is 2.17"), ("none", "the image has no /lib")]
)
def test_an_image_whose_libc_the_library_was_not_made_for_is_refused_with_the_reason(
    kind: str, why: str, machine: Machine, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "true"
    program.parent.mkdir()
    shutil.copy2("/bin/true", program)
    if kind == "musl":
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / f"ld-musl-{platform.machine()}.so.1").write_bytes(b"\x7fELF")
    if kind == "old":
        loader = tmp_path / LOADERS[platform.machine()]
        loader.parent.mkdir(parents=True)
        loader.write_bytes(b"\x7fELF")
        (loader.parent / "libc.so.6").write_bytes(b"\0GLIBC_2.2.5\0GLIBC_2.17\0GLIBC_PRIVATE\0")
    machine.build("FROM scratch\nCOPY . /\n", "other", tmp_path)
    with pytest.raises(SetupFailed, match="cannot be loaded") as error:
        machine.run("/bin/true", image="other")
    assert why in error.value.why


def test_who_does_not_ask_for_it_has_none_of_it(profile: str, tmp_path: Path) -> None:
    if profile != "rootless-single":
        pytest.skip(f"{profile} has better rungs")
    with preloaded(tmp_path) as machine, Engine(machine.engine.layout.root) as other:
        assert other.profile.name != "preload"
        assert Machine.on(other).sh("env; readlink /bin/sh; cat /etc/hosts").count("FAKECHROOT") == 0
