"""After a restart: what was not on the disk yet when the power went is as if it had not been (see `write_back`)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import BadDigest, DigestMismatch, DiskReadOnly, StoreError
from nbcontain.linux import boot
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import REF_NAME, Descriptor, Index
from nbcontain.store import files
from nbcontain.store.blobs import Blobs
from nbcontain.store.check import Check
from nbcontain.store.layout import INDEX_LIMIT
from nbcontain.store.listed import apart_from
from nbcontain.store.write_back import SYNCED_MODE, recorded_boot, recorded_index, unmarked

if TYPE_CHECKING:
    from nbcontain.store.store import Store

_READ_BYTES = 1 << 20


def recover(store: Store) -> None:
    """Put a store right that was last used in another boot of the machine, where that has not been done yet.

    May be killed at any line, and done again. A store that cannot be written to stays as it is: whoever reads a blob
    verifies it.
    """
    layout = store.layout
    with (
        suppress(DiskReadOnly, PermissionError),
        files.disk(layout.root),
        files.lock(layout.index_lock, exclusive=True),
    ):
        last = recorded_boot(layout)
        if not last or last == boot.boot_id():
            return
        for path in unmarked(layout):
            _judge(store.blobs, path)
        check = Check(store, full=False)
        entries = merged(
            [entry for entry in _entries(_read(layout.index)) if check.is_whole(entry)],
            [entry for entry in _entries(recorded_index(layout)) if check.is_whole(entry)],
        )
        files.replace(layout.index, codec.dump_index(Index(tuple(entries))), 0o644)
        files.unlink(layout.unsettled)
        # What is removed from now on is not removed from this record: it may not come back.
        files.sync_directory(layout.root)


def merged(newest: Sequence[Descriptor], settled: Sequence[Descriptor]) -> list[Descriptor]:
    """The newest entries, and what they lack of those that had been settled: names, and images without one. Pure."""
    names = {entry.annotations.get(REF_NAME) for entry in newest}
    digests = {entry.digest for entry in newest}
    return [*newest, *apart_from(names, digests, settled)]


def _judge(blobs: Blobs, path: Path) -> None:
    """Mark a blob whose bytes came through, and remove one whose bytes did not."""
    try:
        digest = Digest.parse(f"{path.parent.name}:{path.name}")
    except BadDigest:
        return
    with blobs.open(digest) as blob:
        try:
            while blob.read(_READ_BYTES):
                pass
        except (DigestMismatch, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EIO:
                raise
            files.unlink(path)
        else:
            os.fchmod(blob.fileno(), SYNCED_MODE)


def _read(path: Path) -> bytes | None:
    try:
        return files.read(path, INDEX_LIMIT)
    except (FileNotFoundError, StoreError):
        return None


def _entries(index: bytes | None) -> Sequence[Descriptor]:
    """None where it cannot be read: then the other one says what there is."""
    try:
        return codec.parse_index(index or b"").manifests
    except StoreError:
        return ()
