"""The default profile and its filter, made beforehand, are what would be made now."""

from __future__ import annotations

import sys

import pytest

from nbcontain.linux import seccomp
from nbcontain.runtime.confinement import ConfinementOptions, confinement
from nbcontain.runtime.filters import filter_of
from package_source import PACKAGE

KERNEL = "6.1.0"


def test_what_was_made_beforehand_is_what_would_be_made_now() -> None:
    sys.path.insert(0, str(PACKAGE.parent / "tools"))
    try:
        import seccomp_made
    finally:
        sys.path.pop(0)
    assert seccomp_made.MADE.read_text() == seccomp_made.written(), "python tools/seccomp_made.py"


@pytest.mark.parametrize("machine", sorted(seccomp.MACHINES))
def test_the_filter_of_the_default_profile_is_the_one_that_its_document_compiles_to(machine: str) -> None:
    document = confinement(ConfinementOptions(), "", KERNEL, machine).seccomp
    assert filter_of(document, machine) == filter_of(dict(document), machine) != b""


@pytest.mark.parametrize(
    "options", [ConfinementOptions(cap_add=("SYS_ADMIN",)), ConfinementOptions(cap_drop=("CHOWN",))]
)
def test_other_capabilities_have_a_filter_of_their_own(options: ConfinementOptions) -> None:
    document = confinement(options, "", KERNEL, "x86_64").seccomp
    assert filter_of(document, "x86_64") == filter_of(dict(document), "x86_64")
    usual = filter_of(confinement(ConfinementOptions(), "", KERNEL, "x86_64").seccomp, "x86_64")
    assert (filter_of(document, "x86_64") == usual) == (not options.cap_add)


def test_the_filter_for_another_machine_is_not_taken_for_this_one() -> None:
    document = confinement(ConfinementOptions(), "", KERNEL, "aarch64").seccomp
    assert filter_of(document, "x86_64") == filter_of(dict(document), "x86_64")
