"""AlpaSim's contract on the wire: descriptors, services over sockets, limits, TLS, poses."""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2

from alpagym.interop.alpasim.wire import connection, messages, services
from alpagym.interop.alpasim.wire.messages import common, egodriver, log, runtime
from alpagym.interop.alpasim.wire.services import EGODRIVER, Fault, Stub, handler_of

ROOT = Path(__file__).resolve().parents[1]
CALL_S = 60.0


class Echo:
    """A driver that answers two calls, and fails at others."""

    async def get_version(self, request):
        return common.VersionId(version_id="echo")

    async def drive(self, request):
        return egodriver.DriveResponse(
            debug_info={"unstructured_debug_info": request.renderer_data}
        )

    async def submit_route(self, request):
        raise Fault(grpc.StatusCode.NOT_FOUND, f"session {request.session_uuid}: no such session")

    async def submit_egomotion_observation(self, request):
        raise RuntimeError("two\nlines")


def served(talk, *, tls=None, client_tls=None, max_message_mib=1):
    """What `talk(channel)` gives, with a channel to an `Echo` at a free port."""

    async def run():
        server = connection.make_server(
            handler_of(EGODRIVER, Echo()), max_message_mib=max_message_mib
        )
        port = connection.listen(server, tls=tls)
        await server.start()
        try:
            async with connection.dial(f"127.0.0.1:{port}", client_tls) as channel:
                return await asyncio.wait_for(talk(channel), CALL_S)
        finally:
            await server.stop(None)

    return asyncio.run(run())


