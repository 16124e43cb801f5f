"""What containers' processes say to each other: over channels, and errors as packets (see `nbcontain.channel`)."""

from __future__ import annotations

from nbcontain.channel import Channel as Channel
from nbcontain.channel import Listener as Listener
from nbcontain.channel import Message as Message
from nbcontain.channel import answer_of as answer_of
from nbcontain.channel import connect as connect
from nbcontain.channel import describe as describe
from nbcontain.channel import error_of as error_of
from nbcontain.channel import is_readable as is_readable

ROOTFS = "nbcontain.runtime.rootfs"
"""Our own functions that can be called inside. A container needs none: they are imported when first called for."""
