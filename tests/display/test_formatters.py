"""Which of IPython's formatters shows what."""

from __future__ import annotations

import sys
import types

import pytest
from IPython.core.formatters import IPythonDisplayFormatter

from nbcontain.display import formatters


@pytest.mark.parametrize("when", ["not imported", "half imported", "imported"])
def test_a_type_is_shown_in_its_way_whenever_its_module_comes(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Another thread may be in the middle of importing it."""
    module, shown = types.ModuleType("nbcontain.coming"), []
    kind = type("Coming", (), {"__module__": module.__name__})
    if when != "not imported":
        monkeypatch.setitem(sys.modules, module.__name__, module)
    if when == "imported":
        module.__dict__["Coming"] = kind
    own = IPythonDisplayFormatter()
    formatters._register_by_name(own, module.__name__, "Coming", shown.append)
    value = kind()
    assert own(value) is True
    assert shown == [value]
