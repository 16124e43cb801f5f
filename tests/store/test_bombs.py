"""Archives of a few kilobytes that would cost minutes, or gigabytes of memory: refused at a limit (T6)."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from archives import Member, archive, directory, listing, member, symlink, unpack
from nbcontain.errors import BadArchive
from nbcontain.store import Store, archive_reader, inventory, removal, tar
from nbcontain.store import unpack as unpacking
from nbcontain.store.inventory import Recorder, rows
from nbcontain.store.unpack_tree import TreeTarget
from package_source import PACKAGE

DEPTH = 600
DEEP = "/".join("a" * DEPTH)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "fs"
    found.mkdir()
    yield found
    removal.remove_tree(found)  # pytest's own would go too deep


# --- time ---


def ways_down_and_up(hops: int, members: int) -> list[Member]:
    """Each link leads down a long way, up again, and to the next: whoever follows them one by one walks for ever."""
    links = [symlink(f"s{hop}", f"/{DEEP}/{'../' * DEPTH}" + (f"s{hop - 1}" if hop else "q")) for hop in range(hops)]
    files = [member(f"s{hops - 1}/d{number}/f", data=b"x") for number in range(members)]
    return [directory("q"), directory(DEEP), *links, *files]


@pytest.mark.parametrize("form", [None, TreeTarget])
def test_links_that_lead_down_and_up_again_end_at_a_limit(root: Path, form: type[TreeTarget] | None) -> None:
    begun_s = time.process_time()
    with pytest.raises(BadArchive, match="too many directories"):
        unpack(root, archive(*ways_down_and_up(30, 2000)), target_type=form)
    assert time.process_time() - begun_s < 20


def test_links_with_many_steps_up_are_followed(root: Path) -> None:
    unpack(root, archive(*ways_down_and_up(3, 2)))
    assert {path: data for path, data in listing(root / "q").items() if data == "x"} == {"d0/f": "x", "d1/f": "x"}


def test_names_that_make_thousands_of_directories_each_end_at_a_limit(root: Path) -> None:
    deep = [member(f"{number}/" + "/".join("a" * 1900) + "/f") for number in range(500)]
    with pytest.raises(BadArchive, match="too many"):
        unpack(root, archive(*deep))


def test_emptying_a_deep_tree_again_and_again_ends_at_a_limit(root: Path) -> None:
    again = [member(".wh..wh..opq")] * 4000
    with pytest.raises(BadArchive, match="too many directories"):
        unpack(root, archive(directory("/".join("a" * 1900)), *again), target_type=TreeTarget)


def test_a_tree_of_many_directories_deep_down_is_no_bomb(root: Path) -> None:
    """As of node's modules: some twenty deep, each directory in another one."""
    way = "/".join(["node_modules/package"] * 10)
    unpack(root, archive(*(member(f"{way}/{number}/lib/index/f", data=b"x") for number in range(1500))))
    assert sum(data == "x" for data in listing(root).values()) == 1500


# --- memory ---

MIB = 1 << 20
UNPACKING = """
import sys
sys.path.insert(0, sys.argv[1])
from nbcontain.errors import BadArchive
from nbcontain.store.inventory import Recorder
from nbcontain.store.plain_members import PlainMembers
from nbcontain.store.unpack import Target, apply_tar
from nbcontain.store.unpack_tree import TreeTarget
recorder = Recorder()
try:
    apply_tar(sys.stdin.buffer, sys.argv[2], userxattr=True, hashes=False, recorder=recorder, plain=PlainMembers,
              ids="single", target_type=TreeTarget if sys.argv[3] == "tree" else None)
except BadArchive as error:
    print(error)
else:
    print(len(recorder.packed()))
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) >> 10)
"""


