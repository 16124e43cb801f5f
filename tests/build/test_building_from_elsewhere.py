"""Contexts that are fetched, and contexts that have a name: git, URLs, images, layouts, directories, memory."""

from __future__ import annotations

import base64
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import needs
from building import archive, said
from git_server import Repository, daemon
from nbcontain.__main__ import main
from nbcontain.build.access import Access
from nbcontain.build.named import Inside, LayoutImage, NamedSource, context_name, contexts_of, remote_of
from nbcontain.build.plan import BuildOptions
from nbcontain.build.secrets import Secret
from nbcontain.build.sources import MemoryFile
from nbcontain.build.submodules import resolved, submodules_of
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, DockerfileError, NbcontainError, UsageError
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions
from servers import Server, serving


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One for all tests here: what it starts with takes longer than most of them."""
    root = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    with Engine(root) as engine:
        yield engine
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, Repository]]:
    """A repository with a Dockerfile at its top and another in a directory, on git's daemon."""
    made = Repository(tmp_path / "repositories" / "app")
    (made.path / "Dockerfile").write_text("FROM busybox\nCOPY . /c\n")
    (made.path / "sub").mkdir()
    (made.path / "sub/Dockerfile").write_text("FROM busybox\nCOPY g /g\n")
    (made.path / "sub/g").write_text("deep\n")
    (made.path / "f").write_text("first\n")
    (made.path / "out").symlink_to("/etc/passwd")
    made.commit()
    made.git("tag", "v1")
    (made.path / "f").write_text("second\n")
    made.commit()
    with daemon(made.path.parent) as url:
        yield f"{url}/app", made


@pytest.fixture
def cli(engine: Engine, busybox_image: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(engine.layout.root))
    return engine


def named(engine: Engine, text: str, script: str, **contexts: NamedSource) -> str:
    """What a script says in an image that was built with these."""
    engine.build(text, BuildOptions(tags=("made",)), contexts=contexts).result()
    return said(engine, script)


# --- contexts that are fetched ----------------------------------------------------------------


def test_a_repository_is_a_context(cli: Engine, repository: tuple[str, Repository]) -> None:
    url, _ = repository
    assert main(["build", "-q", "-t", "made", url]) == 0
    assert said(cli, "ls -A /c; cat /c/f; readlink /c/out") == "Dockerfile\nf\nout\nsub\nsecond\n/etc/passwd\n"
    assert main(["build", "-q", "-t", "made", f"{url}#v1"]) == 0
    assert said(cli, "cat /c/f") == "first\n"
    assert main(["build", "-q", "-t", "made", f"{url}#v1:sub"]) == 0
    assert said(cli, "cat /g") == "deep\n"
    assert main(["build", "-q", "-t", "made", "-f", "sub/Dockerfile", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1",
                 url]) == 1  # fmt: skip
    left = [each for each in cli.layout.tmp.iterdir() if each.is_dir()]
    assert left == []


