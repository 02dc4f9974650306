"""AlpaSim's `.proto` files into the descriptors that the package reads.

pip install grpcio-tools==1.62.3
python scripts/compile_alpasim.py
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

WIRE = Path(__file__).resolve().parents[1] / "python/alpagym/interop/alpasim/wire"


def compiled(folder: Path = WIRE / "proto") -> bytes:
    """A FileDescriptorSet of all `.proto` files of a folder, each after those that it imports."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "all.desc"
        protos = sorted(path.name for path in folder.glob("*.proto"))
        include = files("grpc_tools") / "_proto"
        command = ["protoc", f"-I{folder}", f"-I{include}", f"--descriptor_set_out={out}", *protos]
        if status := protoc.main(command):
            sys.exit(status)
        return out.read_bytes()


if __name__ == "__main__":
    (WIRE / "alpasim.desc").write_bytes(compiled())
