"""Imported for its effect, by a process that is going to unpack ADD's archives and soon can import no more.

They are no part of the zygote: with them each of its forks, and so every start, would take longer.
"""

from __future__ import annotations

from nbcontain.store import compression

compression.load()
