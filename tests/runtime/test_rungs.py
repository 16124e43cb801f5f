"""The ladder of isolation: on every rung that this user can be put on, programs find what they expect, or a reason."""

from __future__ import annotations

import gzip
import io
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from machine import SLEEP, Machine, said, until
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, Unavailable, UsageError
from nbcontain.inspection import container_document
from nbcontain.runtime.rungs import RUNGS

LADDER = {
    "root": ("root-noproc", "chroot"),
    "rootless-range": ("rootless-single", "userns-chroot"),
    "rootless-single": ("userns-chroot", "proot", "preload"),
}


@pytest.fixture(scope="session")
def rungs(shared_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Machine]:
    return {}


@pytest.fixture(params=("root-noproc", "chroot", "rootless-single", "userns-chroot", "proot", "preload"))
def rung(
    request: pytest.FixtureRequest, profile: str, machine: Machine, rungs: dict[str, Machine]
) -> Iterator[Machine]:
    """The machine on one rung; those that are for other users are left out."""
    name: str = request.param
    if name not in LADDER[profile]:
        pytest.skip(f"{name} is not for {profile}")
    if name == "proot":
        needs.proot(machine.engine.host)
    if name == "preload":
        yield request.getfixturevalue("preload_machine")
        request.getfixturevalue("preload_machine").clear()
        return
    if name not in rungs:
        made = Machine.on(machine.engine.isolated(name))
        rungs[name] = made
    yield rungs[name]


def test_programs_find_proc_and_devices_on_every_rung(rung: Machine) -> None:
    said = rung.sh(
        "grep -c ^MemTotal /proc/meminfo; grep ^Name /proc/self/status; head -c 3 /dev/zero | wc -c; "
        "head -c 3 /dev/urandom | wc -c; echo lost > /dev/null && echo kept; head -c 1 /dev/null | wc -c; "
        "grep -c localhost /etc/hosts; echo x | cat /dev/stdin"
    )
    # A program that is started by its loader is called what that is.
    name = said.split()[2] if rung.engine.profile.name == "preload" else "grep"
    assert said.split() == ["1", "Name:", name, "3", "3", "kept", "0", "2", "x"]


def test_what_is_real_is_told(rung: Machine) -> None:
    profile = rung.engine.profile
    assert profile.rung.name == profile.name
    for name in profile.rung.namespaces:
        assert name in profile.describe()
    container = rung.start(SLEEP)
    assert container.info.rung == profile.name
    assert container.bundle.spec.annotations["org.nbcontain.isolation"] == profile.name
    assert set(container.bundle.spec.linux.namespaces) <= set(RUNGS[profile.name].namespaces)


def test_a_further_program_is_where_the_container_is(rung: Machine) -> None:
    container = rung.start(f"echo here > /mark; {SLEEP}")
    code, said = rung.execute(container, "sh", "-c", "cat /mark; grep -c ^Name /proc/self/status; id -u", user="app")
    assert (code, said.split()) == (0, ["here", "1", "1000"])


def test_after_a_restart_users_are_what_they_were(rung: Machine) -> None:
    """Also in the network of the run before, which is born into that and its owner."""
    network = "none" if "network" in rung.engine.profile.rung.namespaces else "host"
    container = rung.start("id -u; sleep 60", user="app", restart="always", network=network)
    # Killed before, it would have said nothing.
    until(lambda: said(container) == "1000\n", what=lambda: container.state().error)
    first = container.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: said(container) == "1000\n1000\n", what=lambda: container.state().error)
    assert rung.execute(container, "id", "-u") == (0, "1000\n")


def test_users_and_owners_are_as_docker_has_them(rung: Machine, tmp_path: Path) -> None:
    dockerfile = (
        "FROM box\n"
        "RUN mkdir /d && echo x > /d/f && ln -s f /d/l && chown 7:50 /d /d/f && chown -h app:audio /d/l"
        " && chmod 4711 /d/f && test $(id -u) = 0 && su -s /bin/sh app -c 'id -u' | grep -x 1000\n"
        "USER app\n"
        "RUN test $(id -u) = 1000 && test $(id -g) = 1001 && ! chown 0:0 /d 2>/dev/null\n"
    )
    rung.engine.build(dockerfile, BuildOptions(tags=("owned",), context=tmp_path)).result()
    found = owners(rung.engine, "owned")
    assert found["d"] == (7, 50, "755")
    assert found["d/f"] == (7, 50, "4711")
    assert found["d/l"][:2] == (1000, 29)


def test_a_new_file_is_its_makers(rung: Machine, tmp_path: Path) -> None:
    """Also where the kernel knows of one id: of the user of a step, and of whom a program becomes in its own homes."""
    assert made_by_users(rung.engine, tmp_path) == MADE_BY_USERS


