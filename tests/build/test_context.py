"""What COPY finds in a directory, what .dockerignore takes away, and what the digest depends on."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.build import fingerprint
from nbcontain.build.context import ContentCache, Context, Entry, Wanted
from nbcontain.build.fingerprint import Fingerprint
from nbcontain.build.patterns import BadPattern, Glob, Ignore
from nbcontain.build.walk import Walk
from nbcontain.errors import BuildError

# pattern, path, and whether it matches itself ("x"), only through a parent ("p"), or not at all ("-")
IGNORE_TABLE = """
** file x
**/ file x
** dir/file x
**/ dir/file x
**/** dir/file x
dir/** dir/file x
dir/** dir/dir2/file x
**/dir dir x
**/dir dir/file p
**/dir2/* dir/dir2/file x
**/dir2/** dir/dir2/dir3/file x
**file file x
**file dir/file x
**file dir/myfile x
**/file dir/dir/file x
**/file dir/myfile -
**/file* dir/dir/file.txt x
**/file*txt dir/dir/file.txt x
**/file*.txt* dir/dir/file.txt x
**/**/*.txt dir/dir/file.txt x
**/**/*.txt2 dir/dir/file.txt -
**/*.txt file.txt x
a**/*.txt a/file.txt x
a**/*.txt a/dir/dir/file.txt x
a/*.txt a/dir/file.txt -
a/*.txt** a/file.txt x
a[b-d]e ace x
a[b-d]e aae -
a[^b-d]e aze x
.* .foo x
.* foo -
abc.def abcZdef -
abc?def abcZdef x
abc?def abcdef -
**/foo/bar dir/dir2/foo/bar x
abc/** abc -
abc/** abc/def/ghi x
**/.foo .foo x
**/.foo bar.foo -
a(b)c/def a(b)c/def x
a.|)$(}+{bc a.|)$(}+{bc x
a\\*b a*b x
a\\*b axb -
docs docs/readme.md p
docs/ docs/readme.md p
/docs docs x
./docs docs x
docs other/docs -
[a-ζ]* α x
*[a-ζ] A -
[\\]a] ] x
[\\-x] - x
*/*/temp* a/b/temporary x
"""
ROWS = [tuple(line.split(" ")) for line in IGNORE_TABLE.replace("\\\\", "\\").strip().split("\n")]


@pytest.mark.parametrize(("pattern", "path", "wanted"), ROWS)
def test_an_ignore_pattern_matches_as_in_moby(pattern: str, path: str, wanted: str) -> None:
    ignore = Ignore.parse(pattern)
    assert ignore.patterns[0].matches(path) == (wanted == "x")
    assert (ignore.ignoring(path) is not None) == (wanted != "-")


@pytest.mark.parametrize(
    ("text", "path", "ignored"),
    [
        ("docs\n!docs/README.md", "docs/README.md", False),
        ("docs\n!docs/README.md", "docs/other", True),
        ("!f.go\n*.go", "f.go", True),
        ("*.go\n!f.go", "f.go", False),
        ("**\n!util/web", "util/web/foo", False),
        ("**\n!util/web\nutil/web/foo", "util/web/foo", True),
        ("# *\n\n  a  \r\n", "a", True),
        ("#a", "#a", False),
        ("! a\n", "a", False),
        ("a\n! a\n", "a", False),
        ("\ufeffa", "a", True),
    ],
)
def test_the_last_line_that_matches_decides(text: str, path: str, ignored: bool) -> None:
    assert (Ignore.parse(text).ignoring(path) is not None) == ignored


@pytest.mark.parametrize("pattern", ["[", "a[", "[^", "[^bc", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "a\\", "!"])
def test_a_malformed_pattern_is_refused_with_its_line(pattern: str) -> None:
    with pytest.raises(BadPattern, match=r"line 2 of \.dockerignore"):
        Ignore.parse(f"# first\n{pattern}\n")


def test_patterns_match_in_linear_time() -> None:
    glob = Glob.compile("**/a*" * 30 + "b", double_star=True)
    started = time.monotonic()
    assert not glob.matches("/".join(["aaaa"] * 1000))
    assert time.monotonic() - started < 2


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_a_glob_is_what_fnmatch_says_where_both_mean_the_same(pattern: str, name: str) -> None:
    import fnmatch

    assert Glob.compile(pattern).matches(name) == fnmatch.fnmatchcase(name, pattern)


