"""COPY and ADD: what lands where, whose it is, and what makes it anew."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import needs
from git_server import Repository, daemon
from machine import Machine
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, DockerfileError
from nbcontain.events import Finished, Started
from servers import Server, serving


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A few files, directories and links."""
    directory = tmp_path / "context"
    for path in ("a.txt", "b.md", "src/main.py", "src/main.md", "src/deep/x.py", "src/deep/keep.md", "lib/y.py"):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(f"{path}\n")
    (directory / "src" / "link").symlink_to("main.py")
    os.utime(directory / "a.txt", (1_000_000_000, 1_000_000_000))
    return directory


Made = Callable[..., str]


@pytest.fixture
def made(box: Machine, context: Path) -> Made:
    """Builds `FROM box` with these lines, and gives what a shell script says in it."""

    def make(lines: str, script: str, **options: object) -> str:
        chosen = BuildOptions(tags=("made",), context=context, **options)  # type: ignore[arg-type]
        box.engine.build(f"FROM box\n{lines}\n", chosen).result()
        return box.sh(script, image="made").strip()

    return make


FIND = "find /d | sort | tr '\\n' ' '"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("COPY --parents src/deep/x.py b.md /d/", "/d /d/b.md /d/src /d/src/deep /d/src/deep/x.py"),
        ("COPY --parents src/./deep/x.py /d/", "/d /d/deep /d/deep/x.py"),
        ("COPY --parents **/*.md /d/", "/d /d/b.md /d/src /d/src/deep /d/src/deep/keep.md /d/src/main.md"),
        ("COPY --parents */./main.py /d/", "/d /d/main.py"),
        ("COPY --parents */./deep/*.py /d/", "/d /d/deep /d/deep/x.py"),
        ("COPY --parents no*/./x src/./main.py /d/", "/d /d/main.py"),
        ("COPY --parents ./src/./**/*.py lib /d/", "/d /d/deep /d/deep/x.py /d/lib /d/lib/y.py /d/main.py"),
        ("COPY --exclude=*.md --exclude=deep src /d/", "/d /d/link /d/main.py"),
        ("COPY --exclude=**/*.py --exclude=!deep/x.py --exclude=main.md src /d/",
         "/d /d/deep /d/deep/keep.md /d/deep/x.py /d/link"),
        ("COPY --exclude=*.md *.md *.txt /d/", "/d /d/a.txt"),
        ('COPY ["a.txt", "b.md", "/d/"]', "/d /d/a.txt /d/b.md"),
        ("COPY src/link /d/", "/d /d/link"),
        ("COPY nothing* /d/", ""),
        ("COPY <<A <<B b.md /d/\na\nA\nb\nB", "/d /d/A /d/B /d/b.md"),
        ("ADD --link --exclude=**.md src lib /d/", "/d /d/deep /d/deep/x.py /d/link /d/main.py /d/y.py"),
    ],
)  # fmt: skip
def test_sources_land_where_buildkit_puts_them(made: Made, line: str, found: str) -> None:
    assert made(line, f"{FIND} 2>/dev/null; true") == found


def test_a_document_becomes_a_file_with_its_variables_unless_it_is_quoted(made: Made) -> None:
    lines = 'ARG V=w\nCOPY <<A <<-"B" /d/\n"$V" \\$V \\\\\nA\n\t$V\nB'
    assert made(lines, "cat /d/A /d/B; stat -c %a /d/A") == '"w" $V \\\n$V\n644'


@pytest.mark.parametrize(
    ("chmod", "mode"), [("0640", "640"), ("u=rwX,go=", "600"), ("+x", "755"), ("a-r", "200"), ("u+s,g=u", "4664")]
)
def test_modes_are_given_in_octal_or_in_letters(made: Made, context: Path, chmod: str, mode: str) -> None:
    (context / "a.txt").chmod(0o644)
    assert made(f"COPY --chmod={chmod} a.txt /f", "stat -c %a /f") == mode


def test_names_of_owners_are_the_images_and_what_a_stage_has_keeps_its_own(made: Made) -> None:
    lines = "RUN mkdir /o && echo x > /o/f && chown 7:8 /o/f && chmod 4711 /o/f && mkfifo /o/p\n"
    lines += (
        "FROM box\nCOPY --from=0 /o /kept/\nCOPY --from=0 --chown=app:staff /o /given/\nCOPY --chown=app a.txt /ours\n"
    )
    script = "stat -c '%u:%g %a' /kept/f /given/f /ours; test -p /kept/p && echo pipe"
    assert made(lines, script).split("\n") == ["7:8 4711", "1000:50 4711", "1000:1001 644", "pipe"]


