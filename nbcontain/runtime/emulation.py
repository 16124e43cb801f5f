"""Programs of other platforms that could not be started: why, in words that help. Runs in the kernel."""

from __future__ import annotations

from nbcontain.errors import CommandNotExecutable, CommandNotFound, SetupFailed
from nbcontain.linux import foreign
from nbcontain.oci.image import Platform


def explained(error: SetupFailed, platform: str, here: Platform | None = None) -> SetupFailed:
    """The error, or for a program of an image of another platform one that says what is missing here.

    Only the kernel knows what it can run, so it is asked first: an image may be labelled wrongly.
    """
    architecture = platform.split("/")[1] if "/" in platform else ""
    own = here or Platform.here()
    # ENOEXEC: nobody takes such a program. ENOENT for a program that is there: whoever takes it is not in here.
    is_foreign = isinstance(error, CommandNotExecutable) and error.errno == 8
    is_foreign |= isinstance(error, CommandNotFound) and "interpreter or loader" in error.why
    if not architecture or architecture == own.architecture or not is_foreign:
        return error
    why, hint = foreign.explained(architecture, foreign.registered())
    return type(error)(
        f"programs for {platform} do not run on this machine, which is {own}",
        errno=error.errno, path=error.path, why=f"{error.message}: {why}", hint=hint,
    )  # fmt: skip
