"""Images for the registry tests, and engines that know nobody's credentials."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

from nbcontain.engine import Engine
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Descriptor, Image, ImageConfig, Layer, Platform
from nbcontain.registry.client import Patience


def new_engine(root: Path, home: Path) -> Engine:
    engine = Engine(root, {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home)})
    engine.registry.patience = Patience(6, 0.001, 0.01)
    return engine


def image_of(*texts: bytes, platform: Platform | None = None) -> tuple[Image, dict[Digest, bytes]]:
    """An image with one layer for each text, and all its blobs."""
    layers, blobs = [], {}
    for number, text in enumerate(texts):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo(f"file{number}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
        data = gzip.compress(buffer.getvalue(), 1, mtime=0)
        layers.append(
            Layer(Descriptor(LAYER_TAR_GZIP, Digest.of(data), len(data)), DiffID(Digest.of(buffer.getvalue())))
        )
        blobs[Digest.of(data)] = data
    image = Image.of(ImageConfig(platform=platform or Platform.here(), cmd=("true",)), layers)
    blobs[image.id] = image.raw_config
    return image, blobs
