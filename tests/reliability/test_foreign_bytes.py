"""Whatever bytes come from outside or from a damaged disk: the typed error, or a value that survives a round trip."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbcontain.errors import BadDigest, NbcontainError
from nbcontain.oci.digest import Digest
from nbcontain.oci.reference import Reference
from nbcontain.store import Store
from reliability import parsers

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def keyed(names: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """Documents with the keys that the reader looks for, and anything as their values."""
    documents = st.dictionaries(st.sampled_from(names), json_values, max_size=len(names))
    return documents.map(lambda value: json.dumps(value).encode()) | json_values.map(lambda v: json.dumps(v).encode())


@pytest.mark.parametrize("name", parsers.PARSERS)
@EXAMPLES
@given(data=st.data())
def test_any_bytes_are_read_or_refused_by_a_typed_error(name: str, data: st.DataObject) -> None:
    parser = parsers.PARSERS[name]
    given_bytes = data.draw(st.binary(max_size=2000) | keyed(parser.keys) if parser.keys else st.binary(max_size=4096))
    parser.read(given_bytes)


@pytest.mark.parametrize("name", parsers.PARSERS)
@EXAMPLES
@given(data=st.data())
def test_a_good_document_with_some_bytes_changed_is_read_or_refused(name: str, data: st.DataObject) -> None:
    parser = parsers.PARSERS[name]
    changed = bytearray(parser.seed)
    for _ in range(data.draw(st.integers(1, 4))):
        if not changed:
            break
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["set", "cut", "twice"])):
            case "set":
                changed[at] = data.draw(st.integers(0, 255))
            case "cut":
                del changed[at : at + data.draw(st.integers(1, 40))]
            case _:
                changed[at:at] = changed[at : at + data.draw(st.integers(1, 40))]
    parser.read(bytes(changed))


@pytest.mark.parametrize("name", parsers.PARSERS)
def test_the_seed_itself_is_read(name: str) -> None:
    assert parsers.PARSERS[name].read(parsers.PARSERS[name].seed)


@EXAMPLES
@given(st.text(max_size=80))
def test_a_reference_that_is_read_is_written_as_it_is_read(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except NbcontainError:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@EXAMPLES
@given(st.text(max_size=140))
def test_a_digest_is_its_text(text: str) -> None:
    try:
        assert str(Digest.parse(text)) == text
    except BadDigest:
        pass


@EXAMPLES
@given(data=st.binary(max_size=3000))
def test_an_archive_of_any_bytes_writes_nothing_outside(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    from nbcontain.store.layers import apply_tar

    place = tmp_path_factory.mktemp("canary")
    (place / "canary").write_bytes(b"alive")
    (place / "fs").mkdir()
    try:
        apply_tar(io.BytesIO(parsers.GOOD_TAR[:512] + data), str(place / "fs"), userxattr=True)
    except NbcontainError:
        pass
    assert sorted(path.name for path in place.iterdir()) == ["canary", "fs"]
    assert (place / "canary").read_bytes() == b"alive"


@pytest.mark.parametrize("name", ["config.json", "container.json", "state.json", "rootfs.json", "journal.jsonl"])
@EXAMPLES
@given(data=st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_container_with_any_bytes_in_a_file_hinders_nobody(name: str, data: bytes, bundle: Path) -> None:
    from nbcontain.containers import Containers
    from nbcontain.runtime.container import Container
    from nbcontain.soundness import Soundness
    from nbcontain.store.layout import Layout

    before = (bundle / name).read_bytes() if (bundle / name).exists() else None
    (bundle / name).write_bytes(data)
    try:
        root = bundle.parent.parent
        listed = Containers(Layout(root), Container).all()
        assert {each.name for each in listed} >= {"good"}
        assert [(each.status, each.name) for each in listed]
        Soundness(Store.open(root), lambda layers, emit: None).look()
    finally:
        if before is None:
            (bundle / name).unlink()
        else:
            (bundle / name).write_bytes(before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of two containers of a store."""
    from nbcontain.oci.spec import Process, Spec
    from nbcontain.runtime.bundle import Bundle, ContainerInfo
    from nbcontain.runtime.bundle_writer import write

    store = Store.open(tmp_path_factory.mktemp("bundles") / "store")
    made: Callable[[str], Bundle] = lambda name: write(  # noqa: E731
        store.layout.container(name * 16), Spec(Process(("true",))), (), ContainerInfo(name * 16, name)
    )
    good, hurt = made("good"), made("hurt")
    good.unlock()
    hurt.unlock()
    for each in (good, hurt):
        store.snapshots.prepare(each.path.name, None)
    return hurt.path