def test_a_new_file_is_its_makers_as_on_the_highest_rung(profile: str, machine: Machine, tmp_path: Path) -> None:
    assert made_by_users(machine.engine, tmp_path) == MADE_BY_USERS


def test_what_a_container_is_committed_to_has_its_users_files(rung: Machine, tmp_path: Path) -> None:
    """While it runs, too; and what another user's program makes in it later is that one's."""
    engine = rung.engine
    rung.build("FROM box\nRUN mkdir /all && chmod 777 /all\n", "open", tmp_path)
    container = rung.start(f"mkdir /all/d; touch /all/d/f; {SLEEP}", image="open", user="app")
    until(lambda: "ready" in said(container))
    assert rung.execute(container, "touch", "/all/roots", user="root")[0] == 0
    engine.archives.commit(container, "made").result()
    found = owners(engine, "made")
    assert {path: found[path][:2] for path in ("all/d", "all/d/f", "all/roots")} == {
        "all/d": (1000, 1001), "all/d/f": (1000, 1001), "all/roots": (0, 0),
    }  # fmt: skip


MADE_BY_USERS = {
    "roots": (0, 0), "all": (0, 0), "twice": (0, 0), "shared": (7, 50), "home": (0, 0), "home/app": (1000, 1001),
    "home/app/before": (0, 0), "home/app/taken": (0, 0), "home/app/d": (1000, 1001), "home/app/d/f": (1000, 1001),
    "home/app/d/l": (1000, 1001), "home/app/given": (33, 1001), "home/app/roots": (0, 0), "home/app/own": (1000, 1001),
    "home/app/link": (1000, 1001), "home/app/deep": (1000, 1001), "home/app/deep/er": (1000, 1001),
    "home/app/pipe": (1000, 1001), "home/app/old": (1000, 1001), "home/app/staffs": (1000, 50),
    "home/app/hard": (1000, 1001), "shared/mine": (1000, 50), "shared/d": (1000, 50),
}  # fmt: skip


def made_by_users(engine: Engine, context: Path) -> dict[str, tuple[int, int]]:
    """Whose what is, as the last layer that has it says."""
    dockerfile = (
        "FROM box\n"
        "RUN mkdir -p /home/app /shared && chown app:app /home/app && chown 7:50 /shared && chmod 2777 /shared"
        " && touch /roots /all /twice /home/app/before /home/app/taken && chmod 666 /all /twice"
        " && ln /twice /home/app/again"
        " && su -s /bin/sh app -c 'cd /home/app && mkdir d && touch d/f given && ln -s f d/l'"
        " && touch /home/app/roots && chown 0:0 /home/app/roots && chown 33:1001 /home/app/given\n"
        "USER app\n"
        "RUN cd /home/app && echo x > own && ln own hard && ln -s own link && mkdir -p deep/er && mkfifo pipe"
        " && touch -d 2001-01-01 old && rm taken && touch taken staffs && chgrp staff staffs && mkdir /shared/d"
        " && touch /shared/mine && echo more >> /all && echo more >> /twice && chown app own\n"
        "USER root\n"
        "RUN chown 0:0 /home/app/taken && touch /home/app/roots\n"
    )
    engine.build(dockerfile, BuildOptions(tags=("made",), context=context)).result()
    found = owners(engine, "made")
    return {path: found[path][:2] for path in found if path not in ("tmp", "home/app/again")}


def owners(engine: Engine, name: str) -> dict[str, tuple[int, int, str]]:
    """Of the layers on top of the first three, which are the box's."""
    found = {}
    for layer in engine.image(name).layers[3:]:
        with engine.store.blobs.open(layer.descriptor.digest) as blob:
            data = gzip.decompress(blob.read())
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            found.update({each.name: (each.uid, each.gid, f"{each.mode:o}") for each in archive})
    return found


