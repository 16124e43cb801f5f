"""What a build's steps do to files, under every profile: owners, modes, users, and what must not be in a layer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machine import Machine
from nbcontain.build.plan import BuildOptions
from nbcontain.build.secrets import Secret
from nbcontain.errors import BuildError, StepFailed


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    (directory / "sub").mkdir(parents=True)
    (directory / "file").write_text("a file\n")
    (directory / "sub" / "script").write_text("#!/bin/sh\necho script\n")
    (directory / "sub" / "script").chmod(0o755)
    (directory / "link").symlink_to("file")
    return directory


def test_copied_files_are_roots_and_keep_their_modes(profile: str, machine: Machine, context: Path) -> None:
    machine.build("FROM box\nWORKDIR /srv/app\nCOPY . .\n", "copied", context)
    seen = machine.sh("pwd; stat -c '%u:%g %a %N' file sub/script link; ./sub/script", image="copied").splitlines()
    assert seen == ["/srv/app", "0:0 644 file", "0:0 755 sub/script", "0:0 777 'link' -> 'file'", "script"]


def test_chown_and_user_name_people_of_the_image(profile: str, machine: Machine, context: Path) -> None:
    text = "FROM box\nCOPY --chown=app:staff --chmod=640 file /given\nUSER app\nWORKDIR /home/app\n"
    if profile == "rootless-single":
        # Nobody else exists: the files are root's, as they are everywhere else there.
        machine.build(text.replace("USER app\n", ""), "given", context)
        assert machine.sh("stat -c '%u:%g %a' /given", image="given") == "0:0 640\n"
        return
    machine.build(text + 'RUN ["sh", "-c", "id -un > made; umask > mask"]\n', "given", context)
    seen = machine.sh("stat -c '%u:%g %a' /given . made; cat made mask", image="given")
    assert seen.split() == ["1000:50", "640", "1000:1001", "755", "1000:1001", "644", "app", "0022"]


def test_a_failed_step_has_its_exit_code_and_its_output(profile: str, machine: Machine) -> None:
    with pytest.raises(StepFailed) as caught:
        machine.build('FROM box\nRUN ["sh", "-c", "echo why >&2; exit 9"]\n', "never")
    assert (caught.value.exit_code, caught.value.output) == (9, ("why",))


def test_a_step_whose_program_is_not_there_says_so(profile: str, machine: Machine) -> None:
    with pytest.raises(BuildError, match="no-such") as caught:
        machine.build('FROM box\nRUN ["no-such"]\n', "never")
    assert caught.value.span is not None


def test_what_a_step_leaves_running_does_not_outlive_it(profile: str, machine: Machine) -> None:
    machine.build('FROM box\nRUN ["sh", "-c", "(sleep 1; echo late > /late) & echo done > /done"]\n', "left")
    assert machine.sh("ls /done /late 2> /dev/null; true", image="left") == "/done\n"


def test_a_layer_has_no_mount_points_of_ours(profile: str, machine: Machine, context: Path) -> None:
    machine.build('FROM scratch\nCOPY --from=box /bin /bin\nRUN ["/bin/sh", "-c", "echo x > /made"]\n', "bare", context)
    engine = machine.engine
    layer = engine.image("bare").layers[-1]
    with engine.store.blobs.open(layer.descriptor.digest) as blob:
        import tarfile

        names = [member.name for member in tarfile.open(fileobj=blob, mode="r|*")]
    assert [name for name in names if name.strip("./")] == ["made"]


def test_a_deletion_holds_in_the_next_step_and_in_the_container(profile: str, machine: Machine) -> None:
    text = 'FROM box\nRUN ["rm", "/etc/group"]\nRUN ["sh", "-c", "test ! -e /etc/group && mkdir /etc/group"]\n'
    machine.build(text, "deleted")
    assert machine.sh("test -d /etc/group && echo directory", image="deleted") == "directory\n"


def test_a_resolv_conf_that_leads_to_nothing_is_no_hindrance(profile: str, machine: Machine, context: Path) -> None:
    """Many images have such a link (systemd-resolved's)."""
    (context / "sub" / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    machine.build("FROM box\nCOPY sub /etc\n", "linked", context)
    expected = Path("/etc/resolv.conf").read_text(errors="replace") if os.path.exists("/etc/resolv.conf") else ""
    assert machine.sh("cat /etc/resolv.conf", image="linked") == expected


def test_an_image_of_this_machine_runs_python(profile: str, machine: Machine) -> None:
    machine.engine.from_host("host").result()
    said = machine.run("python3", "-c", "import ssl, sqlite3, json; print(json.dumps([1]))", image="host").stdout
    assert said == "[1]\n"


def test_mounts_of_a_step_are_there_and_leave_nothing(profile: str, machine: Machine, context: Path) -> None:
    text = (
        "FROM box\n"
        "RUN --mount=type=cache,target=/c,uid=5 --mount=type=secret,id=s,uid=5 --mount=type=tmpfs,target=/t \\\n"
        "    --mount=target=/src --mount=source=sub,target=/rw,rw --mount=from=box,source=/bin,target=/deep/bin \\\n"
        "    test $(cat /run/secrets/s) = hidden && cat /src/link && echo x > /rw/script && echo x > /t/x \\\n"
        "    && touch /c/x && ls /deep/bin/busybox\n"
        "RUN --mount=type=cache,target=/c,uid=5 ls /c/x && ! ls /t /src /rw /deep /run/secrets\n"
    )
    options = BuildOptions(tags=("mounts",), context=context, secrets={"s": Secret("s", content=b"hidden")})
    image = machine.engine.build(text, options).result()
    assert image.layers == machine.engine.image("box").layers
    assert (context / "sub" / "script").read_text().startswith("#!")
    machine.engine.store.snapshots.remove_tree(machine.engine.layout.cache_mounts)


def test_archives_links_and_documents_are_copied(profile: str, machine: Machine, context: Path) -> None:
    import subprocess

    subprocess.run(["tar", "-cJf", str(context / "a.txz"), "-C", str(context), "sub"], check=True)
    text = "FROM box\nADD a.txz /d/\nCOPY --link --chmod=u=rwx,go= file /l/\nCOPY <<EOF /t\n$PATH\nEOF\n"
    machine.build(text, "all", context)
    assert machine.sh("/d/sub/script; cat /t; stat -c %a /l/file", image="all") == "script\n/bin\n700\n"
