"""The pre-warmed process that containers' processes are forked from.

It is executed from a sealed copy of the interpreter, so that no container, which can reach its first
process's /proc/self/exe, can overwrite the interpreter of the host (CVE-2019-5736). It has imported all that
is needed, holds no secret of the kernel's, and ends with the kernel; its children do not.

Always one *spare* stands ready: a supervisor with a first process inside new namespaces. An order goes to
the spare at once, and only then is the next one made.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from typing import Any

from nbcontain.linux.idmap import IdMap
from nbcontain.oci.spec import IdMapping
from nbcontain.runtime import stage, supervisor
from nbcontain.runtime.messages import Channel


def main(fd: int) -> None:
    """Zygote: serve the kernel on the channel that `fd` is, until its end."""
    orders = Channel(socket.socket(fileno=fd))
    os.set_inheritable(fd, False)
    os.chdir("/")
    os.umask(0o077)
    os.environ.clear()
    stage.keep_only(orders)
    message, _ = orders.receive()
    if message is None:
        return
    ids = _ids_from(message)
    for name in message["functions"]:
        __import__(name)
    # What is here now is shared by all children for as long as nobody writes to it.
    gc.collect()
    gc.freeze()
    gc.disable()
    orders.send({"ready": True})
    spare = _fork_spare(orders, ids)
    while True:
        message, fds = orders.receive()
        if message is None:
            return
        try:
            spare.send(message, fds)
        except OSError:
            # The spare was killed meanwhile; a new one is as good.
            spare.close()
            spare = _fork_spare(orders, ids)
            spare.send(message, fds)
        for each in fds:
            os.close(each)
        spare.close()
        spare = _fork_spare(orders, ids)


def _fork_spare(orders: Channel, ids: IdMap) -> Channel:
    """Zygote: fork twice, so that the supervisor is nobody's child who could end before it."""
    ours, theirs = Channel.pair()
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            ours.close()
            orders.close()
            stage.run(lambda: supervisor.main(theirs, ids))
        os._exit(0)
    theirs.close()
    os.waitpid(middle, 0)
    return ours


def _ids_from(message: dict[str, Any]) -> IdMap:
    uids, gids = (tuple(IdMapping(*numbers) for numbers in message[name]) for name in ("uids", "gids"))
    return IdMap(uids, gids)


if __name__ == "__main__":
    main(int(sys.argv[1]))
