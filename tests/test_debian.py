"""A real distribution, built and run for real: Debian's minbase, its package manager, its mirror."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import places
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.runtime.generate import RunOptions

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(400)]

HELLO = """\
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends hello && hello
CMD ["hello"]
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """For root's store on the disk, and in memory for the users', who do the same beside it."""
    with places.store_directory(needs.memory() if os.geteuid() else "") as directory:
        yield directory


@pytest.fixture(scope="session")
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar file of a minimal Debian."""
    return minbase(request.config.rootpath, tmp_path_factory.mktemp("debian"))


def minbase(checkout: Path, directory: Path) -> Path:
    """A tar file of a minimal Debian, made once by mmdebstrap and kept in .cache; the end of this test without one."""
    mirror = needs.debian_mirror()
    kept = checkout / ".cache" / "debian-minbase.tar"
    if kept.exists():
        return kept
    made = directory / "minbase.tar"
    command = [needs.program("mmdebstrap"), "--variant=minbase", "--quiet", needs.SUITE, str(made), mirror]
    subprocess.run(command, check=True, timeout=300)
    try:
        kept.parent.mkdir(exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_bytes(made.read_bytes())
        partial.chmod(0o644)
        partial.rename(kept)
    except OSError:
        return made
    return kept


def test_a_debian_root_is_imported_and_a_package_is_installed_in_it(
    profile: str, engine: Engine, request: pytest.FixtureRequest
) -> None:
    debian: Path = request.getfixturevalue("debian")
    imported = engine.archives.import_image(str(debian), "debian").result()
    assert len(imported.layers) == 1
    image = engine.build(HELLO, BuildOptions(tags=("hello",))).result()
    assert image.layers[0] == imported.layers[0]
    result = engine.run(RunOptions(image="hello", remove=True)).result()
    assert result.stdout == "Hello, world!\n"
    owners = engine.run(
        RunOptions(image="hello", remove=True, command=("stat", "-c", "%U", "/var/cache/apt/archives/partial"))
    )
    # With one id owners are kept for the image; what a program is told of a file is what the disk says.
    assert owners.result().stdout == ("root\n" if profile == "rootless-single" else "_apt\n")
    again = engine.build(HELLO, BuildOptions(tags=("hello",))).result()
    assert again.id == image.id
