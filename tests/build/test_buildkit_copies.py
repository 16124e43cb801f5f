"""What BuildKit's integration tests name of COPY and ADD that takes several builds: --parents, --exclude, repositories.

Each test says in its docstring which of those names it shows; suites.txt sends them here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from building import written
from git_server import Repository, daemon
from machine import Machine
from nbcontain.build import git
from nbcontain.build.access import Access
from nbcontain.build.plan import BuildOptions
from nbcontain.commands.inputs import inputs_of
from nbcontain.errors import BuildError, DockerfileError, NbcontainError
from nbcontain.events import Finished, Started
from servers import serving

Found = Callable[..., list[str]]


@pytest.fixture
def found(box: Machine, tmp_path: Path) -> Found:
    """Builds these lines, and gives every file below /d with what is in it."""

    def build(lines: str, **options: object) -> list[str]:
        list_them = "find . -type f | sort | while read f; do echo $f $(cat $f); done"
        text = f"{lines}\nRUN mkdir -p /d && cd /d && {list_them}\n"
        task = box.engine.build(text, BuildOptions(context=tmp_path, no_cache=True, **options))  # type: ignore[arg-type]
        task.result()
        return written(task).splitlines()

    return build


# --- --parents and --exclude ------------------------------------------------------------------

TREE = """\
FROM box AS tree
RUN mkdir -p /t/a/b/c/d/e /t/a/b2/c/d/e /t/a/b/c2/d/e /t/a/b/c2/d/e2 && cd /t/a && touch b/c/d/foo b/c/d/e/bay \
  b2/c/d/e/bar b/c2/d/e/baz b/c2/d/e2/baz
FROM box
COPY --from=tree --parents """


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("/t/a/b/./c/d", ["c/d/e/bay", "c/d/foo"]),
        ("/t/a/b/c/d/.", ["t/a/b/c/d/e/bay", "t/a/b/c/d/foo"]),
        ("./t/a/b/c/d", ["t/a/b/c/d/e/bay", "t/a/b/c/d/foo"]),
        ("/t/a/./b/./c", ["b/c/d/e/bay", "b/c/d/foo"]),
        ("/t/a/./*/c", ["b/c/d/e/bay", "b/c/d/foo", "b2/c/d/e/bar"]),
        ("/t/a/b*/./c/**/e", ["c/d/e/bar", "c/d/e/bay"]),
        ("/t/a/b/c*/./d/**/baz /t/a/b*/./c/**/bar", ["c/d/e/bar", "d/e/baz", "d/e2/baz"]),
        ("/t/a/b3*/c", []),
        ("/t/a/b/./c3*", []),
    ],
)
def test_parents_stay_from_the_pivot_on(found: Found, words: str, files: list[str]) -> None:
    """testCopyRelativeParents, testCopyRelativeParentsSimplified, testCopyParentsMissingDirectory"""
    assert found(f"{TREE}{words} /d/") == [f"./{each}" for each in files]


def test_parents_of_the_contexts_files_and_of_one_that_is_not_there(found: Found, tmp_path: Path) -> None:
    """testCopyParents, testCopyParentsMissingDirectory"""
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "bar").write_text("bar")
    (tmp_path / "one" / "two" / "baz").write_text("baz")
    lines = "FROM box\nCOPY --parents one/two/bar /d/\nWORKDIR /d/w\nCOPY --parents one/two/ba* ."
    assert found(lines) == ["./one/two/bar bar", "./w/one/two/bar bar", "./w/one/two/baz baz"]
    with pytest.raises(BuildError, match="no /t/absent"):
        found(f"{TREE}/t/absent /d/")


def excluding(keyword: str, what: str) -> str:
    """COPY or ADD with patterns, of the root and by wildcards; `what` stands before each list of sources."""
    sort = "--exclude=*.jpeg --exclude=*.png --exclude=*.pdf"
    return f"""\
