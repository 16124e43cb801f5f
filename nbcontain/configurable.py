"""`%config NbContain`: the settings as IPython shows and changes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traitlets import TraitError, Unicode, observe
from traitlets.config import Configurable

from nbcontain.errors import UsageError
from nbcontain.settings import SETTINGS, Settings

_CHANGEABLE = {each.name: each for each in SETTINGS if each.is_changeable}


class NbContain(Configurable):
    """How nbcontain behaves in this notebook."""

    locals().update({name: Unicode("", help=each.help).tag(config=True) for name, each in _CHANGEABLE.items()})

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        """`changed` is called after each change."""
        self._settings, self._changed = settings, changed
        super().__init__()

    @observe(*_CHANGEABLE)
    def _observed(self, change: Any) -> None:
        try:
            self._settings.set(change["name"], change["new"])
        except UsageError as error:
            raise TraitError(f"{error.message}: {error.hint}") from None
        self._changed()


def register(shell: Any, settings: Settings, changed: Callable[[], None]) -> NbContain:
    """Have %config know it."""
    made = NbContain(settings, changed)
    shell.configurables[:] = [each for each in shell.configurables if type(each).__name__ != "NbContain"]
    shell.configurables.append(made)
    return made
