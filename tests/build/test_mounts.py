"""RUN --mount: what a step sees, what lasts, and that secrets last nowhere."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import tarfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import needs
from building import Ran, written
from machine import Machine
from nbcontain.build.plan import BuildOptions
from nbcontain.build.secrets import Secret, agents_of, secrets_of
from nbcontain.build.ssh_agent import forwarded
from nbcontain.commands.builds import DockerfileWords
from nbcontain.commands.inputs import BuildInputs
from nbcontain.dockerfile import parse as parse_dockerfile
from nbcontain.errors import BuildError, DockerfileError, UsageError
from nbcontain.events import Finished, Output, Started
from nbcontain.options import parse
from nbcontain.store import gc


@pytest.fixture
def ran(ran: Ran, tmp_path: Path) -> Ran:
    """With something to mount in its context."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "f").write_text("mine\n")
    (tmp_path / "file").write_text("alone\n")
    return ran


def added(machine: Machine, image: str = "ran") -> set[str]:
    """The names in the layers that are not the base's."""
    below = len(machine.engine.image("box").layers)
    found: set[str] = set()
    for layer in machine.engine.image(image).layers[below:]:
        with tarfile.open(machine.engine.store.blobs.path(layer.descriptor.digest)) as tar:
            found |= set(tar.getnames())
    return found


def outcomes(machine: Machine, text: str, context: Path) -> dict[str, str]:
    task = machine.engine.build(text, BuildOptions(context=context))
    task.result()
    names = {r.event.task: r.event.name for r in task.journal.read() if isinstance(r.event, Started)}
    return {names[r.event.task]: r.event.outcome for r in task.journal.read() if isinstance(r.event, Finished)}


# --- bind --------------------------------------------------------------------------------------


def test_the_context_is_seen_and_stays_as_it_is(box: Machine, ran: Ran, tmp_path: Path) -> None:
    lines = "RUN --mount=type=bind,source=app,target=/src cat /src/f; echo x > /src/f || echo refused\n"
    lines += "RUN --mount=source=app,target=/src,rw echo x > /src/f; echo y > /src/new; cat /src/f\n"
    lines += "RUN --mount=source=file,target=/etc/one cat /etc/one\nWORKDIR /w\nRUN --mount=target=here cat here/file"
    assert ran(lines).split("\n")[0] == "mine"
    assert (tmp_path / "app" / "f").read_text() == "mine\n" and sorted(os.listdir(tmp_path / "app")) == ["f"]
    assert added(box) == {"w"}, "mount points and what is written to them are no part of a layer"


def test_a_bind_is_part_of_the_key_and_what_it_does_not_take_is_not(box: Machine, ran: Ran, tmp_path: Path) -> None:
    step = "RUN --mount=source=app,target=/a cp /a/f /copy"
    text = f"FROM box\n{step}\n"
    outcomes(box, text, tmp_path)
    (tmp_path / "file").write_text("changed\n")
    os.utime(tmp_path / "app" / "f", (1, 1))
    assert outcomes(box, text, tmp_path)[step] == "cached"
    (tmp_path / "app" / "f").write_text("changed\n")
    assert outcomes(box, text, tmp_path)[step] == "done"


