"""Reading and planning a Dockerfile of 200 lines, beside BuildKit's own parser (the wheel `dockerfile`, in Go).

Go's only splits the lines; ours also makes values of them, plans the build, and runs all checks.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from measuring import heading, interleaved, ratio, row

import dockerfile
from nbcontain.build.plan import BuildOptions, plan
from nbcontain.dockerfile import parse
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
LIMIT_MS = 10
PIECE = """
# stage {0}
FROM scratch AS stage{0}
ARG VERSION=1.{0} OTHER
ENV NAME=value{0} PATH="/opt/bin:$PATH" QUOTED='a b' \\
    LONGER=${{VERSION:-none}}/${{OTHER+given}}
WORKDIR /srv/app{0}
COPY --chown=1000:1000 requirements.txt setup.py ./
RUN --mount=type=cache,target=/root/.cache/pip \\
    pip install -r requirements.txt && \\
    rm -rf /tmp/*
RUN <<EOF
set -e
echo "$NAME"
EOF
COPY <<CONF /etc/app.conf
name = $NAME
CONF
LABEL org.example.version="$VERSION" org.example.name=${{NAME#val}}
EXPOSE 80{0} 9000-9003/udp
HEALTHCHECK --interval=30s CMD ["app", "check"]
CMD ["app", "serve", "--port", "80{0}"]
"""


def absent(reference: Reference, platform: Platform) -> Image:
    raise AssertionError(f"{reference} on {platform}")


def timed(work: Callable[[], object]) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return once


def main() -> None:
    """Print the table."""
    source = "".join(PIECE.format(number) for number in range(9))
    source += "FROM scratch\n" + "".join(f"COPY --from=stage{number} /srv /out{number}\n" for number in range(9))
    parsed = parse(source)
    times = interleaved(
        ROUNDS,
        {
            "go": timed(lambda: dockerfile.parse_string(source)),
            "parse": timed(lambda: parse(source)),
            "plan": timed(lambda: plan(parsed, BuildOptions(), absent, {})),
            "both": timed(lambda: plan(parse(source), BuildOptions(), absent, {})),
        },
    )
    heading(f"a Dockerfile of {source.count(chr(10))} lines")
    row("BuildKit's parser", times["go"])
    for name, said in (("parse", "parse"), ("plan", "plan and check"), ("both", "parse, plan and check")):
        row(said, times[name], f"{ratio(times, name, 'go'):.1f} times Go's parser")
    print(f"at most {LIMIT_MS} ms: {'met' if statistics.median(times['both']) <= LIMIT_MS else 'MISSED'}")


if __name__ == "__main__":
    main()
