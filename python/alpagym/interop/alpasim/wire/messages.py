"""AlpaSim's messages as classes, made from the `.proto` files beside this one.

They live in a descriptor pool of their own: `alpasim_grpc` and `carla-driver-interface` put the
same names into protobuf's default pool, which holds each only once, so that no two of them could be
imported into one process. After a change of a `.proto` file run `scripts/compile_alpasim.py`.

    from alpagym.interop.alpasim.wire.messages import common, egodriver

    egodriver.DriveRequest(session_uuid="...", time_now_us=100_000)

Fields that are not known here are kept, and written out again.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

DESCRIPTORS = Path(__file__).with_name("alpasim.desc")
"""What protoc makes of all `.proto` files: a FileDescriptorSet."""


def _filled_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _filled_pool()
"""Where all of them are described."""


def _names_of(file: str) -> SimpleNamespace:
    """Messages and enumerations of one file, by name."""
    found = POOL.FindFileByName(file)
    return SimpleNamespace(
        **{n: message_factory.GetMessageClass(m) for n, m in found.message_types_by_name.items()},
        **{n: EnumTypeWrapper(e) for n, e in found.enum_types_by_name.items()},
    )


common = _names_of("common.proto")
sensorsim = _names_of("sensorsim.proto")
egodriver = _names_of("egodriver.proto")
controller = _names_of("controller.proto")
traffic = _names_of("traffic.proto")
physics = _names_of("physics.proto")
runtime = _names_of("runtime.proto")
log = _names_of("logging.proto")
