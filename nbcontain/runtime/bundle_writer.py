"""Writing a container's bundle (see `runtime.bundle`), which appears whole. Everything here runs in the kernel.

All of it is on the disk before its name is taken: many that are made at the same time wait for the disk together, and
for each other only while one of them looks whether its name is free.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime.annotations import USERNS, WAY_OUT, WITHIN
from nbcontain.runtime.bundle import Bundle, ContainerInfo, info_to_json
from nbcontain.runtime.filters import filter_of
from nbcontain.runtime.hosts import HOSTS, network_files
from nbcontain.store import files, removal, together
from nbcontain.values import replace

Put = Callable[[ContainerInfo, AbstractContextManager[object]], None]
"""Writes container.json; the context is entered for the moment in which it is seen, and may refuse that."""


def _as_it_is(info: ContainerInfo, put: Put) -> ContainerInfo:
    put(info, nullcontext())
    return info


def write(
    path: Path,
    spec: Spec,
    rootfs: Sequence[Mount],
    info: ContainerInfo,
    spec_text: str = "",
    more: Mapping[str, bytes] | None = None,
    naming: Callable[[ContainerInfo, Put], ContainerInfo] = _as_it_is,
) -> Bundle:
    """Make a bundle; it is whole once container.json is there, which comes last. Holds its lock afterwards.

    Synced unless the container is to be forgotten anyway. `spec_text` is the spec, if it is written already; `more`
    are further files that it sees. `naming` has container.json written, and gives the info as it is there. Raises what
    that raises, and then there is no bundle.
    """
    info = replace(info, unusual=is_unusual(spec), answers=_answered(info.answers, spec))
    seccomp = filter_of(spec.linux.seccomp)
    answers = _answers_of(info.answers)
    keep = not (info.remove or info.build_step)
    files.make_directory(path, durable=False)
    bundle = Bundle(path)

    def put(named: ContainerInfo, under: AbstractContextManager[object]) -> None:
        data = json.dumps(info_to_json(named)).encode()
        if keep:
            files.replace(path / "container.json", data, under=under)
            return
        with under:
            files.write_new(f"{path}/container.json", data)

    try:
        with files.disk(path):
            bundle.lock()
            files.make_new_directory(f"{path}/rootfs")
            # Whoever follows may do so from now on.
            files.write_new(f"{path}/journal.jsonl", b"")
            is_shared = "network" not in spec.linux.namespaces
            shown = network_files(_name_of(spec), spec.annotations.get(HOSTS, ""), shares_network=is_shared)
            shown |= more or {}
            for name, data in shown.items():
                files.write_new(f"{path}/{name}", data, 0o644)
            own = {
                "config.json": (spec_text or spec_codec.spec_to_text(spec)).encode(),
                "rootfs.json": json.dumps(spec_codec.mounts_to_json(rootfs)).encode(),
                **({"seccomp.bpf": seccomp} if seccomp else {}),
                **({"answers.bpf": answers} if answers else {}),
            }
            for name, data in own.items():
                files.write_new(f"{path}/{name}", data)
            if keep:
                together.sync(path, (*shown, *own))
                # The names before the one that says that all of them are there.
                files.sync_directory(path)
                files.sync_directory(path.parent)
            return Bundle(path, naming(info, put), bundle.lock_fd)
    except BaseException:
        bundle.unlock()
        removal.remove_tree(path)
        raise


def write_spec(bundle: Bundle, spec: Spec) -> None:
    """Another spec for its next start."""
    durable, words = bundle.is_durable(), _answered(bundle.info.answers, spec)
    if answers := _answers_of(words):
        files.replace(bundle.path / "answers.bpf", answers, durable=durable)
    if (is_unusual(spec), words) != (bundle.info.unusual, bundle.info.answers):
        bundle.write_info(unusual=is_unusual(spec), answers=words)
    # Last: whoever finds it as it is to be finds the others so, too.
    files.replace(bundle.path / "config.json", spec_codec.spec_to_text(spec).encode(), durable=durable)


def is_unusual(spec: Spec) -> bool:
    """Whether a supervisor has more to do for a first process than to tell one that waits what to be."""
    linux = spec.linux
    crossing = {"shared", "rshared", "slave", "rslave", "idmap", "ridmap"}
    return bool(
        linux.paths
        or {WITHIN, USERNS} & spec.annotations.keys()
        or {"pid", "ipc", "uts"} - {*linux.namespaces}
        or "time" in linux.namespaces
        or any(each.uid_mappings or crossing & {*each.options} for each in spec.mounts)
    )


def _name_of(spec: Spec) -> str:
    return spec.hostname or ("" if "uts" in spec.linux.namespaces else os.uname().nodename)


def _answered(words: str, spec: Spec) -> str:
    """With its connections, where these are answered for now."""
    others = [each for each in words.split() if each != "net"]
    return " ".join([*others, "net"] if WAY_OUT in spec.annotations else others)


def _answers_of(words: str) -> bytes:
    if not words:
        return b""
    from nbcontain.runtime import answered_calls

    return answered_calls.filter_of(words, os.uname().machine)
