"""All images, containers, volumes or networks, in Python's hands: `nb.containers["web"]`, `nb.images.df`.

They are looked up anew whenever they are asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nbcontain import api
from nbcontain.display.table import Table
from nbcontain.errors import NbcontainError
from nbcontain.filters import texts_of
from nbcontain.handles import Container
from nbcontain.images import Image

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.network.model import Network
    from nbcontain.store.volumes import Volume

T = TypeVar("T")


class Listing(ABC, Generic[T]):
    """Things of an engine by name: a list of them, and a mapping."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine

    # --- what each kind says of itself ---

    @abstractmethod
    def _all(self) -> list[T]: ...

    @abstractmethod
    def get(self, name: str) -> T:
        """The one of that name or id. Raises what says that there is none."""

    def _names(self, each: T) -> list[str]:
        return [str(getattr(each, "name", ""))]

    @property
    @abstractmethod
    def table(self) -> Table:
        """All of them as a table."""

    # --- what follows ---

    def __iter__(self) -> Iterator[T]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, key: str | int) -> T:
        return self._all()[key] if isinstance(key, int) else self.get(key)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return key in self._all()
        try:
            self.get(key)
        except NbcontainError:
            return False
        return True

    def keys(self) -> list[str]:
        """All names."""
        return [name for each in self._all() for name in self._names(each)]

    _ipython_key_completions_ = keys

    def to_dict(self) -> list[dict[str, Any]]:
        """A dictionary for each, with what the table says."""
        return self.table.records()

    @property
    def df(self) -> Any:
        """All of them as a pandas DataFrame. Raises Unavailable."""
        return self.table.df

    def __repr__(self) -> str:
        every = self._all()
        names = [name for each in every for name in self._names(each)]
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        return f"<{type(self).__name__} {len(every)}{': ' if shown else ''}{shown}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        table = self.table
        return {"text/plain": table.text(), "text/html": table.html()}


class Containers(Listing[Container]):
    """All containers, newest first, those that do not run too."""

    def _all(self) -> list[Container]:
        return self._engine().containers()

    def get(self, name: str) -> Container:
        return self._engine().container(name)

    def list(self, *, all: bool = False, filters: Mapping[str, Any] | Sequence[str] = ()) -> list[Container]:
        """Those that run, or `all`; `filters` are docker's: {"status": "exited"}."""
        asked = texts_of(filters)
        found = self._engine().containers(asked)
        asks_for_others = any(each.partition("=")[0] in ("status", "exited") for each in asked)
        return found if all or asks_for_others else [each for each in found if each.is_active]

    @property
    def table(self) -> Table:
        from nbcontain.commands.containers import PsWords, container_ps

        return _table(container_ps(self._engine(), PsWords(all=True)))


class Images(Listing[Image]):
    """All images, newest first; one with two names is there once."""

    def _all(self) -> list[Image]:
        engine = self._engine()
        found = {image.digest: image for _, image in engine.images()}
        return [Image.held(image, engine) for image in found.values()]

    def get(self, name: str) -> Image:
        engine = self._engine()
        return Image.held(engine.image(name), engine)

    def _names(self, each: Image) -> list[str]:
        return [name.removesuffix(":latest") for name in each.tags]

    @property
    def table(self) -> Table:
        from nbcontain.commands.images import ImageListWords, image_ls

        return _table(image_ls(self._engine(), ImageListWords()))


class Volumes(Listing["Volume"]):
    """All volumes, by name."""

    def _all(self) -> list[Volume]:
        return self._engine().volumes.all()

    def get(self, name: str) -> Volume:
        return self._engine().volumes.get(name)

    def create(self, name: str = "", *, driver: str = "local", labels: Mapping[str, str] | None = None,
               driver_opts: Mapping[str, str] | None = None) -> Volume:  # fmt: skip
        """A volume of that name, which may be there already."""
        return self._engine().volumes.create(name, driver=driver, labels=labels, options=driver_opts)

    def remove(self, name: str) -> None:
        """Remove a volume with all its files. Raises VolumeNotFound, InUse."""
        self._engine().volumes.remove(name)

    @property
    def table(self) -> Table:
        from nbcontain.commands.volumes import ListWords, volume_ls

        return _table(volume_ls(self._engine(), ListWords()))


class Networks(Listing["Network"]):
    """All networks, by name."""

    def _all(self) -> list[Network]:
        return self._engine().networks.all()

    def get(self, name: str) -> Network:
        return self._engine().networks.get(name)

    def create(self, name: str, **options: Any) -> Network:
        """Make a network. `options` are the flags of %network create. Raises NetworkError and its kin, UsageError."""
        from nbcontain import keywords
        from nbcontain.commands.networks import CreateWords

        words = keywords.options_of(CreateWords, "network create", {**options, "name": name})
        return self._engine().networks.create(words.request())

    def remove(self, name: str) -> None:
        """Remove a network. Raises NetworkNotFound, NetworkInUse."""
        self._engine().networks.remove(name)

    @property
    def table(self) -> Table:
        from nbcontain.commands.networks import ListWords, network_ls

        return _table(network_ls(self._engine(), ListWords()))


def _table(found: object) -> Table:
    assert isinstance(found, Table)
    return found


containers = Containers(api.engine)
images = Images(api.engine)
networks = Networks(api.engine)
volumes = Volumes(api.engine)
