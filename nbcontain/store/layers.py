"""Layers: an OCI tar as a directory's changes, and a directory's changes as an OCI tar (image-spec layer.md).

On disk a layer is in overlayfs' form: a whiteout is a character device 0/0, a directory that hides
all below it carries an `overlay.opaque` attribute. In a tar they are `.wh.NAME` and `.wh..wh..opq`.

`apply_tar` and `tar_of` run in a worker that has made the directory its root, so that no outside
exists. They hold by themselves too: every path is walked by directory file descriptors without
following symlinks, and those inside are resolved beneath the root.
"""

from __future__ import annotations

from nbcontain.store.changes import Added, Change, Deleted, Modified, changes
from nbcontain.store.pack import tar_of
from nbcontain.store.unpack import Applied, Ids, apply_tar

__all__ = ["Added", "Applied", "Change", "Deleted", "Ids", "Modified", "apply_tar", "changes", "tar_of"]
