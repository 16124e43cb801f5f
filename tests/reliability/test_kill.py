"""F1: a process is killed at every operation on the disk; nothing is ever half there, and the same again succeeds."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nbcontain.engine import Engine
from reliability import deeds, faults
from rounds import SOAK, share

STRIDE = {"build": 60, "import": 7, "import_over": 13, "create": 7, "run": 7, "pull": 16, "push": 6, "load": 20,
          "push_plain": 16, "commit": 9, "save": 12, "convert": 9, "volume_create": 11, "volume_rm": 3,
          "volume_use": 37, "rm": 3, "prune": 2, "move_tag": 2, "rmi": 2, "tag": 2}  # fmt: skip
"""In `make test` every so many-th operation; `make soak` takes each."""


def counted(deed: deeds.Deed, root: Path, inputs: Path, disk: faults.Disk | None = None) -> int:
    """Do it with the wrapped disk; how many operations it took."""
    disk = (disk or faults.Disk(root)).install()
    with Engine(root) as engine:
        deed(engine, inputs)
    return disk.count


def mended(root: Path) -> str:
    """What can be seen of it is whole; what is left after one repair."""
    deeds.seen(root)
    return deeds.torn(root) + "\n".join(deeds.problems(root, fix=True))


@pytest.mark.slow
@pytest.mark.timeout(20_000 if SOAK else 120)
@pytest.mark.parametrize("name", deeds.DEEDS)
def test_killed_at_any_operation_nothing_is_half_there_and_the_same_again_succeeds(
    name: str, template: Path, inputs: Path, place: Path
) -> None:
    deed, root = deeds.DEEDS[name], place / f"kill-{name}"
    before = deeds.elsewhere(lambda: deeds.seen(template)).words
    whole = deeds.elsewhere(lambda: counted(deed, deeds.copied(template, root), inputs))
    assert whole.status == 0, whole.words
    after = deeds.elsewhere(lambda: deeds.seen(root)).words
    count = int(whole.words)
    killed = 0
    points = share(range(1, count + 1, 1 if SOAK else STRIDE.get(name, 1)))
    for point in points:
        deeds.copied(template, root)

        def dying(point: int = point) -> int:
            deeds.alone()
            return counted(deed, root, inputs, faults.Disk(root, at=point, do=faults.die))

        ended = deeds.elsewhere(dying)
        if ended.signal != signal.SIGKILL:
            # Two threads write: another run may have an operation less.
            assert ended.status == 0, ended.words
            continue
        killed += 1
        # Somebody may still be ending what the dead process had begun: its leash is gone.
        left = deeds.elsewhere(lambda: mended(root))
        assert (left.status, left.words) == (0, ""), (name, point, left.words)
        again = deeds.elsewhere(lambda: counted(deed, root, inputs))
        assert again.status == 0, (name, point, again.words)
        sound = deeds.elsewhere(lambda: "\n".join(deeds.problems(root, fix=False)) or deeds.seen(root))
        assert (sound.status, sound.words) == (0, after), (name, point, before, sound.words)
    print(f"{name}: killed at {killed} of {len(points)} of {count} operations")
    assert killed


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["blob", "snapshot", "index"])
def test_a_repair_that_is_killed_is_finished_by_the_next(
    damage: str, template: Path, inputs: Path, place: Path
) -> None:
    root = place / f"repair-{damage}"

    def hurt() -> None:
        deeds.copied(template, root)
        with Engine(root) as engine:
            layer = engine.image("loose").layers[-1]
            if damage == "blob":
                path = engine.store.blobs.path(layer.descriptor.digest)
                path.chmod(0o600)
                path.write_bytes(b"x" * layer.descriptor.size)
            elif damage == "snapshot":
                chain = engine.image("loose").chain_id
                assert chain is not None
                (engine.store.snapshots.shelf.snapshot(chain) / "parent").write_text("nonsense")
            else:
                engine.layout.index.write_text("{")

    def repairing(point: int) -> int:
        deeds.alone()
        return counted(deeds.repair, root, inputs, faults.Disk(root, at=point, do=faults.die))

    assert deeds.elsewhere(hurt).status == 0
    whole = deeds.elsewhere(lambda: repairing(0))
    assert whole.status == 0, whole.words
    after = deeds.elsewhere(lambda: deeds.seen(root)).words
    for point in range(1, int(whole.words) + 1, 1 if SOAK else 3):
        assert deeds.elsewhere(hurt).status == 0
        deeds.elsewhere(lambda point=point: repairing(point))  # type: ignore[misc]
        left = deeds.elsewhere(lambda: "\n".join(deeds.problems(root, fix=True)))
        assert (left.status, left.words) == (0, ""), (damage, point, left.words)
        assert deeds.elsewhere(lambda: deeds.seen(root)).words == after, (damage, point)
