"""The pre-warmed process that containers' processes are forked from.

It is executed from a sealed copy of the interpreter, so that no container, which can reach its first
process's /proc/self/exe, can overwrite the interpreter of the host (CVE-2019-5736). It has imported all that
is needed, holds no secret of the kernel's, and ends with the kernel; its children do not.

Some *spares* stand ready: supervisors, each with a first process inside new namespaces. An order goes to a
spare at once; new ones are made when there is nothing to do, so that they do not slow down what was ordered. A
command on a terminal wants one container, and no more of them.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import sys

from nbcontain.linux.idmap import IdMap
from nbcontain.runtime import rehearsal, stage
from nbcontain.runtime.messages import Channel, Message
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.spare import main as be_spare

_SPARES = 2
"""A build's step takes two or three in quick succession. One that the kernel has ahead of its order is one of them."""
_IDLE_MS = 40
"""Without an order for so long, what was ordered last has probably ended."""


def main(fd: int) -> None:
    """Zygote: serve the kernel on the channel that `fd` is, until its end."""
    orders = Channel.of(fd)
    os.set_inheritable(fd, False)
    os.chdir("/")
    os.umask(0o077)
    os.environ.clear()
    stage.keep_only(orders)
    message, _ = orders.receive()
    if message is None:
        return
    # Those with limits need the last one, and would have to import it while somebody waits.
    ids, functions = IdMap.from_numbers(message), [*message["functions"], "nbcontain.runtime.groups"]
    rung, expects_more = Rung.from_numbers(message["rung"]), message["expects_more"]
    gc.disable()
    # Nothing is collected yet: whoever started us waits.
    gc.freeze()
    orders.send({"ready": True})
    spares = [_fork_spare(orders, ids, rung, [])]
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    wanted = _SPARES
    while True:
        if expects_more and len(spares) < wanted and not poll.poll(_IDLE_MS):
            while functions:
                importlib.import_module(functions.pop())
                if not functions:
                    rehearsal.of_zygote(ids)
                _share()
            spares.append(_fork_spare(orders, ids, rung, spares))
            continue
        message, fds = orders.receive()
        if message is None:
            return
        wanted = _SPARES - message["ahead"]
        while not _hand_over(spares.pop(0) if spares else _fork_spare(orders, ids, rung, spares), message, fds):
            # That one was killed meanwhile; another is as good.
            pass
        for fd in fds:
            os.close(fd)


def _share() -> None:
    """What is here now is shared by all children for as long as nobody writes to it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _hand_over(spare: Channel, message: Message, fds: list[int]) -> bool:
    """Give a spare its order; False if it is dead."""
    try:
        spare.send(message, fds)
    except OSError:
        return False
    finally:
        spare.close()
    return True


def _fork_spare(orders: Channel, ids: IdMap, rung: Rung, spares: list[Channel]) -> Channel:
    """Zygote: fork twice, so that the supervisor is nobody's child who could end before it."""
    ours, theirs = Channel.pair()
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            # A spare ends when the zygote does: only the zygote may hold the other ends.
            for channel in (ours, orders, *spares):
                channel.close()
            stage.run(lambda: be_spare(theirs, ids, rung))
        os._exit(0)
    theirs.close()
    os.waitpid(middle, 0)
    return ours


if __name__ == "__main__":
    main(int(sys.argv[1]))
