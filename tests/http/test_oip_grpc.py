"""The Open Inference Protocol over gRPC, with Triton's own client and with messages that it would not make."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs
from tritonclient.utils import InferenceServerException

from rollout import Regression, RolloutError, __version__
from rollout.config import Settings
from rollout.errors import HTTP_ERRORS, DeadlineExceededError
from rollout.http import oip_grpc
from rollout.http.gateway import Gateway
from rollout.http.oip_grpc import status_of
from tests.conftest import BIN, ROOT, TRIAL, free_port, run_service, set_split
from tests.http.conftest import HOST, Endpoints
from tests.http.test_oip import CLIENTS, IMAGES, OUTPUTS, as_text, predictions
from tests.images import three_or_eight

STARTS_PROCESSES = """
import asyncio
import sys
import uvloop
from rollout.http.oip_grpc import grpc, messages, stubs

CALLS = '''
import sys
from rollout.http.oip_grpc import grpc, messages, stubs
with grpc.insecure_channel(sys.argv[1]) as channel:
    print(flush=True)
    while True:
        stubs.GRPCInferenceServiceStub(channel).ServerLive(messages.ServerLiveRequest())
'''

class Servicer(stubs.GRPCInferenceServiceServicer):
    async def ServerLive(self, request, context):
        return messages.ServerLiveResponse(live=True)

async def main():
    server = grpc.aio.server()
    stubs.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    address = f"localhost:{server.add_insecure_port('localhost:0')}"
    await server.start()
    calls = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLS, address, stdout=asyncio.subprocess.PIPE
    )
    await calls.stdout.readline()
    codes = [await (await asyncio.create_subprocess_exec("true")).wait() for _ in range(600)]
    calls.kill()
    await calls.wait()
    await server.stop(None)
    print(sum(map(bool, codes)))