COPY {what} --exclude=*/*.png --exclude=*/*.jpeg . /d/1
{keyword} {what} --exclude=*.mp3 dir3/ /d/3/
COPY {what} --exclude=*.mp3 --exclude=*.txt {sort} dir* /d/4/
{keyword} {what} --exclude=*.mp* {sort} dir* /d/5
{keyword} {what} --exclude=* dir* /d/6
RUN [ -z "$(ls -A /d/6)" ]
"""


EXCLUDED = [
    "./1/dir1/two.txt 2", "./1/dir2/four.pdf 4", "./1/dir3/seven.mp3 7", "./1/dir3/eight.mpeg 8",
    "./3/eight.mpeg 8", "./4/eight.mpeg 8", "./5/two.txt 2",
]  # fmt: skip


def test_what_a_pattern_excludes_is_not_copied_wherever_it_comes_from(found: Found, tmp_path: Path) -> None:
    """testExcludedFilesOnCopy"""
    files = ("dir1/one.png 1", "dir1/two.txt 2", "dir1/three.jpeg 3", "dir2/four.pdf 4", "dir2/five.jpeg 5",
             "dir2/six.png 6", "dir3/seven.mp3 7", "dir3/eight.mpeg 8")  # fmt: skip
    work = Repository(tmp_path / "repositories" / "app")
    for each in files:
        name, content = each.split()
        for top in (tmp_path, work.path):
            (top / name).parent.mkdir(exist_ok=True)
            (top / name).write_text(content)
    (tmp_path / ".dockerignore").write_text("repositories\n.dockerignore\n")
    assert found("FROM box\n" + excluding("ADD", "")) == sorted(EXCLUDED)
    work.commit()
    work.git("tag", "0.1")
    with daemon(work.path.parent) as url:
        got = f"FROM scratch AS base\nADD {url}/app#0.1 /\nFROM box\n{excluding('COPY', '--from=base')}"
        assert found(got) == sorted(EXCLUDED)


# --- repositories -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A repository on an HTTP server, as files: its URL, and its commits by what is in them."""
    work = Repository(tmp_path_factory.mktemp("published") / "app")

    def commit(text: str, tag: str = "") -> None:
        (work.path / "foo").write_text(text)
        commits[text] = work.commit(text)
        if tag:
            work.git("tag", tag)

    commits: dict[str, str] = {}
    (work.path / "Dockerfile").write_text("FROM scratch\nCOPY foo /out\n")
    commit("base", "v0.0.1")
    work.git("branch", "base")
    (work.path / "sub").mkdir()
    (work.path / "sub" / "foo").write_text("deep")
    (work.path / "sub" / "Dockerfile").write_text("FROM scratch\nCOPY foo /out\n")
    commit("feature")
    work.git("branch", "feature")
    work.git("checkout", "-qB", "main", "base")
    commit("second", "v0.0.2")
    commit("newest", "latest")
    with serving() as server:
        yield work.publish(server, ""), commits


QUERIES = [
    ("#v0.0.2", "second"),
    ("?ref=base", "base"),
    ("?branch=base", "base"),
    ("?branch=nowhere", "has no branch nowhere"),
    ("?branch=v0.0.2", "has no branch v0.0.2"),
    ("?tag=base", "has no tag base"),
    ("?tag=v0.0.2#refs/tags/v0.0.2", "second"),
    ("?tag=v0.0.2#refs/heads/main", "ref of a git URL is both"),
    ("?tag=v0.0.2&branch=main", "ref of a git URL is both"),
    ("?commit={second}", "second"),
    ("?commit={second:.8}", "second"),
    ("?commit=00000000", "cannot get"),
    ("?ref={second}", "second"),
    ("?ref={second:.8}", "has no "),
    ("?tag=v0.0.2&commit={second}", "second"),
    ("?tag=v0.0.2&commit={newest}", "is not what --checksum says"),
    ("?ref={second}&commit={second}", "second"),
    ("?checksum={newest}", "newest"),
    ("#feature:sub", "deep"),
    ("?subdir=sub&ref=feature", "deep"),
    ("?subdir=sub&ref=feature#:dir", "subdir of a git URL is both"),
    ("?ref=base&ref=main", "ref of a git URL is said twice"),
    ("?ref=", "ref of a git URL has no value"),
    ("?what=1", "a git URL has no what"),
]
"""Behind a repository's URL: what is got, or what is wrong with it."""


@pytest.mark.parametrize(("query", "wanted"), QUERIES)
def test_a_query_chooses_the_commit_of_a_repository(
    box: Machine, published: tuple[str, dict[str, str]], tmp_path: Path, query: str, wanted: str
) -> None:
    """testGitQueryString"""
    url, commits = published
    source = url + query.format_map(commits)

    def context() -> list[str]:
        inputs = inputs_of(source, "")
        box.engine.build(inputs.dockerfile, BuildOptions(tags=("out",), context=inputs.context)).result()
        return box.sh("cat /d/out", image=added("FROM box\nCOPY --from=out /out /d/out\n")).split()

    def added(text: str) -> str:
        box.engine.build(text, BuildOptions(tags=("added",))).result()
        return "added"

    for way in (context, lambda: box.sh("cat /d/foo", image=added(f"FROM box\nADD {source} /d/\n")).split()):
        if " " in wanted:
            with pytest.raises(NbcontainError, match=wanted):
                way()
        else:
            assert way() == [wanted]


