from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nbcontain.errors import ImageNotFound, StoreError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR, Descriptor, Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from nbcontain.store import Store, files, write_back
from nbcontain.values import replace
from stores import add_image

HELLO = Reference.parse("hello")


def index(store: Store) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(store.layout.index.read_text())["manifests"]
    return found


def test_an_image_is_found_by_name_digest_and_id(store: Store) -> None:
    image = add_image(store, "x")
    for text in ("hello", "hello:latest", "docker.io/library/hello", str(image.id), image.id.short, str(image.id)[:15]):
        assert store.images.find(text) == image
    assert store.images.find(f"hello@{image.digest}") == image


def test_who_asks_for_another_platform_hears_which_there_are(store: Store) -> None:
    image = add_image(store, "x")
    with pytest.raises(ImageNotFound) as caught:
        store.images.get(HELLO, replace(image.config.platform, architecture="s390x"))
    assert caught.value.hint == f"there are: {image.config.platform}"


def test_another_process_sees_the_same(store: Store) -> None:
    image = add_image(store, "x")
    assert Store.open(store.layout.root).images.list() == [(HELLO, image)]


def test_who_writes_and_who_reads_see_the_same_after_each_change(store: Store) -> None:
    first, second = add_image(store, "x"), add_image(store, "y", name="second")
    platform = replace(first.config.platform, architecture="arm64")
    third = Image.of(replace(first.config, platform=platform), first.layers)
    for change in (
        lambda: store.images.tag(first, Reference.parse("again:1")),
        lambda: store.images.put_beside(third, HELLO),
        lambda: store.images.tag(second, HELLO),
        lambda: store.images.put(Image.of(replace(first.config, cmd=("x",)), first.layers)),
        lambda: store.images.remove(HELLO),
    ):
        change()
        fresh = Store.open(store.layout.root).images
        assert store.images.list() == fresh.list()


def test_where_nothing_is_synced_later_an_images_documents_are_on_the_disk_before_the_index_names_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_back, "OF_THIS_MACHINE", frozenset())
    base = add_image(store, "x")
    image = Image.of(replace(base.config, cmd=("other",)), base.layers)
    told: list[tuple[str, str]] = []
    sync_file, sync_directory, rename = files.sync_file, files.sync_directory, files._rename

    def record_file(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if not path.is_dir():
            told.append(("file", Digest.of(path.read_bytes()).hex))
        sync_file(fd)

    def record_directory(path: Path) -> None:
        sync_directory(path)
        told.append(("directory", path.name))

    def record_rename(source: Path, target: Path) -> None:
        rename(source, target)
        told.append(("name", target.name))

    monkeypatch.setattr(files, "sync_file", record_file)
    monkeypatch.setattr(files, "sync_directory", record_directory)
    monkeypatch.setattr(files, "_rename", record_rename)
    store.images.put(image)
    for document in (image.id.hex, image.digest.hex):
        assert told.index(("file", document)) < told.index(("name", document)) < told.index(("directory", "sha256"))
    assert told.index(("directory", "sha256")) < told.index(("name", "index.json"))
    # Each more would be one more journey to the disk.
    assert told.count(("directory", "sha256")) == 1


def test_images_are_entered_all_at_once_or_not_at_all(store: Store) -> None:
    image = add_image(store, "x")
    lost = Image.of(ImageConfig(), (Layer(Descriptor(LAYER_TAR, Digest.of(b"lost"), 4), DiffID(Digest.of(b"lost"))),))
    names = [Reference.parse("one"), Reference.parse("two:2")]
    with pytest.raises(StoreError, match="not in the store"):
        store.images.enter([(image, names), (lost, ())])
    assert store.images.list() == [(HELLO, image)]
    store.images.enter([(image, names)])
    assert store.images.list() == [(HELLO, image), *((name, image) for name in names)]


def test_a_name_wins_over_the_beginning_of_an_id(store: Store) -> None:
    image = add_image(store, "x")
    other = add_image(store, "y", name=image.id.short)
    assert store.images.find(image.id.short) == other


def test_a_beginning_that_several_ids_have_is_refused(store: Store) -> None:
    seen: dict[str, Image] = {}
    while True:
        image = add_image(store, name=f"n{len(seen)}", cmd=(str(len(seen)),))
        if image.id.hex[:2] in seen:
            break
        seen[image.id.hex[:2]] = image
    with pytest.raises(ImageNotFound, match="could be several"):
        store.images.find(image.id.hex[:2])


def test_a_misspelt_name_gets_a_hint(store: Store) -> None:
    add_image(store, "x")
    with pytest.raises(ImageNotFound) as caught:
        store.images.find("helo")
    assert caught.value.hint == "did you mean hello:latest?"


def test_what_all_names_end_with_makes_none_like_another(store: Store) -> None:
    add_image(store, "x", name="box")
    with pytest.raises(ImageNotFound) as caught:
        store.images.find("alpin:latest")
    assert caught.value.hint.startswith("Here are: ")


@pytest.mark.parametrize("text", ["", "UPPER", "../x", "<script>", "a" * 64])
def test_what_is_no_image_is_not_found(store: Store, text: str) -> None:
    with pytest.raises(ImageNotFound):
        store.images.find(text)


def test_an_image_whose_layers_are_missing_is_not_stored(store: Store) -> None:
    missing = Layer(Descriptor(LAYER_TAR, Digest.of(b"x"), 1), Digest.of(b"x"))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="layer"):
        store.images.put(Image.of(ImageConfig(), [missing]), HELLO)
    assert store.images.list() == []