def test_a_repositorys_git_directory_is_kept_when_asked(cli: Engine, repository: tuple[str, Repository]) -> None:
    url, _ = repository
    assert main(["build", "-q", "-t", "made", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", url]) == 0
    assert ".git" in said(cli, "ls -A /c").split()


def test_a_repositorys_files_have_gits_own_modes(cli: Engine, repository: tuple[str, Repository]) -> None:
    before = os.umask(0o077)
    try:
        assert main(["build", "-q", "-t", "made", repository[0]]) == 0
    finally:
        os.umask(before)
    assert said(cli, "stat -c %a /c/f /c/sub") == "644\n755\n"


def test_nothing_outside_is_read_through_a_repositorys_symlink(cli: Engine, repository: tuple[str, Repository]) -> None:
    url, made = repository
    (made.path / "Dockerfile").unlink()
    (made.path / "Dockerfile").symlink_to("/etc/hostname")
    made.commit()
    with pytest.raises(BuildError, match="there is no Dockerfile"):
        cli.build(Inside(), context=remote_of(url)).result()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_url_of_an_archive_is_a_context(cli: Engine, server: Server, mode: str) -> None:
    server.put("/c.tar", archive(("Dockerfile", b"FROM busybox\nCOPY d /d\n"), ("d/f", b"got\n"), mode=mode))
    assert main(["build", "-q", "-t", "made", f"{server.url}/c.tar"]) == 0
    assert said(cli, "cat /d/f") == "got\n"


def test_a_url_of_a_dockerfile_is_one(cli: Engine, server: Server) -> None:
    server.put("/any", b"FROM busybox\nRUN echo here > /f\n")
    assert main(["build", "-q", "-t", "made", f"{server.url}/any"]) == 0
    assert said(cli, "cat /f") == "here\n"


def test_the_dockerfile_can_come_from_a_url_for_a_context_here(cli: Engine, server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine\n")
    server.put("/any", b"FROM busybox\nCOPY f /f\n")
    assert main(["build", "-q", "-t", "made", "-f", f"{server.url}/any", str(tmp_path)]) == 0
    assert said(cli, "cat /f") == "mine\n"


def test_a_dockerfile_on_standard_input_has_the_fetched_context(
    cli: Engine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/c.tar", archive(("f", b"got\n")))
    monkeypatch.setattr("sys.stdin", io.StringIO("FROM busybox\nCOPY f /f\n"))
    assert main(["build", "-q", "-t", "made", "-f", "-", f"{server.url}/c.tar"]) == 0
    assert said(cli, "cat /f") == "got\n"


def test_a_dockerfile_of_an_archive_on_standard_input_is_named_inside_of_it(
    cli: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = archive(
        ("a/my", b"FROM busybox\nCOPY . /c\n"), ("f", b""), ("no", b""), (".dockerignore", b"f\n"),
        ("a/my.dockerignore", b"no\n"),
    )  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["build", "-q", "-t", "made", "-f", "a/my", "-"]) == 0
    assert said(cli, "ls /c") == "a\nf\n"


def test_an_archives_dockerfile_may_be_one_of_this_machine(
    cli: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("FROM busybox\nCOPY f /f\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(archive(("f", b"got\n")))))
    assert main(["build", "-q", "-t", "made", "-f", str(tmp_path / "mine"), "-"]) == 0
    assert said(cli, "cat /f") == "got\n"


@pytest.mark.parametrize("words", [["-f", ".", "."], ["-f", "/", "."], ["-f", "absent", "."]])
def test_a_dockerfile_that_is_none_is_one_error(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBCONTAIN_ROOT", str(tmp_path / "store"))
    assert main(["build", *words]) != 0
    assert "cannot read the Dockerfile" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/absent", "http://127.0.0.1:1/x", "ftp://example.org/x", "git://127.0.0.1:1/x"])
def test_a_context_that_is_not_there_is_one_error(
    cli: Engine, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", path]) != 0
    assert "Traceback" not in capsys.readouterr().err
    assert [each for each in cli.layout.tmp.iterdir() if each.is_dir()] == []


# --- who the build is ---------------------------------------------------------------------------


def test_tokens_go_to_the_host_that_they_are_for(cli: Engine, server: Server, tmp_path: Path) -> None:
    server.put("/f", b"x")
    server.redirect("/to", f"http://localhost:{server.url.rpartition(':')[2]}/f")
    text = f"FROM busybox\nADD {server.url}/f /f\nADD {server.url}/to /to\n"
    secrets = {
        "HTTP_AUTH_TOKEN_127.0.0.1": Secret("mine", content=b"canary-token\n"),
        "HTTP_AUTH_TOKEN_other": Secret("other", content=b"no"),
    }
    cli.build(text, BuildOptions(tags=("made",), secrets=secrets)).result()
    asked = zip((path for path, _ in server.asked), (each.get("Authorization") for each in server.headers), strict=True)
    assert list(asked) == [("/f", "Bearer canary-token"), ("/to", "Bearer canary-token"), ("/f", None)]
    secrets = {"HTTP_AUTH_HEADER_127.0.0.1": Secret("HTTP_AUTH_HEADER_127.0.0.1", content=b"Basic abc")}
    server.put("/g", b"x")
    cli.build(f"FROM busybox\nADD {server.url}/g /g\n", BuildOptions(secrets=secrets)).result()
    assert server.headers[-1]["Authorization"] == "Basic abc"
    kept = [each for each in cli.layout.root.rglob("*") if each.is_file() and b"canary-token" in each.read_bytes()]
    assert kept == []


def test_a_token_for_git_reaches_the_server_and_no_list_of_processes(
    cli: Engine, server: Server, tmp_path: Path
) -> None:
    made = Repository(tmp_path / "app")
    (made.path / "f").write_text("x\n")
    made.commit()
    url = made.publish(server, "app")
    secrets = {"GIT_AUTH_TOKEN": Secret("GIT_AUTH_TOKEN", content=b"canary")}
    cli.build(f"FROM busybox\nADD {url} /r\n", BuildOptions(secrets=secrets, tags=("made",))).result()
    expected = "Basic " + base64.b64encode(b"x-access-token:canary").decode()
    assert {headers.get("Authorization") for headers in server.headers} == {expected}
    assert said(cli, "cat /r/f") == "x\n"
    server.headers.clear()
    secrets |= {"GIT_AUTH_HEADER.127.0.0.1": Secret("GIT_AUTH_HEADER.127.0.0.1", content=b"Bearer own")}
    cli.build(f"FROM busybox\nRUN true\nADD {url} /r2\n", BuildOptions(secrets=secrets)).result()
    assert {headers.get("Authorization") for headers in server.headers} == {"Bearer own"}


def test_a_secret_that_is_no_header_is_refused_and_not_quoted(cli: Engine, server: Server) -> None:
    secrets = {"HTTP_AUTH_TOKEN_127.0.0.1": Secret("x", content=b"canary\r\nX-More: 1")}
    with pytest.raises(BuildError, match="cannot be a header") as caught:
        cli.build(f"FROM busybox\nADD {server.url}/f /f\n", BuildOptions(secrets=secrets)).result()
    assert "canary" not in "\n".join(caught.value.lines())


# --- submodules -----------------------------------------------------------------------------------


def with_submodule(base: Path, url: str) -> Repository:
    """A repository with a link at lib/inner to the repository `inner` beside it, said to be at `url`."""
    inner = Repository(base / "inner")
    (inner.path / "g").write_text("inner\n")
    commit = inner.commit()
    outer = Repository(base / "outer")
    (outer.path / "f").write_text("outer\n")
    (outer.path / ".gitmodules").write_text(f'[submodule "i"]\n\tpath = lib/inner\n\turl = {url}\n')
    outer.git("add", ".gitmodules", "f")
    outer.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib/inner")
    outer.git("commit", "-m", "linked")
    return outer


def test_submodules_come_with_their_repository(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    with_submodule(tmp_path / "r", "../inner")
    with daemon(tmp_path / "r") as url:
        text = f"FROM busybox\nADD {url}/outer /o\nADD {url}/outer?submodules=false /without\n"
        text += f"ADD --keep-git-dir {url}/outer#:lib /lib\n"
        engine.build(text, BuildOptions(tags=("made",))).result()
    script = "cat /o/f /o/lib/inner/g; ls -A /o /o/lib/inner /without/lib/inner /lib/inner | tr '\\n' ' '"
    assert said(engine, script) == (
        "outer\ninner\n/lib/inner: .git g  /o: .gitmodules f lib  /o/lib/inner: g  /without/lib/inner: "
    )


@pytest.mark.parametrize("place", ["/etc", "file:///etc", "ext::sh -c true", "-x", "../../.."])
def test_a_submodule_leads_nowhere_else(engine: Engine, busybox_image: str, tmp_path: Path, place: str) -> None:
    with_submodule(tmp_path / "r", place)
    with daemon(tmp_path / "r") as url, pytest.raises(BuildError):
        engine.build(f"FROM busybox\nADD {url}/outer /o\n").result()


def test_a_submodules_place_is_inside_of_its_repository() -> None:
    config = "submodule.x.path\n{0}\0submodule.x.url\n./x\0"
    for path in ("../x", "a/../../x", "/x", ".git/x", "a/.GIT"):
        with pytest.raises(BuildError):
            submodules_of(config.format(path), f"160000 commit {'0' * 40}\t{path}\0", "https://h.example/a")
    with pytest.raises(BuildError, match="does not say"):
        submodules_of("", f"160000 commit {'0' * 40}\tx\0100644 blob {'1' * 40}\ty\0", "https://h.example/a")


@pytest.mark.parametrize(
    ("url", "parent", "whole"),
    [("../b.git", "https://h.example/g/a.git", "https://h.example/g/b.git"),
     ("./b", "https://h.example/a/", "https://h.example/a/b"), ("../../../b", "https://h.example/a", "https://h.example/b"),
     ("../b", "git@h.example:g/a.git", "git@h.example:g/b"), ("https://o.example/x", "git://h/a", "https://o.example/x")],
)  # fmt: skip
def test_a_submodules_url_may_be_relative(url: str, parent: str, whole: str) -> None:
    assert resolved(url, parent) == whole


def test_what_is_meant_for_any_host_is_not_for_a_submodules() -> None:
    given = {name: Secret(name, content=b"x") for name in ("GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN.o.example")}
    access = Access(given).for_named_hosts()
    assert access.to_repository("https://h.example/a") == ""
    assert access.to_repository("https://o.example/a").startswith("Basic ")


# --- contexts that have a name ------------------------------------------------------------------


def test_a_directory_by_name_gives_files(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("f\n")
    (tmp_path / "no").write_text("")
    (tmp_path / ".dockerignore").write_text("no\n")
    (tmp_path / "out").symlink_to("/etc/passwd")
    text = "FROM busybox\nCOPY --from=data . /c\nCOPY --from=data d/* /one/\nCOPY --from=data --chown=3 /d /d\n"
    text += "RUN --mount=from=data,target=/m,source=d cat /m/f > /seen && ls -A /m >> /seen\n"
    text += "RUN --mount=type=bind,from=data,target=/m ls -A /m > /all\n"
    script = "ls -A /c; cat /one/f /seen; stat -c %u:%g /c/d/f /d/f; cat /all"
    said_now = named(engine, text, script, data=tmp_path)
    assert said_now == ".dockerignore\nd\nout\nf\nf\nf\n0:0\n3:3\n.dockerignore\nd\nout\n"
    with pytest.raises(NbcontainError):
        named(engine, "FROM busybox\nCOPY --from=data out /stolen\n", "true", data=tmp_path)


def test_a_directory_by_name_can_be_built_on(engine: Engine, busybox_image: str, busybox_context: Path) -> None:
    text = "FROM box\nRUN [\"/busybox\", \"mkdir\", \"-p\", \"/bin\", \"/made\"]\nCOPY --from=box busybox /bin/sh\n"
    engine.build(text, BuildOptions(tags=("made",)), contexts={"box": busybox_context}).result()
    done = engine.run(RunOptions(image="made", command=("/busybox", "ls", "-d", "/made"), remove=True)).result()
    assert str(done) == "/made\n"


def test_what_changes_in_a_named_context_is_named_as_the_reason(
    engine: Engine, busybox_image: str, tmp_path: Path
) -> None:
    text = "FROM busybox\nCOPY --from=data . /c\n"
    for content in ("1", "1", "2"):
        (tmp_path / "f").write_text(content)
        task = engine.build(text, BuildOptions(tags=("made",)), contexts={"data": tmp_path})
        task.result()
    assert [each.why for each in task.report.steps][-1] == "f changed"


def test_files_in_memory_and_images_are_contexts_by_name(engine: Engine, busybox_image: str) -> None:
    first = engine.build("FROM busybox\nRUN echo first > /who\n").result()
    text = "FROM base\nCOPY --from=files run.sh /run.sh\nCOPY --from=base /who /copied\n"
    script = "/run.sh; cat /who /copied"
    files = {"run.sh": MemoryFile(b"#!/bin/sh\necho ran\n", 0o755)}
    assert named(engine, text, script, base=first, files=files) == "ran\nfirst\nfirst\n"


def test_a_named_context_stands_for_images_and_stages_of_its_name(engine: Engine, busybox_image: str) -> None:
    engine.build("FROM busybox\nRUN echo other > /who\n", BuildOptions(tags=("other",))).result()
    text = "FROM absent.example/x:1 AS one\nRUN never\nFROM debian\nCOPY --from=one /who /one\n"
    text += "COPY --from=alpine /who /two\n"
    contexts: dict[str, NamedSource] = {
        "one": Reference.parse("other"), "docker.io/library/debian:latest": Reference.parse("other"),
        "alpine": {"who": "files\n"},
    }  # fmt: skip
    task = engine.build(text, BuildOptions(tags=("made",)), contexts=contexts)
    task.result()
    assert said(engine, "cat /who /one /two") == "other\nother\nfiles\n"
    assert not any("RUN never" in each.name for each in task.report.steps)


def test_scratch_itself_can_be_another(engine: Engine, busybox_image: str) -> None:
    assert named(engine, "FROM scratch\nRUN echo x > /x\n", "cat /x", scratch=Reference.parse("busybox")) == "x\n"
    text = "FROM busybox AS gone\nRUN never\nFROM busybox\nCOPY --from=gone / /c\nRUN ls -A /c > /x\n"
    assert named(engine, text, "cat /x", gone=Reference.parse("scratch")) == ""


def test_triggers_of_an_image_by_name_are_fired(engine: Engine, busybox_image: str) -> None:
    engine.build("FROM busybox\nONBUILD RUN echo fired > /t\n", BuildOptions(tags=("triggering",))).result()
    assert named(engine, "FROM base\n", "cat /t", base=Reference.parse("triggering")) == "fired\n"


def test_a_layout_on_disk_is_a_context(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    image = engine.build("FROM busybox\nRUN echo laid > /who\n", BuildOptions(tags=("l:1",))).result()
    other = engine.build("FROM busybox\nRUN echo other > /who\n", BuildOptions(tags=("l:2",))).result()
    engine.archives.save(["l:1", "l:2"], str(tmp_path / "layout"), directory=True).result()
    for wanted in (LayoutImage(tmp_path / "layout", "1"), LayoutImage(tmp_path / "layout", "", image.digest)):
        assert named(engine, "FROM base\n", "cat /who", base=wanted) == "laid\n"
    assert named(engine, "FROM base\n", "cat /who", base=LayoutImage(tmp_path / "layout", "2")) == "other\n"
    for missing in (LayoutImage(tmp_path / "layout", "3"), LayoutImage(tmp_path / "layout")):
        with pytest.raises(BuildError, match="has no"):
            named(engine, "FROM base\n", "true", base=missing)
    blob = tmp_path / "layout/blobs/sha256" / other.layers[-1].descriptor.digest.hex
    blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(NbcontainError):
        named(engine, "FROM base\n", "true", base=LayoutImage(tmp_path / "layout", "2"))


def test_named_contexts_are_fetched_too(
    cli: Engine, server: Server, repository: tuple[str, Repository], tmp_path: Path
) -> None:
    server.put("/f.txt", b"fetched\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text(
        "FROM busybox\nCOPY --from=g f /f\nCOPY --from=u context /u\nCOPY --from=i /bin/busybox /b\n"
    )
    words = ["--build-context", f"g={repository[0]}#v1", "--build-context", f"u={server.url}/f.txt"]
    assert main(["build", "-q", "-t", "made", *words, "--build-context", "i=docker-image://busybox",
                 str(tmp_path / "c")]) == 0  # fmt: skip
    assert said(cli, "cat /f /u; test -e /b && echo b") == "first\nfetched\nb\n"


def test_a_from_that_names_nothing_says_so(engine: Engine, busybox_image: str) -> None:
    with pytest.raises(DockerfileError):
        named(engine, "FROM busybox\nCOPY --from=absent f /f\n", "true", other={"f": "x"})


@pytest.mark.parametrize(
    ("text", "plain"),
    [("alpine", "alpine"), ("alpine:latest", "alpine"), ("docker.io/library/alpine", "alpine"), ("A", "a"),
     ("x.example/a:1", "x.example/a:1"), ("a::linux/amd64", "a::linux/amd64"), ("__x", "__x")],
)  # fmt: skip
def test_names_of_one_image_are_one_name(text: str, plain: str) -> None:
    assert context_name(text) == plain


@pytest.mark.parametrize(
    "word",
    ["x", "x=", "=y", "x=/absent", "x=target:y", "x=s3://y", "x=docker-image://A B", "x=oci-layout:///absent",
     "x=oci-layout:///tmp@md5:1", "-x=/tmp", "x=var:y"],
)  # fmt: skip
def test_a_named_context_that_makes_no_sense_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        contexts_of((word,))


def test_layouts_are_named_with_tags_and_digests(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    digest = "sha256:" + "0" * 64
    found = contexts_of((
        f"one=oci-layout://{tmp_path}:1@{digest}", f"two=oci-layout://{tmp_path}/a:b", f"three=oci-layout://{tmp_path}",
    ))  # fmt: skip
    one, two, three = (found[name] for name in ("one", "two", "three"))
    assert isinstance(one, LayoutImage) and (one.path, one.tag, str(one.digest)) == (tmp_path, "1", digest)
    assert isinstance(two, LayoutImage) and (two.path, two.tag) == (tmp_path / "a:b", "")
    assert isinstance(three, LayoutImage) and three.digest is None


def test_a_notebooks_variables_and_cells_are_contexts_by_name(
    engine: Engine, busybox_image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(engine.layout.root))
    shell = InteractiveShell()
    shell.extension_manager.load_extension("nbcontain")
    try:
        shell.user_ns |= {"files": {"f": "of a variable\n"}, "number": 3}
        shell.run_cell_magic("contextfile", "g --context cells", "of a cell\n")
        text = "FROM busybox\nCOPY --from=v f /f\nCOPY --from=c g /g\nCOPY f /own\n"
        words = "-t made --context var:files --build-context v=var:files --build-context c=cells"
        shell.run_cell_magic("dockerfile", words, text)
        assert "hint for this Dockerfile" in capsys.readouterr().out.replace("hints", "hint")
        shell.run_cell_magic("dockerfile", f"{words} --call=targets", text)
        assert "(default)" in capsys.readouterr().out
        for wrong in ("--build-context v=var:absent", "--build-context v=var:number", "--context var:_image"):
            with pytest.raises(UsageError):
                shell.run_cell_magic("dockerfile", wrong, text)
    finally:
        shell.extension_manager.unload_extension("nbcontain")
    assert said(engine, "cat /f /g /own") == "of a variable\nof a cell\nof a variable\n"


# --- the Dockerfile's own .dockerignore ---------------------------------------------------------


def test_a_dockerfiles_own_ignore_file_comes_first(cli: Engine, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    for name in ("a", "b"):
        (context / name).write_text(name)
    (context / ".dockerignore").write_text("a\n")
    (tmp_path / "My.file").write_text("FROM busybox\nCOPY . /c\n")
    assert main(["build", "-q", "-t", "made", "-f", str(tmp_path / "My.file"), str(context)]) == 0
    assert said(cli, "ls /c") == "b\n"
    (tmp_path / "My.file.dockerignore").write_text("b\n")
    assert main(["build", "-q", "-t", "made", "-f", str(tmp_path / "My.file"), str(context)]) == 0
    assert said(cli, "ls /c") == "a\n"
    (context / "dockerfile").write_text("FROM busybox\nRUN echo lower > /l\n")
    assert main(["build", "-q", "-t", "made", str(context)]) == 0
    assert said(cli, "cat /l") == "lower\n"


# --- ADD ----------------------------------------------------------------------------------------


def test_sources_of_add_come_in_their_order(engine: Engine, busybox_image: str, server: Server, tmp_path: Path) -> None:
    server.put("/f", b"remote\n")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(f"{name}\n")
    for words, last in (
        (f"a/f {server.url}/f", "remote"), (f"{server.url}/f a/f", "a"), (f"a/f {server.url}/f b/f", "b"),
        (f"a/f b/f {server.url}/f", "remote"),
    ):  # fmt: skip
        engine.build(f"FROM busybox\nADD {words} /d/\n", BuildOptions(tags=("made",)), context=tmp_path).result()
        assert said(engine, "cat /d/f") == f"{last}\n"
