"""What BuildKit's integration tests name of RUN: mounts for every step, secrets, agents, networks, powers.

Each test says in its docstring which of those names it shows; suites.txt sends them here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from building import Ran
from machine import Machine, until
from nbcontain.build.plan import BuildOptions
from nbcontain.build.secrets import Secret, agents_of
from nbcontain.build.ssh_agent import forwarded
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import BuildError, DockerfileError, UsageError
from nbcontain.events import Started
from rounds import rounds
from servers import answering


def secrets(**values: str) -> dict[str, Secret]:
    return {name: Secret(name, content=value.encode()) for name, value in values.items()}


# --- mounts for every step --------------------------------------------------------------------


def test_a_secret_for_every_step_is_in_every_step_of_every_stage(ran: Ran) -> None:
    """testAutomountSecret, testAutomountSecretMultipleRuns, testAutomountAppliesAllStages"""
    step = 'RUN [ "$(cat /run/secrets/token)" = mine ] # '
    stages = f"{step}1\n{step}2\nFROM box AS other\n{step}3\nFROM box\nCOPY --from=0 /bin/busybox /x\n"
    mounts = ("type=secret,id=token,target=/run/secrets/token",)
    ran(f"{stages}COPY --from=other /bin/busybox /y\n{step}4", automounts=mounts, secrets=secrets(token="mine"))
    ran("RUN [ ! -e /run/secrets/token ]")


def test_several_mounts_for_every_step(ran: Ran, tmp_path: Path) -> None:
    """testAutomountMultiple, testAutomountCache, testAutomountBind, testAutomountTmpfs"""
    (tmp_path / "config").write_text("as it is\n")
    mounts = (
        "type=secret,id=one,target=/secrets/one", "type=secret,id=two,env=TWO", "type=cache,target=/cache,id=automount",
        "type=bind,source=.,target=/context", "type=tmpfs,target=/quick",
    )  # fmt: skip
    lines = "RUN cat /secrets/one; echo $TWO; cat /context/config; echo first > /cache/f; echo x > /quick/x\n"
    lines += "RUN echo second >> /cache/f; cat /cache/f; ls /quick"
    said = ran(lines, automounts=mounts, secrets=secrets(one="1", two="2"), no_cache=True)
    assert said.split() == ["12", "as", "it", "is", "first", "second"]


def test_a_steps_own_mounts_come_after_those_of_every_step(ran: Ran, tmp_path: Path) -> None:
    """testAutomountWithExplicitMount"""
    (tmp_path / "own").write_text("own\n")
    mounts = ("type=secret,id=auto,target=/run/secrets/auto", "type=tmpfs,target=/src")
    lines = "RUN --mount=type=secret,id=more --mount=target=/src cat /run/secrets/auto /run/secrets/more /src/own"
    assert ran(lines, automounts=mounts, secrets=secrets(auto="a", more="b")) == "abown"


def test_mounts_for_every_step_are_part_of_what_a_step_is(box: Machine, ran: Ran) -> None:
    step = "RUN ls /quick 2> /dev/null; date +%N > /when"
    found = []
    for mounts in ((), ("type=tmpfs,target=/quick",), ()):
        ran(step, automounts=mounts)
        found.append(box.engine.image("ran").id)
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        ("type=bind,from=builder,target=/data", "there is no from"), ("what-is-it", "cannot be read"),
        ("type=secret", "one of source, target required"), ("type=tmpf,target=/x", "did you mean tmpfs"),
    ],
)  # fmt: skip
def test_a_mount_for_every_step_that_makes_no_sense_is_refused(ran: Ran, mount: str, why: str) -> None:
    """testAutomountInvalidFrom, testAutomountInvalidSpec"""
    with pytest.raises(UsageError) as caught:
        ran("RUN true", automounts=(mount,))
    assert why in f"{caught.value.message} {caught.value.why} {caught.value.hint}"


def test_a_base_images_triggers_get_no_secret_of_every_step(box: Machine, ran: Ran) -> None:
    box.engine.build("FROM box\nONBUILD RUN cat /s || echo none\n", BuildOptions(tags=("trigger",))).result()
    given = {"automounts": ("type=secret,id=s,target=/s",), "secrets": secrets(s="canary")}
    said = [ran(f"FROM trigger\nRUN cat /s #{n}", allow=allow, **given)
            for n, allow in enumerate(((), ("onbuild.secrets",)))]  # fmt: skip
    assert [each.count("canary") for each in said] == [1, 2] and "none" in said[0]


# --- mounts of one step -----------------------------------------------------------------------


def test_a_secret_as_a_variable_is_no_file_unless_that_is_said_too(box: Machine, ran: Ran) -> None:
    """testSecretAsEnviron, testSecretAsEnvironWithFileMount, testSecretRequiredWithoutValue"""
    lines = 'ENV TOKEN=foo\nRUN --mount=type=secret,id=s,env=TOKEN [ "$TOKEN" = pw ] && [ ! -e /run/secrets/s ]\n'
    lines += 'RUN --mount=type=secret,id=s,target=/run/secrets/t,env=T [ "$T" = pw ] && [ -f /run/secrets/t ]'
    ran(lines, secrets=secrets(s="pw"))
    with pytest.raises(BuildError, match="secret s is required"):
        ran("RUN --mount=type=secret,required,id=s true")


def test_a_steps_name_has_nothing_of_its_secrets(box: Machine) -> None:
    """testSecretAsEnviron"""
    text = 'FROM box\nRUN --mount=type=secret,id=s,env=TOKEN [ "$TOKEN" = "p""w" ]\n'
    task = box.engine.build(text, BuildOptions(secrets=secrets(s="pw")))
    task.result()
    names = [r.event.name for r in task.journal.read() if isinstance(r.event, Started)]
    assert any("$TOKEN" in each for each in names) and not any("pw" in each for each in names)


def test_caches_below_one_another_do_not_hinder_two_stages(box: Machine) -> None:
    """testCacheMountParallel"""
    mounts = "--mount=type=cache,target=/foo/bar --mount=type=cache,target=/foo/bar/baz"
    text = f"FROM box AS one\nRUN {mounts} echo 1\nFROM box AS two\nRUN {mounts} echo 2\n"
    text += "FROM scratch\nCOPY --from=one /etc/passwd p1\nCOPY --from=two /etc/passwd p2\n"
    for _ in rounds(20, 3):
        box.engine.build(text, BuildOptions(no_cache=True)).result()


def test_an_agents_socket_has_the_mode_and_the_owner_that_are_asked_for(ran: Ran, tmp_path: Path) -> None:
    """testSSHSocketParams"""
    with agent(tmp_path) as path:
        agents = agents_of((f"default={path}",), {})
        step = "RUN --mount=type=ssh,mode=741,uid=100,gid=102 stat -c '%u %g %f' $SSH_AUTH_SOCK"
        wanted = "100 102 c1e1" if os.geteuid() == 0 else "0 0 c1f7"
        assert ran(step, ssh=agents) == wanted


def test_an_agents_connections_are_closed_again(tmp_path: Path) -> None:
    """testSSHFileDescriptorsClosed"""
    (tmp_path / "forwarded").mkdir()
    with agent(tmp_path) as path, forwarded((str(path),), tmp_path / "forwarded", 0o600) as found:
        ask(found)
        open_before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            ask(found)
        until(lambda: len(os.listdir("/proc/self/fd")) <= open_before)


@contextmanager
def agent(directory: Path) -> Iterator[Path]:
    """An agent without keys: it says so to whoever asks for them."""
    path = directory / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def nothing(end: socket.socket) -> None:
            while end.recv(64):
                end.sendall(b"\0\0\0\x05\x0c\0\0\0\0")

        with answering(listener, nothing):
            yield path


def ask(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(path))
        end.sendall(b"\0\0\0\x01\x0b")
        assert end.recv(9, socket.MSG_WAITALL)[4] == 12


# --- networks and powers ----------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    """Of this machine's loopback, where somebody says foo."""
    with socket.create_server(("127.0.0.1", 0)) as listener, answering(listener, lambda end: end.sendall(b"foo\n")):
        yield listener.getsockname()[1]


