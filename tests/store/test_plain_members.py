"""The processor's own code makes of an archive what Python makes of it, or leaves it to Python."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import needs
from archives import Member, archive, directory, link, member, symlink
from nbcontain.errors import BadArchive
from nbcontain.linux import code_memory, members_code
from nbcontain.store import tar
from nbcontain.store.inventory import Recorder
from nbcontain.store.layers import Applied, apply_tar
from nbcontain.store.metadata import Metadata
from nbcontain.store.plain_members import _COUNT, Made, PlainMembers, _function
from nbcontain.store.unpack_tree import TreeTarget

pytestmark = pytest.mark.skipif(
    os.uname().machine not in members_code.CODE, reason="no code is known for this processor"
)

ME = os.geteuid(), os.getegid()
IS_ROOT = not ME[0]
BEGAN_S = time.time() - 1
FIRST = member("first", data=b"whom files belong to is seen here")


class InPieces:
    """An archive in pieces of one size, as a ring gives it."""

    def __init__(self, data: bytes, size_bytes: int) -> None:
        self._data, self._size_bytes = memoryview(data), size_bytes

    def chunk(self) -> memoryview:
        found, self._data = self._data[: self._size_bytes], self._data[self._size_bytes :]
        return found


class Counted(PlainMembers):
    """It says how many members it has made."""

    made = 0

    def tell(self) -> None:
        Counted.made += self._words[_COUNT]
        super().tell()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch(runs=False)))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def outcome(
    place: Path, data: bytes, size_bytes: int, plain: type[PlainMembers] | None, ids: str, below: bytes = b"",
    *, is_known: bool = True,
) -> object:  # fmt: skip
    """What comes of an archive: what is there, what is said of it, and its inventory; or that it is refused.

    With something `below` it is laid on the whole tree of that. `is_known` says that whom new files belong to is known
    from the first on, which is otherwise seen on the first piece's.
    """
    root = Path(tempfile.mkdtemp(dir=place))
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        try:
            if below:
                apply_tar(InPieces(below, 1 << 20), str(root), userxattr=True, hashes=False, target_type=TreeTarget)
            if is_known:
                patch.setattr(Metadata, "own", ME)
            found = apply_tar(
                InPieces(data, size_bytes), str(root), userxattr=True, recorder=recorder, plain=plain, hashes=False,
                ids="single" if ids == "single" else "all", limits=tar.Limits(entries=60),
                target_type=TreeTarget if below else None,
            )  # fmt: skip
            return found, sorted(there(root)), recorder.__dict__ | {"_names": b"\0".join(recorder._names)}
        except (BadArchive, OSError) as error:
            return type(error)
        finally:
            for path in (root, *root.rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
            shutil.rmtree(root)


def there(root: Path) -> Iterator[tuple[object, ...]]:
    for path in root.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.readlink(path) if path.is_symlink() else ""
        # Directories that no member tells of are of now.
        set_ns = status.st_mtime_ns if status.st_mtime < BEGAN_S else None
        kind = (status.st_mode, status.st_uid, status.st_gid, set_ns, status.st_nlink)
        yield str(path.relative_to(root)), kind, content, target


def same(
    place: Path, data: bytes, size_bytes: int = 1 << 20, ids: str = "all", below: bytes = b"", *, is_known: bool = True
) -> object:
    """What comes of it in both ways."""
    found = outcome(place, data, size_bytes, PlainMembers, ids, below, is_known=is_known)
    assert found == outcome(place, data, size_bytes, None, ids, below)
    return found


PARTS = st.sampled_from(["a", "b", "c", ".", "..", "", ".wh.a", ".wh..wh..opq", "x" * 100, "\xff"])
NAMES = st.one_of(
    st.sampled_from(["a", "b", "d/", "d/a", "d/b", "./d/a", "d/e/", "d/e/f", "s", "s/a", "/a", "d//a", "a/"]),
    st.just("x" * 99 + "/y"),
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    st.just("p" * 90 + "/" + "q" * 90),
).map(lambda name: name.encode("latin-1"))  # fmt: skip
IDS = st.sampled_from([ME[0], ME[0], 0, 7 if IS_ROOT else ME[0], 2_000_000 if IS_ROOT else ME[0]])
TARGETS = st.sampled_from([b"a", b"d", b"../d", b"/d/a", b"first"])
KINDS = st.sampled_from([tar.REGULAR] * 4 + [tar.DIRECTORY, tar.DIRECTORY, tar.SYMLINK, tar.LINK, tar.FIFO])


@st.composite
def members(draw: st.DrawFn) -> Member:
    kind = draw(KINDS)
    data = draw(st.sampled_from([b"", b"x", b"y" * 512, b"z" * 1500])) if kind == tar.REGULAR else b""
    has_target = kind in (tar.SYMLINK, tar.LINK)
    return member(
        draw(NAMES) or b"a", kind, data, draw(st.sampled_from([0o644, 0o755, 0o000, 0o4755, 0o2755, 0o1777])),
        uid=draw(IDS), gid=draw(IDS), link=draw(TARGETS) if has_target else b"",
        mtime_ns=draw(st.sampled_from([0, 1_000_000_000, 1_500_000_000, 4_000_000_000_000_000_000])),
    )  # fmt: skip


@given(
    st.lists(members(), max_size=25), st.sampled_from([512, 1024, 4096, 1 << 20]), st.sampled_from(["all", "single"]),
    st.lists(st.tuples(st.integers(0, 12_000), st.sampled_from([*b"\0 07a\xff/"])), max_size=2), st.booleans(),
)  # fmt: skip
def test_archives_of_any_kind_become_the_same(
    place: Path, some: list[Member], size_bytes: int, ids: str, changed: list[tuple[int, int]], is_known: bool
) -> None:
    data = bytearray(archive(FIRST, *some))
    for at, byte in changed:
        if at < len(data):
            data[at] = byte
    same(place, bytes(data), size_bytes, ids, is_known=is_known)


@given(st.lists(members(), max_size=9), st.lists(members(), max_size=15), st.sampled_from([1024, 2048, 4096]),
       st.booleans())  # fmt: skip
def test_a_layer_on_a_whole_tree_becomes_the_same(
    place: Path, below: list[Member], some: list[Member], size_bytes: int, is_known: bool
) -> None:
    if isinstance(outcome(place, archive(FIRST, *below), 1 << 20, None, "all"), type):
        below = []
    same(place, archive(FIRST, *some), size_bytes, below=archive(FIRST, *below), is_known=is_known)


def test_what_is_not_below_is_not_taken_for_what_is(place: Path) -> None:
    """A symlink of the layer's own is gone through; one of the layers below makes way for a directory."""
    below = archive(directory("d/"), member("d/f", data=b"1"), symlink("old", "d"))
    layer = archive(
        FIRST, member("in one piece with it", data=b"5"), directory("e/"), symlink("own", "e"),
        member("own/f", data=b"2"), member("old/f", data=b"3"), member("d/.wh.f"), member("d/g", data=b"4"),
    )  # fmt: skip
    found = same(place, layer, 2048, below=below)
    assert isinstance(found, tuple)
    contents = {name: content for name, _, content, _ in found[1] if content}
    assert contents.pop("first") == FIRST[1] and contents.pop("in one piece with it") == b"5"
    assert contents == {"e/f": b"2", "old/f": b"3", "d/g": b"4"}


