"""The containers of a store by name: what their directories say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nbcontain.errors import ContainerNotFound, NameTaken, StoreError
from nbcontain.runtime.bundle import Bundle, ContainerInfo
from nbcontain.runtime.container import Container
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.values import replace


class Containers:
    """Finds containers, and keeps their names unique, among any number of processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def all(self) -> list[Container]:
        """Every container that is whole, newest first."""
        try:
            names_of_bundles = os.listdir(self._layout.containers)
        except FileNotFoundError:
            return []
        found = [Container(Bundle(self._layout.container(name))) for name in names_of_bundles]
        return sorted(filter(_is_there, found), key=lambda each: each.info.created, reverse=True)

    def get(self, name: str) -> Container:
        """A container by name, id or the beginning of its id. Raises ContainerNotFound."""
        known = self.all()
        for each in known:
            if name in (each.name, each.id):
                return each
        matching = [each for each in known if name and each.id.startswith(name)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise ContainerNotFound(
                f"{name} is the beginning of {len(matching)} containers' ids", hint="give more of it"
            )
        import difflib

        near = difflib.get_close_matches(name, [each.name for each in known], 1)
        raise ContainerNotFound(
            f"there is no container {name!r}",
            hint=f"did you mean {near[0]}?" if near else "%container ps -a lists all there are",
        )

    def sweep(self, remove_tree: Callable[[Path], None]) -> None:
        """Remove the bundles whose writer died over them. Only while nobody can be writing one: under gc's lock."""
        for name in os.listdir(self._layout.containers):
            bundle = Bundle(self._layout.container(name))
            if not bundle.is_whole() and not bundle.is_alive():
                bundle.remove(remove_tree)

    @contextmanager
    def naming(self, info: ContainerInfo) -> Iterator[ContainerInfo]:
        """Hold the lock under which no other container takes the same name, and give the info its name."""
        with files.lock(self._layout.names_lock, exclusive=True):
            taken = {each.name: each for each in self.all()}
            if info.name in taken:
                raise NameTaken(
                    f"there is a container named {info.name} already",
                    why=f"{taken[info.name].id[:12]} of {taken[info.name].image}, {taken[info.name].status}",
                    hint=f"%container rm {info.name}, or choose another --name",
                )
            from nbcontain import names

            name = info.name
            while not name or name in taken:
                name = names.random_name()
            yield replace(info, name=name)


def _is_there(container: Container) -> bool:
    """Whether it is whole; it may be removed by somebody else while we look."""
    try:
        return container.info.id == container.id
    except (OSError, ValueError, StoreError, RecursionError):
        # Gone, or damaged: `system check` says which.
        return False
