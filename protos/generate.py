"""Write `common/fedprune/v1` from the .proto files beside this one.

The generator is pinned (grpcio-tools 1.74: its output loads under protobuf 6 and 7) and its output is committed;
`tests/test_protos.py` regenerates into a temporary folder and compares.

Example: python protos/generate.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def generate(out: Path) -> None:
    """Generate messages, service and stubs of every .proto file under `out`/fedprune/v1."""
    sources = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.rglob("*.proto"))
    includes = [f"-I{PROTOS}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    # The plugins of this environment, which need not be the first on the PATH, nor on it at all.
    plugins = [f"--plugin={name}={Path(sys.executable).with_name(name)}" for name in PLUGINS]
    if protoc.main(["protoc", *includes, *plugins, *outputs, *sources]) != 0:
        sys.exit("protoc failed; see its message above")
    (out / "fedprune" / "v1" / "__init__.py").touch()


if __name__ == "__main__":
    generate(PROTOS.parent / "common")