@given(st.text(alphabet="a/*?[]^-\\!#\n ", max_size=16), st.text(alphabet="a/]-", min_size=1, max_size=8))
def test_any_ignore_file_is_read_or_refused(text: str, path: str) -> None:
    try:
        ignore = Ignore.parse(text)
    except BadPattern:
        return
    ignore.ignoring(path)


# --- selecting --------------------------------------------------------------------------------


def make(root: Path, files: Mapping[str, str]) -> Context:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)
    return Context(root)


def taken(context: Context, *sources: str) -> list[tuple[str, str]]:
    return [(entry.path, entry.target) for entry in context.select(Wanted(sources))]


FILES = {"a.txt": "a", "b.txt": "b", "src/m.py": "m", "src/deep/d.py": "d", "src/.hidden": "h"}


def test_a_file_lands_under_its_name(tmp_path: Path) -> None:
    [entry] = make(tmp_path, FILES).select(Wanted(("src/m.py",)))
    assert (entry.path, entry.target, entry.kind, entry.is_content, entry.size) == (
        "src/m.py",
        "m.py",
        "file",
        False,
        1,
    )


def test_a_directory_gives_its_contents_sorted(tmp_path: Path) -> None:
    assert taken(make(tmp_path, FILES), "src") == [
        ("src", "."), ("src/.hidden", ".hidden"), ("src/deep", "deep"), ("src/deep/d.py", "deep/d.py"),
        ("src/m.py", "m.py"),
    ]  # fmt: skip


def test_a_dot_is_the_whole_context(tmp_path: Path) -> None:
    assert taken(make(tmp_path, {"a": "", "b/c": ""}), ".") == [(".", "."), ("a", "a"), ("b", "b"), ("b/c", "b/c")]


def test_an_empty_directory_is_an_entry(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert taken(Context(tmp_path), "empty") == [("empty", ".")]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [("*.txt", ["a.txt", "b.txt"]), ("[!-a].txt", ["a.txt"]), ("src/*", ["src/.hidden", "src/deep", "src/m.py"]),
     ("*/*/*.py", ["src/deep/d.py"]), ("s?c/m.py", ["src/m.py"]), ("nothing*", []), ("*.txt/x", [])],
)  # fmt: skip
def test_wildcards_stay_within_a_component(tmp_path: Path, pattern: str, wanted: list[str]) -> None:
    found = make(tmp_path, FILES).select(Wanted((pattern,)))
    assert [entry.path for entry in found if not entry.is_content or entry.target == "."] == wanted


def test_an_escaped_wildcard_is_a_character(tmp_path: Path) -> None:
    assert taken(make(tmp_path, {"a*": "", "ab": ""}), "a\\*") == [("a*", "a*")]


def test_a_symlink_that_is_a_source_is_followed_and_keeps_its_name(tmp_path: Path) -> None:
    context = make(tmp_path, {"real": "x", "link": "-> real", "dir/f": "", "to-dir": "-> dir"})
    assert taken(context, "link", "to-dir") == [("real", "link"), ("dir", "."), ("dir/f", "f")]


def test_a_symlink_in_a_directory_stays_a_symlink(tmp_path: Path) -> None:
    context = make(tmp_path, {"dir/link": "-> /etc/passwd"})
    mine = os.geteuid(), os.getegid()
    link = Entry("dir/link", "link", "symlink", 0o777, True, link="/etc/passwd", owner=mine)
    assert context.select(Wanted(("dir",)))[1] == link


@pytest.mark.parametrize(
    "link", ["-> /etc/hostname", "-> ../../../../../../../../etc/hostname", "-> up/etc/hostname", "-> loop"]
)
def test_no_symlink_leads_out(tmp_path: Path, link: str) -> None:
    context = make(
        tmp_path, {"up": "-> ..", "loop": "-> loop", "evil": link} if link != "-> loop" else {"evil": "-> evil"}
    )
    with pytest.raises(BuildError, match="evil"):
        context.select(Wanted(("evil",)))


def test_an_absolute_symlink_is_one_inside_the_context(tmp_path: Path) -> None:
    assert taken(make(tmp_path, {"etc/hostname": "mine", "link": "-> /etc/hostname"}), "link") == [
        ("etc/hostname", "link")
    ]


def test_an_absolute_symlink_deeper_down_begins_at_the_root_too(tmp_path: Path) -> None:
    assert taken(make(tmp_path, {"f": "", "d/link": "-> /f"}), "d/link") == [("f", "link")]