def test_files_of_a_context_and_of_other_stages_are_copied(rung: Machine, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("copied")
    dockerfile = (
        "FROM box AS first\nRUN echo made > /made\n"
        "FROM box\nCOPY tree /tree/\nADD tree/f /added\nCOPY --from=first /made /from/\n"
        "RUN cat /tree/f /added /from/made\n"
    )
    rung.engine.build(dockerfile, BuildOptions(tags=("copied",), context=tmp_path)).result()
    assert {"tree/f", "added", "from/made"} <= owners(rung.engine, "copied").keys()


def test_what_one_container_changes_is_no_change_of_another(rung: Machine) -> None:
    one, other = rung.start(SLEEP), rung.start(SLEEP)
    assert rung.execute(one, "sh", "-c", "echo x > /etc/wall; rm /etc/group")[0] == 0
    assert {("A", "/etc/wall"), ("D", "/etc/group")} <= set(rung.engine.diff(one))
    assert rung.engine.diff(other) == []


def test_what_was_made_for_the_container_is_in_no_layer(rung: Machine, tmp_path: Path) -> None:
    # One rung's result would be taken for another's.
    options = BuildOptions(tags=("made",), context=tmp_path, no_cache=True)
    document = "RUN <<EOF\n#!/bin/sh\necho y > /also\nEOF\n"
    rung.engine.build(f"FROM box\nRUN echo x > /made\n{document}", options).result()
    assert owners(rung.engine, "made").keys() == {"made", "also"}


def test_this_machines_certificates_are_seen_where_they_are_asked_for_and_are_in_no_layer(
    rung: Machine, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text(text := "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    asked = {"NBCONTAIN_HOST_CERTIFICATES": "true", "SSL_CERT_FILE": str(tmp_path / "ca.pem"), "SSL_CERT_DIR": ""}
    environ = {**rung.engine.environ, **asked, "NBCONTAIN_ISOLATION": rung.engine.profile.name}
    # What is looked for before it is opened, as requests does, has to be there.
    script = "test -s $REQUESTS_CA_BUNDLE && cat $SSL_CERT_FILE"
    with Engine(rung.engine.layout.root, environ) as behind:
        assert Machine.on(behind).sh(script) == text
        options = BuildOptions(tags=("made",), context=tmp_path, no_cache=True)
        behind.build(f"FROM box\nRUN {script} > /made\n", options).result()
    assert owners(rung.engine, "made").keys() == {"made"}


def test_all_that_was_started_ends_with_the_container(rung: Machine, tmp_path: Path) -> None:
    """Also where no namespace's end is theirs."""
    rung.run("sh", "-c", "(setsid sh -c 'sleep 1; echo x > /late' &) ; true", remove=False, name="ends")
    container = next(each for each in rung.engine.containers() if each.name == "ends")
    assert not rung.engine.diff(container) or ("A", "/late") not in rung.engine.diff(container)
    import time

    time.sleep(1.5)
    assert ("A", "/late") not in rung.engine.diff(container)


def test_what_a_rung_cannot_give_is_refused_with_the_reason(rung: Machine, tmp_path: Path) -> None:
    if rung.engine.profile.rung.mounts:
        pytest.skip("here things can be mounted")
    name = rung.engine.profile.name
    for options in ({"volumes": (f"{tmp_path}:/v",)}, {"read_only": True}, {"sysctl": ("kernel.msgmax=9000",)}):
        with pytest.raises(Unavailable, match=name) as error:
            rung.run("true", **{"network": "host", **options})
        assert "mounted" in error.value.why
    for options in ({"privileged": True}, {"cap_add": ("sys_chroot",)}, {"cap_add": ("ALL",)}):
        with pytest.raises(Unavailable, match=name) as error:
            rung.run("true", **{"network": "host", **options})
        assert "leads out of a chroot" in error.value.why
    if "network" not in rung.engine.profile.rung.namespaces:
        with pytest.raises(Unavailable, match="network"):
            rung.run("true", network="none")
    if "uts" not in rung.engine.profile.rung.namespaces:
        for options in ({"hostname": "other"}, {"domainname": "other"}):
            with pytest.raises(Unavailable, match="name"):
                rung.run("true", **options)


def test_a_container_says_what_it_is_on_and_its_programs_get_no_more_than_it_has(rung: Machine) -> None:
    container = rung.start(SLEEP)
    said = container_document(rung.engine, container)["Isolation"]
    assert said.startswith(f"isolation {rung.engine.profile.name}: ")
    # Whoever is on another rung by now is told the same.
    assert container_document(rung.engine.isolated("default"), container)["Isolation"] == said
    if not rung.engine.profile.rung.mounts:
        with pytest.raises(Unavailable, match="--privileged"):
            rung.execute(container, "true", privileged=True)


def test_a_rung_that_cannot_be_had_is_one_error(profile: str, machine: Machine) -> None:
    other = "rootless-range" if profile == "root" else "full"
    with pytest.raises(Unavailable, match=f"the isolation {other}") as error:
        machine.engine.isolated(other).profile  # noqa: B018
    assert error.value.why == f"it is for {'users other than ' * (profile == 'root')}root"
    with pytest.raises(UsageError, match="nowhere"):
        machine.engine.isolated("nowhere").profile  # noqa: B018


def test_on_the_last_rung_all_but_programs_work(profile: str, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    engine = machine.engine.isolated("none")
    engine.build("FROM scratch\nENV A=b\n", BuildOptions(tags=("plain",), context=tmp_path)).result()
    with pytest.raises(BuildError) as error:
        engine.build("FROM box\nRUN true && false\n", BuildOptions(tags=("x",), context=tmp_path)).result()
    assert "RUN needs a container" in str(error.value) and "isolation none was asked for" in error.value.why
