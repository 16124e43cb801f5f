"""F3: what may be left after a power cut is sound after one repair, and nothing named is ever readable but wrong."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.linux import boot
from nbcontain.oci.digest import ChainID, Digest
from nbcontain.runtime.bundle import Bundle
from nbcontain.store.check import Finding
from reliability import deeds, faults, power
from reliability.faults import Step
from rounds import SOAK, share

STATES = int(os.environ.get("NBCONTAIN_SOAK_STATES", "10000")) if SOAK else 16
AGAIN = 20 if SOAK else 8
"""After every so many-th state the command is given again."""


NAMES = frozenset({"box", "old", "loose", deeds.OVER})
"""What images are called in the store that is there before."""
REMOVING = frozenset({"rmi", "prune"})


def readable_but_wrong(root: Path, new: frozenset[str], names: frozenset[str]) -> list[str]:
    """What somebody could come upon and take for good: a named image or a listed container that is not whole.

    And a snapshot of these `new` ones that is taken for whole while its content did not reach the disk; and which of
    these `names` are gone.
    """
    with Engine(root) as engine:
        here = {name.familiar.removesuffix(":latest") for name, _ in engine.images() if name is not None}
        wrong = [f"the name {name} is gone" for name in sorted(names - here)]
        for name in sorted(new & set(engine.store.snapshots.walk())):
            if engine.store.snapshots.exists(ChainID(Digest("sha256", name))):
                content = engine.layout.snapshots / name / "fs" / power.CONTENT
                if not content.exists() or content.read_text() != name:
                    wrong.append(f"snapshot {name[:12]} is used, and its files are not there")
        report = engine.soundness.look(full=True)
        # A cache record that is damaged is dropped when it is read, and leftovers are nobody's; all else is a lie.
        harmless = {"cache-useless", "leftover", "layer-of-nobody", "container-unfinished", "snapshot-on-nothing"}
        wrong += [
            f"{each.kind} {each.subject}: {each.detail}"
            for each in report.findings
            if each.kind not in harmless and not is_passing(each)
        ]
        for container in engine.containers():
            if container.info.remove:
                # It was never meant to outlive its run, and is not synced: repair takes it away.
                continue
            try:
                assert container.status in ("created", "exited")
                assert container.bundle.spec.process.args
                engine.store.snapshots.active(container.id)
            except (NbcontainError, OSError, ValueError) as error:
                wrong.append(f"container {container.id[:12]}: {error!r}")
        for name, image in engine.images():
            for layer in image.layers:
                with engine.store.blobs.open(layer.descriptor.digest) as blob:
                    blob.read()
            assert name is None or engine.store.images.get(name) == image
        wrong += [f"left {each.kind} {each.subject}" for each in engine.soundness.look(full=True, fix=True).left]
    return wrong


def is_passing(finding: Finding) -> bool:
    """Whether it is of a container that is forgotten when it ends."""
    try:
        return finding.kind.startswith("container-") and bool(Bundle(finding.path).info.remove)
    except (OSError, ValueError, TypeError, NbcontainError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(20_000 if SOAK else 120)
@pytest.mark.parametrize("name", deeds.DEEDS)
def test_after_a_power_cut_nothing_named_is_wrong(name: str, template: Path, inputs: Path, place: Path) -> None:
    root, kept = place / "power", place / "power-before"
    deeds.copied(template, root)
    deeds.copied(template, kept)
    record, made = place / "record", place / "made"

    def recording() -> None:
        disk = faults.Disk(root, keep_steps=True).install()
        with Engine(root) as engine:
            deeds.DEEDS[name](engine, inputs)
            # What the background does a moment later.
            engine.store.write_back.settle()
            with engine.store.shared():
                engine.store.snapshots.settle()
        record.write_bytes(pickle.dumps(disk.steps))

    done = deeds.elsewhere(recording)
    assert done.status == 0, done.words
    steps: list[Step] = pickle.loads(record.read_bytes())
    start, sources = power.loaded(kept)
    new, names = power.published(steps), frozenset() if name in REMOVING else NAMES
    shutil.rmtree(made, ignore_errors=True)
    subprocess.run(["cp", "-a", root / "snapshots", made], check=True)
    steps = power.with_content(steps)
    known = list(power.states(start, steps, every=1 if SOAK else max(1, len(steps) // 25)))
    chosen = share(known[:: max(1, len(known) // STATES)])

    def looking() -> str:
        bad = []
        # The machine has been started again.
        boot.boot_id = lambda: "another boot"
        for number, (word, tree) in enumerate(chosen):
            # Each at a place of its own: what is still being written out for the one before finds nothing of this one.
            at = root.with_name(f"power-{number}")
            power.written(tree, sources, at, made)
            deeds.at_home(at, template)
            bad += [f"{word}: {each}" for each in readable_but_wrong(at, new, names)]
            if number % AGAIN == 0:

                def again(at: Path = at) -> None:
                    with Engine(at) as engine:
                        deeds.DEEDS[name](engine, inputs)

                # In a process of its own, which takes its threads with it: they would still be writing out.
                if (ended := deeds.elsewhere(again)).status:
                    bad.append(f"{word}: not again: {ended.words}")
                bad += [f"{word}: afterwards {each}" for each in deeds.problems(at, fix=False)]
            shutil.rmtree(at, ignore_errors=True)
        return "\n".join(bad)

    looked = deeds.elsewhere(looking)
    print(f"{name}: {len(chosen)} of {len(known)} states from {len(steps)} operations")
    assert (looked.status, looked.words) == (0, ""), looked.words[:3000]
