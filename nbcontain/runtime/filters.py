"""The filter of the kernel's calls that a config.json asks for, compiled (runtime-spec config-linux.md#seccomp). Pure.

Where nothing is to be filtered, nothing is imported for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from nbcontain.oci.spec import SharedDocument


def filter_of(document: Mapping[str, object], machine: str | None = None) -> bytes:
    """The filter of a config.json's `linux.seccomp`, as `confine.install` takes it; b"" if there is none."""
    machine = machine or os.uname().machine
    if isinstance(document, SharedDocument):
        return document.made[1] if document.made[0] == machine else _compiled_once(document, machine)
    return _compiled(document, machine) if document else b""


@lru_cache(16)
def _compiled_once(document: SharedDocument, machine: str) -> bytes:
    return _compiled(document, machine)


def _compiled(document: Mapping[str, object], machine: str) -> bytes:
    from nbcontain.linux import filter_bytes, seccomp
    from nbcontain.oci import seccomp as profiles

    profile = profiles.from_json(document)
    return filter_bytes.packed(seccomp.program(profile, machine), seccomp.flags(profile))