def test_a_directory_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    context = make(tmp_path, {"dir/hostname": "mine"})
    entries = context.select(Wanted(("dir",)))
    (tmp_path / "dir").rename(tmp_path / "old")
    (tmp_path / "dir").symlink_to("/etc")
    with pytest.raises(BuildError, match="dir/hostname"):
        taken_in(context, entries)


def test_sockets_and_devices_are_empty_files_and_pipes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = Context(tmp_path).digest(Wanted((".",)))
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # a path of its own may be too long for a socket
        listening.bind("socket")
    expected = [(".", "."), ("socket", "socket")]
    if os.geteuid() == 0:
        os.mknod("device", 0o20600, os.makedev(1, 3))
        expected.insert(1, ("device", "device"))
    assert taken(Context(tmp_path), ".") == expected
    assert {each.kind for each in Context(tmp_path).select(Wanted((".",)))[1:]} == {"empty"}
    assert Context(tmp_path).digest(Wanted((".",))) != before


def test_a_pipe_that_is_a_source_is_an_error_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError, match="pipe in the build context is a named pipe"):
        Context(tmp_path).select(Wanted(("pipe",)))


def test_a_missing_file_names_one_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        make(tmp_path, {"src/main.py": ""}).select(Wanted(("src/mian.py",)))
    assert caught.value.message == "no src/mian.py in the build context"
    assert caught.value.hint == "did you mean src/main.py?"


