"""What a layer's tar says, kept beside its snapshot: it is the same as the tar, or the tar is read."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import needs
from archives import Member, archive, directory, layer_of, link, member, symlink
from machine import until
from nbcontain import Engine
from nbcontain.errors import DigestMismatch, StoreError
from nbcontain.explorer import Exploration
from nbcontain.oci.digest import ChainID, chain_id
from nbcontain.oci.image import Image, ImageConfig
from nbcontain.oci.reference import Reference
from nbcontain.store import inventory, tar
from nbcontain.store.contents import UNHASHED, Contents, File, listed_contents, parse_contents
from nbcontain.store.gc import collect
from nbcontain.store.snapshots import Staging
from stores import add_layer

MANY = [member(f"d{number % 7}/f{number:04}", data=b"x" * number) for number in range(300)]
ODD = [
    directory("etc"), member(b"\xff\n", data=b"raw"), symlink("etc/link", "../\u20ac"), link("twin", "d1/f0001"),
    member("gone/.wh.it"), member("cut/.wh..wh..opq"), member("./d2/./f0002", data=b"again"), member("tty", tar.FIFO),
    member("null", tar.CHARACTER, major=1, minor=3), member("marked", xattrs={b"user.\xfe": b"\0\xff"}),
]  # fmt: skip


def nobody(count: int) -> None:
    """Nobody strikes."""


def of_tar(*members: Member, hashed: frozenset[bytes] | None = None) -> tuple[Contents, bytes]:
    """What is in a layer by its tar, and its inventory."""
    data = archive(*members)
    recorder = inventory.Recorder()
    found = parse_contents(io.BytesIO(data), layer_of(data), nobody, hashed, recorder)
    places = {file.place: file.digest for _, file in found.entries if file.digest and file.digest is not UNHASHED}
    return found, recorder.packed(places)


def told(contents: Contents) -> tuple[object, ...]:
    def of(file: File) -> tuple[object, ...]:
        return tuple(getattr(file, name) for name in File.__slots__)  # type: ignore[attr-defined]

    entries = [(path, of(file)) for path, file in contents.entries]
    return entries, contents.links, contents.removed, contents.opaque, contents.size_bytes


def test_an_inventory_says_what_the_tar_says() -> None:
    found, data = of_tar(*MANY, *ODD)
    assert told(listed_contents(data, found.entries[0][1].layer)) == told(found)


def test_what_was_not_hashed_is_known_not_to_be() -> None:
    found, data = of_tar(*MANY, *ODD, hashed=frozenset({b"d1/f0001"}))
    listed = listed_contents(data, found.entries[0][1].layer)
    assert told(listed) == told(found)
    assert listed.is_hashed_at(frozenset({b"d1/f0001", b"not/there", b"etc"}))
    assert listed.is_hashed_at(frozenset({b"twin"}))
    assert not listed.is_hashed_at(frozenset({b"d2/f0002"}))
    assert not listed.is_hashed_at(None)


def test_few_small_files_are_not_worth_one() -> None:
    assert of_tar(*ODD)[1] == b""


def changed(data: bytes) -> list[bytes]:
    plain = zlib.decompress(data)
    return [
        b"", data[:-1], data[:100] + b"\0" + data[101:], zlib.compress(plain.replace(b'"version":1', b'"version":2')),
        zlib.compress(plain.replace(b'"sizes":[0', b'"sizes":["0"')),
        zlib.compress(plain.replace(b'"uids":[', b'"uids":[7,')),
        zlib.compress(b"[]"), zlib.compress(b"nothing"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(8))
def test_a_damaged_one_is_refused(number: int) -> None:
    found, data = of_tar(*MANY)
    with pytest.raises(StoreError):
        listed_contents(changed(data)[number], found.entries[0][1].layer)


@given(st.binary(max_size=40), st.integers(0, 2000))
def test_one_that_was_altered_somewhere_is_refused(some: bytes, place: int) -> None:
    found, data = of_tar(*MANY)
    altered = data[: place % len(data)] + some + data[place % len(data) + len(some) :]
    if altered == data:
        return
    with pytest.raises(StoreError):
        listed_contents(altered, found.entries[0][1].layer)


# --- in an engine ---


def put(engine: Engine, *layers: list[Member]) -> Image:
    """An image of these, which nobody has taken an inventory of."""
    made = []
    below: ChainID | None = None
    for members in layers:
        made.append(add_layer(engine.store, archive(*members), below))
        below = chain_id(below, made[-1].diff_id)
    image = Image.of(ImageConfig(), made)
    engine.store.images.put(image, Reference.parse("it"))
    return image


def kept(engine: Engine, image: Image) -> Path:
    """Where that of the topmost layer is."""
    assert image.chain_id is not None
    return engine.store.snapshots.shelf.snapshot(image.chain_id) / inventory.INVENTORY


def lose_blobs(engine: Engine, image: Image) -> None:
    """From here on, who reads a layer's tar fails."""
    for layer in image.layers:
        spoil(engine.store.layout.blob(layer.descriptor.digest), b"no tar")


