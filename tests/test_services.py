"""Databases and servers as people run them: detached, with volumes and health checks, under load, killed, made anew."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import kept
import needs
import places
from machine import until
from nbcontain.engine import Engine
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from test_real import debian  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(500)]

SERVICES = """\
FROM debian
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends postgresql redis-server nginx-light apache2-utils \\
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
VOLUME /var/lib/postgresql
"""
POSTGRES = (
    "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -c ssl=off -c unix_socket_directories=/tmp"
)
CONFIG = "-c config_file=/etc/postgresql/15/main/postgresql.conf -c hba_file=/tmp/hba"
POSTGRES_AS_IT_IS = f"echo 'local all all trust' > /tmp/hba; exec {POSTGRES} {CONFIG}"


@pytest.fixture(scope="module")
def services(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine with the image `services`, which is built once per checkout and Dockerfile, and loaded afterwards."""
    if kept.archive("services", SERVICES).exists():
        with places.store_directory(needs.memory()) as root, Engine(root) as engine:
            if not engine.profile.runs:
                needs.missing("no containers can be run here")
            kept.provide(engine, "services", SERVICES)
            yield engine
        return
    engine = request.getfixturevalue("debian")
    kept.provide(engine, "services", SERVICES)
    yield engine


def start(engine: Engine, name: str, script: str, health: str, **options: object) -> Container:
    """A detached service, once its health check says that it is well."""
    given = RunOptions(
        image="services", command=("sh", "-c", script), name=name, detach=True, network="none", health_cmd=health,
        health_interval="300ms", health_start_period="30s", health_start_interval="200ms", **options,
    )  # type: ignore[arg-type]  # fmt: skip
    container = engine.run(given).result()
    assert isinstance(container, Container)
    well(container)
    return container


def well(container: Container) -> None:
    until(lambda: health_of(container) == "healthy", timeout_s=60, what=lambda: said(container))


def health_of(container: Container) -> str:
    try:
        return str(json.loads((container.bundle.path / "health.json").read_text())["Status"])
    except (FileNotFoundError, ValueError):
        return "starting"


def said(container: Container) -> str:
    return b"".join(getattr(each.event, "data", b"") for each in container.output()).decode()[-2000:]


def inside(engine: Engine, container: Container, script: str, user: str = "") -> str:
    """What a client that is run in the same container writes."""
    said: list[bytes] = []
    code = container.execute(("sh", "-c", script), user=user, on_output=lambda stream, data: said.append(data))
    text = b"".join(said).decode()
    assert code == 0, text
    return text


def made_anew(engine: Engine, container: Container, make: object) -> Container:
    """Killed as by a power cut and started; then removed, with its layer, and made of the image again."""
    engine.kill(container, signal.SIGKILL)
    assert container.wait(20) == 137
    engine.start(container)
    well(container)
    engine.remove_container(container, force=True, volumes=True)
    return make()  # type: ignore[operator]


def test_postgresql(services: Engine) -> None:
    def make() -> Container:
        return start(
            services, "pg", POSTGRES_AS_IT_IS, "pg_isready -q -h /tmp", user="postgres",
            volumes=("pgdata:/var/lib/postgresql",), shm_size="256m", stop_signal="SIGINT",
        )  # fmt: skip

    database = make()
    bench = "/usr/lib/postgresql/15/bin/pgbench -h /tmp"
    inside(services, database, f"{bench} -q -i -s 2 postgres 2>&1", "postgres")
    told = inside(services, database, f"{bench} -c 4 -T 2 postgres 2>&1", "postgres")
    assert "number of failed transactions: 0" in told
    count = "psql -h /tmp -Atc 'select count(*), sum(delta) from pgbench_history' postgres"
    before = inside(services, database, count, "postgres")
    assert int(before.split("|")[0]) > 50
    services.restart(database)
    well(database)
    assert inside(services, database, count, "postgres") == before
    database = made_anew(services, database, make)
    assert inside(services, database, count, "postgres") == before
    services.stop(database)
    assert database.state().exit_code == 0


def test_redis(services: Engine) -> None:
    def make() -> Container:
        script = "exec redis-server --dir /data --appendonly yes --appendfsync always --save ''"
        return start(services, "redis", script, "redis-cli ping | grep -q PONG", volumes=("redis:/data",))

    store = make()
    told = inside(services, store, "redis-benchmark -q -n 4000 -t set,get,incr 2>&1")
    assert "requests per second" in told
    inside(services, store, "redis-cli set kept 'this is kept'")
    before = inside(services, store, "redis-cli get kept; redis-cli get counter:__rand_int__; redis-cli dbsize")
    store = made_anew(services, store, make)
    assert inside(services, store, "redis-cli get kept; redis-cli get counter:__rand_int__; redis-cli dbsize") == before
    assert "this is kept" in before


def test_nginx(services: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "hello.txt").write_text("hello from this machine\n")

    def make() -> Container:
        return start(
            services, "web", "exec nginx -g 'daemon off;'", "ab -q -n 1 http://127.0.0.1/hello.txt",
            volumes=(f"{tmp_path}:/var/www/html:ro", "weblogs:/var/log/nginx"), tmpfs=("/run", "/var/lib/nginx"),
            read_only=True,
        )  # fmt: skip

    web = make()
    told = inside(services, web, "ab -q -n 2000 -c 16 http://127.0.0.1/hello.txt")
    assert "Failed requests:        0" in told and "Non-2xx" not in told
    lines = int(inside(services, web, "grep -c 'GET /hello.txt' /var/log/nginx/access.log"))
    assert lines >= 2000
    web = made_anew(services, web, make)
    assert int(inside(services, web, "grep -c 'GET /hello.txt' /var/log/nginx/access.log")) > lines
    (tmp_path / "hello.txt").write_text("changed meanwhile\n")
    assert inside(services, web, "ab -q -v 4 -n 1 http://127.0.0.1/hello.txt").count("changed meanwhile") == 1