def test_what_dockerignore_leaves_out_is_not_seen(ran: Ran, tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("app\n")
    assert ran("RUN --mount=target=/c ls /c") == "file"


def test_a_stage_and_an_image_can_be_mounted(ran: Ran) -> None:
    lines = "RUN echo s > /made && ln -s /made /link\nFROM box\n"
    lines += "RUN --mount=from=0,source=/link,target=/one --mount=from=box,target=/all cat /one; ls /all/bin/busybox"
    assert ran(lines) == "s\n/all/bin/busybox"


# --- cache and tmpfs ---------------------------------------------------------------------------


def test_a_cache_lasts_and_is_in_no_layer(box: Machine, ran: Ran) -> None:
    step = "RUN --mount=type=cache,target=/c,mode=0700,uid=3 date +%N >> /c/f; wc -l < /c/f; stat -c '%a %u' /c"
    assert ran(step) == "1\n700 3"
    assert ran(step, no_cache=True) == "2\n700 3"
    assert ran(step.replace("/c,", "/d,id=/c,").replace(" /c", " /d").replace("> /c", "> /d").replace("< /c", "< /d"))
    assert added(box) == set()


def test_caches_of_other_ids_and_owners_are_others(ran: Ran) -> None:
    cache = "RUN --mount=type=cache,target=/c,id="
    assert ran(f"{cache}../../x echo x > /c/f") == ""
    assert ran(f"{cache}x ls /c\n{cache}../../x,uid=9 ls /c") == ""
    assert ran(f"{cache}../../x,ro ls /c; echo > /c/g || echo refused").split("\n")[0] == "f"


def test_a_new_cache_begins_as_what_it_is_made_of(ran: Ran) -> None:
    lines = "RUN mkdir -p /s/t && echo begun > /s/t/f && chown 5 /s/t/f\nFROM box\n"
    lines += "RUN --mount=type=cache,from=0,source=/s/t,target=/c "
    assert ran(lines + "stat -c %u /c/f; cat /c/f; echo on >> /c/f") == "5\nbegun"
    assert ran(lines + "cat /c/f") == "begun\non"


@pytest.mark.parametrize(("sharing", "seen"), [("locked", {"1", "2"}), ("private", {"1"}), ("shared", {"1", "2"})])
def test_two_builds_share_a_cache_as_it_says(box: Machine, sharing: str, seen: set[str]) -> None:
    step = f"RUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} echo x >> /c/f; sleep 0.6; wc -l < /c/f"
    tasks = [box.engine.build(f"FROM box\nENV N={n}\n{step}\n", BuildOptions()) for n in range(2)]
    for task in tasks:
        task.result()
    said = {r.event.data.decode().strip() for t in tasks for r in t.journal.read() if isinstance(r.event, Output)}
    assert said == seen if sharing != "shared" else said <= seen


def test_a_cache_is_swept_when_it_was_not_used_for_long(box: Machine, ran: Ran) -> None:
    ran("RUN --mount=type=cache,target=/c,id=old touch /c/f")
    assert list(box.engine.store.cache_mounts.walk())
    for path, _ in box.engine.store.cache_mounts.walk():
        os.utime(path, (1, 1))
    gc.collect(box.engine.store, list)
    assert list(box.engine.store.cache_mounts.walk()) == []


def test_a_tmpfs_is_as_large_as_it_says_and_gone_afterwards(box: Machine, ran: Ran) -> None:
    step = "RUN --mount=type=tmpfs,target=/var/t,size=1m df -k /var/t | tail -1 | awk '{print $2}'; echo x > /var/t/x"
    assert ran(step) == "1024"
    assert added(box) == set()


# --- secrets and agents ------------------------------------------------------------------------

CANARY = "canary-7f3a9c-do-not-keep"


def files_with(root: Path, needle: bytes) -> list[Path]:
    """Where it is written, also where that is gzip; what vanishes meanwhile has it no more."""
    found = []
    for path in root.rglob("*"):
        with suppress(OSError):
            if not path.is_file() or path.is_symlink():
                continue
            data = path.read_bytes()
            if needle in data or (data.startswith(b"\x1f\x8b") and needle in gzip.decompress(data)):
                found.append(path)
    return found


def test_a_secret_is_there_for_one_step_and_nowhere_afterwards(box: Machine, tmp_path: Path) -> None:
    seen: list[str] = []
    done = threading.Event()
    root = box.engine.layout.root

    def look() -> None:
        # While the step runs, too: no file of the store's and no command line has it.
        while not done.is_set():
            seen.extend(str(path) for path in files_with(root / "tmp", CANARY.encode()))
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if CANARY.encode() in process.read_bytes():
                        seen.append(str(process))
                except OSError:
                    continue
            time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    mount = "RUN --mount=type=secret,id=s"
    text = (
        f"FROM box\n{mount} test $(wc -c < /run/secrets/s) = 25 && sleep 0.4 && stat -c '%a %u' /run/secrets/s\n"
        f"{mount},env=TOKEN test ${{#TOKEN}} = 25 && ! test -e /run/secrets\n"
        f"{mount},target=/root/.netrc,uid=1000,mode=0440,required=true stat -c '%a %u' /root/.netrc\n"
        "RUN ! test -e /run/secrets/s && ! test -e /root/.netrc\n"
    )
    task = box.engine.build(text, BuildOptions(tags=("kept",), secrets={"s": Secret("s", content=CANARY.encode())}))
    try:
        image = task.result()
    finally:
        done.set()
        watcher.join()
    assert seen == []
    assert files_with(root, CANARY.encode()) == []
    options = BuildOptions(secrets={"s": Secret("s", content=CANARY.encode())})
    assert CANARY not in repr(list(task.journal.read())) + repr(image) + repr(options) + repr(options.secrets)
    said = written(task).split()
    assert said[:4] == ["400", "0", "440", "1000"]
    assert added(box, "kept") == set()


def test_a_secret_is_no_part_of_the_key(box: Machine, tmp_path: Path) -> None:
    text = "FROM box\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null; date +%N > /when\n"
    first, second = (
        box.engine.build(text, BuildOptions(secrets={"s": Secret("s", content=value)})).result()
        for value in (b"a", b"b")
    )
    assert first == second


def test_a_secret_that_was_not_given_is_not_there(ran: Ran) -> None:
    assert ran('RUN --mount=type=secret,id=absent ls /run/secrets 2>&1 | wc -l; test -z "$X"') == "1"


def test_secrets_come_from_files_the_environment_and_python(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff")
    words = (f"id=a,src={tmp_path}/file", "id=b,env=E", "id=c,var=v", "id=d,type=env,src=E", "id=E")
    found = secrets_of(words, {"E": "from env"}, {"v": "from python"})
    assert [each.read() for each in found.values()] == [b"\xff", b"from env", b"from python", b"from env", b"from env"]
    for word in ("src=x", "id=a,var=v", "id=a,env=ABSENT", "id=a,src=x,env=y", "id=a,what=1"):
        with pytest.raises(UsageError):
            secrets_of((word,), {})


def test_a_secrets_file_that_is_not_there_is_told_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(600 << 10))
    for name, why in (("none", "cannot be read"), ("", "is a directory"), ("large", "larger than 500 KiB")):
        with pytest.raises(UsageError, match=why):
            secrets_of((f"id=a,src={tmp_path / name}",), {})


def asked_of(path: Path, *kinds: int) -> list[int]:
    """The kinds of an agent's answers to messages that are nothing but a kind."""
    answers = []
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(path))
        for kind in kinds:
            end.sendall(b"\0\0\0\x01" + bytes([kind]))
            head = end.recv(5, socket.MSG_WAITALL)
            answers.append(head[4])
            end.recv(int.from_bytes(head[:4], "big") - 1, socket.MSG_WAITALL)
    return answers


