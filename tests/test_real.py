"""Dockerfiles as people write them, built and run for real: archives of Debian, PyPI and npm, a compiler, a check."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import kept
import needs
import places
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.oci.image import Image
from nbcontain.runtime.generate import RunOptions

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(500)]

PYTHON = """\
# syntax=docker/dockerfile:1
FROM debian AS build
ENV DEBIAN_FRONTEND=noninteractive
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \\
    apt-get update && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates
WORKDIR /app
COPY requirements.txt pip.conf ./
RUN python3 -m venv /venv
RUN --mount=type=cache,target=/root/.cache/pip \\
    --mount=source=authorities.crt,target=/authorities.crt \\
    PIP_CONFIG_FILE=/app/pip.conf PIP_CERT=/authorities.crt /venv/bin/pip install -r requirements.txt

FROM debian
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \\
    apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \\
    && useradd --create-home --uid 1000 app
COPY --from=build /venv /venv
COPY --chown=app:app app.py /app/
WORKDIR /app
ENV PATH=/venv/bin:$PATH GREETING="hello from"
USER app
EXPOSE 8000
HEALTHCHECK --interval=2s --timeout=1s CMD ["python3", "-c", "import itsdangerous"]
ENTRYPOINT ["python3", "app.py"]
CMD ["world"]
"""
APP = """\
import getpass, os, sys
from itsdangerous import Signer
print(os.environ["GREETING"], sys.argv[1], getpass.getuser(), Signer("key").sign("x").decode().split(".")[0])
"""

WITH_NODE = """\
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm ca-certificates
"""
NODE = """\
FROM with-node
WORKDIR /srv
COPY package.json .npmrc ./
RUN --mount=type=cache,target=/root/.npm --mount=source=authorities.crt,target=/authorities.crt \\
    NODE_EXTRA_CA_CERTS=/authorities.crt npm install --cafile=/authorities.crt --omit=dev --no-audit --no-fund
COPY <<'EOT' index.js
console.log(require("left-pad")("7", 3, "0"), process.getuid())
EOT
USER 1000:1000
CMD ["node", "index.js"]
"""

WITH_GCC = """\
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
"""
C = """\
FROM with-gcc AS build
WORKDIR /src
COPY main.c .
ARG WORDS="nothing else"
RUN gcc -O2 -static -s -DWORDS="\\"$WORDS\\"" -o /hello main.c
FROM scratch
COPY --from=build --chmod=0555 /hello /hello
USER 65534:65534
ENTRYPOINT ["/hello"]
"""
MAIN = '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("%s %d\\n", WORDS, getuid()); return 0; }\n'


@pytest.fixture(scope="module")
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the image `debian`, made by mmdebstrap once and kept in .cache."""
    from test_debian import minbase

    tar = minbase(request.config.rootpath, tmp_path_factory.mktemp("debian"))
    with places.store_directory(needs.memory()) as root, Engine(root) as engine:
        if not engine.profile.runs:
            needs.missing("no containers can be run here")
        engine.archives.import_image(str(tar), "debian").result()
        yield engine


def configured(*command: str) -> str:
    """What this machine's own package manager is told to use, so that the build reaches it too; "" for the default."""
    if shutil.which(command[0]) is None:
        return ""
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return asked.stdout.strip() if not asked.returncode else ""


def authorities(context: Path) -> None:
    """Whom this machine trusts: where its way out is through a proxy, that is more than Debian does."""
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    shutil.copy(bundle, context / "authorities.crt")


def reachable(url: str) -> None:
    """Go on only if something answers there."""
    try:
        urllib.request.urlopen(url, timeout=20).close()
    except OSError as error:
        needs.missing(f"{url} is out of reach: {error}")


def build(engine: Engine, text: str, context: Path, **options: object) -> Image:
    return engine.build(text, BuildOptions(tags=("app",), context=context, **options)).result()  # type: ignore[arg-type]


def said(engine: Engine, *command: str) -> str:
    return engine.run(RunOptions(image="app", remove=True, command=command)).result().stdout


def test_a_python_application_with_a_cache_mount_stages_and_a_user_of_its_own(debian: Engine, tmp_path: Path) -> None:
    index = configured(sys.executable, "-m", "pip", "config", "get", "global.index-url")
    wheels = str(tmp_path / "wheels")
    downloads = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, "itsdangerous==2.2.0")
    if subprocess.run(downloads, timeout=120, check=False, capture_output=True).returncode:
        needs.missing("pip's index is out of reach")
    shutil.rmtree(wheels)
    authorities(tmp_path)
    (tmp_path / "requirements.txt").write_text("itsdangerous==2.2.0\n")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {index}\n" if index else "")
    (tmp_path / "app.py").write_text(APP)
    image = build(debian, PYTHON, tmp_path)
    assert said(debian) == "hello from world app x\n"
    assert said(debian, "you") == "hello from you app x\n"
    assert image.config.user == "app"
    assert image.config.healthcheck is not None
    assert image.config.healthcheck.interval_ns == 2_000_000_000
    (tmp_path / "app.py").write_text(APP.replace("print(", "print('again',"))
    changed = build(debian, PYTHON, tmp_path)
    assert changed.layers[:-1] == image.layers[:-1]
    assert said(debian) == "again hello from world app x\n"


def test_a_node_application(debian: Engine, tmp_path: Path) -> None:
    registry = configured("npm", "config", "get", "registry")
    if registry:
        reachable(registry)
    authorities(tmp_path)
    (tmp_path / "package.json").write_text('{"name": "app", "dependencies": {"left-pad": "1.3.0"}}\n')
    (tmp_path / ".npmrc").write_text(f"registry={registry}\n" if registry else "")
    kept.provide(debian, "with-node", WITH_NODE)
    build(debian, NODE, tmp_path)
    assert said(debian) == "007 1000\n"


def test_a_c_program_in_an_image_with_nothing_else(debian: Engine, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(MAIN)
    kept.provide(debian, "with-gcc", WITH_GCC)
    image = build(debian, C, tmp_path, build_args=("WORDS=one file",))
    assert said(debian) == "one file 65534\n"
    assert len(image.layers) == 1
    assert image.size_bytes < 2_000_000
