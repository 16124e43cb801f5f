"""F4: a disk that is full, over its quota or broken, at any write: one clear error, no damage, and it works again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs
from nbcontain.engine import Engine
from reliability import deeds, faults
from reliability.test_kill import counted
from rounds import SOAK, share

GROWING = ("import", "build", "tag", "create", "pull", "push", "load", "push_plain", "commit", "save",
           "convert")  # fmt: skip
ERRORS = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EIO": errno.EIO}
NEEDS_ROOM = frozenset({"open", "write", "mkdir", "rename", "fsync", "syncfs", "link", "symlink", "setxattr"})
STRIDE = {
    "build": 110, "import": 15, "create": 14, "tag": 6, "pull": 45, "push": 9, "load": 45, "commit": 15, "save": 33,
    "convert": 12, "push_plain": 27,
}  # fmt: skip
"""In `make test` every so many-th write, another one with each error; `make soak` takes each."""


@pytest.mark.slow
@pytest.mark.timeout(20_000 if SOAK else 120)
@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("number", ERRORS)
def test_a_write_that_fails_is_one_clear_error_and_no_damage(
    name: str, number: str, template: Path, inputs: Path, place: Path
) -> None:
    deed, root = deeds.DEEDS[name], place / f"full-{name}"
    whole = deeds.elsewhere(
        lambda: counted(deed, deeds.copied(template, root), inputs, faults.Disk(root, only=NEEDS_ROOM))
    )
    assert whole.status == 0, whole.words
    after = deeds.elsewhere(lambda: deeds.seen(root)).words
    first = 1 if SOAK else 1 + list(ERRORS).index(number) * STRIDE[name] // len(ERRORS)
    points = share(range(first, int(whole.words) + 1, 1 if SOAK else STRIDE[name]))
    for point in points:
        deeds.copied(template, root)
        disk = faults.Disk(root, at=point, do=faults.failing(ERRORS[number]), for_good=True, only=NEEDS_ROOM)
        ended = deeds.elsewhere(lambda disk=disk: counted(deed, root, inputs, disk))  # type: ignore[misc]
        assert ended.status in (0, 1), (name, point, ended.words)
        if ended.status:
            assert str(place) in ended.words, (name, point, ended.words)
            assert "try:" in ended.words, (name, point, ended.words)
        left = deeds.elsewhere(lambda: deeds.torn(root) + "\n".join(deeds.problems(root, fix=True)))
        assert (left.status, left.words) == (0, ""), (name, point, left.words)
        # Where nothing is left to be done, nothing is written.
        again = deeds.elsewhere(lambda: (counted(deed, root, inputs), deeds.seen(root))[1])
        assert (again.status, again.words) == (0, after), (name, point, again.words)
    print(f"{name}: {number} from {len(points)} of {whole.words} writes on")


@contextmanager
def small_disk(place: Path, size_kib: int) -> Iterator[Path]:
    """A file system of its own. Mounting one takes root."""
    if os.geteuid() != 0:
        needs.missing("a small disk is mounted, which only root may")
    disk = place / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=700", "small", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


SIZES_KIB = share([*range(256, 65536, 326)] if SOAK else [1024, 3000, 5000, 16384])


@pytest.mark.slow
@pytest.mark.timeout(20_000 if SOAK else 120)
@pytest.mark.parametrize("name", ["import", "build"])
def test_a_small_disk_holds_it_or_says_that_it_is_full_and_gives_the_room_back(
    name: str, inputs: Path, place: Path
) -> None:
    from nbcontain.build.plan import BuildOptions

    def attempt(root: Path) -> None:
        with Engine(root) as engine:
            if name == "import":
                engine.archives.import_image(str(inputs), "imported").result()
            else:
                box = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "true"]\nCOPY . /again\n'
                engine.build(box, BuildOptions(tags=("box",), context=inputs)).result()

    def used(disk: Path) -> int:
        status = os.statvfs(disk)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    outcomes = []
    for size_kib in SIZES_KIB:
        with small_disk(place, size_kib) as disk:
            ended = deeds.elsewhere(lambda: attempt(disk / "store"))  # noqa: B023
            outcomes.append(ended.status)
            assert ended.status in (0, 1), (size_kib, ended.words)
            left = deeds.elsewhere(lambda: "\n".join(deeds.problems(disk / "store", fix=True)))  # noqa: B023
            assert (left.status, left.words) == (0, ""), (size_kib, left.words)
            if ended.status:
                assert str(disk) in ended.words or "No space" in ended.words, (size_kib, ended.words)

                def prune() -> None:
                    with Engine(disk / "store") as engine:  # noqa: B023
                        for record in (*engine.layout.cache.iterdir(), *engine.layout.builds.glob("*")):
                            os.utime(record, (0, 0))
                        engine.prune()

                assert deeds.elsewhere(prune).status == 0
                assert used(disk) <= 1 << 20, (size_kib, used(disk))
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                again = deeds.elsewhere(lambda: attempt(disk / "store"))  # noqa: B023
                assert again.status == 0, (size_kib, again.words)
    assert {0, 1} <= set(outcomes)
