"""Our own functions that run where programs run: inside a root file system, with nothing outside. Run by init.

After the pivot a symlink `/evil -> ../../..` of the image's resolves inside, ids are mapped, and a
deletion in an overlay makes its whiteout. Each function takes JSON arguments and file descriptors that
were opened outside, and gives a JSON object.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from nbcontain.linux import trees
from nbcontain.runtime import rungs
from nbcontain.store import files, layers, removal, ring
from nbcontain.store.changes import above, same_metadata
from nbcontain.store.clone import clone
from nbcontain.store.fitting import fit, fit_ledger
from nbcontain.store.inventory import Recorder
from nbcontain.store.makers import Makers
from nbcontain.store.new_owners import give
from nbcontain.store.owners import LIMIT_BYTES, Ledger
from nbcontain.store.pack import Pipe
from nbcontain.store.plain_members import PlainMembers
from nbcontain.store.rooted_links import RootedLinks
from nbcontain.store.seams import Seams
from nbcontain.store.tree_changes import Comparison, TreePacker, tree_changes
from nbcontain.store.unpack_tree import TreeTarget
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

    from nbcontain.runtime.messages import Channel

    Arguments = dict[str, Any]
    Function = Callable[[Arguments, list[int]], dict[str, Any] | "Answered"]
else:
    Arguments = Function = dict


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR, errno.ELOOP})

ROOT = "."
"""What these functions begin at, and go on from by descriptors. Where no root can be changed (`translated`), "/" is
this machine's, and only those of this module can be run.
"""
FUNCTIONS: dict[str, Function] = {}


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, with something that nobody waits for: it is done afterwards, and not missed where it fails."""

    answer: dict[str, Any]
    afterwards: Callable[[], object]


def function(run: Function) -> Function:
    """Decorator: `Launcher.call` can run this by its name."""
    FUNCTIONS[run.__name__] = run
    return run


def run(channel: Channel, name: str, arguments: Arguments, fds: list[int]) -> None:
    """Run one of them, and tell its answer. Raises what it raises."""
    told = FUNCTIONS[name](arguments, fds)
    if isinstance(told, Answered):
        channel.send({"result": told.answer})
        with suppress(Exception):
            told.afterwards()
    else:
        channel.send({"result": told})


@function
def apply_tar(arguments: Arguments, fds: list[int]) -> Answered:
    """Unpack a layer's tar, which comes through a ring and whoever feeds it hashes, into the root.

    The descriptors behind the ring's: the inventory's (see `store.inventory`), which is written to afterwards if the
    answer says so, that of the `store.seams`, and the ledger's, if there is one.
    """
    source, (inventory, seams, *rest) = fds[: ring.DESCRIPTORS], fds[ring.DESCRIPTORS :]
    recorder = Recorder()
    applied = layers.apply_tar(
        ring.Received(source), ROOT, userxattr=arguments["userxattr"], ids=arguments["ids"], hashes=False,
        target_type=TreeTarget if arguments["form"] == "tree" else None,
        ledger=ledger_to(rest[0]) if rest else None, recorder=recorder, plain=PlainMembers,
    )  # fmt: skip
    files.write(seams, applied.seams.written())
    answer = {
        "entries": applied.entries, "size_bytes": applied.size_bytes, "lost_owners": applied.lost_owners,
        "inventory": recorder.is_worth_it,
    }  # fmt: skip
    return Answered(answer, lambda: files.write(inventory, recorder.packed()))