uvloop.run(main())
"""


@pytest.fixture
def client(endpoints: Endpoints) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(endpoints.grpc) as connected:
        yield connected


@pytest.fixture
def stub(endpoints: Endpoints) -> Iterator[Any]:
    with grpc.insecure_channel(endpoints.grpc) as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def images(pixels: NDArray[np.uint8] = IMAGES) -> list[triton.InferInput]:
    return [triton.InferInput("image", pixels.shape, "UINT8").set_data_from_numpy(pixels)]


def texts(name: str, *values: str) -> triton.InferInput:
    return triton.InferInput(name, [len(values)], "BYTES").set_data_from_numpy(np.array(values, object))


def parameters(result: triton.InferResult) -> dict[str, str | int]:
    said = result.get_response().parameters
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in said.items()}


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "v2")
    assert not client.is_model_ready("digits", "v9")
    assert not client.is_model_ready("cats")
    server = client.get_server_metadata()
    assert (server.name, server.version, list(server.extensions)) == (
        "rollout",
        __version__,
        ["binary_tensor_data"],
    )
    metadata = client.get_model_metadata("digits", "v2", as_json=True)
    assert metadata.pop("platform").startswith("onnx")
    assert metadata == {
        "name": "digits",
        "versions": ["v1", "v2"],
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": ["-1", "32", "32"]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": ["-1"]},
            {"name": "confidence", "datatype": "FP32", "shape": ["-1"]},
            {"name": "scores", "datatype": "FP32", "shape": ["-1", "10"]},
            {"name": "review", "datatype": "BYTES", "shape": ["-1"]},
        ],
    }


@pytest.mark.parametrize("arm", ["champion", "control", "challenger"])
def test_64_rows_are_answered_as_predict_answers_them(
    endpoints: Endpoints, client: triton.InferenceServerClient, arm: str
) -> None:
    client_id = CLIENTS[arm]
    result = client.infer("digits", images(), request_id="r-1", parameters={"client_id": client_id})
    response = result.get_response()
    expected = predictions(endpoints.service, client_id)
    assert (response.model_name, response.id) == ("digits", "r-1")
    assert response.model_version == expected[0]["version"] == ("v2" if arm == "challenger" else "v1")
    assert parameters(result) == {"arm": arm, "variant": expected[0]["variant"], "revision": 1}
    assert [output.name for output in response.outputs] == OUTPUTS
    assert as_text(result.as_numpy("label")) == [one["label"] for one in expected]
    assert as_text(result.as_numpy("review")) == [one["review"] or "" for one in expected]
    assert result.as_numpy("confidence") == pytest.approx([one["confidence"] for one in expected], abs=1e-5)
    assert result.as_numpy("scores") == pytest.approx(
        np.array([list(one["scores"].values()) for one in expected]), abs=1e-5
    )


def test_the_client_id_comes_in_the_parameters_or_in_the_metadata(client: triton.InferenceServerClient) -> None:
    challenger, control = CLIENTS["challenger"], CLIENTS["control"]
    for headers, given, arm in (
        ({"x-client-id": challenger}, None, "challenger"),
        ({"x-client-id": control}, {"client_id": challenger}, "challenger"),
        ({"x-client-id": control}, None, "control"),
        (None, None, "champion"),
    ):
        for _ in range(3):
            result = client.infer("digits", images(), headers=headers, parameters=given)
            assert parameters(result)["arm"] == arm


def test_only_what_is_asked_for_in_that_order(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("scores"), triton.InferRequestedOutput("label")]
    result = client.infer("digits", images(), outputs=wanted, compression_algorithm="gzip")
    assert [output.name for output in result.get_response().outputs] == ["scores", "label"]
    assert as_text(result.as_numpy("label")) == [str(digit) for digit in result.as_numpy("scores").argmax(-1)]


def test_an_uncertain_row_goes_to_review(endpoints: Endpoints, client: triton.InferenceServerClient) -> None:
    unsure = np.array([three_or_eight()], np.uint8)
    answer = client.infer("digits", images(unsure), parameters={"client_id": "grpc-7", "key": "page-3"})
    assert as_text(answer.as_numpy("review")) == ["queued"]
    with endpoints.service.admin() as admin:
        (item,) = admin.get("/v1/models/digits/reviews?client_id=grpc-7").json()["reviews"]
    assert (item["key"], item["inputs"]) == ("page-3", {"image": unsure[0].tolist()})


def test_texts_times_and_categories(client: triton.InferenceServerClient) -> None:
    text = texts("text", "Thursday's delivery was late", "Die Lieferung kam am Donnerstag zu spät")
    assert as_text(client.infer("languages", [text]).as_numpy("label")) == ["en", "de"]
    inputs = [texts("at", "2026-11-05T10:00:00Z", "2026-11-05T11:00:00+01:00"), texts("origin", "JFK", "JFK")]
    result = client.infer("departures", inputs)
    first, same_moment = result.as_numpy("value")
    assert first == same_moment
    assert (result.as_numpy("interval")[:, 0] < first).all()


def test_typed_contents(stub: Any, client: triton.InferenceServerClient) -> None:
    def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": shape, "contents": contents}

    pixels = tensor("image", "UINT8", [2, 32, 32], uint_contents=IMAGES[:2].ravel().tolist())
    typed = stub.ModelInfer(messages.ModelInferRequest(model_name="digits", inputs=[pixels]))
    raw = client.infer("digits", images(IMAGES[:2])).get_response()
    assert typed.raw_output_contents == raw.raw_output_contents
    text = tensor("text", "BYTES", [1], bytes_contents=[b"Thursday's delivery was late"])
    wanted = [{"name": "label"}]
    answer = stub.ModelInfer(messages.ModelInferRequest(model_name="languages", inputs=[text], outputs=wanted))
    assert answer.raw_output_contents == [b"\2\0\0\0en"]


IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32]}
NOT_RAW: dict[str, Any] = {"raw_input_contents": []}
STRING = messages.InferParameter(string_param="x")


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ({"raw_input_contents": [b"\0" * 1023]}, "INVALID_ARGUMENT", "holds 1023 bytes; its shape and datatype take 1024"),
        ({"raw_input_contents": [b"\0" * 1024] * 2}, "INVALID_ARGUMENT", "must hold 1 items, one for each input"),
        (NOT_RAW, "INVALID_ARGUMENT", "holds 0 elements"),
        (NOT_RAW | {"inputs": [IMAGE | {"contents": {"uint_contents": [256] * 1024}}]}, "INVALID_ARGUMENT", "holds 256 at [0, 0, 0]"),
        (NOT_RAW | {"inputs": [IMAGE | {"contents": {"int_contents": [0] * 1024}}]}, "INVALID_ARGUMENT", "holds 0 elements"),
        ({"inputs": [IMAGE | {"shape": [-1, 32, 32]}]}, "INVALID_ARGUMENT", "not -1"),
        ({"inputs": [IMAGE | {"datatype": "FP16"}]}, "INVALID_ARGUMENT", "must be UINT8, not FP16"),
        ({"inputs": [IMAGE | {"parameters": {"shared_memory_region": STRING}}]}, "INVALID_ARGUMENT", "shared_memory_region is not a parameter"),
        (NOT_RAW | {"inputs": []}, "INVALID_ARGUMENT", "lacks image"),
        ({"outputs": [{"name": "digit"}]}, "INVALID_ARGUMENT", "digit is not an output"),
        ({"outputs": [{"name": "scores"}] * 2}, "INVALID_ARGUMENT", "scores is there twice"),
        ({"outputs": [{"name": "scores"}] * 5000}, "INVALID_ARGUMENT", "/outputs holds 5,000 tensors; digits has 4 outputs"),
        (NOT_RAW | {"inputs": [{}] * 20_000}, "INVALID_ARGUMENT", "/inputs holds 20,000 tensors; digits has 1 inputs"),
        ({"outputs": [{"name": "label", "parameters": {"classification": STRING}}]}, "INVALID_ARGUMENT", "classification is not a parameter"),
        ({"parameters": {"client_id": messages.InferParameter(int64_param=7)}}, "INVALID_ARGUMENT", "/parameters/client_id expected str"),
        ({"parameters": {str(number): STRING for number in range(20)}}, "INVALID_ARGUMENT", "/parameters holds 20; at most 16"),
        ({"parameters": {"client": STRING}}, "INVALID_ARGUMENT", "/parameters/client is not a parameter"),
        ({"parameters": {"client": messages.InferParameter()}}, "INVALID_ARGUMENT", "/parameters/client is not a parameter"),
        ({"model_name": "cats"}, "NOT_FOUND", "there is no model 'cats'"),
        ({"model_name": "cäts" * 1_000_000}, "NOT_FOUND", "there is no model 'cäts"),
        ({"model_version": "v9"}, "NOT_FOUND", "no version 'v9' in memory"),
        ({"model_version": "v2"}, "INVALID_ARGUMENT", "this client gets v1, as champion, not v2"),
        ({"raw_input_contents": [b"\0" * 9_000_000]}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)  # fmt: skip
def test_requests_that_do_not_fit(stub: Any, request_: dict[str, Any], code: str, words: str) -> None:
    whole = {"model_name": "digits", "inputs": [IMAGE], "raw_input_contents": [b"\0" * 1024]} | request_
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(messages.ModelInferRequest(**whole))
    assert refused.value.code().name == code
    assert words in refused.value.details()


def test_what_it_does_not_have_is_unimplemented(stub: Any) -> None:
    request = messages.ModelInferRequest(model_name="digits")
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.ModelStreamInfer(iter([request])))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_other_methods_and_paths_are_unimplemented_and_nothing_fails(endpoints: Endpoints) -> None:
    before = endpoints.service.log.read_text().count("Traceback")
    service = "inference.GRPCInferenceService"
    with grpc.insecure_channel(endpoints.grpc) as channel:
        for path in ("/x/ModelInfer", "/ServerLive", f"/x/{service}/ServerLive", f"/{service}/RepositoryIndex"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(path)(b"")
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert endpoints.service.log.read_text().count("Traceback") == before


def test_what_is_open_to_everybody_is_answered_unread(endpoints: Endpoints) -> None:
    """Who sends no token could fill the memory with messages that never end, of as many calls as they like."""
    no_message = b"\xff"
    with grpc.insecure_channel(endpoints.grpc) as channel:
        for name, answer in (
            ("ServerLive", messages.ServerLiveResponse),
            ("ServerReady", messages.ServerReadyResponse),
        ):
            path = f"/inference.GRPCInferenceService/{name}"
            call = channel.unary_unary(path, response_deserializer=answer.FromString)
            assert call(no_message) == call(b"") != answer()
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")(no_message)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, "what takes a token is read"


def test_a_refused_message_is_not_kept_in_memory(endpoints: Endpoints, stub: Any) -> None:
    workers = psutil.Process(endpoints.service.process.pid).children(recursive=True)
    request = messages.ModelInferRequest(model_name="digits", raw_input_contents=[b"\0" * 7_000_000])
    for number in range(40):
        if number == 10:  # what a worker takes for the first stays for the next
            before = sum(worker.memory_info().rss for worker in workers)
        with pytest.raises(grpc.RpcError, match="must hold 0 items"):
            stub.ModelInfer(request)
    assert sum(worker.memory_info().rss for worker in workers) - before < 100_000_000


def test_a_call_has_one_authorization(endpoints: Endpoints, stub: Any) -> None:
    twice = (("authorization", "Bearer nobody"), ("authorization", f"Bearer {endpoints.service.token}"))
    for metadata in (twice, twice[::-1]):
        with pytest.raises(grpc.RpcError) as refused:
            stub.ServerMetadata(messages.ServerMetadataRequest(), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_deadline_of_the_call_is_that_of_the_rows(client: triton.InferenceServerClient) -> None:
    many = images(np.repeat(IMAGES, 16, 0))
    with pytest.raises(InferenceServerException) as refused:
        client.infer("digits", many, client_timeout=0.002)
    assert refused.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert client.infer("digits", many, client_timeout=30).as_numpy("label").shape == (1024,)


class Call:
    """A call that ends in half a second."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-client-id", "c-1"),)

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.trailing = metadata

    def time_remaining(self) -> float:
        return 0.5

    async def abort(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, str], ...]) -> None:
        self.aborted = code, details, trailing