def test_a_cells_words_give_secrets_out_of_its_variables(tmp_path: Path) -> None:
    words = parse(DockerfileWords, "%%dockerfile", "", ["--secret", "id=s,var=token", "--allow", "network.host"], {})
    options = words.build_options(BuildInputs("", tmp_path), {"token": CANARY})
    assert options.secrets["s"].read() == CANARY.encode() and CANARY not in repr(options) and CANARY not in repr(words)
    with pytest.raises(UsageError, match="security.insecure"):
        wanted = parse(DockerfileWords, "%%dockerfile", "", ["--allow", "security.insecure"], {})
        wanted.build_options(BuildInputs("", tmp_path))


def test_an_agent_signs_and_keeps_its_keys(tmp_path: Path) -> None:
    needs.program("ssh-agent", "openssh-client")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    agents = agents_of((f"default={tmp_path}/key",), {})
    with forwarded(agents["default"], tmp_path, 0o600) as path:
        # List, remove all, lock, list: the first and last are answered (12), the others refused (5).
        assert asked_of(path, 11, 19, 22, 11) == [12, 5, 5, 12]
        with forwarded((str(path),), tmp_path, 0o600) as second:
            assert asked_of(second, 11) == [12]
    with pytest.raises(OSError):
        asked_of(path, 11)


