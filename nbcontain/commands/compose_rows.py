"""A project's containers as `compose ps` has them: our table, and docker compose's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbcontain.commands.containers import describe_status
from nbcontain.commands.rows import CONTAINER_TITLES, Row, container_row
from nbcontain.compose import model
from nbcontain.display.formats import shortened
from nbcontain.display.table import Column, Table
from nbcontain.display.words import ago, brief, command_line, count

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container

TITLES = {
    **CONTAINER_TITLES, "Name": "NAME", "Project": "PROJECT", "Service": "SERVICE", "Health": "HEALTH",
    "ExitCode": "EXIT CODE", "Publishers": "PUBLISHERS",
}  # fmt: skip


def compose_table(engine: Engine, project: str, containers: Sequence[Container], *, full: bool = False) -> Table:
    """What `up` and `ps` show."""
    rows = tuple(
        (
            each.name, each.image,
            command_line(each.info.command) if full else shortened(command_line(each.info.command), 32),
            each.info.labels.get(model.SERVICE, ""), each.info.created,
            describe_status(each, *each.look()), engine.networks.reach(each)[0],
        )
        for each in containers
    )  # fmt: skip
    code = [Column(title, look="code") for title in ("COMMAND", "PORTS")]
    columns = ("NAME", "IMAGE", code[0], "SERVICE", Column("CREATED", ago, "words", brief),
               Column("STATUS", str, "words", brief), code[1])
    return Table(columns, rows, f"{count(len(rows), 'container')} of the project {project}", "containers")


def compose_row(engine: Engine, container: Container, *, full: bool) -> Row:
    """docker compose's fields of one container."""
    status, state = container.look()
    health = container.health()
    labels = container.info.labels
    publishers = [
        {"URL": each.host_address, "TargetPort": each.container_port, "PublishedPort": each.host_port,
         "Protocol": each.protocol}
        for each in engine.networks.ports(container)
    ]  # fmt: skip
    row = container_row(container, status, state, None, engine.networks.reach(container), full=full)
    return {
        **{name: value for name, value in row.items() if name != "Label"},
        "Name": container.name, "Project": labels.get(model.PROJECT, ""), "Service": labels.get(model.SERVICE, ""),
        "Health": health["Status"] if health is not None and status == "running" else "",
        "ExitCode": state.exit_code or 0, "Publishers": publishers,
    }  # fmt: skip