@given(st.lists(members(), max_size=9), st.integers(0, 511), st.binary(min_size=1, max_size=24))
def test_headers_that_are_right_and_strange_become_the_same(
    place: Path, some: list[Member], at: int, strange: bytes
) -> None:
    """With a checksum that says so."""
    data = bytearray(archive(FIRST, *some, member("last", data=b"there")))
    start = data.find(b"last")
    header = data[start : start + 512]
    header[at : at + len(strange)] = strange[: 512 - at]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[start : start + 512] = header
    same(place, bytes(data), 1024)


def test_plain_members_are_made_by_it(place: Path) -> None:
    Counted.made = 0
    files = [member(f"d{number}/f", data=b"x" * number) for number in range(10)]
    directories = [directory(f"d{number}/") for number in range(10)]
    data = archive(FIRST, *directories, *files, symlink("s", "d1"), link("l", "first"))
    found = outcome(place, data, 1 << 20, Counted, "all")
    assert isinstance(found, tuple)
    # The first one is what a piece is asked for.
    assert Counted.made == 21
    assert found[0] == Applied(None, 23, len(FIRST[1]) + sum(range(10)))
    assert found == outcome(place, data, 1 << 20, None, "all")


@pytest.mark.parametrize("checksum", [b"%06o\0 ", b"%07o\0", b"%06o  ", b" %05o\0 ", b"%o\0"])
def test_a_checksum_is_compared(place: Path, checksum: bytes) -> None:
    data = bytearray(archive(FIRST, member("f", data=b"x")))
    start = 1024
    data[start + 148 : start + 156] = b" " * 8
    total = sum(data[start : start + 512])
    for wrong in (0, 1):
        data[start + 148 : start + 156] = (checksum % (total + wrong)).ljust(8)[:8]
        assert (same(place, bytes(data), 1024) is BadArchive) == bool(wrong)


