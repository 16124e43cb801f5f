"""`await nb.aio.run(…)`: what takes a while, for whoever has an event loop. A cancellation ends the work.

The arguments are those of the functions of the same names in `nbcontain`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from nbcontain import api, pool
from nbcontain.handles import Container
from nbcontain.images import Image
from nbcontain.outcomes import RunResult
from nbcontain.task import Task

T = TypeVar("T")


async def build(*path: Any, **keywords: Any) -> Image:
    """Make an image."""
    return await awaited(api.build_task(*path, **keywords))


async def pull(name: str, *, platform: str = "") -> Image:
    """Fetch an image from its registry."""
    return await awaited(api.pull_task(name, platform=platform))


async def run(image: str | Image, command: Any = None, **keywords: Any) -> Any:
    """Run a program in a container: a RunResult, or with detach=True a Container."""
    return await awaited(api.run_task(image, command, **keywords))


async def exec(container: Container, command: Any, **keywords: Any) -> RunResult:
    """Run a further program in a running container."""
    return await awaited(container.exec_task(command, **keywords))


async def map(command: Any, items: Iterable[Any], **keywords: Any) -> pool.Results:  # noqa: A001 - as in `nbcontain`
    """Run a command for every item, in a container each."""
    return await awaited(pool.map_task(command, items, **keywords))


async def awaited(task: Task[T]) -> T:
    """What a task gives; if nobody waits any more, it is cancelled and waited for."""
    import asyncio

    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        while not task.is_done:
            await asyncio.sleep(0.01)
        raise
