"""What vendors' own SDKs send, captured on loopback: ``python tests/exporters/captures/capture.py NAME`` writes it.

Run it in an environment of its own that has the SDK (``SDKS`` says which); tests only read the files it has written.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SAID = [{"role": "user", "content": "hello"}]
ANSWER = {"role": "assistant", "content": "hi"}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
"""What the model answers that an SDK watches being called: at ``<origin>/upstream``, and not captured."""
WHOSE = {"project_name": "p-1", "project_url": "http://127.0.0.1", "id": str(uuid.uuid4()), "email": "u@example.com"}
"""What SDKs are answered that ask for their key's project or user."""


def langfuse(origin: str) -> None:
    os.environ |= {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-1", "LANGFUSE_BASE_URL": origin}
    import langfuse as sdk

    client = sdk.Langfuse(release="r-1", environment="testing")
    labels = sdk.propagate_attributes(user_id="u-1", session_id="s-1", tags=["a"], trace_name="t-1", version="v-1")
    call: Any = {"model": "gpt-4o-mini", "input": SAID, "model_parameters": {"temperature": 0.2}}
    with (
        client.start_as_current_observation(name="call", as_type="span"),
        labels,
        client.start_as_current_observation(name="chat", as_type="generation", **call) as generation,
    ):
        generation.update(
            output=ANSWER,
            usage_details={"input": 3, "output": 2},
            cost_details={"total": 0.1},
            metadata={"k": "v"},
            level="ERROR",
            status_message="bad",
            completion_start_time=datetime.now(UTC),
        )
    client.flush()


def langsmith(origin: str) -> None:
    import langsmith as sdk

    batches = {
        "use_multipart_endpoint": False,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
        "scale_up_nthreads_limit": 1,
        "scale_up_qsize_trigger": 1000,
        "scale_down_nempty_trigger": 4,
    }
    client = sdk.Client(api_url=origin, api_key="lsv2-1", info={"batch_ingest_config": batches})
    identifier = "6067ef37-5fb4-4158-bdd6-6cebdee54938"
    now = datetime.now(UTC)
    client.create_run(
        "chat",
        {"messages": SAID},
        "llm",
        id=identifier,
        trace_id=identifier,
        dotted_order=f"{now:%Y%m%dT%H%M%S%f}Z{identifier}",
        project_name="p-1",
        start_time=now,
        end_time=now,
        outputs={"messages": [ANSWER]},
        tags=["a"],
        error="bad",
        events=[{"name": "new_token", "time": now.isoformat()}],
        extra={"metadata": {"k": "v"}, "invocation_params": {"model": "gpt-4o-mini"}},
    )
    client.flush()


def athina(origin: str) -> None:
    os.environ["ATHINA_BASE_URL"] = os.environ["API_BASE_URL"] = origin
    from athina_logger import constants
    from athina_logger.api_key import AthinaApiKey
    from athina_logger.inference_logger import InferenceLogger

    for name in vars(constants):
        if isinstance(getattr(constants, name), str) and getattr(constants, name).startswith("https://"):
            setattr(constants, name, origin)
    AthinaApiKey.set_api_key("athina-1")
    InferenceLogger.log_inference(
        language_model_id="gpt-4o-mini",
        prompt=SAID,
        response={"choices": [{"message": ANSWER}]},
        prompt_tokens=3,
        completion_tokens=2,
        total_tokens=5,
        response_time=12,
        cost=0.1,
        session_id="s-1",
        customer_user_id="u-1",
        external_reference_id="x-1",
        custom_attributes={"k": "v"},
        tools=[],
        environment="testing",
        model_options={"temperature": 0.2},
    )


def arize(origin: str) -> None:
    import openinference.instrumentation as said
    from arize.otel import Transport, register

    provider = register(
        space_id="space-1",
        api_key="key-1",
        project_name="p-1",
        endpoint=f"{origin}/v1/traces",
        transport=Transport.HTTP,
        batch=False,
        set_global_tracer_provider=False,
        verbose=False,
    )
    call = said.get_llm_attributes(
        provider="openai",
        system="openai",
        model_name="gpt-4o-mini",
        invocation_parameters={"temperature": 0.2},
        input_messages=SAID,
        output_messages=[ANSWER],
        token_count={"prompt": 3, "completion": 2, "total": 5, "prompt_details": {"cache_read": 1}},
        tools=[{"json_schema": {"type": "function"}}],
    )
    values = said.get_input_attributes({"messages": SAID}) | said.get_output_attributes(ANSWER)
    labels = said.using_attributes(session_id="s-1", user_id="u-1", metadata={"k": "v"}, tags=["a"])
    with labels, provider.get_tracer("t").start_as_current_span("chat") as span:
        span.set_attributes({**said.get_span_kind_attributes("llm"), **values, **call})


def logfire(origin: str) -> None:
    os.environ["OPENAI_API_KEY"] = "sk-1"
    import logfire as sdk
    import openai

    here = sdk.AdvancedOptions(base_url=origin)
    sdk.configure(token="pylf_v1_us_1", service_version="1", console=False, inspect_arguments=False, advanced=here)
    client = openai.OpenAI(base_url=f"{origin}/upstream")
    sdk.instrument_openai(client)
    client.chat.completions.create(model="gpt-4o-mini", messages=SAID, temperature=0.2)
    sdk.force_flush()


def posthog(origin: str) -> None:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from posthog.ai.otel import PostHogSpanProcessor

    _calls(
        TracerProvider(resource=Resource({"posthog.distinct_id": "u-1"})),
        PostHogSpanProcessor(api_key="phc_1", host=origin),
    )


def braintrust(origin: str) -> None:
    from braintrust.otel import BraintrustSpanProcessor
    from opentelemetry.sdk.trace import TracerProvider

    processor = BraintrustSpanProcessor(api_key="key-1", parent="project_name:p-1", api_url=origin)
    _calls(TracerProvider(), processor)


def galileo(origin: str) -> None:
    os.environ |= {"GALILEO_API_KEY": "key-1", "GALILEO_API_URL": origin, "GALILEO_CONSOLE_URL": origin}
    # A token that expires in 2100, so that none is asked for.
    os.environ["GALILEO_JWT_TOKEN"] = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln"
    from galileo.otel import GalileoSpanProcessor
    from opentelemetry.sdk.trace import TracerProvider

    _calls(TracerProvider(), GalileoSpanProcessor(project="p-1", logstream="l-1"))


def confident(origin: str) -> None:
    import confident_trace as sdk

    sdk.init(api_key="confident_us_1", endpoint=f"{origin}/v1/traces", instrumentations=())
    labels: dict[str, Any] = {"user_id": "u-1", "thread_id": "s-1", "tags": ["a"], "metadata": {"k": "v"}}
    with sdk.span(name="chat", type="llm", model="gpt-4o-mini", input=SAID, output=ANSWER):
        sdk.update_span(input_token_count=3, output_token_count=2)
        sdk.update_span(cost_per_input_token=0.1, cost_per_output_token=0.2)
        sdk.update_trace(name="t-1", environment="testing", input=SAID, output=ANSWER, **labels)
    sdk.flush()


def traceloop(origin: str) -> None:
    os.environ |= {"OPENAI_API_KEY": "sk-1", "TRACELOOP_METRICS_ENABLED": "false"}
    import openai
    from traceloop.sdk import Traceloop

    Traceloop.init(app_name="p-1", api_endpoint=origin, api_key="key-1", disable_batch=True, telemetry_enabled=False)
    Traceloop.set_association_properties({"user_id": "u-1", "session_id": "s-1"})
    client = openai.OpenAI(base_url=f"{origin}/upstream")
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    client.chat.completions.create(model="gpt-4o-mini", messages=SAID, temperature=0.2, tools=[tool])


def langtrace(origin: str) -> None:
    os.environ |= {"OPENAI_API_KEY": "sk-1", "LANGTRACE_ERROR_REPORTING": "False"}
    import openai
    from langtrace_python_sdk import langtrace as sdk

    sdk.init(api_key="key-1", api_host=f"{origin}/api/trace", batch=False)
    client = openai.OpenAI(base_url=f"{origin}/upstream")
    client.chat.completions.create(model="gpt-4o-mini", messages=SAID, temperature=0.2)


def _calls(provider: Any, processor: Any) -> None:
    """Have a vendor's processor send a request and its generation."""
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("t")
    call = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
    with tracer.start_as_current_span("request"), tracer.start_as_current_span("chat", attributes=call):
        pass
    provider.force_flush()


SDKS: dict[str, tuple[str, Callable[[str], None]]] = {
    "langfuse": ("langfuse==5.0.4", langfuse),
    "langsmith": ("langsmith==0.15.0", langsmith),
    "athina": ("athina-logger==1.3.0", athina),
    "arize": ("arize-otel==0.14.1 opentelemetry-exporter-otlp==1.40.0", arize),
    "logfire": ("logfire==5.2.0 openai", logfire),
    "posthog": ("posthog==7.91.1 opentelemetry-exporter-otlp-proto-http", posthog),
    "braintrust": ("braintrust[otel]==0.47.0", braintrust),
    "galileo": ("galileo==2.7.0 opentelemetry-sdk==1.40.0 opentelemetry-exporter-otlp==1.40.0", galileo),
    "confident": ("confident-trace==0.1.11", confident),
    "langtrace": ("langtrace-python-sdk==3.8.18 opentelemetry-sdk==1.40.0 openai==1.109.1 deprecated", langtrace),
    "traceloop": ("traceloop-sdk==0.62.4 opentelemetry-sdk==1.40.0 openai==2.8.0", traceloop),
}


def main(name: str) -> None:
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            called = self.path.startswith("/upstream/")
            if not called:
                requests.append({"path": self.path, "headers": dict(self.headers.items()), "body": _readable(body)})
            self._answer(COMPLETION if called else {})

        def do_GET(self) -> None:
            self._answer(WHOSE)

        def _answer(self, tree: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(tree).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base's signature
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    package, run = SDKS[name]
    run(f"http://127.0.0.1:{server.server_port}")
    for _ in range(100):
        if requests:
            break
        time.sleep(0.1)
    told = {"sdk": package, "requests": requests}
    path = Path(__file__).parent / f"{name}.json"
    path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


def _readable(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return {"base64": base64.b64encode(_without_the_machine(body)).decode()}


def _without_the_machine(body: bytes) -> bytes:
    """Return an OTLP request whose resources do not tell what it was captured on."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(body)
    for each in request.resource_spans:
        kept = [item for item in each.resource.attributes if not item.key.startswith(("host.", "os.", "process."))]
        del each.resource.attributes[:]
        each.resource.attributes.extend(kept)
    return bytes(request.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])
