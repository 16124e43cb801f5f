"""The Dockerfile language: text to values. Knows nothing of building.

dockerfile = parse("FROM scratch\\nCOPY hello /\\n")
"""

from nbcontain.dockerfile.ast import Dockerfile
from nbcontain.dockerfile.parser import parse

__all__ = ["Dockerfile", "parse"]