async def test_the_rows_get_as_long_as_the_call_has_and_a_refusal_says_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def refuse(*arguments: Any) -> None:
        *_, client_id, _, deadline, _ = arguments
        assert deadline - time.monotonic() == pytest.approx(0.5, abs=0.1)
        assert client_id == "c-1"
        raise DeadlineExceededError("too late", headers={"Retry-After": "3"})

    monkeypatch.setattr(oip_grpc, "infer", refuse)
    gateway, call = Gateway(), Call()
    model = SimpleNamespace(name="digits", schema=SimpleNamespace(tensors={}), task=Regression())
    engine: Any = SimpleNamespace(models={"digits": None}, model=lambda _: model)
    gateway.open(engine, Settings(home=tmp_path))

    async def find(_: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(oip_grpc.Servicer(gateway).ModelInfer)

    details = SimpleNamespace(method="/inference.GRPCInferenceService/ModelInfer", invocation_metadata=())
    handler = await oip_grpc.Calls(gateway).intercept_service(find, details)
    await handler.unary_unary(messages.ModelInferRequest(model_name="digits"), call)
    assert call.aborted == (grpc.StatusCode.DEADLINE_EXCEEDED, "too late", (("retry-after", "3"), *call.trailing))
    assert [name for name, _ in call.trailing] == ["traceparent"]


def test_an_admin_sees_the_other_arm(endpoints: Endpoints, client: triton.InferenceServerClient) -> None:
    look = {"x-client-id": CLIENTS["control"], "x-rollout-arm": "challenger"}
    with pytest.raises(InferenceServerException, match="Authorization"):
        client.infer("digits", images(), headers=look)
    admin = look | {"authorization": f"Bearer {endpoints.service.token}"}
    result = client.infer("digits", images(), headers=admin)
    assert (result.get_response().model_version, parameters(result)["arm"]) == ("v2", "challenger")


def test_every_problem_has_a_status() -> None:
    codes = {error.type: status_of(error("")).name for error in HTTP_ERRORS if error.status not in (405, 415)}
    assert "UNKNOWN" not in codes.values()
    assert codes["invalid-request"] == "INVALID_ARGUMENT"
    assert codes["overloaded"] == "UNAVAILABLE"
    assert status_of(DeadlineExceededError("")) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert status_of(RolloutError("")) is grpc.StatusCode.INTERNAL


def test_tokens_and_a_stop_that_answers_what_is_in_flight(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *TRIAL)
    tokens = "app:app-token-0123456789,reviewer:reviewer-token-01234"
    port = str(free_port())
    app = {"authorization": "Bearer app-token-0123456789"}
    answered: list[tuple[int, ...]] = []
    refused: list[str] = []

    def flood(client: triton.InferenceServerClient) -> None:
        while not refused:
            try:
                answered.append(client.infer("digits", images(), headers=app).as_numpy("label").shape)
            except InferenceServerException as error:
                refused.append(error.status())

    with (
        run_service(tmp_path, ROLLOUT_TOKENS=tokens, ROLLOUT_GRPC_PORT=port, ROLLOUT_WORKERS="1") as running,
        triton.InferenceServerClient(f"{HOST}:{port}") as client,
    ):
        assert client.is_server_live()
        assert client.is_server_ready()
        for headers, code in (
            (None, "UNAUTHENTICATED"),
            ({"authorization": "Bearer nobody"}, "UNAUTHENTICATED"),
            ({"authorization": "Bearer reviewer-token-01234"}, "PERMISSION_DENIED"),
        ):
            for call in (client.get_server_metadata, partial(client.infer, "digits", images())):
                with pytest.raises(InferenceServerException) as error:
                    call(headers=headers)
                assert error.value.status() == f"StatusCode.{code}"
        asking = threading.Thread(target=flood, args=(client,))
        asking.start()
        time.sleep(1)
        assert running.stop() == 0
        asking.join()
        log = running.log.read_text()
        assert "Traceback" not in log
        for method in ("ServerMetadata", "ModelInfer"):
            assert re.search(rf"gRPC {method} 401 in .*problem unauthorized, traceparent 00-", log), log
    assert set(answered) == {(64,)}
    # gRPC cancels a call that reaches a stopping server before anybody has looked at it.
    assert refused in (["StatusCode.UNAVAILABLE"], ["StatusCode.CANCELLED"]), "none failed for another reason"


def test_a_port_in_use_and_a_missing_extra_are_said_in_one_line(endpoints: Endpoints, tmp_path: Path) -> None:
    def refuse(port: str, *, without: str = "nothing") -> str:
        hide = f"import sys; sys.modules['{without}'] = None; "
        start = f"{hide}from rollout.cli import main; sys.argv[1:] = ['serve', '--port', '{free_port()}']; main()"
        environment = {"ROLLOUT_HOME": str(tmp_path), "ROLLOUT_GRPC_PORT": port, "PATH": str(BIN)}
        done = subprocess.run(
            [sys.executable, "-c", start], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        return line

    port = endpoints.grpc.rpartition(":")[2]
    assert refuse(port) == (
        f"rollout: port {port} on 127.0.0.1 is in use: stop what uses it, or choose another with ROLLOUT_GRPC_PORT"
    )
    assert refuse("70000") == "rollout: ROLLOUT_GRPC_PORT must lie between 0 and 65535, not 70000"
    extra = "rollout: ROLLOUT_GRPC_PORT takes an extra: pip install 'rollout[grpc]'"
    assert refuse(str(free_port()), without="grpc") == extra
    assert refuse(str(free_port()), without="tritonclient") == extra


def test_what_a_worker_starts_while_calls_come_in_does_not_crash() -> None:
    command = [sys.executable, "-c", STARTS_PROCESSES]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert (ended.stdout, ended.returncode) == ("0\n", 0), ended.stderr