def test_a_tag_moves_and_the_image_that_lost_it_goes(store: Store) -> None:
    add_image(store, "old")
    new = add_image(store, "new")
    assert store.images.list() == [(HELLO, new)]


def test_an_image_that_a_container_stands_on_stays_without_a_name(store: Store) -> None:
    old = add_image(store, "old")
    store.snapshots.prepare("c1", old.chain_id)
    new = add_image(store, "new")
    assert store.images.list() == [(None, old), (HELLO, new)]
    assert not any("annotations" in entry for entry in index(store)[:1])


def test_an_image_without_a_name_gets_one(store: Store) -> None:
    image = add_image(store, "x", name=None)
    assert store.images.list() == [(None, image)]
    store.images.tag(image, HELLO)
    assert store.images.list() == [(HELLO, image)]
    store.images.put(image, None)
    assert store.images.list() == [(HELLO, image)]


def test_removing_one_of_two_names_keeps_the_image(store: Store) -> None:
    image = add_image(store, "x")
    store.images.tag(image, Reference.parse("two"))
    assert store.images.remove(HELLO) is False
    assert store.images.remove(Reference.parse("two")) is True
    assert store.images.list() == []


def test_removing_a_name_that_is_not_there_is_told(store: Store) -> None:
    with pytest.raises(ImageNotFound):
        store.images.remove(HELLO)


def test_a_damaged_image_is_named_and_can_be_removed(store: Store) -> None:
    image = add_image(store, "x")
    store.blobs.remove(image.id)
    again = Store.open(store.layout.root)
    with pytest.raises(StoreError, match="the image hello:latest is damaged"):
        again.images.list()
    assert again.images.remove(HELLO) is True


def test_nothing_is_written_when_nothing_changes(store: Store) -> None:
    image = add_image(store, "x")
    before = store.layout.index.stat().st_ino
    store.images.put(image, HELLO)
    assert store.layout.index.stat().st_ino == before


def test_entries_of_other_programs_are_kept(store: Store) -> None:
    foreign = {"mediaType": "application/x", "digest": "sha256:" + "0" * 64, "size": 3, "annotations": {"a": "b"}}
    store.layout.index.write_text(json.dumps({"schemaVersion": 2, "manifests": [foreign]}))
    add_image(store, "x")
    assert index(store)[0] == foreign
    assert len(store.images.list()) == 1


def test_many_at_once_lose_no_name(store: Store) -> None:
    def put(number: int) -> None:
        add_image(Store.open(store.layout.root, userxattr=True), "same", name=f"n{number}", cmd=(str(number),))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(12)))
    assert {name.repository for name, _ in store.images.list() if name} == {
        f"library/n{number}" for number in range(12)
    }
