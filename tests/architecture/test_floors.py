"""Imports point downwards only (docs/architecture.md, Floors)."""

from __future__ import annotations

from package_source import Module, modules

FLOORS = (
    {
        "errors", "events", "oci", "dockerfile", "linux", "options", "names", "values", "whitespace", "detach_keys",
        "truth", "authorities", "docker_words", "keywords", "magic_names", "objects",
    },
    {"channel", "host", "journal", "segments", "settings", "task"},
    {"store"},
    {"registry", "runtime", "network"},
    {"build"},
    {
        "anatomy", "archives", "bases", "builder", "compose", "consoles", "container_facts", "containers",
        "diagnosis", "engine", "exchange", "explorer", "filters", "handles", "happenings", "housekeeping", "id_ranges",
        "images", "inspection", "joining", "kernel_places", "kernels", "kernelspecs", "life", "logbook", "making",
        "manifests", "mounting", "networks", "nouns", "outcomes", "pages", "places", "probe_file", "processes",
        "profiles", "proxies", "resources", "serving", "sig_proxy", "soundness", "standard_input",
        "transfers", "volumes", "xray",
    },
    {"display"},
    {"cells", "commands", "compose_cells", "completion", "draw", "lessons", "terminal", "variables"},
    {
        "aio", "api", "configurable", "image_list", "listing", "magic_help", "magics", "pool", "session", "shim",
        "system", "__main__", "oci_runtime", "provisioner", "relay", "warming", "websockets",
    },
)  # fmt: skip
STRANGERS = {"registry", "runtime", "network"}


def part_of(name: str) -> str:
    """The folder or top-level module that a module belongs to: "store" of nbcontain.store.blobs."""
    return name.split(".")[1] if "." in name else ""


def floor_of(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def own_imports(module: Module, *, deferred: bool) -> list[tuple[int, str]]:
    return [(line, name) for line, name in module.imports(deferred=deferred) if name.split(".")[0] == "nbcontain"]


def test_every_module_stands_on_a_floor() -> None:
    known = set().union(*FLOORS)
    assert {part_of(name) for name in modules()} - {""} <= known


def test_imports_point_down_the_floors_only() -> None:
    wrong = []
    for module in modules().values():
        here = part_of(module.name)
        for line, name in own_imports(module, deferred=True):
            there = part_of(name)
            if not here or not there or here == there:
                continue
            if floor_of(there) > floor_of(here) or (here in STRANGERS and there in STRANGERS):
                wrong.append(f"{module.path.name}:{line}: {module.name} → {name}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = {
        module.name: {name for _, name in own_imports(module, deferred=False) if name in modules()} - {"nbcontain"}
        for module in modules().values()
    }
    while leaves := {name for name, targets in arrows.items() if not targets & arrows.keys() - {name}}:
        arrows = {name: targets for name, targets in arrows.items() if name not in leaves}
    assert arrows == {}, "these modules are in a circle, or import one that is"
