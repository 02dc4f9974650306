"""AlpaSim's services: one table of methods, from which servers and clients are made."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from alpagym.interop.alpasim.wire.messages import POOL

EGODRIVER = "egodriver.EgodriverService"
RUNTIME = "RuntimeService"
CONTROLLER = "controller.VDCService"
TRAFFIC = "traffic.TrafficService"
PHYSICS = "physics.PhysicsService"
SENSORSIM = "nre.grpc.protos.sensorsim.SensorsimService"


@dataclass(frozen=True)
class Method:
    """One call: a message for a message."""

    path: str
    """`/package.Service/method`"""
    request: Any
    """Class of what is sent."""
    response: Any
    """Class of what comes back."""


def methods_of(service: str) -> dict[str, Method]:
    """The methods of a service by name, in the order of its `.proto` file."""
    return {
        m.name: Method(
            f"/{service}/{m.name}",
            message_factory.GetMessageClass(m.input_type),
            message_factory.GetMessageClass(m.output_type),
        )
        for m in POOL.FindServiceByName(service).methods
    }


class Fault(Exception):
    """Ends a call with a status and one sentence; what else is going on is not touched."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Stub:
    """The client's side of a service: a callable for each of its methods.

    `await stub.drive(request, timeout=1.0)` on a channel of `grpc.aio`; without `await` on one of
    `grpc`.
    """

    def __init__(self, channel: Any, service: str) -> None:
        for name, method in methods_of(service).items():
            call = channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            setattr(self, name, call)

    def __getattr__(self, name: str) -> Any:  # for type checkers; only asked where none is set
        raise AttributeError(name)


def handler_of(service: str, implementation: object) -> grpc.GenericRpcHandler:
    """The server's side of a service, for `grpc.aio.Server.add_generic_rpc_handlers`.

    Args:
        service: whose methods are served.
        implementation: has a coroutine function for each method that it serves, of the same name,
            which takes the request and gives the response, or raises `Fault`. Methods that it has
            not end with UNIMPLEMENTED, bytes that are no such message with INVALID_ARGUMENT, and
            whatever else is raised with INTERNAL, and a traceback on the terminal.
    """
    return grpc.method_handlers_generic_handler(
        service,
        {
            name: grpc.unary_unary_rpc_method_handler(
                _guarded(name, method, getattr(implementation, name, None))
            )
            for name, method in methods_of(service).items()
        },
    )


def _guarded(
    name: str, method: Method, function: Callable[[Any], Awaitable[Any]] | None
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def call(data: bytes, context: Any) -> bytes:
        try:
            if function is None:
                raise Fault(grpc.StatusCode.UNIMPLEMENTED, f"{name}: not served here")
            response = await function(_parsed(name, method, data))
            return bytes(response.SerializeToString())
        except Fault as fault:
            await context.abort(fault.code, str(fault))
        except Exception as error:
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            await context.abort(grpc.StatusCode.INTERNAL, f"{name}: failed with {reason:.200}")
        raise AssertionError("abort raises")

    return call


def _parsed(name: str, method: Method, data: bytes) -> Any:
    try:
        return method.request.FromString(data)
    except DecodeError as error:
        raise Fault(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{name}: expected a message {method.request.DESCRIPTOR.full_name}, "
            f"got {len(data)} bytes that are none",
        ) from error
