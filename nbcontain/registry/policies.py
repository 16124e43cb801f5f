"""When an image that is here is asked of its registry all the same: docker's --pull. Imports nothing of a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbcontain.errors import ImageNotFound, UsageError
from nbcontain.oci.image import Image

POLICIES = ("always", "missing", "never", "newer")


def policy_of(asked: str, environ: Mapping[str, str]) -> str:
    """The policy that was asked for; the usual one is what $NBCONTAIN_PULL says. Raises UsageError."""
    policy = environ.get("NBCONTAIN_PULL", asked) if asked == "missing" else asked
    if policy not in POLICIES:
        raise UsageError(f"--pull {policy}: there is no such policy", hint=", ".join(POLICIES))
    return policy


def local(find: Callable[[], Image], asked: str, environ: Mapping[str, str]) -> Image | None:
    """What `find` gives, where the policy is content with that; None where a registry is to be asked.

    Raises ImageNotFound if none may be asked.
    """
    policy = policy_of(asked, environ)
    if policy not in ("missing", "never"):
        return None
    try:
        return find()
    except ImageNotFound:
        if policy == "never":
            raise
        return None
