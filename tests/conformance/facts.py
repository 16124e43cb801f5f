"""What an image is, as facts that two builders can be compared by: words by key.

`tree:/path` says an entry of the file system, `config:Field` a field of the config, `history:N` a line of the
history, `layers` how many there are. What a base image has is left out.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

Facts = dict[str, str]
Tree = dict[str, str]

OLD_S = 1_500_000_000
"""Time stamps before this were set by somebody; later ones are of the build."""
FIELDS = (
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "StopSignal",
    "Healthcheck", "Shell", "OnBuild",
)  # fmt: skip
_KINDS = {
    tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink",
    tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
}  # fmt: skip


class Base:
    """The image that cases start from: its tree, and how much of the history is its."""

    def __init__(self, tree: Tree, diff_ids: list[str], history: int) -> None:
        self.tree, self.diff_ids, self.history = tree, diff_ids, history


def facts_of(config: Mapping[str, Any], layers: Iterable[Callable[[], IO[bytes]]], base: Base | None) -> Facts:
    """The facts of an image by its config and its layers as tar streams, lowest first."""
    diff_ids = config["rootfs"].get("diff_ids") or []
    is_on_base = base is not None and diff_ids[: len(base.diff_ids)] == base.diff_ids
    tree: Tree = dict(base.tree) if base and is_on_base else {}
    skip = len(base.diff_ids) if base and is_on_base else 0
    full: list[bool] = []
    for opened in list(layers)[skip:]:
        with opened() as stream:
            full.append(apply_layer(tree, stream))
    below = base.tree if base and is_on_base else {}
    found = {f"tree:{path}": words for path, words in tree.items() if below.get(path) != words}
    found |= {f"tree:{path}": "absent" for path in below if path not in tree}
    runs: Mapping[str, Any] = config.get("config") or {}
    for name in FIELDS:
        value = runs.get(name)
        if value:
            found[f"config:{name}"] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if config.get("author"):
        found["config:author"] = config["author"]
    # An image without a history of its own, as an imported one may be, begins with the first instruction.
    history = (config.get("history") or [])[base.history if base and is_on_base else 0 :]
    made = iter(full)
    for number, entry in enumerate(history):
        said = entry.get("created_by", "").removesuffix(" # buildkit")
        # A layer with nothing in it is none: docker makes one where a step could have changed something.
        is_layer = not entry.get("empty_layer") and next(made, False)
        found[f"history:{number:02}"] = ("layer " if is_layer else "empty ") + said
    found["layers"] = str(sum(full))
    return found


def apply_layer(tree: Tree, stream: IO[bytes]) -> bool:
    """Lay one layer on a tree (image-spec layer.md). Says whether there was anything in it."""
    added: dict[str, str] = {}
    opaque: list[str] = []
    gone: list[str] = []
    links: dict[str, list[str]] = {}
    is_full = False
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            is_full = True
            path = "/" + member.name.removeprefix("./").strip("/")
            parent, _, name = path.rpartition("/")
            if path in ("/", "/."):
                continue
            if name == ".wh..wh..opq":
                opaque.append(parent)
            elif name.startswith(".wh."):
                if not name.startswith(".wh..wh."):
                    gone.append(f"{parent}/{name[4:]}")
            elif member.type == tarfile.LNKTYPE:
                target = "/" + member.linkname.removeprefix("./").strip("/")
                links.setdefault(target, []).append(path)
                added[path] = added.get(target) or tree.get(target, "link to nothing")
            else:
                added[path] = _entry(member, tar)
    for path in gone:
        for each in [each for each in tree if each == path or each.startswith(path + "/")]:
            del tree[each]
    for path in opaque:
        for each in [each for each in tree if each.startswith(path + "/")]:
            del tree[each]
    for path, words in added.items():
        if not words.startswith("dir"):
            for each in [each for each in tree if each.startswith(path + "/")]:
                del tree[each]
        tree[path] = words
    for target, others in links.items():
        names = sorted([target, *others])
        for each in names:
            tree[each] = f"{added.get(target, tree.get(target, ''))} linked={','.join(names)}"
    return is_full


def _entry(member: tarfile.TarInfo, tar: tarfile.TarFile) -> str:
    kind = _KINDS.get(member.type, repr(member.type))
    words = [kind, f"{member.mode & 0o7777:o}" if kind != "symlink" else "-", f"{member.uid}:{member.gid}"]
    if kind == "file":
        stream = tar.extractfile(member)
        data = stream.read() if stream else b""
        words += [f"size={len(data)}", f"sha256={hashlib.sha256(data).hexdigest()[:16]}"]
    if kind == "symlink":
        words.append(f"-> {member.linkname}")
    if kind in ("char", "block"):
        words.append(f"{member.devmajor}:{member.devminor}")
    # Directories and links: docker's own layers keep them as they come, and they say when something changed below.
    if int(member.mtime) < OLD_S:
        words.append(f"mtime={int(member.mtime)}")
    prefix = "SCHILY.xattr."
    words += [
        f"{key.removeprefix(prefix)}={value.encode('utf-8', 'surrogateescape').hex()}"
        for key, value in sorted(member.pax_headers.items())
        if key.startswith(prefix)
    ]
    return " ".join(words)
