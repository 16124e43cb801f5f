"""A compose file in a cell, and the lines that speak of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kernels import BUSYBOX_CELL, Kernel


@pytest.mark.slow
def test_a_cell_is_a_compose_file(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.check(BUSYBOX_CELL)
    shown = kernel.check("%%compose -p cell\nservices:\n  a: {image: box, init: true, command: sleep 600}\n")
    assert "cell-a-1" in shown.text
    assert "cell-a-1" in kernel.check("%compose ps").text
    kernel.check("%compose down -t 1")
    assert "0 running" in kernel.check("%container ps -a").text
    assert "line 2" in kernel.run("%%compose config\nservices:\n  a: {imag: x}\n").text
