"""Layers: unpacked and made, as ratios to a C untar of the same archive on one thread.

python benchmarks/layers.py [DEBIAN.tar] - without an archive, mmdebstrap makes one (170 MB, 8,700 files).
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

from measuring import heading, interleaved, private_disk, ratio, row, spawned

from nbcontain.engine import Engine
from nbcontain.oci.digest import DiffID, Digest, chain_id
from nbcontain.oci.image import LAYER_TAR, Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from nbcontain.store.layer_writer import layer_writer
from nbcontain.store.stacks import Stacks

ROUNDS = 5
HERE = Path(__file__).parent


def main() -> None:
    with private_disk() as disk:
        archive = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else debian(disk)
        untar = disk / "untar"
        subprocess.run(["gcc", "-O2", "-o", str(untar), str(HERE / "untar.c")], check=True)
        with Engine(disk / "store") as engine:
            measure(engine, disk, archive, untar)
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB here")


def debian(disk: Path) -> Path:
    made = disk / "debian.tar"
    subprocess.run(["mmdebstrap", "--variant=minbase", "bookworm", str(made)], check=True)
    return made


def measure(engine: Engine, disk: Path, archive: Path, untar: Path) -> None:
    store = engine.store
    stacks = Stacks(store, engine.launcher, engine.host.ids)
    plain = as_it_is(engine, archive)
    with layer_writer(store.blobs) as writer, archive.open("rb") as file:
        while data := file.read(1 << 20):
            writer.write(data)
        packed = writer.commit()
    store.images.put(Image.of(ImageConfig(), (packed,)), Reference.parse("debian"))
    numbers = itertools.count()

    def unpacked(layer: Layer) -> None:
        # On top of a stack that nobody has, so that it is unpacked each time.
        stacks.unpack((layer,))

    def forgotten(layer: Layer) -> None:
        name = chain_id(None, layer.diff_id)
        if store.snapshots.exists(name):
            away = disk / f"away-{next(numbers)}"
            os.rename(store.layout.snapshot(name), away)

    def unpack_plain() -> float:
        forgotten(plain)
        return timed(lambda: unpacked(plain))

    def unpack_packed() -> float:
        forgotten(packed)
        return timed(lambda: unpacked(packed))

    def untarred() -> float:
        target = disk / f"untarred-{next(numbers)}"
        target.mkdir()
        return timed(lambda: spawned([str(untar), str(archive), str(target)]))

    def synced_untarred() -> float:
        target = disk / f"untarred-{next(numbers)}"
        target.mkdir()
        return timed(lambda: spawned(["sh", "-c", f"{untar} {archive} {target} && sync -f {target}"]))

    def committed() -> float:
        active = store.snapshots.prepare(f"bench-{next(numbers)}", None)
        spawned([str(untar), str(archive), str(store.snapshots.upper(active))])
        spawned(["sync", "-f", str(disk)])
        for blob in list(store.blobs.walk()):
            if blob not in (plain.descriptor.digest, packed.descriptor.digest):
                store.blobs.remove(blob)
        made = timed(lambda: stacks.pack(active))
        os.rename(store.layout.active(active.key), disk / f"away-{next(numbers)}")
        return made

    cases = {
        "untar.c": untarred,
        "untar.c, synced": synced_untarred,
        "unpack, plain": unpack_plain,
        "unpack, gzip": unpack_packed,
        "commit": committed,
    }
    found = interleaved(ROUNDS, cases, disk)
    heading(f"{archive.name}, {archive.stat().st_size / 1e6:.0f} MB")
    for name, times in found.items():
        row(name, times, f"{ratio(found, name, 'untar.c'):.2f} x untar.c")


def as_it_is(engine: Engine, archive: Path) -> Layer:
    with archive.open("rb") as file:
        descriptor = engine.store.blobs.put(iter(lambda: file.read(1 << 20), b""), LAYER_TAR)
    return Layer(descriptor, DiffID(Digest("sha256", descriptor.digest.hex)))


def timed(work: object) -> float:
    import time

    began = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
