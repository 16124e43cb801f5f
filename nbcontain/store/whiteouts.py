"""What overlayfs and the image specification call deleted, and which attributes are a layer's business."""

from __future__ import annotations

import errno
import os
import stat

WHITEOUT, OPAQUE, META = b".wh.", b".wh..wh..opq", b".wh..wh."
"""In a tar: before a deleted name; a directory hides all below it; metadata of aufs."""


def opaque_xattr(*, userxattr: bool) -> bytes:
    """The attribute that makes a directory opaque; the user's kind where overlay is mounted with `userxattr`."""
    return b"user.overlay.opaque" if userxattr else b"trusted.overlay.opaque"


def is_opaque(place: int | bytes, xattr: bytes) -> bool:
    """Whether the directory, an fd or a path, hides what lies below it."""
    try:
        # An fd cannot be asked not to follow, and has nothing to follow.
        return os.getxattr(place, xattr, follow_symlinks=isinstance(place, int)) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def join(path: bytes, leaf: bytes) -> bytes:
    """A path below another; below the root, which is empty, just the name."""
    return path + b"/" + leaf if path else leaf


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this hides what is below it: a character device with number 0/0 (overlayfs.rst#whiteouts)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_kept_xattr(name: bytes) -> bool:
    """File capabilities and the user's own; never those that mean something to overlayfs or to the host."""
    return name == b"security.capability" or (name.startswith(b"user.") and not name.startswith(b"user.overlay."))


def kept_xattrs(place: int | bytes) -> dict[bytes, bytes]:
    """The attributes of a file that a layer keeps; `place` is an fd or a path."""
    follows = isinstance(place, int)
    try:
        names = os.listxattr(place, follow_symlinks=follows)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    if not names:
        return {}
    kept = [name for name in map(os.fsencode, names) if is_kept_xattr(name)]
    return {name: os.getxattr(place, name, follow_symlinks=follows) for name in kept}