def test_times_hard_links_and_holes_survive_and_of_attributes_what_docker_keeps(
    box: Machine, made: Made, context: Path
) -> None:
    """What a desktop noted at a file, as where it was downloaded from, does not get into the image."""
    os.setxattr(context / "a.txt", "user.xdg.origin.url", b"https://user:password@example.org/a.txt")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(context / "b.md", "security.capability", capability)
    os.link(context / "a.txt", context / "second")
    with open(context / "hole", "wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    lines = "COPY . /d/"
    script = "stat -c '%Y %h' /d/a.txt /d/second; stat -c %s /d/hole; du -k /d/hole | cut -f1"
    times, second, size, blocks = made(lines, script).split("\n")
    assert (times, second, size) == ("1000000000 2", "1000000000 2", str((50 << 20) + 3))
    assert int(blocks) < 100
    with tarfile.open(box.engine.store.blobs.path(box.engine.image("made").layers[-1].descriptor.digest)) as tar:
        assert "SCHILY.xattr.user.xdg.origin.url" not in tar.getmember("d/a.txt").pax_headers
        assert "SCHILY.xattr.security.capability" in tar.getmember("d/b.md").pax_headers


def test_a_symlink_as_the_destination_is_where_it_leads(made: Made) -> None:
    lines = "RUN mkdir -p /real /etc/x && ln -s /real /dir && ln -s /real/new /file && ln -s /not/yet /gone\n"
    lines += "COPY a.txt /dir/\nCOPY b.md /file\nCOPY lib /gone\n"
    script = "find /real /not | sort | tr '\\n' ' '; readlink /dir; readlink /file"
    assert made(lines, script) == "/not /not/yet /not/yet/y.py /real /real/a.txt /real/new /real\n/real/new"


def test_a_directory_does_not_replace_a_symlink_deeper_down(made: Made, context: Path) -> None:
    with pytest.raises(BuildError, match="cannot copy a directory to /d/deep") as caught:
        made("RUN mkdir -p /d && ln -s /tmp /d/deep\nCOPY src /d/", "true")
    assert caught.value.why == "a symlink of the image is in the way"


def test_a_file_that_a_stage_does_not_have_is_an_error_with_what_is_near(made: Made) -> None:
    with pytest.raises(BuildError, match="no /etc/paswd") as caught:
        made("FROM box\nCOPY --from=0 /etc/paswd /", "true")
    assert caught.value.hint == "did you mean /etc/passwd?"


# --- --link ------------------------------------------------------------------------------------


def outcome(engine: Engine, text: str, context: Path, step: str) -> str:
    task = engine.build(text, BuildOptions(tags=("linked",), context=context))
    task.result()
    names = {r.event.task: r.event.name for r in task.journal.read() if isinstance(r.event, Started)}
    (found,) = [
        r.event.outcome for r in task.journal.read() if isinstance(r.event, Finished) and names[r.event.task] == step
    ][:1]
    return found


def test_a_linked_copy_is_cached_although_its_base_changes(box: Machine, context: Path) -> None:
    text = "FROM box\nRUN echo {} > /base\nCOPY --link --chown=5 a.txt /sub/\n"
    assert outcome(box.engine, text.format(1), context, "COPY --link --chown=5 a.txt /sub/") == "done"
    first = box.engine.image("linked").layers[-1]
    assert outcome(box.engine, text.format(2), context, "COPY --link --chown=5 a.txt /sub/") == "cached"
    assert box.engine.image("linked").layers[-1] == first
    assert box.sh("cat /base /sub/a.txt; stat -c %u /sub/a.txt", image="linked") == "2\na.txt\n5\n"


# --- archives ----------------------------------------------------------------------------------


def archive(compress: Callable[[bytes], bytes] = bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, content in (("in", tarfile.DIRTYPE, b""), ("in/f", tarfile.REGTYPE, b"packed\n")):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode, member.uid, member.gid, member.mtime = (
                kind,
                len(content),
                0o751,
                3,
                4,
                99,
            )
            tar.addfile(member, io.BytesIO(content))
    return compress(data.getvalue())


def zstd(data: bytes) -> bytes:
    return subprocess.run([needs.program("zstd"), "-q"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_add_unpacks_an_archive_by_its_content(made: Made, context: Path, compress: Callable[[bytes], bytes]) -> None:
    (context / "thing").write_bytes(archive(compress))
    lines = "ADD thing /d/\nADD --chown=9 thing /owned/\nADD --unpack=false thing /file\nCOPY thing /copied/\n"
    script = "cat /d/in/f; stat -c '%u:%g %a %Y' /d/in/f /owned/in/f; cmp /file /copied/thing && echo same"
    assert made(lines, script).split("\n") == ["packed", "3:4 751 99", "9:9 751 99", "same"]


@pytest.mark.parametrize("data", [gzip.compress(b"no tar" * 500), b"BZh9 but not really", b"\x1f\x8b", b""])
def test_what_only_begins_like_an_archive_is_copied(made: Made, context: Path, data: bytes) -> None:
    (context / "thing").write_bytes(data)
    assert made("ADD thing /d/", "ls /d") == "thing"


# --- from elsewhere ----------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_a_url_gives_a_file_with_its_time_and_is_asked_for_by_its_etag(made: Made, server: Server) -> None:
    """testDockerfileADDFromURL"""
    server.put("/some/thing.txt", b"one\n", etag='"1"')
    line = f"ADD {server.url}/some/thing.txt?x=y /d/"
    assert made(line, "cat /d/thing.txt; stat -c '%a %Y' /d/thing.txt") == "one\n600 784111777"
    assert made(line, "cat /d/thing.txt") == "one"
    assert [status for _, status in server.asked] == [200, 304]
    server.put("/some/thing.txt", b"two\n", etag='"2"')
    assert made(line, "cat /d/thing.txt") == "two"


def test_a_url_has_to_be_what_its_checksum_says(made: Made, server: Server) -> None:
    """testAddChecksum"""
    import hashlib

    server.put("/f", b"right")
    right = hashlib.sha256(b"right").hexdigest()
    assert (
        made(f"ADD --checksum=sha256:{right} --chmod=755 {server.url}/f /x", "cat /x; stat -c ' %a' /x") == "right 755"
    )
    with pytest.raises(BuildError, match="not what --checksum says"):
        made(f"ADD --checksum=sha256:{'0' * 64} {server.url}/f /x", "true")


def test_a_remote_archive_is_unpacked_only_if_that_is_said(made: Made, server: Server) -> None:
    server.put("/t.tar.gz", archive(gzip.compress))
    lines = f"ADD {server.url}/t.tar.gz /d/\nADD --unpack=true {server.url}/t.tar.gz /u/"
    assert made(lines, "ls /d /u/in | tr '\\n' ' '") == "/d: t.tar.gz  /u/in: f"


def test_a_url_that_is_not_there_is_an_error_at_its_line(made: Made, server: Server) -> None:
    with pytest.raises(BuildError, match="404") as caught:
        made(f"RUN true\nADD {server.url}/absent /", "true")
    assert any("▶   3" in line for line in caught.value.lines())


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A repository that a git daemon serves on loopback: its URL, and its first commit."""
    made = Repository(tmp_path / "repositories" / "app")
    (made.path / "sub").mkdir()
    (made.path / "f").write_text("first\n")
    (made.path / "sub" / "g").write_text("deep\n")
    (made.path / "evil").symlink_to("/etc")
    first = made.commit()
    made.git("tag", "-a", "v1", "-m", "tagged")
    (made.path / "f").write_text("second\n")
    made.commit()
    with daemon(made.path.parent) as url:
        yield f"{url}/app", first


def test_a_repository_gives_a_commits_files(made: Made, repository: tuple[str, str]) -> None:
    url, first = repository
    lines = f"ADD {url} /head\nADD {url}#v1 /tag\nADD --keep-git-dir=true {url}#{first}:sub /sub\n"
    lines += f"ADD --keep-git-dir --checksum={first[:12]} {url}#v1 /git\nADD {url}?tag=v1&subdir=sub /query\n"
    script = "cat /head/f /tag/f /sub/g /query/g; ls -A /head /git | tr '\\n' ' '"
    assert made(lines, script) == "second\nfirst\ndeep\ndeep\n/git: .git evil f sub  /head: evil f sub"
    with pytest.raises(BuildError, match="not what --checksum says"):
        made(f"ADD --checksum={'0' * 40} {url}#v1 /x", "true")
    with pytest.raises(BuildError, match="has no nowhere"):
        made(f"ADD {url}#nowhere /x", "true")


@pytest.mark.parametrize(
    "line",
    [
        "COPY https://example.org/f /",
        "COPY git@example.org:a/b.git /",
        "ADD --checksum=md5:1 https://example.org/f /",
        "ADD git://example.org/a#-upload-pack /x",
        "ADD git://example.org/a#main:../.. /x",
        "ADD git://-oProxyCommand=x/a /x",
        "COPY --chmod=rwx a.txt /",
        "COPY <<a/b /x\nq\na/b",
    ],
)
def test_a_source_that_makes_no_sense_is_refused_at_its_line(made: Made, line: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        made(line, "true")
    assert any("▶   2" in each for each in caught.value.lines())
