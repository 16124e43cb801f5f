"""Programs of other machines: whether this kernel hands them to an emulator (kernel: admin-guide/binfmt-misc).

What decides in a container is the flag F: with it the emulator was opened when it was registered, without it
its path is looked up in the container, where it is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from nbcontain.values import dataclass

PLACE = Path("/proc/sys/fs/binfmt_misc")
_MACHINES = {
    "amd64": (2, 1, 62), "386": (1, 1, 3), "arm64": (2, 1, 183), "arm": (1, 1, 40), "riscv64": (2, 1, 243),
    "ppc64le": (2, 1, 21), "s390x": (2, 2, 22), "loong64": (2, 1, 258), "mips64le": (2, 1, 8),
}  # fmt: skip
"""Class, byte order and machine of an ELF header, by Go's word for the architecture."""
_LIMIT_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Emulator:
    """One registration."""

    name: str
    interpreter: str
    is_enabled: bool
    flags: str
    offset: int
    magic: bytes
    mask: bytes

    def takes(self, architecture: str) -> bool:
        """Whether programs of that architecture are its business."""
        if architecture not in _MACHINES or not self.magic:
            return False
        head = header(architecture)[self.offset : self.offset + len(self.magic)]
        mask = self.mask or b"\xff" * len(self.magic)
        return len(head) == len(self.magic) and all(
            a & m == b & m for a, b, m in zip(head, self.magic, mask, strict=False)
        )


def header(architecture: str) -> bytes:
    """How an executable of that architecture begins (gABI, ELF header), as far as registrations look."""
    size, order, machine = _MACHINES[architecture]
    word = "little" if order == 1 else "big"
    kind = (2).to_bytes(2, word)  # type: ignore[arg-type]
    return b"\x7fELF" + bytes((size, order, 1)) + bytes(9) + kind + machine.to_bytes(2, word)  # type: ignore[arg-type]


def parse(name: str, text: str) -> Emulator:
    """What a file of binfmt_misc says. Raises ValueError."""
    first, *rest = text.splitlines() or [""]
    said: Mapping[str, str] = {key.rstrip(":"): value for key, _, value in (line.partition(" ") for line in rest)}
    return Emulator(
        name, said.get("interpreter", ""), first == "enabled", said.get("flags", ""), int(said.get("offset", "0")),
        bytes.fromhex(said.get("magic", "")), bytes.fromhex(said.get("mask", "")),
    )  # fmt: skip


def registered(place: Path = PLACE) -> tuple[Emulator, ...] | None:
    """What is registered; None where nobody can see that, since binfmt_misc is not mounted."""
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return None
    if "status" not in names:
        return None
    found = []
    for name in names:
        if name in ("status", "register"):
            continue
        try:
            with open(place / name, encoding="ascii", errors="replace") as file:
                found.append(parse(name, file.read(_LIMIT_BYTES)))
        except (OSError, ValueError):
            # Taken away meanwhile, or of a kind that is told by its name's end and not by bytes.
            continue
    return tuple(found)


def explained(architecture: str, emulators: Iterable[Emulator] | None) -> tuple[str, str]:
    """Why such programs do not run here, and what to do about it."""
    install = "As root: apt-get install qemu-user-static binfmt-support (Debian), which registers emulators with flag F"
    if emulators is None:
        return "no emulator is known here: binfmt_misc is not mounted", install
    found = [each for each in emulators if each.takes(architecture)]
    if not found:
        return f"no emulator is registered for {architecture}", install
    first = found[0]
    if not first.is_enabled:
        return f"the emulator {first.name} is disabled", f"As root: echo 1 > {PLACE / first.name}"
    if "F" not in first.flags:
        why = f"the emulator {first.interpreter} is registered without flag F, so that containers cannot see it"
        return why, install
    return f"the emulator {first.interpreter} could not run it", ""
