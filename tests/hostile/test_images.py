"""Images that mean harm, T1 to T11: pulled as a user pulls them, beside a directory of the host's that must not change.

Each is taken or refused by a typed error; either way the canary is as it was, the store is sound, and the files of
other layers are what they were. docs/hostile-images.md says which test is for which attack.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archives import archive, directory, layer_of, link, member, symlink
from machine import Machine, until
from nbcontain.errors import BadArchive, NbcontainError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Descriptor, Image, ImageConfig, Layer
from nbcontain.registry.wire import Wire
from nbcontain.runtime.generate import RunOptions
from nbcontain.store import compression, tar

sys.path.insert(1, str(Path(__file__).parent.parent / "registry"))

from server import Registry  # noqa: E402

GOOD = archive(directory("d"), member("d/below", data=b"of the layer below"), member("kept", data=b"kept"))


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    found = Registry()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # What is cut short is asked for again, at once.
    monkeypatch.setattr(Wire, "pause", lambda wire, seconds: wire.strike())


def pulled(
    machine: Machine, registry: Registry, *layers: bytes, config: ImageConfig | None = None,
    change: Callable[[dict[str, Any]], object] = lambda manifest: None,
) -> Image | None:  # fmt: skip
    """Pull an image of these layers on a good one; None if it is refused by a typed error. The store is sound then."""
    made = [layer_of(each) for each in (GOOD, *layers)]
    image = Image.of(config or ImageConfig(cmd=("true",)), made)
    document = json.loads(image.raw_manifest)
    change(document)
    raw = json.dumps(document).encode()
    for data in (GOOD, *layers, image.raw_config):
        registry.blobs[str(Digest.of(data))] = data
        registry.holders.add(("evil", str(Digest.of(data))))
    registry.manifests["evil", "1"] = (document.get("mediaType", image.manifest.media_type), raw)
    engine, name = machine.engine, f"{registry.host}/evil:1"
    try:
        found: Image | None = engine.registry.pull(name).result()[0]
    except NbcontainError as error:
        assert error.message
        found = None
    report = engine.soundness.look()
    assert report.is_clean, report.findings
    shelf = engine.store.snapshots.shelf
    [below] = [shelf.snapshot(DiffID(Digest.of(GOOD)))] if found else [None]  # type: ignore[arg-type]
    if below is not None:
        assert (below / "fs/d/below").read_bytes() == b"of the layer below"
        assert (below / "fs/kept").read_bytes() == b"kept"
    if found:
        engine.remove_image(name)
    return found


def raw_header(name: str, kind: bytes, size: int, *, claims: bytes = b"") -> bytes:
    """A header whose size says what it likes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = claims or (b"\x80" + size.to_bytes(11, "big", signed=False))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def paxed(**headers: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("file")
        info.size, info.pax_headers = 4, headers
        file.addfile(info, io.BytesIO(b"data"))
    return out.getvalue()


LONG = "a" * 4097
LAYERS: dict[str, Callable[[Path], bytes]] = {
    "T1 up": lambda canary: archive(member("../../../../../evil", data=b"x")),
    "T1 up in the middle": lambda canary: archive(member("a/../../../../evil", data=b"x")),
    "T1 absolute": lambda canary: archive(member(f"{canary}/evil", data=b"x")),
    "T1 two slashes": lambda canary: archive(member(f"//{canary}/evil", data=b"x")),
    "T1 the root is a file": lambda canary: archive(member("./", data=b"x")),
    "T1 no name": lambda canary: archive(member("", data=b"x")),
    "T1 a long name": lambda canary: archive(member(LONG, data=b"x")),
    "T1 strange bytes": lambda canary: archive(member(b"\xff\x00/../\n"[:1] + b"\n\x1b[31m", data=b"x")),
    "T2 through a symlink": lambda canary: archive(symlink("l", str(canary)), member("l/secret", data=b"evil")),
    "T2 through proc": lambda canary: archive(
        symlink("l", f"/proc/self/root{canary}"), member("l/secret", data=b"evil")
    ),
    "T2 through two": lambda canary: archive(
        symlink("a", "/"), symlink("b", f"a{canary}"), member("b/secret", data=b"evil")
    ),
    "T2 up and up": lambda canary: archive(
        symlink("l", "../" * 30 + str(canary)[1:]), member("l/secret", data=b"evil")
    ),
    "T2 a parent becomes a symlink": lambda canary: archive(
        directory("p"), member("p/one", data=b"1"), symlink("p", str(canary)), member("p/secret", data=b"evil")
    ),
    "T2 of the layer below": lambda canary: archive(symlink("d", str(canary)), member("d/secret", data=b"evil")),
    "T2 mode through a symlink": lambda canary: archive(
        symlink("l", f"{canary}/secret"), member("l", tar.SYMLINK, link=f"{canary}/secret".encode(), mode=0o777)
    ),
    "T3 a link to the host": lambda canary: archive(link("l", f"{canary}/secret"), member("l", data=b"evil")),
    "T3 a link up": lambda canary: archive(link("l", "../" * 30 + f"{canary}/secret"), member("l", data=b"evil")),
    "T3 a link to a symlink": lambda canary: archive(
        symlink("s", f"{canary}/secret"), link("l", "s"), member("l", data=b"evil")
    ),
    "T3 a link to the layer below": lambda canary: archive(link("l", "kept"), member("l", data=b"evil")),
    "T3 a link before its target": lambda canary: archive(link("l", "t"), member("t", data=b"x")),
    "T3 a link whose target is replaced": lambda canary: archive(
        member("t", data=b"x"), link("l", "t"), symlink("t", f"{canary}/secret"), member("l", data=b"evil")
    ),
    "T4 an empty whiteout": lambda canary: archive(member(".wh.")),
    "T4 a whiteout of ..": lambda canary: archive(member("d/.wh..")),
    "T4 a whiteout of ...": lambda canary: archive(member("d/.wh...")),
    "T4 opaque root": lambda canary: archive(member(".wh..wh..opq")),
    "T4 through a symlink": lambda canary: archive(symlink("l", str(canary)), member("l/.wh.secret")),
    "T4 opaque through a symlink": lambda canary: archive(symlink("l", str(canary)), member("l/.wh..wh..opq")),
    "T4 up": lambda canary: archive(member(f"{'../' * 30}{canary}/.wh.secret")),
    "T4 forged device": lambda canary: archive(member("d", b"3", major=0, minor=0)),
    "T4 forged attributes": lambda canary: paxed(**{
        "SCHILY.xattr.trusted.overlay.redirect": str(canary), "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.metacopy": "",
    }),
    "T5 devices and set-id": lambda canary: archive(
        member("sda", b"4", major=8, minor=0), member("fifo", b"6"), member("su", data=b"x", mode=0o6755)
    ),
    "T5 attributes": lambda canary: paxed(**{
        "SCHILY.xattr.security.capability": "x" * 20, "SCHILY.xattr.security.selinux": "evil",
        "SCHILY.xattr.system.posix_acl_access": "x", "SCHILY.xattr.trusted.x": "y",
    }),
    "T6 eight exbibytes": lambda canary: raw_header("big", b"0", 1 << 62),
    "T6 a sparse file of exbibytes": lambda canary: paxed(**{
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 62),
        "GNU.sparse.name": "big",
    }),
    "T6 a directory in a directory, 2,000 times": lambda canary: archive(directory("/".join("a" * 2000))),
    "T7 a negative size": lambda canary: raw_header("n", b"0", 0, claims=b"\xff" * 10 + b"\xfe\x00") + bytes(1024),
    "T7 a long name of a gigabyte": lambda canary: raw_header("@LongLink", b"L", 1 << 30) + b"a" * 4096,
    "T7 a path by pax": lambda canary: paxed(path="../../../../evil"),
    "T7 a size by pax": lambda canary: paxed(size=str(1 << 61)),
    "T7 a global path": lambda canary: (
        raw_header("g", b"g", 30) + b"30 path=../../../../../../evil".ljust(512, b"\0") + GOOD
    ),
    "T7 file, directory, link, file": lambda canary: archive(
        member("x", data=b"1"), directory("x"), member("x/y", data=b"2"), symlink("x", str(canary)),
        member("x/secret", data=b"evil"), member("x", data=b"3"),
    ),
    "T7 garbage after the end": lambda canary: GOOD + b"garbage" * 1000,
    "T7 cut off": lambda canary: GOOD[:700],
    # CVE-2025-4517 and its kin: symlinks so long together that a careless realpath gives up half-way.
    "T8 a path longer than PATH_MAX": lambda canary: archive(
        *(each for step in range(16) for each in (
            directory("/".join(["d" * 247] * step + ["d" * 247])),
            symlink("/".join(["d" * 247] * step + [chr(97 + step)]), "d" * 247),
        )),
        symlink("/".join(chr(97 + step) for step in range(16)) + "/l", "../" * 16),
        symlink("escape", "/".join(chr(97 + step) for step in range(16)) + f"/l/{'../' * 20}{canary}"),
        member("escape/secret", data=b"evil"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", LAYERS)
def test_a_layer_that_means_harm_touches_nothing_outside(
    machine: Machine, registry: Registry, canary: Path, attack: str
) -> None:
    pulled(machine, registry, LAYERS[attack](canary))


def _drop_schema(manifest: dict[str, Any]) -> None:
    manifest["manifests"] = [manifest["config"]]


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def _change(path: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(manifest: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = manifest
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        place[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _drop_schema, _change("layers.1.digest", "sha256:../../../../etc/passwd"),
        _change("layers.1.digest", "md5:d41d8cd98f00b204e9800998ecf8427e"), _change("layers.1.digest", "sha256:"),
        _change("layers.1.size", -1), _change("layers.1.size", 1 << 62), _change("layers.1.size", "7"),
        _change("config.digest", "sha256:" + "0" * 64), _change("config.size", 7), _change("schemaVersion", 1),
        _change("layers", {}), _change("layers.1.mediaType", FOREIGN), _change("mediaType", "text/html"),
        _change("config.mediaType", "application/vnd.evil+json"), lambda manifest: manifest["layers"].pop(),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(
    machine: Machine, registry: Registry, canary: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    before = {str(name) for name, _ in machine.engine.images()}
    assert pulled(machine, registry, archive(member("x", data=b"x")), change=change) is None
    assert {str(name) for name, _ in machine.engine.images()} == before


def test_a_layer_that_unpacks_to_hundreds_of_times_its_size_is_refused_and_the_room_is_given_back(
    machine: Machine, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T6: the limit is lower here, so that nothing large has to be written."""
    monkeypatch.setattr(compression, "FREE_BYTES", 1 << 20)
    bomb = archive(member("zeros", data=bytes(64 << 20)))
    packed = gzip.compress(bomb)
    image = Image.of(ImageConfig(cmd=("true",)), [layer_of(GOOD), Layer(
        Descriptor(LAYER_TAR_GZIP, Digest.of(packed), len(packed)), DiffID(Digest.of(bomb)))])  # fmt: skip
    registry.add("bomb", "1", image, {Digest.of(data): data for data in (GOOD, packed, image.raw_config)})
    engine = machine.engine

    def used() -> int:
        return sum(path.lstat().st_blocks for path in engine.layout.root.rglob("*")) * 512

    engine.prune()
    before = used()
    with pytest.raises(BadArchive, match="is a bomb"):
        engine.registry.pull(f"{registry.host}/bomb:1").result()
    engine.prune()
    assert used() < before + (1 << 20)
    assert engine.soundness.look().is_clean


def test_other_addresses_of_a_layer_are_never_asked(machine: Machine, registry: Registry) -> None:
    registry.requests.clear()
    elsewhere = _change("layers.1.urls", [f"http://{registry.host}/elsewhere", "http://169.254.169.254/"])
    assert pulled(machine, registry, archive(member("x", data=b"x")), change=elsewhere) is None
    assert registry.requests and all(path.startswith("/v2/") for _, path, _ in registry.requests)


@pytest.mark.parametrize(
    "hostile",
    [
        {"env": ("LD_PRELOAD=/evil.so", "PYTHONPATH=/", "GCONV_PATH=/", "BASH_ENV=/evil")},
        {"working_dir": "/proc/self/fd/7"}, {"working_dir": "../../../.."}, {"user": "0:0:0"}, {"user": "../../etc"},
        {"volumes": ("/../..",)}, {"volumes": ("/proc",)}, {"stop_signal": "KILL;rm -rf /"},
        {"entrypoint": ("/proc/self/exe",)}, {"labels": {"<script>alert(1)</script>": "\x1b]52;c;x\a"}},
        {"cmd": ("$(touch /evil)",)},
    ],
)  # fmt: skip
def test_an_images_config_is_never_obeyed_on_the_host(
    machine: Machine, canary: Path, hostile: dict[str, Any]
) -> None:
    engine = machine.engine
    box = engine.image("box")
    config = replace(box.config, **hostile)
    engine.store.images.put(Image.of(config, box.layers), None)
    image = Image.of(config, box.layers)
    try:
        seen = machine.run("sh", "-c", "pwd; ls /", image=str(image.id)).stdout
        assert str(canary) not in seen
    except NbcontainError as error:
        assert error.message
    assert not Path("/evil").exists()
    assert machine.sh("echo fine") == "fine\n"


@pytest.mark.parametrize("word", ["SIGRTMIN+99", "0", "-9", "KILL;rm -rf /"])
def test_a_container_ends_whatever_its_image_calls_the_signal_for_that(machine: Machine, word: str) -> None:
    engine = machine.engine
    box = engine.image("box")
    image = Image.of(replace(box.config, stop_signal=word), box.layers)
    engine.store.images.put(image, None)
    stopped = machine.start("echo on; sleep 100", image=str(image.id))
    engine.life.stop(stopped, 0)
    assert stopped.status == "exited"
    # And where whoever wanted it lets go of it.
    task = engine.run(RunOptions(image=str(image.id), command=("sleep", "100"), name="left"))
    until(lambda: "left" in [each.name for each in engine.containers(("status=running",))])
    left = engine.container("left")
    task.cancel()
    until(lambda: left.status == "exited")
