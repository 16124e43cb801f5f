"""What BuildKit's integration tests name of contexts: repositories, servers, names, and how old they are.

Each test says in its docstring which of those names it shows; suites.txt sends them here.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import needs
from git_server import Repository, daemon
from machine import Machine
from nbcontain.__main__ import main
from nbcontain.engine import Engine
from servers import Server, free_port, serving, wait_for_port

COMMITTED_S = 1_700_000_101
MODIFIED_S = 784_111_777
"""What the server says unless it is told otherwise."""
YOUNGEST_S = 1_700_000_302


@pytest.fixture
def box(engine: Engine, busybox_context: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(engine.layout.root))
    return Machine(engine, busybox_context)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A repository that a git daemon serves on loopback: its URL, and its first commit."""
    git = needs.program("git")
    work = tmp_path / "repositories" / "app"
    work.mkdir(parents=True)
    made = f"{COMMITTED_S} +0000"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GIT_COMMITTER_DATE": made,
        "GIT_AUTHOR_DATE": made,
    }  # fmt: skip

    def run(*arguments: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main")
        done = subprocess.run([git, *who, *arguments], cwd=work, env=environment, capture_output=True, check=True)
        return done.stdout.decode().strip()

    run("init")
    (work / "Dockerfile").write_text("FROM box\nCOPY foo /from\n")
    (work / "foo").write_text("first\n")
    run("add", ".")
    run("commit", "-m", "1")
    first = run("rev-parse", "HEAD")
    run("tag", "v0.0.1")
    (work / "foo").write_text("second\n")
    run("commit", "-am", "2")
    port = free_port()
    daemon = subprocess.Popen(
        [git, "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}",
         f"--base-path={work.parent}", str(work.parent)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_for_port(port)
    yield f"git://127.0.0.1:{port}/app", first
    os.killpg(daemon.pid, 15)
    daemon.wait()


def archive(modified_s: int = YOUNGEST_S, **members: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(text), modified_s
            tar.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


def built(box: Machine, *words: str) -> int:
    """Build the image `made`; when it says that it was made."""
    assert main(["build", "-q", "-t", "made", *words]) == 0
    return int(datetime.fromisoformat(box.engine.image("made").config.created).timestamp())


# --- where a context and a Dockerfile come from -----------------------------------------------


def test_a_commit_a_tag_and_a_branch_are_contexts(box: Machine, repository: tuple[str, str]) -> None:
    """testDockerfileFromGitSHA1"""
    url, first = repository
    for ref, said in ((f"#{first}", "first"), ("#v0.0.1", "first"), ("#main", "second"), ("", "second")):
        built(box, url + ref)
        assert box.sh("cat /from", image="made") == f"{said}\n"


def test_a_server_gives_a_context_or_a_dockerfile(box: Machine, server: Server, tmp_path: Path) -> None:
    """testDockerfileFromHTTP, testHTTPDockerfile"""
    server.put("/context.tar", archive(mydockerfile="FROM box\nCOPY foo /from\n", foo="archived"))
    built(box, "-f", "mydockerfile", f"{server.url}/context.tar")
    assert box.sh("cat /from", image="made") == "archived"
    server.put("/df", b"FROM box\nCOPY foo /from\n")
    (tmp_path / "foo").write_text("local")
    built(box, "-f", f"{server.url}/df", str(tmp_path))
    assert box.sh("cat /from", image="made") == "local"


# --- contexts that have names -----------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> Path:
    for place, text in (("context", "context"), ("other", "other")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "o").write_text(text)
    (tmp_path / "other" / "secret").write_text("unused")
    (tmp_path / "other" / ".dockerignore").write_text("secret\n")
    return tmp_path


def test_a_name_stands_for_another_image(box: Machine, named: Path) -> None:
    """testNamedImageContext, testNamedImageContextTimestamps, testNamedImageContextScratch"""
    box.build("FROM box\nENV foo=bar\nRUN echo old > /old\n", "replaced")
    (named / "context" / "Dockerfile").write_text("FROM busybox AS base\nRUN cat /old > /new\n")
    built(box, "--build-context", "busybox=docker-image://replaced", str(named / "context"))
    image, below = box.engine.image("made"), box.engine.image("replaced")
    assert "foo=bar" in image.config.env and box.sh("cat /new", image="made") == "old\n"
    # What was made before keeps its time.
    assert image.config.history[: len(below.config.history)] == below.config.history
    (named / "context" / "Dockerfile").write_text("FROM busybox AS base\nCOPY o /o\n")
    built(box, "--build-context", "busybox=docker-image://scratch", str(named / "context"))
    assert len(box.engine.image("made").layers) == 1


def test_a_name_stands_for_a_directory_of_which_only_what_is_not_ignored_is_seen(box: Machine, named: Path) -> None:
    """testNamedLocalContext, testNamedFilteredContext"""
    (named / "context" / "Dockerfile").write_text(
        "FROM box\nCOPY --from=base o* s* /\nRUN --mount=from=base,target=/m cp /m/o /mounted\n"
    )
    built(box, "--build-context", f"base={named / 'other'}", str(named / "context"))
    assert box.sh("cat /o /mounted; ls /secret 2>&1 | wc -l", image="made") == "otherother1\n"
    assert "No such" in box.sh("ls /secret 2>&1; true", image="made")


def test_a_name_that_a_trigger_uses_and_one_that_nobody_uses(box: Machine, named: Path) -> None:
    """testOnBuildNamedContext, testEagerNamedContextLookup"""
    box.build("FROM box\nONBUILD COPY --from=otherimage /o /from\n", "asks")
    (named / "context" / "Dockerfile").write_text("FROM asks\nRUN cat /from\n")
    words = ("--build-context", f"otherimage={named / 'other'}", "--build-context", "unused=docker-image://none/such:1")
    built(box, *words, str(named / "context"))
    assert box.sh("cat /from", image="made") == "other"


def test_a_name_stands_for_an_image_of_a_layout(box: Machine, named: Path) -> None:
    """testNamedOCILayoutContext, testOCILayoutMultiname"""
    (named / "context" / "Dockerfile").write_text("FROM box\nENV foo=bar\nRUN echo x > /in-the-layout\n")
    layout = named / "layout"
    built(box, "-o", f"type=oci,dest={layout},tar=false", "-t", "second:2", str(named / "context"))
    (named / "context" / "Dockerfile").write_text("FROM busybox AS base\nRUN cat /in-the-layout > /seen\n")
    for tag in ("second:2", "made:latest"):
        box.engine.remove_image(tag, force=True)
    built(box, "--build-context", f"busybox=oci-layout://{layout}:2", str(named / "context"))
    assert box.sh("cat /seen; echo $foo", image="made") == "x\nbar\n"


# --- how old they are -------------------------------------------------------------------------

SEEN = 'FROM box\nARG SOURCE_DATE_EPOCH\nRUN printf "$SOURCE_DATE_EPOCH" > /epoch\n'


def test_a_repository_is_as_old_as_its_commit(box: Machine, repository: tuple[str, str]) -> None:
    """testSourceDateEpochContextGit"""
    assert built(box, "--build-arg", "SOURCE_DATE_EPOCH=context", repository[0]) == COMMITTED_S


def test_a_context_of_a_server_is_as_old_as_it_says_or_as_its_youngest_file(box: Machine, server: Server) -> None:
    """testSourceDateEpochContextHTTPLastModified, testSourceDateEpochContextHTTPArchive"""
    server.put("/dated.tar", archive(Dockerfile="FROM scratch\nCOPY foo /\n", foo="bar"))
    server.put("/undated.tar", archive(Dockerfile=SEEN, foo="bar"), modified="")
    epoch = ("--build-arg", "SOURCE_DATE_EPOCH=context")
    assert built(box, *epoch, f"{server.url}/dated.tar") == MODIFIED_S
    assert built(box, *epoch, f"{server.url}/undated.tar") == YOUNGEST_S
    assert box.sh("cat /epoch", image="made") == str(YOUNGEST_S)


def test_so_is_a_context_that_has_a_name(box: Machine, server: Server, named: Path) -> None:
    """testSourceDateEpochNamedContextHTTPLastModified, testSourceDateEpochNamedContextHTTPArchive"""
    server.put("/dated.tar", archive(foo="bar"))
    server.put("/undated.tar", archive(foo="bar"), modified="")
    (named / "context" / "Dockerfile").write_text(f"ARG SOURCE_DATE_EPOCH=mysource\n{SEEN}")
    for name, wanted in (("dated", MODIFIED_S), ("undated", YOUNGEST_S)):
        source = f"mysource={server.url}/{name}.tar"
        assert built(box, "--build-context", source, str(named / "context")) == wanted
        assert box.sh("cat /epoch", image="made") == str(wanted)


# --- what is told of them, and what steps are given -------------------------------------------


def told(path: Path) -> dict[str, Any]:
    """The provenance in a --metadata-file."""
    found: dict[str, Any] = json.loads(path.read_text())["buildx.build.provenance"]
    return found


def test_provenance_names_the_commit(box: Machine, repository: tuple[str, str], tmp_path: Path) -> None:
    """testGitProvenanceAttestationSHA1"""
    url, first = repository
    built(box, "--metadata-file", str(tmp_path / "m"), f"{url}#v0.0.1")
    definition = told(tmp_path / "m")["buildDefinition"]
    source = definition["externalParameters"]["configSource"]
    assert source == {"uri": f"{url}#v0.0.1", "digest": {"sha1": first}, "path": "Dockerfile"}
    assert {"uri": f"{url}#v0.0.1", "digest": {"sha1": first}} in definition["resolvedDependencies"]


def test_provenance_names_a_commit_by_sha256(box: Machine, tmp_path: Path) -> None:
    """testGitProvenanceAttestationSHA256"""
    work = Repository(tmp_path / "repositories" / "app", "--object-format=sha256")
    (work.path / "Dockerfile").write_text("FROM box\n")
    commit = work.commit()
    with daemon(work.path.parent) as base:
        built(box, "--metadata-file", str(tmp_path / "m"), f"{base}/app")
    source = told(tmp_path / "m")["buildDefinition"]["externalParameters"]["configSource"]
    assert source == {"uri": f"{base}/app", "digest": {"sha256": commit}, "path": "Dockerfile"}


@pytest.mark.parametrize("version", ["v1", "v0.2"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_provenance_tells_as_much_as_its_mode_says(
    box: Machine, server: Server, named: Path, version: str, mode: str
) -> None:
    """testProvenanceAttestation"""
    server.put("/foo.html", b"x")
    text = "FROM box\nRUN echo ok > /foo\n"
    (named / "context" / "Dockerfile").write_text(text)
    words = ["--build-arg", "FOO=bar", "--label", "lbl=abc", "--metadata-file", str(named / "m"),
             "--build-context", f"foo={server.url.replace('//', '//user:pass@')}/foo.html"]  # fmt: skip
    built(box, f"--provenance=mode={mode},version={version}", *words, str(named / "context"))
    said = told(named / "m")
    if version == "v1":
        source, request = (said["buildDefinition"]["externalParameters"][name] for name in ("configSource", "request"))
        metadata, materials = said["runDetails"]["metadata"], said["buildDefinition"]["resolvedDependencies"]
        times = metadata["startedOn"], metadata["finishedOn"]
        complete, more = metadata["buildkit_completeness"], metadata["buildkit_metadata"]
        steps = said["buildDefinition"]["internalParameters"].get("buildConfig", {"steps": []})["steps"]
        assert source == {"path": "Dockerfile"} and complete["request"] == (mode == "max")
    else:
        source, request = said["invocation"]["configSource"], said["invocation"]["parameters"]
        metadata, materials = said["metadata"], said["materials"]
        times = metadata["buildStartedOn"], metadata["buildFinishedOn"]
        complete, more = metadata["completeness"], metadata["https://mobyproject.org/buildkit@v1#metadata"]
        steps = said.get("buildConfig", {"steps": []})["steps"]
        assert source == {"entryPoint": "Dockerfile"} and complete["parameters"] == (mode == "max")
    context = {"context:foo": f"{server.url}/foo.html"}
    arguments = {"build-arg:FOO": "bar", "label:lbl": "abc"} if mode == "max" else {}
    assert request["args"] == {**arguments, **context} and request["frontend"] == "dockerfile.v0"
    assert [each["name"] for each in request["locals"]] == ["context", "dockerfile"]
    assert materials[0]["uri"].startswith("pkg:docker/box@latest?platform=linux%2F")
    assert times[0] < times[1] and metadata["buildkit_reproducible" if version == "v1" else "reproducible"] is False
    assert len(steps) == (2 if mode == "max" else 0) and ("source" in more, "layers" in more) == (mode == "max",) * 2
    assert "pass" not in json.dumps(said)


def test_provenance_takes_a_dockerfile_of_a_server_for_no_context(box: Machine, server: Server, named: Path) -> None:
    server.put("/elsewhere", b"FROM box\n")
    built(box, "-f", f"{server.url}/elsewhere", "--metadata-file", str(named / "m"), str(named / "context"))
    definition = told(named / "m")["buildDefinition"]
    assert f"{server.url}/elsewhere" in [each["uri"] for each in definition["resolvedDependencies"]]
    assert not [each for each in definition["externalParameters"]["request"]["args"] if each.startswith("context:")]


def test_provenance_names_secrets_and_agents_and_needs_no_ignore_file(
    box: Machine, named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """testSecretSSHProvenance, testDockerIgnoreMissingProvenance"""
    mounts = "--mount=type=secret,id=mysecret --mount=type=secret,id=othersecret --mount=type=ssh"
    (named / "context" / "Dockerfile").write_text(f"FROM box\nRUN {mounts} true\n")
    built(box, "--provenance", "mode=max", "--metadata-file", str(named / "m"), str(named / "context"))
    request = told(named / "m")["buildDefinition"]["externalParameters"]["request"]
    assert {each["id"] for each in request["secrets"]} == {"mysecret", "othersecret"}
    assert all(each["optional"] for each in request["secrets"])
    assert [(each["id"], each["optional"]) for each in request["ssh"]] == [("default", True)]


def test_steps_have_the_shm_and_the_limits_that_the_build_was_given(box: Machine, named: Path) -> None:
    """testShmSize, testUlimit"""
    (named / "context" / "Dockerfile").write_text("FROM box\nRUN mount | grep /dev/shm > /shm; ulimit -n > /limit\n")
    built(box, "--shm-size", "134217728", "--ulimit", "nofile=1062:1062", str(named / "context"))
    assert "size=131072k" in box.sh("cat /shm", image="made")
    assert box.sh("cat /limit", image="made") == "1062\n"
