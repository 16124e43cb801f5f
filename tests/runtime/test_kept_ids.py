"""--userns keep-id: containers of an ordinary user's in which the user is itself, and the image's files are root's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import SLEEP, Machine, said, until
from nbcontain.commands import parse_words
from nbcontain.errors import Unavailable
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.digest import ChainID, chain_id
from nbcontain.oci.spec import IdMapping

SHOWN = "stat -c '%u:%g %n'"


@pytest.fixture
def kept(profile: str, machine: Machine) -> Iterator[Machine]:
    """A machine of a user who has a range of ids."""
    if profile != "rootless-range":
        pytest.skip("root is itself everywhere, and who has one id is root inside")
    yield machine
    machine.clear()
    machine.engine.volumes.prune(all=True)


def test_the_user_is_itself_and_its_files_are_its_own(kept: Machine, tmp_path: Path) -> None:
    uid, gid = os.getuid(), os.getgid()
    (tmp_path / "mine").write_text("x")
    script = f"id -u; id -g; {SHOWN} /bin /etc/passwd /d/mine; touch /d/new; touch /bin/x 2> /dev/null || echo refused"
    shown = kept.sh(script, userns="keep-id", volumes=(f"{tmp_path}:/d",))
    assert shown == f"{uid}\n{gid}\n0:0 /bin\n0:0 /etc/passwd\n{uid}:{gid} /d/mine\nrefused\n"
    assert (tmp_path / "new").stat().st_uid == uid
    # Who root is inside is nobody's of this machine.
    shown = kept.sh(f"id -u; touch /d/no 2> /dev/null || echo refused; chown 5:6 /etc/group; {SHOWN} /etc/group",
                    userns="keep-id", user="0", volumes=(f"{tmp_path}:/d",), cap_drop=("DAC_OVERRIDE",))  # fmt: skip
    assert shown == "0\nrefused\n5:6 /etc/group\n"


def test_another_number_may_be_chosen(kept: Machine, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    shown = kept.sh(f"id -u; id -g; {SHOWN} /d/mine /bin; cat /proc/self/uid_map", userns="keep-id:uid=200,gid=210",
                    volumes=(f"{tmp_path}:/d",))  # fmt: skip
    assert shown.startswith("200\n210\n200:210 /d/mine\n0:0 /bin\n") and shown.count("\n") == 7


def test_what_is_made_of_it_is_an_image_like_any_other(kept: Machine, tmp_path: Path) -> None:
    script = f"touch /new; chown 7:8 /new; rm /etc/group; {SLEEP}"
    container = kept.start(script, name="one", userns="keep-id", user="0", volumes=("data:/bin/../var/data",))
    until(lambda: "ready" in said(container))
    assert kept.execute(container, "sh", "-c", f"id -u; {SHOWN} /new") == (0, "0\n7:8 /new\n")
    assert {("A", "/new"), ("D", "/etc/group")} <= {*kept.engine.diff(container)}
    (tmp_path / "file").write_text("text")
    for place in ("/running", "/stopped"):
        command, options = parse_words("", ["cp", str(tmp_path / "file"), f"one:{place}"])
        command.function(kept.engine, options).task.result()  # type: ignore[attr-defined]
        if place == "/running":
            kept.engine.stop(container, 0)
    kept.engine.start(container)
    until(lambda: container.status == "running")
    look = ("sh", "-c", f"{SHOWN} /running /stopped")
    assert kept.execute(container, *look)[1] == "0:0 /running\n0:0 /stopped\n"
    kept.engine.container("one").commit("of-it")
    assert kept.sh(f"{SHOWN} /new /running /bin; test -e /etc/group || echo gone", image="of-it") == (
        "7:8 /new\n0:0 /running\n0:0 /bin\ngone\n"
    )
    assert kept.engine.container("one").to_dict()["HostConfig"]["UsernsMode"] == "keep-id"
    kept.engine.remove_container(container, force=True)
    kept.engine.prune()
    assert kept.sh(f"{SHOWN} /bin", userns="keep-id") == "0:0 /bin\n"


def test_a_volume_has_the_images_owners(kept: Machine) -> None:
    shown = kept.sh(f"{SHOWN} /etc /etc/passwd", userns="keep-id", volumes=("etc:/etc",))
    assert shown == "0:0 /etc\n0:0 /etc/passwd\n"


def test_layers_that_it_is_the_first_to_need_are_as_others_need_them(kept: Machine) -> None:
    snapshots, below = kept.engine.store.snapshots, None
    chains: list[ChainID] = []
    for layer in kept.engine.image("box").layers:
        chains.append(below := chain_id(below, layer.diff_id))
    for each in reversed(chains):
        snapshots.remove(each)
    assert kept.sh(f"{SHOWN} /bin", userns="keep-id") == kept.sh(f"{SHOWN} /bin") == "0:0 /bin\n"


def test_it_goes_with_networks_and_restarts(kept: Machine) -> None:
    script = "id -u; test -e /again && exit 0; touch /again; exit 3"
    container = kept.start(script, userns="keep-id", restart="on-failure:2", tmpfs=("/t",), init=True,
                           user="0")  # fmt: skip
    assert container.wait(30) in (0, 3)
    until(lambda: container.status == "exited" and said(container) == "0\n0\n")


def test_who_has_one_id_is_told(profile: str, machine: Machine) -> None:
    if profile != "rootless-single":
        pytest.skip("who has one id")
    with pytest.raises(Unavailable, match="takes a range of ids"):
        machine.sh("true", userns="keep-id")


def test_maps_keep_the_user_and_put_all_others_behind_each_other() -> None:
    ranges = IdMap.ranges(1000, 1000, (IdMapping(1, 100_000, 500), IdMapping(501, 200_000, 1000)),
                          (IdMapping(1, 100_000, 2000),))  # fmt: skip
    found = ranges.keeping(1000, 5000)
    assert found.uids == (
        IdMapping(1000, 1000, 1), IdMapping(0, 100_000, 500), IdMapping(500, 200_000, 500),
        IdMapping(1001, 200_500, 500),
    )  # fmt: skip
    # More than there are before it.
    assert found.gids == (IdMapping(5000, 1000, 1), IdMapping(0, 100_000, 2000))
    assert found.within(ranges).uids == (
        IdMapping(1000, 0, 1), IdMapping(0, 1, 500), IdMapping(500, 501, 500), IdMapping(1001, 1001, 500)
    )  # fmt: skip
    assert ranges.within(ranges).uids == (IdMapping(0, 0, 1), IdMapping(1, 1, 500), IdMapping(501, 501, 1000))
    assert found.within(ranges).outside(1000, 7) == (0, 8)
