"""A further program in a running container of the specification's (`exec`). Run by the command that is asked for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from nbcontain.errors import NotRunning
from nbcontain.linux import confine
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Process
from nbcontain.runtime import init, namespaces, oci_init, oci_state, stage
from nbcontain.runtime.messages import Channel, Message
from nbcontain.runtime.oci_life import Begun, Wishes, await_program, handed_out, process_state
from nbcontain.runtime.oci_state import Place


def execute(place: Place, process: Process, wishes: Wishes) -> Begun:
    """A further program in a running container. Raises what hinders it."""
    with place.alone():
        known = place.known()
        how = oci_state.status(place, known)
        if how not in ("created", "running"):
            raise NotRunning(f"cannot exec in container {place.id}: it is {how}")
        spec, config, seccomp = place.spec(), place.config(), place.seccomp()
    kept = range(3, 3 + wishes.preserved)
    pidfd = oci_state.open_process(known)
    flags = namespaces.flags_of(spec.linux.namespaces)
    try:
        inside = stage.join(pidfd, flags, partial(_be_further, kept=kept), (0, 1, 2), kept)
    finally:
        os.close(pidfd)
    try:
        group = oci_state.group_of(known, wishes.group)
        if group is not None:
            group.enter(inside.pid)
        if process.oom_score_adj is not None:
            confine.set_oom_score(process.oom_score_adj, inside.pid)
        message: Message = {
            "process": spec_codec.process_to_json(process), "seccomp": seccomp.hex(), "preserved": wishes.preserved,
            "personality": spec.linux.personality,
        }  # fmt: skip
        inside.channel.send(message)
        own = os.pidfd_open(inside.pid)
        try:
            state = partial(process_state, place, known, inside.pid)
            master = await_program(inside.channel, own, config, state)
        finally:
            os.close(own)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(inside.pid, signal.SIGKILL)
        raise
    return handed_out(wishes, inside.pid, master)


def _be_further(channel: Channel, kept: Sequence[int]) -> None:
    """An exec's process."""
    message, fds = channel.receive()
    if message is None:
        return
    os.setsid()
    init.leave_keyring()
    init.hide_words()
    confine.default_signals()
    oci_init.be_process(channel, message, fds)
