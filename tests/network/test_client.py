"""Whoever asks a worker of networks that is about to end asks the next one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcontain.channel import Channel
from nbcontain.errors import NetworkError
from nbcontain.linux.idmap import IdMap
from nbcontain.network import client
from nbcontain.network.client import Client
from nbcontain.store.layout import Layout


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Client]:
    made = Client(Layout(tmp_path), IdMap.identity())
    yield made
    made.close()


def ended() -> Channel:
    """To somebody who was reached, and ended before anything was answered."""
    ours, theirs = Channel.pair()
    theirs.close()
    return ours


@pytest.mark.parametrize("times", [1, 3])
def test_who_is_reached_while_it_ends_is_not_the_last_one_asked(
    asking: Client, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[Channel] = []

    def connect(_: Path) -> Channel:
        if len(met) < times:
            met.append(ended())
            return met[-1]
        ours, theirs = Channel.pair()
        met.append(theirs)
        theirs.send({"answer": 1})
        return ours

    monkeypatch.setattr(client, "connect", connect)
    assert asking.ask({"do": "settle"}) == {"answer": 1}
    assert met[-1].receive()[0] == {"do": "settle"}
    met[-1].close()


def test_a_worker_that_always_ends_is_told(asking: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "connect", lambda _: ended())
    with pytest.raises(NetworkError, match="ends at once"):
        asking.ask({"do": "settle"})


def test_one_that_begins_late_is_waited_for(asking: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def connect(_: Path) -> Channel:
        if len(begun) < 4:
            raise ConnectionRefusedError
        ours, theirs = Channel.pair()
        theirs.send({})
        met.append(theirs)
        return ours

    met: list[Channel] = []
    monkeypatch.setattr(client, "connect", connect)
    monkeypatch.setattr(client, "_start", lambda *_: begun.append(1))
    assert asking.ask({"do": "settle"}) == {}
    met[0].close()


def test_one_that_never_begins_is_told(asking: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_start", lambda *_: None)
    with pytest.raises(NetworkError, match="cannot be reached"):
        asking.ask({"do": "settle"})
