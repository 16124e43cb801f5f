"""What a Dockerfile, a build context or a RUN does to reach the host's files, or to leave something behind."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import places
from machine import Machine
from nbcontain.build import http
from nbcontain.build.plan import BuildOptions
from nbcontain.dockerfile.checks import checks
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import BuildError, DockerfileError, NbcontainError
from servers import serving


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").write_text("mine\n")
    return directory


@pytest.mark.parametrize(
    "source", ["link", "up/secret", "absolute/secret", "file/../up/secret", "../canary/secret", "li*"]
)
def test_copy_takes_nothing_from_outside_the_context(
    machine: Machine, context: Path, canary: Path, source: str
) -> None:
    (context / "link").symlink_to(canary / "secret")
    (context / "up").symlink_to("../canary")
    (context / "absolute").symlink_to(canary)
    try:
        machine.build(f"FROM box\nCOPY {source} /taken/\n", "taken", context)
    except NbcontainError:
        return
    assert "do not touch" not in machine.sh("cat /taken/* 2>/dev/null; true", image="taken")


@pytest.mark.parametrize(
    "step",
    ["COPY file /out/there/", "COPY file /out/secret", "WORKDIR /out/deep/er", "COPY . /out",
     "COPY --from=box /bin/busybox /out/"],
)  # fmt: skip
def test_a_destination_that_is_a_symlink_to_the_host_is_inside(
    machine: Machine, context: Path, canary: Path, step: str
) -> None:
    for leads_to in (str(canary), f"../../../../../../..{canary}"):
        machine.build(f"FROM box\nRUN ln -s {leads_to} /out && mkdir -p {canary}\n{step}\n", "placed", context)


def test_removing_a_mount_point_through_a_symlink_removes_nothing_outside(
    machine: Machine, context: Path, canary: Path
) -> None:
    # /etc/hosts and so on were made as mount points, and are taken away after the step: by then /etc leads elsewhere.
    text = f"FROM scratch\nCOPY --from=box /bin /bin\nENV PATH=/bin\nRUN mv /etc /old && ln -s {canary} /etc\n"
    machine.build(text, "bare", context)


def test_a_program_that_outlives_its_run_is_gone_and_writes_no_more(machine: Machine, context: Path) -> None:
    text = (
        "FROM box\nRUN (trap '' TERM HUP; while :; do date >> /late; done) & "
        "setsid sh -c 'sleep 0.3; echo x > /later' & sleep 0.05\n"
        "RUN cp /late /first; sleep 0.4; cmp /late /first && ! test -e /later\n"
    )
    machine.build(text, "late", context)


def test_a_context_that_holds_pipes_and_sockets_does_not_hang_a_build(machine: Machine, context: Path) -> None:
    os.mkfifo(context / "pipe")
    machine.build("FROM box\nCOPY . /all/\n", "piped", context)
    assert machine.sh("ls /all", image="piped") == "file\n"
    (context / ".dockerignore").unlink(missing_ok=True)
    os.mkfifo(context / ".dockerignore")
    machine.build("FROM box\nCOPY file /all/\n", "piped", context)


@pytest.mark.parametrize("owner", ["app:nobody-here", "-1", "4294967295", "root;id", "9" * 5000])
def test_an_owner_that_is_none_is_an_error_with_its_name(machine: Machine, context: Path, owner: str) -> None:
    with pytest.raises(BuildError):
        machine.build(f"FROM box\nCOPY --chown={owner} file /\n", "owned", context)


def test_what_is_unpacked_or_copied_is_never_executed(machine: Machine, context: Path) -> None:
    # Neither a loader's file nor a program of the image is used by the steps that are ours.
    (context / "ld.so.preload").write_text("/evil.so\n")
    text = (
        "FROM box\nCOPY ld.so.preload /etc/ld.so.preload\nENV LD_PRELOAD=/evil.so PYTHONPATH=/ PATH=/evil\n"
        "COPY file /one\nWORKDIR /two\nCOPY file .\n"
    )
    machine.build(text, "preload", context)


def test_a_build_that_fails_on_the_terminal_ends(machine: Machine, context: Path) -> None:
    # It did not: what the traceback held was let go when the interpreter could start no thread any more.
    (context / "Dockerfile").write_text("FROM box\nRUN exit 3\n")
    command = [sys.executable, "-m", "nbcontain", "build", str(context)]
    environment = os.environ | {"NBCONTAIN_ROOT": str(machine.engine.layout.root)}
    assert subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False).returncode != 0


# --- mounts of RUN (B3, B10) -------------------------------------------------------------------


@pytest.mark.parametrize("link", ["/../../../../../../..{canary}", "{canary}", "/proc/self/root{canary}"])
@pytest.mark.parametrize("rights", ["", ",rw"])
def test_a_bind_of_a_stage_reaches_nothing_of_the_hosts(
    machine: Machine, context: Path, canary: Path, link: str, rights: str
) -> None:
    # CVE-2024-1753 and its kin: the source is a symlink that was made in another stage.
    text = f"FROM box AS evil\nRUN mkdir -p /x && ln -s {link.format(canary=canary)} /link\nFROM box\n"
    text += f"RUN --mount=type=bind,from=evil,source=/link,target=/in{rights} ls /in; touch /in/new\n"
    with pytest.raises(NbcontainError):
        machine.build(text, "bound", context)


@pytest.mark.parametrize("source", ["../../..", "/../../../..", "link"])
def test_a_cache_and_a_bind_of_the_context_reach_nothing_outside(
    machine: Machine, context: Path, canary: Path, source: str
) -> None:
    (context / "link").symlink_to(canary)
    for mount in (f"type=cache,target=/in,source={source}", f"type=bind,target=/in,source={source},rw"):
        text = f"FROM box\nRUN --mount={mount} ls -R /in; touch /in/new; ! grep -r 'do not touch' /in\n"
        try:
            machine.build(text, "cached", context)
        except NbcontainError:
            continue
    assert sorted(os.listdir(context)) == ["file", "link"]


def test_a_source_that_is_swapped_all_the_time_never_leads_out(machine: Machine, context: Path, canary: Path) -> None:
    # Two names for "data" take turns: a directory, and a symlink to the host's.
    (context / "data").mkdir()
    (context / "data" / "secret").write_text("mine\n")
    (context / "other").symlink_to(canary)
    taken = 0
    with places.taking_turns(context, "data", "other"):
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                machine.build("FROM box\nCOPY data /d/\nCOPY other /o/\n", "swapped", context)
            except NbcontainError:
                continue
            taken += 1
            assert "do not touch" not in machine.sh("cat /d/* /o/* 2>/dev/null; true", image="swapped")


@pytest.mark.parametrize(
    "option", ["bind-propagation=rshared", "readonly=maybe", "relabel=shared", "type=devpts", "idmap"]
)
def test_an_option_that_is_not_known_is_refused(machine: Machine, context: Path, option: str) -> None:
    with pytest.raises(DockerfileError):
        machine.build(f"FROM box\nRUN --mount={option},target=/x true\n", "refused", context)


@pytest.mark.of_mounts
def test_a_mount_over_the_root_or_proc_is_refused(machine: Machine, context: Path) -> None:
    for target in ("/", "/../..", "/proc", "/proc/sys", "/sys/kernel"):
        with pytest.raises(NbcontainError):
            machine.build(f"FROM box\nRUN --mount=type=tmpfs,target={target} true\n", "covered", context)


def test_a_removed_mount_point_is_not_looked_for_behind_a_symlink(machine: Machine, context: Path) -> None:
    # CVE-2024-23652: the step replaces the stub's directory by a symlink to one with an empty directory of that name.
    text = "FROM box\nRUN mkdir -p /keep/stub\n"
    text += "RUN --mount=type=tmpfs,target=/where/stub umount /where/stub 2>/dev/null; true\n"
    text += "RUN --mount=type=cache,target=/a/stub mkdir -p /b/stub; mv /a /c; ln -sfn /b /a; true\n"
    machine.build(text, "stubs", context)
    assert machine.sh("ls -d /keep/stub /b/stub", image="stubs") == "/b/stub\n/keep/stub\n"


def test_a_set_id_program_in_a_cache_is_another_builds_only_under_its_id(machine: Machine, context: Path) -> None:
    machine.build(
        "FROM box\nRUN --mount=type=cache,target=/c,id=a cp /bin/busybox /c/su && chmod 4755 /c/su\n", "c", context
    )
    text = "FROM box\nRUN --mount=type=cache,target=/c,id=b ! test -e /c/su\n"
    text += "RUN --mount=type=cache,target=/c,id=b/../a ! test -e /c/su\n"
    machine.build(text, "c", context)


# --- archives, servers, repositories (B1, B7, B8) ----------------------------------------------


def evil_archive(*members: tuple[str, bytes, str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"evil"))
    return gzip.compress(data.getvalue())


@pytest.mark.parametrize(
    "members",
    [
        [("../../../../../../..{canary}/secret", tarfile.REGTYPE, "")],
        [("{canary}/secret", tarfile.REGTYPE, "")],
        [("l", tarfile.SYMTYPE, "{canary}"), ("l/secret", tarfile.REGTYPE, "")],
        [("l", tarfile.SYMTYPE, "../../../../..{canary}"), ("l/new", tarfile.REGTYPE, "")],
        [("h", tarfile.LNKTYPE, "../../../..{canary}/secret"), ("h", tarfile.REGTYPE, "")],
        [("h", tarfile.LNKTYPE, "etc/passwd"), ("h", tarfile.REGTYPE, "")],
        [("dev", tarfile.CHRTYPE, ""), ("dev", tarfile.REGTYPE, "")],
    ],
)
@pytest.mark.parametrize("target", ["/", "/deep/er/"])
def test_an_archive_of_add_writes_nothing_outside(
    machine: Machine, context: Path, canary: Path, members: list[tuple[str, bytes, str]], target: str
) -> None:
    filled = [(name.format(canary=canary), kind, link.format(canary=canary)) for name, kind, link in members]
    (context / "a.tgz").write_bytes(evil_archive(*filled))
    try:
        machine.build(f"FROM box\nADD a.tgz {target}\n", "unpacked", context)
        passwd = machine.sh("cat /etc/passwd", image="unpacked")
    except NbcontainError:
        return
    assert "root:x:0:0" in passwd


def test_a_whiteout_in_an_archive_of_add_hides_nothing(machine: Machine, context: Path) -> None:
    whiteouts = [(name, tarfile.REGTYPE, "") for name in ("bin/.wh.busybox", ".wh..wh..opq")]
    (context / "a.tgz").write_bytes(evil_archive(*whiteouts))
    machine.build("FROM box\nADD a.tgz /\n", "white", context)
    assert machine.sh("ls -a / /bin | grep -c '[.]wh'; true", image="white") == "0\n"


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://example.org/x", "http://169.254.169.254/latest/meta-data"])
def test_a_redirect_goes_nowhere_but_to_http_and_never_to_metadata(machine: Machine, context: Path, to: str) -> None:
    with serving() as server:
        server.redirect("/f", to)
        with pytest.raises(BuildError):
            machine.build(f"FROM box\nADD {server.url}/f /x\n", "redirected", context)


def test_a_public_server_may_not_choose_an_address_of_this_network() -> None:
    with pytest.raises(BuildError, match="redirects"):
        http._redirect("https://1.1.1.1/x", "https://1.1.1.1/x", "http://127.0.0.1:8888/api", was_public=True)
    assert http._redirect("x", "https://1.1.1.1/x", "/y", was_public=True) == "https://1.1.1.1/y"


def test_credentials_of_a_url_stay_with_its_host_and_out_of_the_image(machine: Machine, context: Path) -> None:
    with serving() as other, serving() as server:
        server.redirect("/f", f"{other.url.replace('127.0.0.1', 'localhost')}/g")
        other.put("/g", b"x")
        url = server.url.replace("://", "://user:hunter2@")
        machine.build(f"FROM box\nADD {url}/f /x\n", "credentials", context)
        assert all("Authorization" not in each for each in other.headers)
        assert any("Authorization" in each for each in server.headers)
    image = machine.engine.image("credentials")
    assert "hunter2" not in repr(image.config) and f"ADD {server.url}/f /x" in image.config.history[-1].created_by


@pytest.mark.parametrize(
    "source",
    ["ext::sh -c id%.git", "git@-oProxyCommand=id:x.git", "git://h/a#--upload-pack=id", "https://h/a.git#main:../../etc",
     "ssh://-oProxyCommand=id/x", "git://h/a?what=1"],
)  # fmt: skip
def test_what_git_could_take_for_an_order_is_refused(machine: Machine, context: Path, source: str) -> None:
    with pytest.raises(NbcontainError):
        machine.build(f'FROM box\nADD ["{source}", "/x/"]\n', "git", context)


# --- the Dockerfile itself (B5, B12, B13, B14) --------------------------------------------------


def test_a_base_images_trigger_gets_nothing_from_outside_the_context(
    machine: Machine, context: Path, canary: Path
) -> None:
    (context / "link").symlink_to(canary)
    machine.build("FROM box\nONBUILD COPY . /taken/\nONBUILD RUN ! grep -r 'do not touch' /taken\n", "trigger", context)
    machine.build("FROM trigger\n", "triggered", context)


def test_a_huge_dockerfile_is_read_or_refused_soon(machine: Machine, context: Path) -> None:
    started = time.process_time()
    for text in (
        "FROM box\n" + "LABEL a=b\n" * 20_000,
        "FROM box\nENV A=" + "${B:-" * 5000 + "}" * 5000,
        "FROM box\nENV A=" + "a" * 60_000 + "\nENV B=${A//a*a*a*a*b/x}\n",
        "FROM box\nRUN " + "--mount=type=cache,target=/c " * 5000 + "true\n",
    ):
        try:
            machine.engine.build(text, BuildOptions(context=context)).cancel()
        except NbcontainError:
            continue
    assert time.process_time() - started < 5  # of this process, whatever else the machine does


TENFOLD = "".join(f"ARG a{n + 1}={f'$a{n}' * 10}\n" for n in range(5))
"""A value of a mebibyte, in some 160 characters."""


@pytest.mark.parametrize("line", ["ARG b{}=$a5", "ENV b{}=$a5", "LABEL b{}=$a5", "COPY $a5 $a5 /{}", "WORKDIR /{}$a5"])
def test_values_that_are_made_of_values_do_not_fill_the_memory(machine: Machine, context: Path, line: str) -> None:
    text = f"FROM box\nARG a0=0123456789\n{TENFOLD}" + "".join(f"{line.format(n)}\n" for n in range(40))
    with pytest.raises(DockerfileError, match="together") as caught:
        machine.build(text, "bomb", context)
    assert caught.value.span is not None


def test_values_before_the_first_from_do_not_fill_the_memory_either(machine: Machine, context: Path) -> None:
    text = f"ARG a0=0123456789\n{TENFOLD}" + "".join(f"ARG b{n}=$a5\n" for n in range(40)) + "FROM box\n"
    with pytest.raises(DockerfileError, match="together"):
        machine.build(text, "bomb", context)
    assert checks(parse(text), {}) is not None


def test_a_step_that_writes_without_end_costs_no_memory_here(machine: Machine, context: Path) -> None:
    machine.build("FROM box\nRUN yes | head -c 20000000\n", "noisy", context)