def test_a_repository_is_added_whole_and_whose_it_is(
    found: Found, box: Machine, published: tuple[str, dict[str, str]]
) -> None:
    """testAddGitSHA1"""
    url, commits = published
    second = commits["second"]
    # With one id alone everything is root's inside, and what it is to be is written down (test_owners).
    owner = "4242:8484" if os.geteuid() == 0 else "0:0"
    lines = f"FROM box\nARG REPO={url}\nARG TAG=v0.0.2\nADD {url}#v0.0.1 /first\nRUN [ $(cat /first/foo) = base ]\n"
    lines += f"ADD --keep-git-dir=true --chown={owner} --checksum={second} ${{REPO}}#${{TAG}} /d\n"
    lines += f"RUN [ -d /d/.git ] && [ $(stat -c %u:%g /d/foo) = {owner} ] && rm -r /d/.git\n"
    lines += f"ADD --checksum={second} ${{REPO}}#${{TAG}} /no\nRUN [ ! -e /no/.git ] && [ -f /no/foo ]\n"
    lines += f"ADD --keep-git-dir --checksum={second} ${{REPO}}#{second} /by\nRUN [ -d /by/.git ] && [ -f /by/foo ]"
    assert found(lines) == ["./Dockerfile FROM scratch COPY foo /out", "./foo second"]
    with pytest.raises(BuildError, match="is not what --checksum says"):
        found(f"FROM box\nADD --checksum={second} {url}#latest /d")
    with pytest.raises(DockerfileError, match="--checksum=foobar is no commit"):
        found(f"FROM box\nADD --checksum=foobar {url}#latest /d")


def test_a_repository_whose_commit_is_said_is_the_same_in_the_cache(
    box: Machine, published: tuple[str, dict[str, str]]
) -> None:
    """testAddGitChecksumCache"""
    url, commits = published
    outcomes = []
    for flag in ("", f" --checksum={commits['second']}"):
        task = box.engine.build(f"FROM box\nADD --keep-git-dir{flag} {url}#v0.0.2 /repo\nRUN true\n", BuildOptions())
        task.result()
        names = {r.event.task: r.event.name for r in task.journal.read() if isinstance(r.event, Started)}
        outcomes += [
            r.event.outcome for r in task.journal.read()
            if isinstance(r.event, Finished) and names[r.event.task].startswith(("ADD", "RUN"))
        ]  # fmt: skip
    assert outcomes == ["done", "done", "cached", "cached"]


def test_repositories_may_name_their_commits_by_sha256(found: Found, box: Machine, tmp_path: Path) -> None:
    """testAddGitSHA256, testDockerfileFromGitSHA256"""
    work = Repository(tmp_path / "repositories" / "app", "--object-format=sha256")
    (work.path / "foo").write_text("first")
    (work.path / "Dockerfile").write_text("FROM box\nCOPY foo /d/foo\n")
    first = work.commit()
    assert len(first) == 64
    work.git("tag", "v1")
    (work.path / "foo").write_text("second")
    work.commit()
    with daemon(work.path.parent) as base:
        url = f"{base}/app"
        for ref in ("#v1", f"#{first}", f"?commit={first[:10]}"):
            assert "./foo first" in found(f"FROM box\nADD --checksum={first[:12]} {url}{ref} /d")
            inputs = inputs_of(url + ref, "")
            box.engine.build(inputs.dockerfile, BuildOptions(tags=("out",), context=inputs.context)).result()
            assert box.sh("cat /d/foo", image="out") == "first"


def test_a_commit_by_how_its_name_begins_is_no_tag_that_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Repository(tmp_path / "repositories" / "app")
    (work.path / "foo").write_text("another")
    work.commit()
    wanted = "0123456789abcdef"
    work.git("tag", wanted)
    real = git._git

    def listing_nothing(arguments: Sequence[str], *others: Any) -> str:
        """As a server does that has the tag only a moment later."""
        return "" if wanted in arguments else real(arguments, *others)

    monkeypatch.setattr(git, "_git", listing_nothing)
    with daemon(work.path.parent) as base, pytest.raises(BuildError, match="is not what --checksum says"):
        git.commit_of(git.parse(f"{base}/app?commit={wanted}"), Access(), lambda event: None, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["repositories"]


@pytest.mark.parametrize("url", ["https://x.example/a.git?tag=refs/tags/v1", "https://x.example/a.git?tag=v1"])
def test_a_tag_may_be_said_with_its_place(url: str) -> None:
    assert git.parse(url).ref == "refs/tags/v1"