def status_of(talk, **options):
    """The status and the sentence with which a call fails."""

    async def fail(channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await talk(channel)
        return caught.value.code(), caught.value.details()

    return served(fail, **options)


def test_descriptors_are_those_of_the_proto_files() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    spec = importlib.util.spec_from_file_location("compile", ROOT / "scripts/compile_alpasim.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    parse = descriptor_pb2.FileDescriptorSet.FromString
    assert parse(messages.DESCRIPTORS.read_bytes()) == parse(script.compiled())


def test_names_and_numbers_are_the_contracts() -> None:
    """What cannot be seen from our own two sides talking to each other."""

    def numbers(message) -> dict[str, tuple[int, int]]:
        return {f.name: (f.number, f.type) for f in message.DESCRIPTOR.fields}

    kinds = descriptor_pb2.FieldDescriptorProto
    fixed64, text, data = kinds.TYPE_FIXED64, kinds.TYPE_STRING, kinds.TYPE_BYTES
    message, flag = kinds.TYPE_MESSAGE, kinds.TYPE_BOOL
    assert numbers(egodriver.DriveRequest) == {
        "session_uuid": (1, text),
        "time_now_us": (3, fixed64),
        "time_query_us": (4, fixed64),
        "renderer_data": (5, data),
    }
    assert numbers(egodriver.DriveResponse) == {
        "trajectory": (2, message),
        "debug_info": (3, message),
        "terminate_session": (4, flag),
    }
    assert numbers(runtime.RolloutSpec)["start_time_offset_us"] == (4, fixed64)
    assert numbers(runtime.RolloutSpec)["random_seed"] == (5, fixed64)
    assert [f.name for f in common.Quat.DESCRIPTOR.fields] == ["w", "x", "y", "z"]
    assert numbers(log.LogEntry)["batch_render_request"][0] == 30
    paths = {m.path for s in (EGODRIVER, services.RUNTIME) for m in services.methods_of(s).values()}
    assert {"/egodriver.EgodriverService/drive", "/RuntimeService/simulate"} <= paths
    assert "/nre.grpc.protos.sensorsim.SensorsimService/render_rgb" in {
        m.path for m in services.methods_of(services.SENSORSIM).values()
    }


def test_unknown_fields_pass_through() -> None:
    newer = runtime.RolloutSpec(scenario_id="a").SerializeToString() + b"\xfa\x07\x03abc"
    assert runtime.RolloutSpec.FromString(newer).SerializeToString() == newer


def test_the_default_pool_is_left_alone() -> None:
    program = """
from google.protobuf import descriptor_pb2, descriptor_pool
import alpagym.interop.alpasim.wire.messages
file = descriptor_pb2.FileDescriptorProto(name="common.proto", package="common", syntax="proto3")
file.message_type.add(name="Vec3")
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
descriptor_pool.Default().FindMessageTypeByName("common.Vec3")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Services


def test_a_call_and_its_answer() -> None:
    async def talk(channel):
        stub = Stub(channel, EGODRIVER)
        version = await stub.get_version(common.Empty())
        answer = await stub.drive(egodriver.DriveRequest(renderer_data=b"\0\xff"))
        return version.version_id, answer.debug_info.unstructured_debug_info

    assert served(talk) == ("echo", b"\0\xff")


def test_faults_become_statuses_with_one_sentence(capfd) -> None:
    def fail(method, request):
        return status_of(lambda channel: getattr(Stub(channel, EGODRIVER), method)(request))

    code = grpc.StatusCode
    assert fail("submit_route", egodriver.RouteRequest(session_uuid="x")) == (
        code.NOT_FOUND,
        "session x: no such session",
    )
    assert fail("close_session", egodriver.DriveSessionCloseRequest()) == (
        code.UNIMPLEMENTED,
        "close_session: not served here",
    )
    assert "Traceback" not in capfd.readouterr().err
    status, sentence = fail("submit_egomotion_observation", egodriver.RolloutEgoTrajectory())
    assert status == code.INTERNAL
    assert sentence == "submit_egomotion_observation: failed with RuntimeError: two lines"
    assert "Traceback" in capfd.readouterr().err


def test_bytes_that_are_no_message() -> None:
    for data in (b"\xff", b"\x0a\x05ab", b"\x07" * 1000):
        status, sentence = status_of(
            lambda channel, data=data: channel.unary_unary("/egodriver.EgodriverService/drive")(
                data
            )
        )
        assert status == grpc.StatusCode.INVALID_ARGUMENT
        assert sentence == (
            f"drive: expected a message egodriver.DriveRequest, got {len(data)} bytes that are none"
        )


def test_large_messages_are_refused_on_both_sides() -> None:
    def drive(size):
        request = egodriver.DriveRequest(renderer_data=bytes(size))
        return lambda channel: Stub(channel, EGODRIVER).drive(request)

    answer = served(drive(900_000))
    assert len(answer.debug_info.unstructured_debug_info) == 900_000
    status, sentence = status_of(drive(1_100_000))
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in sentence


def test_two_servers_cannot_share_a_port() -> None:
    async def run():
        server = connection.make_server(handler_of(EGODRIVER, Echo()))
        port = connection.listen(server)
        await server.start()
        try:
            other = connection.make_server(handler_of(EGODRIVER, Echo()))
            with pytest.raises(ValueError, match=f"127.0.0.1:{port}: expected an address"):
                connection.listen(other, port=port)
        finally:
            await server.stop(None)

    asyncio.run(run())


def test_which_hosts_are_this_machine() -> None:
    own = ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"]
    others = ["0.0.0.0", "::", "10.1.2.3", "example.org"]
    assert all(map(connection.is_loopback, own))
    assert not any(map(connection.is_loopback, others))


def test_addresses() -> None:
    assert connection.address_of("127.0.0.1", 1) == "127.0.0.1:1"
    assert connection.address_of("::1", 1) == connection.address_of("[::1]", 1) == "[::1]:1"


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Files of a server and of a client, each signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client"):
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        command += ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"openssl makes no certificates here: {error}")
    ssl.create_default_context(cafile=folder / "server.pem")
    return folder


def version(channel):
    return Stub(channel, EGODRIVER).get_version(common.Empty(), timeout=CALL_S)


def test_tls_in_both_directions(certificates) -> None:
    def of(name, authority=""):
        return connection.Tls(
            certificate=str(certificates / f"{name}.pem"),
            key=str(certificates / f"{name}.key"),
            authority=authority and str(certificates / f"{authority}.pem"),
        )

    knows_server = connection.Tls(authority=str(certificates / "server.pem"))
    assert served(version, tls=of("server"), client_tls=knows_server).version_id == "echo"
    both = {"tls": of("server", "client"), "client_tls": of("client", "server")}
    assert served(version, **both).version_id == "echo"
    for client in (knows_server, None, connection.Tls(authority=str(certificates / "client.pem"))):
        status, _ = status_of(version, tls=of("server", "client"), client_tls=client)
        assert status == grpc.StatusCode.UNAVAILABLE


def test_half_a_pair_of_tls_files_is_refused(certificates) -> None:
    with pytest.raises(ValueError, match="expected a certificate and its key, got only a key"):
        connection.Tls(key="a")

    async def run():
        server = connection.make_server()
        only_authority = connection.Tls(authority=str(certificates / "client.pem"))
        with pytest.raises(ValueError, match="a server needs a certificate"):
            connection.listen(server, tls=only_authority)
        absent = connection.Tls(certificate="absent.pem", key="absent.key")
        with pytest.raises(OSError, match="absent"):
            connection.listen(server, tls=absent)

    asyncio.run(run())


def test_a_missing_package_is_named(monkeypatch) -> None:
    from alpagym.interop.alpasim import wire

    wire.require()
    monkeypatch.setitem(sys.modules, "grpc.aio", None)
    with pytest.raises(ValueError, match=r"need grpcio and protobuf .* alpagym\[alpasim\]"):
        wire.require()