@function
def fit_layer(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Settle what of an unpacked layer, the root, depends on what it lies on, which the last descriptor shows.

    Before it: that of the `store.seams`, and where owners are recorded the ledger of all below and the layer's own.
    """
    with os.fdopen(fds[0], "rb", closefd=False) as stream:
        found = Seams.parse(stream.read())
    root = os.open(ROOT, _DIRECTORY | os.O_CLOEXEC)
    try:
        same = fit(root, fds[-1] if arguments["below"] else -1, found, userxattr=arguments["userxattr"])
        if arguments["ledger"]:
            fit_ledger(root, same, ledger_to(fds[2]), ledger_from(fds[1]))
    finally:
        os.close(root)
    return {}


@function
def changes(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """What a snapshot changes of what it stands on, as docker says it.

    In the form "overlay" the root is all the snapshots, with an upper directory and its lowers; in the form "tree" it
    is the tree, and the descriptors are those that `tar_of` gets.
    """
    letters: dict[type, str] = {layers.Added: "A", layers.Modified: "C", layers.Deleted: "D"}
    skip = frozenset(arguments["skip"]) | _ours_in(arguments)
    if arguments["form"] == "tree":
        with _compared(arguments, fds) as (root, comparison):
            found = list(tree_changes(root, comparison, skip))
        return {"changes": [[letters[type(change)], change.path] for change in found]}
    found = list(layers.changes(arguments["upper"], arguments["lowers"], userxattr=arguments["userxattr"], skip=skip))
    return {"changes": [[letters[type(change)], change.path] for change in found]}


@function
def tar_of(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Write the root to fds[0] as a layer, after removing what was made as stubs.

    The further descriptors: the ledger of all that the snapshot consists of, if `ledger` says so; its index, if
    `index` does; and what it stands on. In the `form` "overlay" and "tree" it is a snapshot's own changes that are
    written, in the form "plain" all there is. With `opens_root` the root becomes one that everybody may look at.
    """
    form = arguments["form"]
    if arguments.get("opens_root"):
        # Of a layer it says nothing, and who puts layers on each other reads whether it is opaque.
        os.chown(ROOT, 0, 0)
        os.chmod(ROOT, 0o755)
    ledger = ledger_from(fds.pop(1)) if arguments.get("ledger") else None
    for stub in sorted(arguments["stubs"], reverse=True):
        _remove_stub(stub, fds[1] if len(fds) > 1 and form == "overlay" else -1)

    pipe = Pipe(fds[0])
    ours = _ours_in(arguments)
    skip = frozenset(arguments.get("skip", ())) | ours
    if form == "tree":
        with _compared(arguments, fds[1:]) as (_, comparison):
            quiet = frozenset(above([*arguments["stubs"], *ours]))
            entries = TreePacker(ROOT, pipe.write, ledger, comparison, quiet, pipe.send).finish(skip)
    else:
        entries = layers.tar_of(
            ROOT, pipe.write, overlay=form == "overlay", userxattr=arguments["userxattr"], skip=skip, ledger=ledger,
            send=pipe.send, links=RootedLinks.of(arguments),
        )  # fmt: skip
    pipe.flush()
    return {"entries": entries}


@function
def name_makers(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Record whose the new files of an active snapshot are, which is the root (`makers`).

    The descriptors: the ledger of all that the snapshot consists of, its own, which is added to, and what it stands on.
    """
    ledger = ledger_from(fds[0], fds[1])
    makers = Makers.of_lines(arguments["makers"].encode())
    root = os.open(ROOT, _DIRECTORY | os.O_CLOEXEC)
    try:
        below = fds[2] if len(fds) > 2 else -1
        return {"named": give(root, ledger, makers, below, is_copy=arguments["form"] == "tree")}
    finally:
        os.close(root)


@contextmanager
def _compared(arguments: Arguments, fds: list[int]) -> Iterator[tuple[int, Comparison]]:
    """The root, open, beside what it was copied from, which is the last of `fds`; before that comes the index."""
    index = None
    if arguments.get("index"):
        with os.fdopen(fds[0], "rb", closefd=False) as stream:
            index = stream.read(LIMIT_BYTES)
    root = os.open(ROOT, _DIRECTORY | os.O_CLOEXEC)
    try:
        below, links = fds[-1] if fds else -1, RootedLinks.of(arguments)
        yield root, Comparison(root, below, index, arguments.get("boot", ""), links)
    finally:
        os.close(root)


@function
def copy_tree(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Copy `source` into the empty directory `target`, both paths below the root, which is the store; see `clone`.

    fds[0], if it is there, takes the index of the copy.
    """
    index = fds[0] if fds else -1
    entries, is_plain = clone(ROOT, arguments["source"], arguments["target"], index, linked=arguments["linked"],
                              boot=arguments["boot"], links=RootedLinks.of(arguments))  # fmt: skip
    return {"entries": entries, "is_plain": is_plain}


def _ours_in(arguments: Arguments) -> frozenset[str]:
    """Files of ours that lie in the tree itself, in the place of the image's: where it is a root to programs alone."""
    return rungs.FURNITURE if "rooted" in arguments else frozenset()


def ledger_from(fd: int, to: int = -1) -> Ledger:
    """What a ledger's file, or memory, says of owners; what is new is added to another."""
    with os.fdopen(fd, "rb", closefd=False) as stream:
        return Ledger(stream.read(LIMIT_BYTES), partial(files.write, to) if to >= 0 else None)


def ledger_to(fd: int) -> Ledger:
    """A ledger that knows what a file says, and adds to it what no attribute can hold."""
    return ledger_from(fd, fd)


def _remove_stub(path: str, below_fd: int) -> None:
    """A mount point that nobody used for anything else: an empty file, or an empty directory.

    By its parent's descriptor, which no symlink leads to: the step may have put another directory there
    (CVE-2024-23652). The directories above it go too, where making it was all that happened to them.
    """
    parent, name = os.path.split(path)
    try:
        fd = _opened(parent)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return
        raise
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(name, dir_fd=fd)
        elif (stat.S_ISREG(status.st_mode) and (status.st_size == 0 or rungs.is_ours(path))) or (
            parent == "/dev" and _is_stand_in(status)
        ):
            os.unlink(name, dir_fd=fd)
        else:
            return
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
    finally:
        os.close(fd)
    if below_fd >= 0:
        _remove_unchanged(parent, below_fd)


def _is_stand_in(status: os.stat_result) -> bool:
    """A node, file or link for a device, made where no /dev could be mounted: whatever was written to it, no file."""
    return stat.S_ISCHR(status.st_mode) or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)


def _remove_unchanged(path: str, below_fd: int) -> None:
    """Directories that are here only since something was made in them, and are below as they were."""
    while path != "/":
        try:
            fd = _opened(path)
            below = trees.open_beneath(below_fd, path.lstrip("/"), _DIRECTORY)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return
            raise
        try:
            same = same_metadata(os.fstat(fd), os.fstat(below))
            if not same or os.listdir(fd) or sorted(_attributes(fd)) != sorted(_attributes(below)):
                return
        finally:
            os.close(fd)
            os.close(below)
        path, name = os.path.split(path)
        fd = _opened(path)
        try:
            os.rmdir(name, dir_fd=fd)
        finally:
            os.close(fd)


def _opened(path: str) -> int:
    root = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return trees.open_beneath(root, path.lstrip("/"), _DIRECTORY)
    finally:
        os.close(root)


def _attributes(fd: int) -> list[tuple[str, bytes]]:
    """Overlayfs' own but the one that says opaque tell nothing of the directory."""
    return [
        (name, os.getxattr(fd, name))
        for name in os.listxattr(fd)
        if ".overlay." not in name or name.endswith(".overlay.opaque")
    ]


@function
def nothing(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Be there, which is something: it takes all that a container takes."""
    return {}


@function
def remove_tree(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Remove a directory of the root."""
    removal.remove_tree(Path(ROOT) / arguments["name"])
    return {}