def spoil(path: Path, data: bytes) -> None:
    """Whose it is may not write to it either, until it says so."""
    path.chmod(0o644)
    path.write_bytes(data)


def rows(exploration: Exploration) -> list[tuple[str, str, int, int]]:
    found = exploration.found("", exploration.top)
    return [(row.path, row.letter, row.size_bytes, row.number) for row in found]


def anew(engine: Engine) -> Engine:
    """As another kernel has it."""
    return Engine(engine.store.layout.root)


def test_a_layer_that_is_imported_is_looked_into_without_its_tar(engine: Engine, tmp_path: Path) -> None:
    if not engine.profile.runs:
        needs.missing("nobody may make a container on this machine: what is imported is unpacked elsewhere")
    (tmp_path / "it.tar").write_bytes(archive(*MANY, *(each for each in ODD if each[0].kind != tar.CHARACTER)))
    image = engine.archives.import_image(str(tmp_path / "it.tar"), "it").result()
    # Nobody has waited for it.
    until(lambda: is_written(kept(engine, image)))
    lose_blobs(engine, image)
    shown = {path: size_bytes for path, _, size_bytes, _ in rows(engine.explorer.image("it").result())}
    assert shown["/d3/f0003"] == 3 and shown["/d2/f0002"] == 5


def is_written(path: Path) -> bool:
    """All of it."""
    with suppress(StoreError):
        return bool([*inventory.rows(path.read_bytes())])
    return False


def test_a_layer_whose_inventory_cannot_be_written_is_imported_all_the_same(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine.profile.runs:
        needs.missing("nobody may make a container on this machine: what is imported is unpacked elsewhere")

    @contextmanager
    def unwritable(staging: Staging) -> Iterator[int]:
        with files_beside(staging) as fd, open(f"/proc/self/fd/{fd}", "rb") as reading:
            yield reading.fileno()

    files_beside = Staging.inventory
    monkeypatch.setattr(Staging, "inventory", unwritable)
    (tmp_path / "it.tar").write_bytes(archive(*MANY))
    image = engine.archives.import_image(str(tmp_path / "it.tar"), "it").result()
    assert kept(engine, image).read_bytes() == b""
    assert "/d3/f0003" in {path for path, *_ in rows(engine.explorer.image("it").result())}
    assert is_written(kept(engine, image))


def test_a_small_layer_has_no_inventory(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "it.tar").write_bytes(archive(member("a"), member("b")))
    image = engine.archives.import_image(str(tmp_path / "it.tar"), "it").result()
    assert not kept(engine, image).exists()


def test_who_reads_the_tar_leaves_an_inventory_for_the_next(engine: Engine) -> None:
    image = put(engine, MANY)
    first = rows(engine.explorer.image("it").result())
    lose_blobs(engine, image)
    with anew(engine) as other:
        assert rows(other.explorer.image("it").result()) == first


def test_layers_are_hashed_where_they_meet_and_remembered_so(engine: Engine) -> None:
    upper = [member(f"e/g{number:04}") for number in range(300)]
    image = put(engine, MANY, [*upper, member("d3/f0010", data=b"x" * 10), member("d4/f0011", data=b"y" * 11)])
    for number, layer in enumerate(image.layers):
        # As unpacking leaves them: nothing is hashed.
        data = engine.store.blobs.read(layer.descriptor.digest, layer.descriptor.size)
        recorder = inventory.Recorder()
        parse_contents(io.BytesIO(data), layer, nobody, frozenset(), recorder)
        name = chain_id(None, image.layers[0].diff_id) if number == 0 else image.chain_id
        assert name is not None
        inventory.keep(engine.store.snapshots, name, recorder.packed())

    def what(each: Engine) -> dict[str, tuple[str, ...]]:
        changes = each.explorer.image("it").result().part(2).changes
        return {change.path: change.what for change in changes if change.letter == "C"}

    assert what(engine) == {"/d3/f0010": (), "/d4/f0011": ("content",)}
    lose_blobs(engine, image)
    with anew(engine) as other:
        assert what(other) == {"/d3/f0010": (), "/d4/f0011": ("content",)}


def test_a_damaged_inventory_is_made_again_from_the_tar(engine: Engine) -> None:
    image = put(engine, MANY)
    first = rows(engine.explorer.image("it").result())
    spoil(kept(engine, image), b"\0" * 100)
    with anew(engine) as other:
        assert rows(other.explorer.image("it").result()) == first
    spoil(kept(engine, image), b"\0" * 100)
    lose_blobs(engine, image)
    with anew(engine) as other, pytest.raises(DigestMismatch):
        other.explorer.image("it").result()


def test_an_inventory_goes_with_its_layer(engine: Engine) -> None:
    image = put(engine, MANY)
    engine.explorer.image("it").result()
    assert kept(engine, image).exists()
    engine.store.images.remove(Reference.parse("it"))
    collect(engine.store, tuple)
    assert not kept(engine, image).parent.exists()
