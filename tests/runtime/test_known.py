"""What a process remembers of images and containers is never what was before."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from nbcontain.containers import Containers
from nbcontain.errors import ContainerNotFound
from nbcontain.oci.image import Image, ImageConfig
from nbcontain.oci.reference import Reference
from nbcontain.oci.spec import Process, Spec
from nbcontain.runtime.bundle import Bundle, ContainerInfo
from nbcontain.runtime.bundle_writer import write
from nbcontain.runtime.container import Container
from nbcontain.store import Store, files, removal
from nbcontain.values import replace


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def made(store: Store, name: str, number: int = 0) -> Bundle:
    container_id = f"{number:064x}"
    info = ContainerInfo(id=container_id, name=name, created=f"2024-01-01T00:00:{number:02}Z", remove=True)
    bundle = write(store.layout.container(container_id), Spec(Process(("true",))), (), info)
    bundle.unlock()
    return bundle


def renamed(bundle: Bundle, name: str) -> None:
    """As a rename does: the file is another one, of the same size."""
    path = bundle.path / "container.json"
    data = path.read_bytes().replace(f'"name": "{bundle.info.name}"'.encode(), f'"name": "{name}"'.encode())
    files.replace(path, data)


def names(containers: Containers[Container]) -> list[str]:
    return [each.name for each in containers.all()]


def test_a_container_that_is_made_renamed_or_removed_is_seen_as_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("nbcontain.containers"), "_RACY_NS", 0)
    monkeypatch.setattr(import_module("nbcontain.containers"), "_COARSE_NS", 0)
    containers = Containers(store.layout, Container)
    first, second = made(store, "one", 1), made(store, "two", 2)
    for _ in range(2):
        assert names(containers) == ["two", "one"]
        assert containers.get("one").id == first.path.name
    renamed(first, "eno")
    assert containers.get("eno").id == first.path.name
    with pytest.raises(ContainerNotFound):
        containers.get("one")
    renamed(second, "one")
    assert containers.get("one").id == second.path.name
    removal.remove_tree(second.path)
    with pytest.raises(ContainerNotFound):
        containers.get("one")
    assert names(containers) == ["eno"]


class Clock:
    """One that stands still."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def time_ns(self) -> int:
        return self.now_ns


@pytest.mark.parametrize(
    ("second_ns", "soon_ns", "later_ns"),
    [
        (1_000_000_000, 10_000_000, 30_000_000),
        # A stamp of whole seconds: the part that was lost is anywhere.
        (1, 1_900_000_000, 2_100_000_000),
    ],
    ids=["stamps with parts of a second", "stamps of whole seconds"],
)
def test_what_was_changed_a_moment_ago_is_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, second_ns: int, soon_ns: int, later_ns: int
) -> None:
    module = import_module("nbcontain.containers")
    containers = Containers(store.layout, Container)
    bundle = made(store, "one", 1)
    changed_ns = (bundle.path / "container.json").stat().st_ctime_ns
    monkeypatch.setattr(module, "_SECOND_NS", second_ns)
    monkeypatch.setattr(module, "time", clock := Clock(changed_ns + soon_ns))
    assert names(containers) == ["one"]
    assert containers._known == {}
    clock.now_ns = changed_ns + later_ns
    assert names(containers) == ["one"]
    assert [*containers._known] == [bundle.path.name]


def test_a_handle_of_a_container_is_nobody_elses(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("nbcontain.containers"), "_RACY_NS", 0)
    monkeypatch.setattr(import_module("nbcontain.containers"), "_COARSE_NS", 0)
    containers = Containers(store.layout, Container)
    made(store, "one", 1)
    assert containers.get("one") == containers.get("one")
    assert containers.get("one").bundle is not containers.get("one").bundle


def test_a_name_that_somebody_else_gave_or_took_is_seen(store: Store, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "store")
    image = Image.of(ImageConfig(), ())
    twin = Image.of(replace(ImageConfig(), author="x"), ())
    one, two = Reference.parse("one"), Reference.parse("two")
    store.images.put(image, one)
    assert [str(name) for name, _ in store.images.list()] == [str(one)]
    other.images.put(twin, two)
    assert store.images.get(two).digest == twin.digest
    assert store.images.names(twin.digest) == [two]
    other.images.tag(twin, one)
    assert store.images.get(one).digest == twin.digest
    other.images.remove(one)
    assert [name for name, _ in store.images.list()] == [two]