def test_a_step_finds_its_agent_and_a_missing_one_is_an_error(box: Machine, ran: Ran, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        agents = agents_of(("default",), {"SSH_AUTH_SOCK": str(tmp_path / "agent.sock")})
        said = ran("RUN --mount=type=ssh stat -c '%a %F' $SSH_AUTH_SOCK; echo $SSH_AUTH_SOCK", ssh=agents)
    assert said == "600 socket\n/run/buildkit/ssh_agent.0"
    assert added(box) == set()
    with pytest.raises(BuildError, match="ssh agent default is required"):
        ran("RUN --mount=type=ssh,required true")


# --- heredocs and the rest ---------------------------------------------------------------------


def test_a_heredoc_is_the_shells_script_its_input_or_a_program_of_its_own(box: Machine, ran: Ran) -> None:
    lines = "RUN <<EOF\necho one\necho two\nEOF\nRUN cat <<A - <<B\nignored\nA\nthree\nB\n"
    lines += 'RUN <<-EOF\n\t#!/bin/awk -f\n\tBEGIN { print "four" }\nEOF\n'
    lines += 'SHELL ["/bin/sh", "-ec"]\nRUN <<EOF\necho five\nEOF'
    assert ran(lines) == "one\ntwo\nthree\nfour\nfive"
    assert added(box) == set()


def test_a_run_without_network_has_none(ran: Ran) -> None:
    assert ran("RUN --network=none ls /sys/class/net; RUN=1") == "lo"


def test_host_network_is_asked_for_where_the_build_has_less(ran: Ran) -> None:
    from nbcontain.errors import DockerfileError

    with pytest.raises(DockerfileError, match="more than this build was given"):
        ran("RUN --network=host true", network="none")
    assert ran("RUN --network=host echo yes", network="none", allow=("network.host",)) == "yes"


def test_a_base_image_gets_no_secret_for_its_triggers(box: Machine) -> None:
    trigger = "ONBUILD RUN --mount=type=secret,id=s cat /run/secrets/s || echo none"
    box.engine.build(f"FROM box\n{trigger}\n", BuildOptions(tags=("asks",))).result()
    secrets = {"s": Secret("s", content=b"given")}
    for allow, wanted in (((), b"none\n"), (("onbuild.secrets",), b"given")):
        task = box.engine.build("FROM asks\n", BuildOptions(secrets=secrets, allow=allow))
        task.result()
        said = [r.event.data for r in task.journal.read() if isinstance(r.event, Output) and r.event.stream == "stdout"]
        assert said == [wanted]


DEVICES = """{"cdiVersion": "0.6.0", "kind": "vendor.example/kind", "devices": [
  {"name": "one", "containerEdits": {"env": ["ONE=1"], "deviceNodes": [{"path": "/dev/given", "hostPath": "/dev/null"}],
                                     "hooks": [{"hookName": "createContainer", "path": "/usr/bin/hook"}]}},
  {"name": "two", "containerEdits": {"env": ["TWO=2"]}}]}
"""


def test_a_step_gets_the_devices_that_the_build_was_given(
    box: Machine, ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """testDeviceRunEnv"""
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "vendor.json").write_text(DEVICES)
    monkeypatch.setattr(box.engine, "environ", {**os.environ, "NBCONTAIN_CDI_DIRS": str(tmp_path / "cdi")})
    show = "echo +$ONE $TWO; ls /dev | grep given; true"
    lines = [
        f"RUN --device=vendor.example/kind=one,required {show}",
        f"RUN --device=vendor.example/kind=* {show} # all",
        f"RUN --device=vendor.example/kind {show} # the first",
        f"RUN --device=vendor.example/kind=none --device=name=other.example/kind {show} # none",
        f"RUN {show} # without",
    ]
    said = ran("\n".join(lines), allow=("device",))
    assert said.split("\n") == ["+1", "given", "+1 2", "given", "+1", "given", "+", "+"]
    # What a device brings along is in no layer.
    assert not {name for name in added(box) if "given" in name}
    with pytest.raises(DockerfileError, match="more than this build was given") as refused:
        ran(lines[0], allow=("device=vendor.example/kind=two", "network.host"))
    assert "--allow device=vendor.example/kind=one" in refused.value.hint
    with pytest.raises(BuildError, match="unresolvable CDI device vendor.example/kind=none") as missing:
        ran("RUN --device=vendor.example/kind=none,required=true true", allow=("device",))
    assert missing.value.hint == "there are vendor.example/kind=one, vendor.example/kind=two"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "has no name"), ("required", "has no name"), ("a/b=c,requird", "unexpected key 'requird'"),
        ("a/b=c,required=maybe", "neither true nor false"), ("name=a/b=c,name=d", "its name is a/b=c already"),
    ],
)  # fmt: skip
def test_a_bad_device_is_told_of_in_its_line(value: str, why: str) -> None:
    with pytest.raises(DockerfileError, match=why) as caught:
        parse_dockerfile(f"FROM a\nRUN --device={value} true\n")
    assert caught.value.span is not None and caught.value.span.first == 2


