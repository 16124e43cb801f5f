"""Tar archives for tests, benign and hostile, and what a directory holds in a form that can be compared."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR, Descriptor, Layer
from nbcontain.store import tar
from nbcontain.store.compression import uncompressed
from nbcontain.store.layers import Applied, apply_tar
from nbcontain.store.plain_members import PlainMembers
from nbcontain.store.tar_writing import write_archive

Member = tuple[tar.Entry, bytes]

PLAIN: type[PlainMembers] | None = None
"""What makes plain members when `unpack` does."""


def member(name: str | bytes, kind: bytes = tar.REGULAR, data: bytes = b"", mode: int = 0o644, **rest: Any) -> Member:
    """An entry of the caller's own, so that no test needs root to keep its owner."""
    raw = name.encode() if isinstance(name, str) else name
    fields: dict[str, Any] = {"uid": os.getuid(), "gid": os.getgid(), "mtime_ns": 1_000_000_000} | rest
    return tar.Entry(raw, kind, mode, size=len(data), **fields), data


def directory(name: str, mode: int = 0o755, **rest: Any) -> Member:
    return member(name, tar.DIRECTORY, mode=mode, **rest)


def symlink(name: str, target: str) -> Member:
    return member(name, tar.SYMLINK, link=target.encode())


def link(name: str, target: str) -> Member:
    return member(name, tar.LINK, link=target.encode())


def archive(*members: Member) -> bytes:
    out = io.BytesIO()
    write_archive(list(members), out.write)
    return out.getvalue()


def unpack(root: Path, data: bytes, **options: object) -> Applied:
    all_options: dict[str, Any] = {"userxattr": True, "plain": PLAIN, **options}
    return apply_tar(uncompressed(io.BytesIO(data)), str(root), **all_options)


def layer_of(data: bytes) -> Layer:
    digest = Digest.of(data)
    return Layer(Descriptor(LAYER_TAR, digest, len(data)), DiffID(digest))


def listing(root: Path) -> dict[str, str]:
    """Path → what is there, in a word or two."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        mode = status.st_mode
        if stat.S_ISLNK(mode):
            words = f"-> {os.readlink(path)}"
        elif stat.S_ISDIR(mode):
            words = "directory"
            if _is_opaque(path):
                words = "opaque directory"
        elif stat.S_ISCHR(mode):
            words = "whiteout" if status.st_rdev == 0 else "device"
        elif stat.S_ISREG(mode):
            words = path.read_bytes().decode()
        else:
            words = oct(stat.S_IFMT(mode))
        found[str(path.relative_to(root))] = words
    return found


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "user.overlay.opaque") == b"y"
    except OSError:
        return False
