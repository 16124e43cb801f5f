"""ADD's local archives: told by their content, and unpacked onto a directory. Run by init, but for the telling.

A tar, plain or compressed with gzip, bzip2, xz or zstd. A file that merely begins like one is copied as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from nbcontain.build.walk import Entry, opened_file
from nbcontain.errors import BadArchive
from nbcontain.store import compression, tar
from nbcontain.store.owners import Ledger
from nbcontain.store.unpack import add_tar
from nbcontain.values import replace


def with_archives(root_fd: int, entries: Iterable[Entry]) -> list[Entry]:
    """The entries, those that are archives and sources themselves marked as such."""
    return [
        replace(entry, is_archive=True)
        if entry.kind == "file" and not entry.is_content and _is_archive(root_fd, entry.path)
        else entry
        for entry in entries
    ]


def _is_archive(root_fd: int, path: str) -> bool:
    """Whether a file is, uncompressed, a tar with at least one entry."""
    with opened_file(root_fd, path) as fd, os.fdopen(os.dup(fd), "rb", buffering=0) as raw:
        try:
            stream = compression.uncompressed(raw)
            block, size = bytearray(tar.BLOCK), 0
            while size < tar.BLOCK and (count := stream.readinto(memoryview(block)[size:])):
                size += count
        except BadArchive:
            return False
        return _begins_a_tar(bytes(block[:size]))


def _begins_a_tar(block: bytes) -> bool:
    if len(block) < tar.BLOCK or not any(block[: tar.BLOCK]):
        return False
    header = block[: tar.BLOCK]
    stated = header[148:156].strip(b"\0 ")
    if not stated.isdigit():
        return False
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return stated.translate(None, b"01234567") == b"" and int(stated, 8) == total


def unpack(fd: int, directory: str, owner: tuple[int, int] | None, ledger: Ledger | None = None) -> int:
    """Unpack an archive onto a directory, with `owner` as everybody's; gives how many owners could not be kept.

    What is there is merged with, or replaced, as it is when one extracts a tar. Raises BadArchive. `ledger` is that of
    the whole root, of which `directory` is a part.
    """
    within = ledger.below(os.fsencode(directory).strip(b"/")) if ledger else None
    with os.fdopen(os.dup(fd), "rb", buffering=0) as raw:
        return add_tar(raw, directory, owner=owner, ledger=within).lost_owners