def test_mounts_are_what_buildkits_own_tests_say(ran: Ran, tmp_path: Path) -> None:
    """testMountContext, testMountTmpfs, testMountRWCache, testCacheMountUser, testCacheMountDefaultID,
    testMountEnvVar, testMountArg, testMountEnvAcrossStages, testMountMetaArg, testMountTmpfsSize,
    testMountDuplicate, testSecretFileParams
    """
    lines = """\
RUN mkdir /out && echo made > /out/made
FROM box AS second
ARG META
ARG KIND=cache
ENV PLACE=/cached NAME=shared SORT=cache
RUN --mount=target=/context --mount=source=app/f,target=/f [ "$(cat /context/file /f)" = "$(printf 'alone\\nmine')" ]
RUN --mount=target=/t,type=tmpfs touch /t/x
RUN [ ! -e /t/x ]
RUN --mount=from=0,src=out,target=/out,rw touch /out/more && head -c 9 /dev/urandom > /unique
RUN --mount=type=cache,target=/own,uid=1001,gid=1002,mode=0751 [ "$(stat -c '%u %g %a' /own)" = "1001 1002 751" ]
RUN --mount=type=cache,target=/cached touch /cached/x
RUN --mount=type=cache,target=/other [ ! -e /other/x ]
RUN --mount=type=$KIND,target=$PLACE [ -e $PLACE/x ]
RUN --mount=type=cache,id=shared,target=/a touch /a/x
RUN --mount=type=cache,id=shared,target=$META [ -e /meta/x ]
RUN --mount=type=tmpfs,target=/dev/shm,size=128m mount | grep /dev/shm | grep -q size=131072k
RUN --mount=type=secret,mode=741,uid=100,gid=102,target=/s [ "$(stat -c '%u %g %a' /s)" = "100 102 741" ]
RUN [ ! -e /s ]
FROM second
RUN --mount=type=$SORT,id=$NAME,target=/whatever [ -e /whatever/x ] && cat /unique | od -An -tx1
"""
    secrets = {"s": Secret(b"pw")}
    first = ran(lines, build_args=("META=/meta",), secrets=secrets, no_cache=True)
    assert len(first.split()) == 9
    assert ran(lines, build_args=("META=/meta",), secrets=secrets) == ""
