"""A container's page that was asked for: by which way it is reached, as text and as what a notebook keeps. Pure."""

from __future__ import annotations

from nbcontain.display import html
from nbcontain.pages import Visit
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Opened:
    """One port of a container. `address` is where this machine's browsers find it, "" if the port is not published.

    `elsewhere` is where those of other machines do.
    """

    visit: Visit
    path: str
    address: str
    height: int
    is_external: bool
    elsewhere: str = ""

    @property
    def title(self) -> str:
        return f"{self.visit.container.name}:{self.visit.port}{self.path}"

    def __repr__(self) -> str:
        if self.address:
            also = f", from elsewhere at {self.elsewhere}{self.path}" if self.elsewhere else ""
            return f"{self.title} is at {self.address}{self.path} (its published port){also}"
        return f"{self.title} is not published: a notebook shows it, from inside of the container's network"

    def _repr_html_(self) -> str:
        title = html.element("strong", html.escape(self.title), "nbc-title")
        said = f"{self.address}{self.path}" if self.address else "not published; seen from inside of its network"
        said += f" · from elsewhere {self.elsewhere}{self.path}" if self.elsewhere else ""
        about = html.element("span", html.escape(said), "nbc-about")
        head = html.element("div", html.element("div", f"{title} {about}", "nbc-head"), "nbc-top")
        return html.framed(head, f"page of {self.title}")
