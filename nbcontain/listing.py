"""All containers, volumes or networks, in Python's hands: `nb.containers["web"]`, `nb.volumes.df`.

They are looked up anew whenever they are asked for. Verbs and their arguments have docker-py's names; `filters` are
docker's, as docker-py has them, {"label": "team=data"}, or as a terminal does, ["label=team=data"].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from nbcontain import api
from nbcontain.display.table import Table
from nbcontain.errors import NbcontainError, VolumeNotFound, did_you_mean
from nbcontain.filters import NETWORKS, Filters, chosen_networks, texts_of
from nbcontain.handles import Container

if TYPE_CHECKING:
    import builtins

    from nbcontain.engine import Engine
    from nbcontain.housekeeping import Pruned
    from nbcontain.network.model import Network
    from nbcontain.store.volumes import Volume
    from nbcontain.volumes import Removed

T = TypeVar("T")
Asked = Mapping[str, Any] | Sequence[str] | None
"""Filters, as somebody gave them."""


class Listing(ABC, Generic[T]):
    """Things of an engine by name: a list of them, and a mapping."""

    _elsewhere: Mapping[str, str] = {"ls": "list()", "rm": "remove(name)", "inspect": "get(name)"}
    """What a terminal's verb is here, where it is called otherwise or is that of a single thing."""

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

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            # Asked for what there is not: by people, and by IPython for ways to be shown.
            known = [each for each in dir(type(self)) if not each.startswith("_")]
            instead = self._elsewhere.get(name, "")
            hint = f"there is .{instead}" if instead else did_you_mean(name, known, shown=".{}".format)
            kind = type(self).__name__
            raise AttributeError(f"{kind!r} object has no attribute {name!r}{f': {hint}' if hint else ''}")

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

    _elsewhere = {
        "ls": "list()", "ps": "list()", "rm": "get(name).remove()", "remove": "get(name).remove()",
        "inspect": "get(name).to_dict()", "port": "get(name).ports", "cp": "get(name)[path]",
        "stats": "get(name).stats",
        **{verb: f"get(name).{verb}()" for verb in (
            "commit", "diff", "exec", "export", "kill", "logs", "pause", "rename", "restart", "start", "stop", "top",
            "unpause", "wait",
        )},
    }  # fmt: skip
    run = staticmethod(api.run)
    create = staticmethod(api.create)

    def _all(self) -> list[Container]:
        return self._engine().containers()

    def get(self, name: str) -> Container:
        return self._engine().container(name)

    def list(self, *, all: bool = False, filters: Asked = None) -> list[Container]:
        """Those that run, or `all`; `filters` are docker's: {"status": "exited"}."""
        asked = texts_of(filters or ())
        found = self._engine().containers(asked)
        asks_for_others = any(each.partition("=")[0] in ("status", "exited") for each in asked)
        return found if all or asks_for_others else [each for each in found if each.is_active]

    def prune(self, filters: Asked = None) -> Pruned:
        """Remove all that do not run; without asking."""
        housekeeping = self._engine().housekeeping
        return api.shown(housekeeping.prune(images=False, filters=texts_of(filters or ())), "work")

    @property
    def table(self) -> Table:
        from nbcontain.commands.containers import PsWords, container_ps

        return as_table(container_ps(self._engine(), PsWords(all=True)))


class Volumes(Listing["Volume"]):
    """All volumes, by name."""

    def _all(self) -> list[Volume]:
        return self._engine().volumes.all()

    def get(self, name: str) -> Volume:
        return self._engine().volumes.get(name)

    def list(self, filters: Asked = None) -> list[Volume]:
        """All of them, or those that `filters` let pass."""
        return self._engine().volumes.all(texts_of(filters or ()))

    def create(self, name: str = "", *, driver: str = "local", labels: Mapping[str, str] | None = None,
               driver_opts: Mapping[str, str] | None = None) -> Volume:  # fmt: skip
        """A volume of that name, which may be there already."""
        return self._engine().volumes.create(name, driver=driver, labels=labels, options=driver_opts)

    def remove(self, name: str | Volume, force: bool = False) -> None:
        """Remove a volume with all its files; forced, it may be gone already. Raises VolumeNotFound, InUse."""
        try:
            self._engine().volumes.remove(name if isinstance(name, str) else name.name)
        except VolumeNotFound:
            if not force:
                raise

    def prune(self, filters: Asked = None, *, all: bool = False) -> Removed:
        """Remove those that no container has: the anonymous ones, or `all`; without asking."""
        return self._engine().volumes.prune(all=all, filters=texts_of(filters or ()))

    @property
    def table(self) -> Table:
        from nbcontain.commands.volumes import ListWords, volume_ls

        return as_table(volume_ls(self._engine(), ListWords()))


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

    def list(
        self, names: Sequence[str] | None = None, ids: Sequence[str] | None = None, filters: Asked = None
    ) -> builtins.list[Network]:
        """All of them, or those whose names have one of these in them, with such ids, that `filters` let pass."""
        engine, asked = self._engine(), texts_of(filters or ())
        asked += [*(f"name={each}" for each in names or ()), *(f"id={each}" for each in ids or ())]
        return chosen_networks(engine, engine.networks.all(), Filters.parse(asked, NETWORKS))

    def remove(self, name: str | Network) -> None:
        """Remove a network. Raises NetworkNotFound, NetworkInUse."""
        self._engine().networks.remove(name if isinstance(name, str) else name.id)

    def prune(self, filters: Asked = None) -> builtins.list[str]:
        """Remove those that no container is on, without asking; gives their names."""
        return self._engine().networks.prune(texts_of(filters or ()))

    def connect(
        self, network: str | Network, container: str | Container, *, aliases: Sequence[str] = (),
        ipv4_address: str = "", ipv6_address: str = "",
    ) -> None:  # fmt: skip
        """Put a container on a further network. Raises NetworkError and its kin, UsageError."""
        from nbcontain.commands.networks import ConnectWords

        name = network if isinstance(network, str) else network.id
        words = ConnectWords(network=name, container="", alias=tuple(aliases), ip=ipv4_address, ip6=ipv6_address)
        self._engine().networks.connect(name, self._container(container), words.attachment())

    def disconnect(self, network: str | Network, container: str | Container, *, force: bool = False) -> None:
        """Take a container off a network. Raises NetworkError and its kin."""
        name = network if isinstance(network, str) else network.id
        self._engine().networks.disconnect(name, self._container(container), force=force)

    def _container(self, container: str | Container) -> Container:
        return self._engine().container(container) if isinstance(container, str) else container

    @property
    def table(self) -> Table:
        from nbcontain.commands.networks import ListWords, network_ls

        return as_table(network_ls(self._engine(), ListWords()))


def as_table(found: object) -> Table:
    """What a command on all of them gave."""
    assert isinstance(found, Table)
    return found


containers = Containers(api.engine)
networks = Networks(api.engine)
volumes = Volumes(api.engine)
