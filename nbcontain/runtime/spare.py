"""A supervisor before it is one: forked from the zygote beforehand, waiting for what to do.

A *spare* has a first process made inside new namespaces. Then it is told to run a container, or one of our
own functions, and does that one thing.
"""

from __future__ import annotations

import os
import signal
from functools import partial

from nbcontain.linux import forks, syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.runtime import births, contained, rehearsal, stage
from nbcontain.runtime.calls import answer_call, end
from nbcontain.runtime.messages import Channel, describe, is_readable
from nbcontain.runtime.namespaces import USUAL, Birth, flags_of
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.supervisor import Supervisor

_FULL = Rung()


def main(orders: Channel, ids: IdMap, rung: Rung = _FULL) -> None:
    """Supervisor: wait, then do what the order says. The end of `orders` is the zygote's end, and a spare's too."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTOU, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    if forks.has_heirs():
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    stage.keep_only(orders)
    inside: stage.Inside | BaseException
    try:
        birth = Birth(ids, flags_of(rung.namespaces, USUAL))
        first = partial(contained.main, rung=rung, rehearse=rehearsal.of_init)
        inside = births.form(birth, first, lambda: is_readable(orders, 0), succeeds=not is_readable(orders, 0))
        if not is_readable(orders, 0):
            rehearsal.of_supervisor(ids)
    except BaseException as error:  # noqa: BLE001 - told to whoever gives the order
        inside = error
    message, fds = orders.receive()
    orders.close()
    if message is None:
        return
    # Now it is one launcher's, whose order comes when that has written what there is to read.
    report = Channel.of(fds[0])
    if isinstance(inside, stage.Inside):
        # So that it can tell our first process by itself what comes, which we need not be awake for.
        report.tell({"inside": True}, [inside.channel.fileno()])
    message, fds = report.receive()
    while message is not None and message["do"] == "begin":
        if isinstance(inside, stage.Inside):
            inside.channel.tell(message)
        message, fds = report.receive()
    if message is None:
        # Who is not wanted may have to be gone before another one begins: that is told by our end.
        if isinstance(inside, stage.Inside):
            end(inside)
        return
    report.tell({"taken": True})
    try:
        if isinstance(inside, BaseException):
            raise inside
        if message["do"] == "call":
            answer_call(inside, report, message, fds)
        else:
            Supervisor.ordered(ids, inside, report, message, fds).run()
    except BaseException as error:  # noqa: BLE001 - there is nobody above but whoever asked
        report.tell(describe(error))
