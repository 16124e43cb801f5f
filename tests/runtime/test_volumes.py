"""Volumes and mounts as docker has them: names, filling from the image, words and keys, sharing, going away again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from machine import SLEEP, Machine, until
from nbcontain.errors import InUse, NbcontainError, UsageError, VolumeNotFound
from nbcontain.oci.image import Image

FILLED = """\
FROM box
RUN mkdir -p /var/lib/app/deep && echo given > /var/lib/app/deep/file && chmod 0600 /var/lib/app/deep/file \\
    && ln -s deep/file /var/lib/app/link && ln /var/lib/app/deep/file /var/lib/app/hard \\
    && chmod 1770 /var/lib/app && chown -R 1000:1001 /var/lib/app
"""


@pytest.fixture
def volumes(machine: Machine) -> Iterator[Machine]:
    """The machine, without a volume before and afterwards."""
    machine.engine.volumes.prune(all=True)
    yield machine
    machine.clear()
    machine.engine.volumes.prune(all=True)
    until(lambda: not machine.engine.volumes.all())


@pytest.fixture
def filled(volumes: Machine, profile: str) -> str:
    """An image with something for a volume to begin with; owned by one id where there is only one."""
    text = FILLED if profile != "rootless-single" else FILLED.replace(" \\\n    && chmod 1770", "\n#").split("#")[0]
    return volumes.build(text, f"filled-{profile}")


# --- names and filling ----------------------------------------------------------------------------


def test_a_named_volume_outlives_its_containers(profile: str, volumes: Machine) -> None:
    volumes.sh("echo kept > /data/file", volumes=("things:/data",))
    assert volumes.sh("cat /other/file", volumes=("things:/other",)) == "kept\n"
    (only,) = volumes.engine.volumes.all()
    assert only.name == "things" and not only.is_anonymous
    assert (only.data / "file").read_text() == "kept\n"
    assert (only.data / "file").stat().st_uid == os.geteuid()


def test_an_empty_volume_begins_as_what_the_image_has_there(profile: str, volumes: Machine, filled: str) -> None:
    look = "cd /var/lib/app; stat -c '%n %a %u:%g %h %F' . deep deep/file link hard; cat link"
    theirs = volumes.sh(look, image=filled)
    ours = volumes.sh(look, image=filled, volumes=("things:/var/lib/app",))
    assert ours == theirs
    assert "given" in ours


def test_a_volume_with_something_in_it_stays_as_it_is(profile: str, volumes: Machine, filled: str) -> None:
    volumes.sh("touch /x/own", volumes=("things:/x",))
    assert volumes.sh("ls /var/lib/app", image=filled, volumes=("things:/var/lib/app",)) == "own\n"


def test_nocopy_and_a_directory_of_the_hosts_begin_empty(
    profile: str, volumes: Machine, filled: str, tmp_path: Path
) -> None:
    for given in ("things:/var/lib/app:nocopy", f"{tmp_path}:/var/lib/app"):
        assert volumes.sh("ls /var/lib/app", image=filled, volumes=(given,)) == ""
    assert (
        volumes.sh("ls /var/lib/app", image=filled, mount=("type=volume,dst=/var/lib/app,volume-nocopy",)) == ""
    )


def test_a_volume_of_the_image_is_anonymous_and_goes_with_rm(profile: str, volumes: Machine, filled: str) -> None:
    image = volumes.build(f"FROM {filled}\nVOLUME /var/lib/app /fresh\n", "with-volumes")
    container = volumes.start("cat /var/lib/app/link; echo own > /fresh/file; sleep 60", image=image)
    names = [str(each["Name"]) for each in container.info.mounts]
    assert len(names) == 2 and all(volumes.engine.volumes[each].is_anonymous for each in names)
    assert [each.name for each in volumes.engine.volumes.unused()] == []
    volumes.engine.remove_container(container, force=True)
    assert sorted(each.name for each in volumes.engine.volumes.unused()) == sorted(names)
    volumes.engine.volumes.prune()
    again = volumes.start("cat /var/lib/app/link; sleep 60", image=image)
    volumes.engine.remove_container(again, force=True, volumes=True)
    assert volumes.engine.volumes.all() == []


def test_run_rm_takes_its_anonymous_volumes_along_and_no_others(profile: str, volumes: Machine) -> None:
    keeper = volumes.start("echo ready; sleep 60", volumes=("/shared",))
    touch = "touch /shared/seen /own/file /named/file"
    volumes.sh(touch, volumes=("/own", "named:/named"), volumes_from=(keeper.name,))
    shared = str(keeper.info.mounts[0]["Name"])
    until(lambda: {each.name for each in volumes.engine.volumes} == {shared, "named"})
    assert volumes.execute(keeper, "ls", "/shared")[1] == "seen\n"


def test_a_kernel_that_dies_leaves_no_volume_of_a_run_rm(profile: str, volumes: Machine) -> None:
    """What its supervisor could not remove, the next collection does."""
    engine = volumes.engine
    engine.store.volumes.create(created="2026-01-01T00:00:00Z", container="f" * 64)
    assert [each.kind for each in engine.soundness.look().left] == ["volume-of-nobody"]
    engine.prune()
    assert engine.volumes.all() == []


def test_a_file_where_a_volume_is_to_be_is_told(profile: str, volumes: Machine) -> None:
    with pytest.raises(NbcontainError, match="cannot mount volume over existing file"):
        volumes.sh("true", volumes=("/etc/passwd",))
    assert volumes.engine.volumes.all() == [] and volumes.engine.containers() == []


def test_a_filling_that_was_cut_off_is_begun_anew_or_finished(profile: str, volumes: Machine, filled: str) -> None:
    """Whoever fills a volume may be killed at any line: see `runtime.volume_work.fill_volume`."""
    engine = volumes.engine
    begun, done, used = (engine.volumes.create(name) for name in ("begun", "done", "used"))
    (begun.directory / ".making").mkdir()
    (begun.directory / ".making/half").write_text("half")
    assert volumes.sh("ls /var/lib/app", image=filled, volumes=("begun:/var/lib/app",)).split()[0] == "deep"
    assert sorted(os.listdir(begun.directory)) == ["_data", "lock", "volume.json"]
    (done.directory / "filling").mkdir(0o711)
    (done.directory / "filling/whole").write_text("whole\n")
    assert volumes.sh("cat /d/whole; stat -c %a /d", volumes=("done:/d:nocopy",)) == "whole\n711\n"
    # One that has been mounted while it was empty stays the same directory.
    holder = volumes.start(SLEEP, volumes=("used:/d",))
    (used.directory / "filling").mkdir(0o711)
    (used.directory / "filling/whole").write_text("whole\n")
    volumes.sh("true", volumes=("used:/d",))
    assert volumes.execute(holder, "sh", "-c", "cat /d/whole; stat -c %a /d")[1] == "whole\n711\n"


# --- in use ---------------------------------------------------------------------------------------


def test_a_volume_in_use_says_by_whom(profile: str, volumes: Machine) -> None:
    container = volumes.start(SLEEP, name="holder", volumes=("things:/data",))
    with pytest.raises(InUse) as refused:
        volumes.engine.volumes.remove("things")
    assert "holder (running)" in refused.value.why
    assert volumes.engine.volumes.prune(all=True).volumes == ()
    volumes.engine.remove_container(container, force=True)
    volumes.engine.volumes.remove("things")
    with pytest.raises(VolumeNotFound):
        volumes.engine.volumes.remove("things")


def test_volumes_from_gives_all_of_another_but_what_is_named_anew(
    profile: str, volumes: Machine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("of the host\n")
    first = volumes.start("echo one > /a/f; echo ready; sleep 60", volumes=("one:/a", f"{tmp_path}:/b:ro", "/c"))
    assert volumes.sh("cat /a/f /b/file; touch /a/new", volumes_from=(first.name,)) == "one\nof the host\n"
    refused = volumes.sh("touch /a/x 2>&1; touch /b/x 2>&1; true", volumes_from=(f"{first.name}:ro",))
    assert refused.count("Read-only") == 2
    assert volumes.sh("ls /a", volumes_from=(first.name,), volumes=("two:/a",)) == ""


# --- kinds of mounts ------------------------------------------------------------------------------


def test_a_scratch_takes_what_is_written_and_goes(profile: str, volumes: Machine, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("as it was\n")
    (tmp_path / "kept").chmod(0o666)
    seen = volumes.sh("echo new > /d/kept; touch /d/made; rm -f /d/gone; cat /d/kept", volumes=(f"{tmp_path}:/d:O",))
    assert seen == "new\n"
    assert os.listdir(tmp_path) == ["kept"] and (tmp_path / "kept").read_text() == "as it was\n"


def test_a_scratch_is_empty_again_when_its_container_is_started_again(
    profile: str, volumes: Machine, tmp_path: Path
) -> None:
    container = volumes.start("ls /d; echo ready; touch /d/made; chmod 700 /d", volumes=(f"{tmp_path}:/d:O",))
    container.wait(10)
    volumes.engine.start(container)
    container.wait(10)
    said = b"".join(each.event.data for each in container.output() if hasattr(each.event, "data"))
    assert said == b"ready\nready\n"


def test_its_user_becomes_the_owner_where_that_is_asked_for(profile: str, volumes: Machine, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text("mine\n")
    (tmp_path / "out").symlink_to("/etc/hostname")
    user = "0" if profile == "rootless-single" else "app"
    before = os.stat("/etc/hostname")
    volumes.sh("echo more >> /d/deep/file; touch /d/new", volumes=(f"{tmp_path}:/d:U",), user=user)
    assert os.stat("/etc/hostname") == before
    seen = volumes.sh("stat -c %u:%g /d /d/deep/file /d/new", volumes=(f"{tmp_path}:/d",))
    assert set(seen.split()) == {"0:0" if user == "0" else "1000:1001"}
    # So that whoever made the directory may remove it.
    volumes.sh("chown -R 0:0 /d", volumes=(f"{tmp_path}:/d",))


def test_an_image_can_be_looked_into_and_written_over(profile: str, volumes: Machine, filled: str) -> None:
    (image,) = (each for name, each in volumes.engine.images() if name and name.familiar.startswith(filled))
    assert isinstance(image, Image)
    mount = f"type=image,source={filled},target=/i"
    assert "Read-only" in volumes.sh("touch /i/x 2>&1; cat /i/var/lib/app/link", mount=(mount,))
    assert volumes.sh("ls /i", mount=(f"{mount},image-subpath=var/lib",)) == "app\n"
    assert "x" in volumes.sh("touch /i/x; ls /i", mount=(f"{mount},rw",)).split()
    assert "x" not in volumes.sh("ls /i", mount=(mount,)).split()


def test_part_of_a_volume_is_found_within_it_only(profile: str, volumes: Machine) -> None:
    volumes.sh("mkdir -p /v/a/b; echo here > /v/a/b/f; ln -s /etc /v/out; ln -s a /v/in", volumes=("things:/v",))
    mount = "type=volume,src=things,dst=/d,volume-subpath="
    assert volumes.sh("cat /d/f", mount=(mount + "a/b",)) == "here\n"
    assert volumes.sh("cat /d/b/f", mount=(mount + "in",)) == "here\n"
    for part in ("out", "out/passwd", "missing", "a/b/f/g"):
        with pytest.raises(NbcontainError):
            volumes.sh("ls /d", mount=(mount + part,))


def test_memory_has_the_size_and_mode_that_were_asked_for(profile: str, volumes: Machine) -> None:
    mount = ("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700",)
    seen = volumes.sh("stat -c %a /t; head -c 2m /dev/zero 2>/dev/null > /t/f; stat -c %s /t/f", mount=mount)
    assert seen.split() == ["700", str(1 << 20)]
    assert "ro" in volumes.sh("grep ' /t ' /proc/self/mountinfo", mount=("type=tmpfs,dst=/t,ro",)).split()[5].split(",")


def test_what_a_volume_is_made_of_can_be_said(profile: str, volumes: Machine, tmp_path: Path) -> None:
    volumes.engine.volumes.create("memory", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=711"})
    seen = volumes.sh("grep ' /t ' /proc/self/mountinfo; stat -c %a /t", volumes=("memory:/t",))
    assert "tmpfs" in seen and "size=1024k" in seen and seen.endswith("711\n")
    (tmp_path / "file").write_text("there\n")
    volumes.engine.volumes.create("here", options={"type": "none", "o": "bind", "device": str(tmp_path)})
    assert volumes.sh("cat /d/file", volumes=("here:/d",)) == "there\n"
    with pytest.raises(UsageError, match="there is a volume here already"):
        volumes.engine.volumes.create("here", options={"type": "none", "o": "bind", "device": "/"})


def test_mounts_inside_of_others_come_later_whatever_their_order(
    profile: str, volumes: Machine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("inner\n")
    seen = volumes.sh("cat /a/b/c/file; ls /a", volumes=(f"{tmp_path}:/a/b/c", "outer:/a"), tmpfs=("/a/b",))
    assert seen == "inner\nb\n"


def test_a_missing_directory_is_made_for_v_and_an_error_for_mount(
    profile: str, volumes: Machine, tmp_path: Path
) -> None:
    volumes.sh("touch /d/made", volumes=(f"{tmp_path}/new/below:/d",))
    assert os.listdir(tmp_path / "new/below") == ["made"]
    with pytest.raises(UsageError, match="bind source path does not exist"):
        volumes.sh("true", mount=(f"type=bind,src={tmp_path}/other,dst=/d",))
    assert os.listdir(tmp_path) == ["new"]


# --- carrying elsewhere ---------------------------------------------------------------------------


def test_a_volume_comes_back_as_it_was_exported(profile: str, volumes: Machine, filled: str, tmp_path: Path) -> None:
    look = "cd /v; stat -c '%n %a %u:%g %F' . deep deep/file link hard .wh.odd; cat link"
    first = volumes.sh(
        "touch /var/lib/app/.wh.odd", image=filled, volumes=("things:/var/lib/app",)
    ) + volumes.sh(look, volumes=("things:/v",))
    archive = tmp_path / "things.tar"
    volumes.engine.volumes.export("things", str(archive)).result()
    subprocess.run(["gzip", str(archive)], check=True)
    volumes.engine.volumes.create("again")
    volumes.engine.volumes.import_("again", f"{archive}.gz").result()
    assert volumes.sh(look, volumes=("again:/v",)) == first


def test_an_archive_that_means_harm_reaches_nothing_outside_of_the_volume(
    profile: str, volumes: Machine, tmp_path: Path
) -> None:
    import io
    import tarfile

    def archive(*members: tarfile.TarInfo) -> str:
        path = tmp_path / "evil.tar"
        with tarfile.open(path, "w") as made:
            for each in members:
                made.addfile(each, io.BytesIO(b"evil\n" * bool(each.size)))
        return str(path)

    def member(name: str, *, link: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = (tarfile.SYMTYPE, link, 0) if link else (tarfile.REGTYPE, "", 5)
        return info

    canary = tmp_path / "canary"
    canary.mkdir()
    up = "../" * 20
    volumes.engine.volumes.create("things")
    for members in (
        (member("out", link=str(canary)), member("out/evil")),
        (member("up", link=f"{up}{canary}"), member("up/evil")),
        (member(f"{up}{canary}/evil"),),
    ):
        with pytest.raises(NbcontainError) if len(members) == 1 else nullcontext():
            volumes.engine.volumes.import_("things", archive(*members)).result()
    assert os.listdir(canary) == []


# --- soundness ------------------------------------------------------------------------------------


def test_a_container_whose_volume_is_gone_is_told_by_check(volumes: Machine) -> None:
    container = volumes.start("echo ready", volumes=("things:/data",))
    container.wait(10)
    volumes.engine.store.volumes.remove("things", list)
    assert [each.kind for each in volumes.engine.soundness.look().left] == ["volume-missing"]
    with pytest.raises(NbcontainError, match="cannot mount"):
        volumes.engine.start(container)
