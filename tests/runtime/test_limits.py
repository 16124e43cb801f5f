"""--ulimit, --shm-size and --add-host: docker's words, and what a program sees of them."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from machine import Machine
from nbcontain.errors import SetupFailed, UsageError
from nbcontain.oci.spec import Rlimit
from nbcontain.runtime import hosts, limits

BIG = limits.UNLIMITED


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024", Rlimit("RLIMIT_NOFILE", 1024, 1024)),
        ("nofile=1024:2048", Rlimit("RLIMIT_NOFILE", 1024, 2048)),
        ("core=-1", Rlimit("RLIMIT_CORE", BIG, BIG)),
        ("nproc=5:-1", Rlimit("RLIMIT_NPROC", 5, BIG)),
    ],
)
def test_ulimits_are_read_as_docker_reads_them(text: str, limit: Rlimit) -> None:
    assert limits.ulimit(text) == limit


@pytest.mark.parametrize(
    "text", ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=x", "nofile=1:2:3", "nofile=-2"]
)
def test_other_words_are_no_ulimit(text: str) -> None:
    with pytest.raises(UsageError):
        limits.ulimit(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64m", 64 << 20), ("1g", 1 << 30), ("1.5KiB", 1536), ("4096", 4096), ("7b", 7)]
)
def test_sizes_of_memory_count_in_1024(text: str, size: int) -> None:
    assert limits.size_bytes(text, "--shm-size") == size


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("db:10.0.0.1", ("db", "10.0.0.1")),
        ("db=10.0.0.1", ("db", "10.0.0.1")),
        ("db:::1", ("db", "::1")),
        ("db:[fe80::1]", ("db", "fe80::1")),
        ("here:host-gateway", ("here", "host-gateway")),
    ],
)
def test_hosts_are_read_as_docker_reads_them(text: str, pair: tuple[str, str]) -> None:
    assert hosts.added(text) == pair


@pytest.mark.parametrize(
    "text", ["db", "db:", ":1.2.3.4", "db:1.2.3", "db:300.1.1.1", "a b:1.2.3.4", "db\n1.2.3.4 x:1.1.1.1"]
)
def test_other_words_are_no_hosts(text: str) -> None:
    with pytest.raises(UsageError):
        hosts.added(text)


def test_this_machines_hosts_are_known_where_its_network_is_shared_and_what_is_asked_for_comes_before() -> None:
    text = "# ours\n127.0.0.1 localhost\n127.0.1.1 desk  # me\n10.1.1.1 mirror.corp mirror\n10.1.1.2\tdb\n::1 six"
    told = "127.0.0.1\tlocalhost\n10.0.0.9\tdb\n"
    assert hosts.neighbours(text, told) == "127.0.1.1\tdesk\n10.1.1.1\tmirror.corp mirror\n::1\tsix\n"
    long = "0.0.0.0 advertisements.example\n" * 3000
    assert hosts.neighbours(long, told) == long


@pytest.mark.parametrize("isolation", ["full", "root-noproc", "chroot"])
def test_names_and_resolvers_of_this_machines_network_are_the_containers_that_shares_it(
    isolation: str, machine: Machine, tmp_path: Path
) -> None:
    """Of docker's `--network host`. A search list, a resolver at loopback, names that this machine's file knows."""
    if os.geteuid() != 0:
        pytest.skip("only root can cover this machine's files")
    resolv = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lab.example corp.example\n"
    for name, text in (("hosts", "127.0.0.1 localhost\n10.1.1.1 mirror.corp\n"), ("resolv.conf", resolv)):
        (tmp_path / name).write_text(text)
    words = (sys.executable, "-m", "nbcontain", "run", "--rm", "--isolation", isolation, "--add-host", "db:10.0.0.9")
    script = (
        'mount --bind hosts /etc/hosts; mount --bind resolv.conf "$(readlink -f /etc/resolv.conf)"; for n in host none;'
        f' do {shlex.join(words)} --network $n box sh -c "cat /etc/resolv.conf; tail -n +4 /etc/hosts"; done'
    )
    environ = {**os.environ, "NBCONTAIN_ROOT": str(machine.engine.layout.root)}
    covered = ("unshare", "--mount", "sh", "-c", script)
    done = subprocess.run(covered, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    shared, _, own = done.stdout.partition("mirror.corp\n")
    assert shared == f"{resolv}10.0.0.9\tdb\n10.1.1.1\t"
    assert "mirror" not in own


def test_a_program_sees_its_limits_its_shm_and_its_hosts(profile: str, machine: Machine) -> None:
    said = machine.sh(
        "ulimit -Sn; ulimit -Hn; ulimit -c; df -k /dev/shm | tail -1; tail -n +4 /etc/hosts",
        ulimits=("nofile=100:200", "core=0"), shm_size="1m", add_hosts=("db:10.0.0.9", "me=host-gateway"),
    )  # fmt: skip
    soft, hard, core, shm, first, second, *_ = said.splitlines()
    assert (soft, hard, core, shm.split()[1]) == ("100", "200", "0", "1024")
    assert (first, second) == ("10.0.0.9\tdb", "127.0.0.1\tme")


def test_a_further_program_has_the_same_limits(machine: Machine) -> None:
    container = machine.start("echo ready; sleep 100", ulimits=("nofile=100:200",))
    assert machine.execute(container, "sh", "-c", "ulimit -Hn") == (0, "200\n")


def test_only_who_has_the_power_raises_a_hard_limit(profile: str, machine: Machine) -> None:
    now = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if now == resource.RLIM_INFINITY:
        assert machine.sh("ulimit -Hc", ulimits=("core=-1",)) == "unlimited\n"
    else:
        with pytest.raises(SetupFailed, match="cannot set the limit core"):
            machine.sh("true", ulimits=(f"core={now + 1}",))
    with pytest.raises(SetupFailed, match="cannot set the limit nofile"):
        machine.sh("true", ulimits=("nofile=-1",))