def test_what_a_member_before_it_changes_is_seen(place: Path) -> None:
    """A directory that becomes a symlink, and one that becomes a file, in the middle of a piece."""
    data = archive(
        FIRST, directory("d/"), member("d/a", data=b"1"), directory("e/"), member("e/a", data=b"2"), symlink("d", "e"),
        member("d/b", data=b"3"), member("e/c", data=b"4"), member("d", data=b"now a file"), link("twin", "e/b"),
        directory("d/"), member("d/a", data=b"5"),
    )  # fmt: skip
    found = same(place, data)
    assert isinstance(found, tuple)
    assert [name for name, *_ in found[1]] == ["d", "d/a", "e", "e/a", "e/b", "e/c", "first", "twin"]


@pytest.mark.parametrize("count", [58, 59, 60])
def test_more_members_than_there_may_be_are_refused(place: Path, count: int) -> None:
    data = archive(FIRST, *(member(f"f{number}") for number in range(count)))
    assert (same(place, data, 1024) is BadArchive) == (count > 59)


def test_more_directories_than_can_be_open(place: Path) -> None:
    many = [each for number in range(29) for each in (directory(f"d{number}/"), member(f"d{number}/f"))]
    data = archive(FIRST, *many)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nbcontain.store.open_directories.MANY", 3)
        assert isinstance(same(place, data, 2048), tuple)


def test_what_cannot_be_written_is_told_by_python(place: Path) -> None:
    """As on a full disk; here no file may become so large (setrlimit(2), RLIMIT_FSIZE)."""
    data = archive(FIRST, member("small", data=b"x"), member("large", data=b"y" * 9000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    Counted.made = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        assert same(place, data) is OSError
        outcome(place, data, 1 << 20, Counted, "all")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert Counted.made == 1


def test_where_no_code_can_be_made_python_makes_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _function.cache_clear()
    monkeypatch.setattr(code_memory, "_mprotect", lambda *_: -1)
    assert isinstance(same(place, archive(FIRST, directory("d/"), member("d/f"))), tuple)
    monkeypatch.setattr(members_code, "CODE", {})
    assert isinstance(same(place, archive(FIRST, directory("d/"), member("d/f"))), tuple)


def test_what_was_made_is_told_once(place: Path) -> None:
    told: list[Made] = []
    maker = PlainMembers(lambda head: (0, head), told.append, keeps_owners=True)
    maker.tell()
    assert told == []
