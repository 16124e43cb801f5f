"""What a foreign directory, Dockerfile or registry puts before a build; and the table of the attacks on builds.

The attacks B1 to B14 are those of the threat model: each has its tests, here and in the files beside.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import places
from building import written
from machine import Machine
from nbcontain.__main__ import main
from nbcontain.build.plan import BuildOptions
from nbcontain.errors import NbcontainError
from nbcontain.events import Notice

CANARY = "canary-51c0ffee-do-not-keep"
TESTS = Path(__file__).resolve().parent.parent

BUILD_ATTACKS: dict[str, tuple[str, str]] = {
    "B1": (
        "symlinks of the context, its Dockerfile and .dockerignore; pipes; archives; files that are swapped meanwhile",
        "hostile/test_build.py: test_copy_takes_nothing_from_outside_the_context "
        "test_a_context_that_holds_pipes_and_sockets_does_not_hang_a_build "
        "test_an_archive_of_add_writes_nothing_outside test_a_source_that_is_swapped_all_the_time_never_leads_out; "
        "hostile/test_build_inputs.py: test_a_dockerfile_that_leads_out_is_not_read "
        "test_an_ignore_file_that_leads_out_is_not_read; build/test_context.py: test_no_symlink_leads_out",
    ),
    "B2": (
        "destinations that are symlinks: COPY, ADD, WORKDIR, VOLUME",
        "hostile/test_build.py: test_a_destination_that_is_a_symlink_to_the_host_is_inside; "
        "hostile/test_build_inputs.py: test_a_volume_that_is_a_symlink_touches_nothing_of_the_hosts",
    ),
    "B3": (
        "sources of RUN --mount that lead out, and options that nobody knows (CVE-2024-1753, 9407, 9675, 11218, 23651)",
        "hostile/test_build.py: test_a_bind_of_a_stage_reaches_nothing_of_the_hosts "
        "test_a_cache_and_a_bind_of_the_context_reach_nothing_outside test_an_option_that_is_not_known_is_refused "
        "test_a_mount_over_the_root_or_proc_is_refused; "
        "hostile/test_build_inputs.py: test_a_bind_whose_source_is_swapped_never_shows_the_host",
    ),
    "B4": (
        "removal of mount points through symlinks (CVE-2024-23652)",
        "hostile/test_build.py: test_removing_a_mount_point_through_a_symlink_removes_nothing_outside "
        "test_a_removed_mount_point_is_not_looked_for_behind_a_symlink",
    ),
    "B5": (
        "foreign frontends (CVE-2024-23653, CVE-2026-33747)",
        "hostile/test_build_inputs.py: test_no_other_program_ever_reads_a_dockerfile",
    ),
    "B6": (
        "a poisoned cache (CVE-2024-24557)",
        "hostile/test_build_inputs.py: test_an_image_that_says_the_same_is_another_base; "
        "build/test_building_outputs.py: test_a_cache_is_carried_to_another_store",
    ),
    "B7": (
        "git: options, protocols, sub-directories, hooks",
        "hostile/test_build.py: test_what_git_could_take_for_an_order_is_refused; "
        "build/test_copies.py: test_a_repository_gives_a_commits_files",
    ),
    "B8": (
        "ADD of URLs: redirects, credentials, checksums, file names",
        "hostile/test_build.py: test_a_redirect_goes_nowhere_but_to_http_and_never_to_metadata "
        "test_a_public_server_may_not_choose_an_address_of_this_network "
        "test_credentials_of_a_url_stay_with_its_host_and_out_of_the_image; "
        "build/test_copies.py: test_a_url_has_to_be_what_its_checksum_says",
    ),
    "B9": (
        "secrets that stay: layers, config, history, cache, journal, notebook, list of processes",
        "build/test_mounts.py: test_a_secret_is_there_for_one_step_and_nowhere_afterwards; "
        "hostile/test_build_inputs.py: test_a_secret_of_a_notebook_is_in_no_file_afterwards "
        "test_a_secret_of_a_failed_step_is_nowhere; build/test_building_whys.py: "
        "test_a_secret_value_is_neither_shown_nor_kept",
    ),
    "B10": (
        "what is written into a mount comes back: to the context, to another user's cache (CVE-2025-4953)",
        "build/test_mounts.py: test_the_context_is_seen_and_stays_as_it_is "
        "test_caches_of_other_ids_and_owners_are_others; "
        "hostile/test_build.py: test_a_set_id_program_in_a_cache_is_another_builds_only_under_its_id",
    ),
    "B11": (
        "steps that do not end, or write without end",
        "hostile/test_build.py: test_a_program_that_outlives_its_run_is_gone_and_writes_no_more "
        "test_a_step_that_writes_without_end_costs_no_memory_here",
    ),
    "B12": (
        "triggers of a base image",
        "hostile/test_build.py: test_a_base_images_trigger_gets_nothing_from_outside_the_context; "
        "build/test_mounts.py: test_a_base_image_gets_no_secret_for_its_triggers; "
        "hostile/test_build_inputs.py: test_triggers_are_shown",
    ),
    "B13": (
        "Dockerfiles that take long to read",
        "hostile/test_build.py: test_a_huge_dockerfile_is_read_or_refused_soon; "
        "build/test_context.py: test_patterns_match_in_linear_time",
    ),
    "B14": (
        "secrets in arguments, variables and proxies",
        "hostile/test_build_inputs.py: test_a_secret_in_an_argument_is_warned_of "
        "test_a_proxys_password_is_in_no_history",
    ),
}


def test_each_attack_on_builds_has_its_tests() -> None:
    assert list(BUILD_ATTACKS) == [f"B{number}" for number in range(1, 15)]
    for _, where in BUILD_ATTACKS.values():
        for place in where.split("; "):
            file, _, names = place.partition(": ")
            there = {
                each.name
                for each in ast.walk(ast.parse((TESTS / file).read_text()))
                if isinstance(each, ast.FunctionDef)
            }
            assert set(names.split()) <= there, (file, set(names.split()) - there)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").write_text("mine\n")
    return directory


def written_in(root: Path, needle: bytes) -> list[Path]:
    """The files below with these bytes in them, also where they are gzip."""
    found = []
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        if needle in data or (data[:2] == b"\x1f\x8b" and needle in gzip.decompress(data)):
            found.append(path)
    return found


# --- B1, B2, B3 -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dockerfile", "dockerfile"])
@pytest.mark.parametrize("leads_to", ["{canary}/secret", "../canary/secret", "/dev/zero", "/proc/self/environ", "pipe"])
def test_a_dockerfile_that_leads_out_is_not_read(
    machine: Machine, context: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    name: str, leads_to: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("NBCONTAIN_ROOT", str(machine.engine.layout.root))
    os.mkfifo(context / "pipe")
    (context / name).symlink_to(leads_to.format(canary=canary))
    assert main(["build", str(context)]) != 0
    said = "".join(capfd.readouterr())
    assert "do not touch" not in said and "cannot read the Dockerfile" in said


def test_an_ignore_file_that_leads_out_is_not_read(machine: Machine, context: Path, canary: Path) -> None:
    (canary / "ignore").write_text("file\n")
    (context / ".dockerignore").symlink_to(canary / "ignore")
    machine.build("FROM box\nCOPY file /\n", "ignoring", context)
    (canary / "ignore").unlink()
    os.utime(canary)


def test_a_volume_that_is_a_symlink_touches_nothing_of_the_hosts(machine: Machine, context: Path, canary: Path) -> None:
    text = f"FROM box\nRUN ln -s {canary} /v && ln -s ../../../../..{canary} /w\nVOLUME /v /w /v/secret /../../etc\n"
    machine.build(text, "volumes", context)
    assert machine.sh("touch /v/new 2>/dev/null; cat /v/secret 2>/dev/null; echo end", image="volumes") == "end\n"


def test_a_bind_whose_source_is_swapped_never_shows_the_host(machine: Machine, context: Path, canary: Path) -> None:
    (context / "data").mkdir()
    (context / "data" / "secret").write_text("mine\n")
    (context / "other").symlink_to(canary)
    with places.taking_turns(context, "data", "other"):
        for number in range(12):
            text = f"FROM box\nRUN --mount=type=bind,source=data,target=/m : {number}; cat /m/* > /seen; true\n"
            try:
                machine.build(text, "swapped", context)
            except NbcontainError:
                continue
            assert "do not touch" not in machine.sh("cat /seen", image="swapped")


# --- B5, B6 -----------------------------------------------------------------------------------


def test_no_other_program_ever_reads_a_dockerfile(machine: Machine, context: Path) -> None:
    for text in ("# syntax=evil/frontend\nFROM box\n", "#syntax = evil.example/docker/dockerfile:1\nFROM box\n"):
        with pytest.raises(NbcontainError, match="evil"):
            machine.build(text, "fronted", context)
    options = BuildOptions(context=context, build_args=("BUILDKIT_SYNTAX=evil/frontend",))
    with pytest.raises(NbcontainError, match="evil/frontend"):
        machine.engine.build("FROM box\n", options).result()


def test_an_image_that_says_the_same_is_another_base(machine: Machine, context: Path) -> None:
    # Classic docker looked at the config of a parent only: an image with the same words was the same to its cache.
    for content in ("good", "evil"):
        (context / "file").write_text(content)
        machine.build("FROM scratch\nCOPY file /payload\n", content, context)
    texts = [json.loads(machine.engine.image(name).raw_config) for name in ("good", "evil")]
    assert texts[0]["config"] == texts[1]["config"]
    step = "FROM {}\nCOPY --from=box /bin/busybox /bin/sh\nRUN read line < /payload; echo $line > /made\n"
    for content in ("good", "evil"):
        machine.build(step.format(content), "made", context)
        seen = machine.build("FROM box\nCOPY --from=made /made /\n", "look", context)
        assert machine.sh("cat /made", image=seen) == f"{content}\n"


# --- B9 ---------------------------------------------------------------------------------------


@pytest.mark.of_mounts
def test_a_secret_of_a_failed_step_is_nowhere(machine: Machine, context: Path, tmp_path: Path) -> None:
    from nbcontain.build.secrets import Secret

    options = BuildOptions(
        tags=("leaky",), context=context, secrets={"s": Secret("s", content=CANARY.encode())}, build_args=("X=1",)
    )
    text = 'FROM box\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=T test -n "$T" && exit 3\n'
    task = machine.engine.build(text, options)
    with pytest.raises(NbcontainError) as caught:
        task.result()
    assert CANARY not in "\n".join(caught.value.lines()) + repr(list(task.journal.read())) + repr(options)
    assert written_in(machine.engine.layout.root, CANARY.encode()) == []
    # What the failed step left behind is kept, and does not have it either.
    assert machine.engine.builder.state("leaky@failed") is not None


@pytest.mark.of_mounts
def test_a_secret_of_a_notebook_is_in_no_file_afterwards(
    machine: Machine, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    (tmp_path / "token").write_text(CANARY)
    cells = [
        "%load_ext nbcontain",
        f"token = open({str(tmp_path / 'token')!r}).read()",
        "%%dockerfile -t quiet --secret id=a,var=token --secret id=b,env=TOKEN\nFROM box\n"
        'RUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B test "$(cat /run/secrets/a)" = "$B" && echo same',
        "%%dockerfile --secret id=a,var=token\nFROM box\nRUN --mount=type=secret,id=a,required exit 4",
    ]
    monkeypatch.setenv("NBCONTAIN_ROOT", str(machine.engine.layout.root))
    monkeypatch.setenv("TOKEN", CANARY)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(each for each in (str(TESTS.parent), *sys.path) if each))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    nbclient.NotebookClient(notebook, timeout=60, allow_errors=True, kernel_name="python3").execute()
    outputs = json.dumps([cell.outputs for cell in notebook.cells])
    assert "same" in outputs and "exit code 4" in outputs, outputs
    nbformat.write(notebook, tmp_path / "saved.ipynb")
    assert CANARY not in (tmp_path / "saved.ipynb").read_text()
    assert written_in(machine.engine.layout.root, CANARY.encode()) == []
    for history in (tmp_path / "ipython").rglob("history.sqlite"):
        rows = sqlite3.connect(history).execute("select source_raw from history").fetchall()
        assert CANARY not in repr(rows)


# --- B12, B14 ---------------------------------------------------------------------------------


def test_triggers_are_shown(machine: Machine, context: Path) -> None:
    machine.build("FROM box\nONBUILD RUN echo from-the-base\n", "base-with-a-trigger", context)
    task = machine.engine.build("FROM base-with-a-trigger\n", BuildOptions(context=context))
    task.result()
    assert "ONBUILD RUN echo from-the-base" in [each.name for each in task.report.steps]


def test_a_secret_in_an_argument_is_warned_of(machine: Machine, context: Path) -> None:
    text = "FROM box\nARG API_TOKEN\nENV PASSWORD=x\nRUN true\n"
    task = machine.engine.build(text, BuildOptions(context=context, build_args=("API_TOKEN=in-the-history",)))
    task.result()
    said = [r.event.message for r in task.journal.read() if isinstance(r.event, Notice)]
    assert sum("SecretsUsedInArgOrEnv" in each for each in said) == 2


def test_a_proxys_password_is_in_no_history(machine: Machine, context: Path) -> None:
    proxy = f"http://me:{CANARY}@proxy.example:3128"
    text = 'FROM box\nRUN echo "$HTTP_PROXY $https_proxy" | wc -c\n'
    options = BuildOptions(
        context=context, tags=("proxied",), build_args=(f"HTTP_PROXY={proxy}", f"https_proxy={proxy}")
    )
    task = machine.engine.build(text, options)
    image = task.result()
    assert int(written(task)) > 100 and CANARY not in image.raw_config.decode()
    assert written_in(machine.engine.layout.root, CANARY.encode()) == []
    again = machine.engine.build(text, BuildOptions(context=context))
    again.result()
    assert [each.outcome for each in again.report.steps][-1] == "cached"


@pytest.fixture(autouse=True)
def _asks_for_root() -> Iterator[None]:
    if os.geteuid() != 0:
        needs.missing("these attacks are made where nothing but the sandbox stands in between")
    yield