def test_an_ignored_file_names_the_line_that_ignores_it(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        make(tmp_path, {"k/x.key": "", ".dockerignore": "# keys\n**/*.key\n"}).select(Wanted(("k/x.key",)))
    assert caught.value.why == "line 2 of .dockerignore leaves it out: **/*.key"


def test_a_context_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be opened"):
        Context(tmp_path / "absent").select(Wanted((".",)))


def test_what_is_listed_and_not_there_is_not_taken(tmp_path: Path) -> None:
    """An overlay lists a whiteout that hides nothing."""
    make(tmp_path, {"d/a": "", "d/b": ""})
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", lambda place: ["a", "phantom", "b"])
        assert [entry.path for entry in Walk(fd, Ignore()).below("d")] == ["d/a", "d/b"]
    os.close(fd)


def test_ignored_files_are_not_taken(tmp_path: Path) -> None:
    context = make(tmp_path, {"a": "", "b.pyc": "", "n/x/y": "", ".dockerignore": "*.pyc\nn\n.dockerignore"})
    assert taken(context, ".") == [(".", "."), ("a", "a")]
    assert taken(context, "*") == [("a", "a")]


def test_what_is_readmitted_brings_its_directories_and_nothing_else(tmp_path: Path) -> None:
    context = make(
        tmp_path, {"n/x/keep": "", "n/x/drop": "", "n/y/drop": "", ".dockerignore": "n\n.dockerignore\n!n/x/keep"}
    )
    assert taken(context, ".") == [(".", "."), ("n", "n"), ("n/x", "n/x"), ("n/x/keep", "n/x/keep")]
    assert taken(context, "n/x") == [("n/x", "."), ("n/x/keep", "keep")]


def test_a_deep_tree_is_no_recursion(tmp_path: Path) -> None:
    path = "/".join("d" * 300)
    assert len(make(tmp_path, {f"{path}/f": ""}).select(Wanted((".",)))) == 302


def test_an_entry_becomes_json(tmp_path: Path) -> None:
    [entry] = make(tmp_path, FILES).select(Wanted(("a.txt",)))
    os.chmod(tmp_path / "a.txt", 0o640)
    [changed] = Context(tmp_path).select(Wanted(("a.txt",)))
    assert changed.mode == 0o640 and entry.mode != 0o640
    assert Entry(*json.loads(json.dumps(entry.to_json()))).path == "a.txt"


# --- the digest -------------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    yield make(tmp_path, {"d/f": "one", "d/g": "two", "d/link": "-> f"})


def taken_in(context: Context, entries: list[Entry]) -> None:
    """The digest of what was selected before."""
    fd = context.open_fd()
    try:
        Fingerprint(str(context.root), fd, ContentCache(), None).add(entries)
    finally:
        os.close(fd)


def digest(context: Context, *sources: str) -> str:
    return str(Context(context.root).digest(Wanted(sources)))


def test_the_digest_does_not_depend_on_times(context: Context) -> None:
    before = digest(context, "d")
    os.utime(context.root / "d" / "f", (1, 1))
    assert digest(context, "d") == before


@pytest.mark.parametrize("change", ["content", "mode", "name", "link", "new", "gone", "kind"])
def test_the_digest_depends_on_everything_else(context: Context, change: str) -> None:
    before = digest(context, "d")
    file, link = context.root / "d" / "f", context.root / "d" / "link"
    match change:
        case "content":
            file.write_text("eno")
        case "mode":
            file.chmod(0o600)
        case "name":
            file.rename(file.with_name("h"))
        case "link":
            link.unlink()
            link.symlink_to("g")
        case "new":
            (context.root / "d" / "new").mkdir()
        case "gone":
            file.unlink()
        case "kind":
            link.unlink()
            link.write_text("f")
    assert digest(context, "d") != before


def test_the_digest_depends_on_nothing_that_is_not_taken(context: Context) -> None:
    before = digest(context, "d/f")
    (context.root / "d" / "g").write_text("other")
    assert digest(context, "d/f") == before


def aged(root: Path, *, by_s: float = 2.1) -> None:
    """Let files grow old enough to be trusted."""
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    time.sleep(by_s)


def test_unchanged_files_are_not_read_again_and_any_change_is_seen(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (context.root / "d" / "deep").mkdir()
    (context.root / "d" / "deep" / "file").write_text("deep")
    aged(context.root)
    cache, read = ContentCache(), list[str]()
    opened = fingerprint.opened_name
    monkeypatch.setattr(fingerprint, "opened_name", lambda *a: (read.append(a[-1]), opened(*a))[1])

    def now() -> str:
        found = str(Context(context.root, cache).digest(Wanted(("d",))))
        assert found == digest(context, "d"), "what is remembered is what a fresh look finds"
        return found

    before = now()
    read.clear()
    assert str(Context(context.root, cache).digest(Wanted(("d",)))) == before
    assert read == []
    for change in [
        lambda: (context.root / "d" / "f").write_text("eno"),
        lambda: (context.root / "d" / "deep" / "file").chmod(0o600),
        lambda: (context.root / "d" / "deep" / "new").mkdir(),
        lambda: os.replace(context.root / "d" / "deep" / "file", context.root / "d" / "deep" / "renamed"),
        lambda: os.setxattr(context.root / "d" / "f", "user.note", b"x"),
        lambda: (context.root / ".dockerignore").write_text("d/deep\n"),
    ]:
        change()
        after = now()
        assert after != before
        before = after


def test_a_file_that_changes_twice_within_a_time_stamp_is_read_again(context: Context) -> None:
    file, cache = context.root / "d" / "f", ContentCache()
    for text in ("abc", "bcd", "cde"):
        file.write_text(text)
        # As on a file system with a coarse clock: nothing but the content tells.
        os.utime(file, (time.time(), 1_000_000_000))
        found = str(Context(context.root, cache).digest(Wanted(("d",))))
        assert found == digest(context, "d")


@pytest.mark.parametrize("place", [0, 16 << 20, 40_000_001, (64 << 20) + 6])
def test_a_byte_anywhere_in_a_large_file_counts(context: Context, place: int) -> None:
    file = context.root / "d" / "large"
    with file.open("wb") as large:
        large.truncate((64 << 20) + 7)
    before = digest(context, "d")
    assert digest(context, "d") == before
    with file.open("r+b") as large:
        large.seek(place)
        large.write(b"x")
    assert digest(context, "d") != before


def test_reading_a_large_file_can_be_cancelled(context: Context) -> None:
    with (context.root / "d" / "large").open("wb") as large:
        large.truncate(64 << 20)

    def strike(size_bytes: int) -> None:
        if size_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        context.digest(Wanted(("d",)), strike)


def test_a_file_that_is_gone_since_is_an_error(context: Context) -> None:
    entries = context.select(Wanted(("d",)))
    (context.root / "d" / "g").unlink()
    with pytest.raises(BuildError, match="d/g"):
        taken_in(context, entries)


def test_no_descriptor_is_left_open(context: Context) -> None:
    before = os.listdir("/proc/self/fd")
    context.digest(Wanted(("d", "d/*")))
    context.select(Wanted(("d", "d/*")))
    assert os.listdir("/proc/self/fd") == before