@pytest.mark.parametrize("form", ["overlay", "tree"])
@pytest.mark.parametrize(
    "each",
    [
        lambda number: directory(f"d{number}", xattrs={b"user.a": bytes(64 << 10)}),
        lambda number: member("./" * 2000 + f".wh..wh.{number}"),
        lambda number: member(("\x01" * 250 + "/") * 15 + f".wh..wh.{number}"),
        lambda number: directory("a" * 240 + f"/{number:0240}/" * 15),
    ],
    ids=["attributes of directories", "metadata of aufs", "names that are longer in JSON", "deep directories"],
)
def test_what_is_kept_of_an_archive_has_a_limit(root: Path, each: Callable[[int], Member], form: str) -> None:
    command = [sys.executable, "-I", "-c", UNPACKING, str(PACKAGE.parent), str(root), form]
    with subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as unpacker:
        assert unpacker.stdin is not None and unpacker.stdout is not None
        with suppress(BrokenPipeError):
            for number in range(20_000):
                unpacker.stdin.write(archive(each(number))[: -2 * tar.BLOCK])
        unpacker.stdin.close()
        *_, peak_mib = unpacker.stdout.read().split()
    assert int(peak_mib) < 200


def test_an_archive_of_too_many_directories_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_KEPT_BYTES", 100 << 10)
    unpack(root, archive(*(directory(f"{number}") for number in range(300))))
    with pytest.raises(BadArchive, match="too many names"):
        unpack(root, archive(*(directory(f"{number}") for number in range(600))))


def test_an_attribute_is_no_longer_than_the_kernels(root: Path) -> None:
    unpack(root, archive(directory("d", xattrs={b"trusted.overlay.opaque": bytes(100 << 10), b"user.a": b"kept"})))
    with pytest.raises(BadArchive, match="extended attributes"):
        unpack(root, archive(member("f", xattrs={b"user.a": bytes((64 << 10) + 1)})))
    with pytest.raises(BadArchive, match="extended attributes"):
        unpack(root, archive(member("f", xattrs={b"user.%d" % number: bytes(60 << 10) for number in range(5)})))


def test_attributes_that_no_layer_keeps_are_not_even_read() -> None:
    entry = tar.Reader(io.BytesIO(archive(member("f", xattrs={b"trusted.a": b"1", b"user.b": b"2"})))).next()
    assert entry is not None and entry.xattrs == {b"user.b": b"2"}


def test_an_inventory_that_takes_too_much_memory_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_KEPT_BYTES", 100 << 10)
    recorder = Recorder()
    for number in range(400):
        recorder.take(member(f"{number:050}")[0])
    assert recorder.is_worth_it and len(list(rows(recorder.packed()))) == 400
    for number in range(400):
        recorder.take(member(f"{number:050}")[0])
    assert (recorder.is_worth_it, recorder.packed()) == (False, b"")


# --- archives of images ---


def read(store: Store, *members: Member) -> None:
    archive_reader.read_archive(io.BytesIO(archive(*members)), store.blobs, lambda entries, what: entries)


@pytest.mark.parametrize(
    "each",
    [
        lambda number: member("a/" * 1900 + f"{number}", tar.SYMLINK, link=b"z/" * 2000),
        lambda number: member("a/" * 1900 + f"{number}", data=b"{"),
        lambda number: member(f"{number}", data=b"{" + bytes(10_000)),
    ],
    ids=["links", "names", "documents"],
)
def test_what_is_kept_of_an_archive_of_images_has_a_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch, each: Callable[[int], Member]
) -> None:
    monkeypatch.setattr(archive_reader, "_KEPT_BYTES", 1 << 20)
    with pytest.raises(BadArchive, match="no archive of images"):
        read(store, *map(each, range(60)))
    with pytest.raises(BadArchive, match="is too much"):
        read(store, *map(each, range(300)))


def test_an_archive_of_images_has_so_many_members_at_most(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "_MEMBERS", 100)
    with pytest.raises(BadArchive, match="no more than 100 members") as caught:
        read(store, *(member(f"etc/{number}") for number in range(101)))
    assert "import" in caught.value.hint