def test_a_step_reaches_this_machine_where_it_has_its_network_and_nowhere_else(ran: Ran, port: int) -> None:
    """testRunGlobalNetwork, testRunHostNetwork, testRunNoNetwork"""
    asks = f"nc 127.0.0.1 {port} < /dev/null 2> /dev/null | grep foo"
    assert ran(f"RUN {asks}\nRUN --network=none ! {asks}", network="host", no_cache=True) == "foo"
    lines = f"RUN --network=host {asks}\nRUN ! {asks}"
    assert ran(lines, network="none", allow=("network.host",), no_cache=True) == "foo"
    with pytest.raises(DockerfileError, match="network=host is more than this build was given"):
        ran(lines, network="none")
    assert ran("RUN --network=none ! ip link show eth0 2> /dev/null && ls /sys/class/net") == "lo"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has fewer powers to give")
def test_a_step_has_the_powers_of_dockers_containers(ran: Ran) -> None:
    """testRunSecurityDefault, testRunSecuritySandbox"""
    show = "grep CapBnd /proc/self/status | cut -f 2"
    said = ran(f"RUN --network=none {show}\nRUN --network=none --security=sandbox {show} # sandbox")
    assert said.split() == ["00000000a80425fb"] * 2


def test_a_step_that_wants_power_over_this_machine_is_refused(ran: Ran) -> None:
    with pytest.raises(DockerfileError, match="security=insecure is refused"):
        ran("RUN --security=insecure true")
    assert parse("FROM a\nRUN --security=insecure true\n").stages
