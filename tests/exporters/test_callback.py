"""Callbacks in Python run in a real process of their own; the seeds' files as they stand."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.tracing.record import Record, capture_whole
from otelgw_exporters.callback import CallbackExporter
from otelgw_exporters.delivery import Exporter, Outcome
from otelgw_exporters.errors import DestinationConfigError
from tests.exporters.samples import generation, span
from tests.exporters.test_file import request
from tests.tracing.records import record, refused, scenarios
from tests.tracing.test_spans import build

SEEDS = Path(__file__).parents[2] / "../shared/seeds"
FILES = Path(__file__).parent / "callback_files"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LIMIT = 20.0  # seconds in which everything here happens, on a busy machine too
Make = Callable[..., CallbackExporter]


def seed(name: str, *words: str) -> str:
    """Return the first Python file in a seed that holds ``words``."""
    path = SEEDS / name
    if not path.is_file():
        pytest.skip("the seeds are not beside the repository")
    return next(text for text in FENCE.findall(path.read_text()) if all(word in text for word in words))


@pytest.fixture
def make(tmp_path: Path, closing: Callable[[Exporter], Exporter]) -> Make:
    """Return a function that writes a module beside a config and makes the exporter of one of its objects."""

    def run(target: str, code: str = "", **given: Any) -> CallbackExporter:
        name = target.rpartition(".")[0].rpartition(".")[2]
        stored = FILES / f"{name}.txt"
        if code or stored.is_file():
            (tmp_path / f"{name}.py").write_text(code or stored.read_text())
        variables = {"RECORDED": str(tmp_path / "recorded"), "TRIED": str(tmp_path / "tried")}
        environment = {**os.environ, **variables, "SOME_API_KEY": "CANARY-secret-0123456789"}
        made = CallbackExporter(target=target, directory=str(tmp_path), environment=environment, **given)
        closing(made)
        return made

    return run


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[[], list[Any]]:
    return lambda: [json.loads(line) for line in (tmp_path / "recorded").read_text().splitlines()]


def deliver(made: Exporter, spans: Sequence[ReadableSpan], seconds: float = LIMIT) -> Outcome:
    return made.deliver(spans, time.monotonic() + seconds)


def states(outcome: Outcome) -> list[str]:
    return [verdict.state for verdict in outcome.verdicts]


def only(outcome: Outcome) -> str:
    """Return the fate that all spans share."""
    (state,) = set(states(outcome))
    return state


def test_the_seeds_file_runs_unchanged_and_prints_to_our_own_standard_output(
    make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    code = seed("litellm-proxy-logging.md", "proxy_handler_instance", "async_log_failure_event")
    made = make("custom_callbacks.proxy_handler_instance", code)
    for each in (record(credentials=("authorization",)), scenarios()["refused_by_upstream"]):
        assert only(deliver(made, build(each))) == "done"
    printed = capfd.readouterr().out
    assert re.findall(r"^(Pre-API Call|Post-API Call|On .*!)$", printed, re.MULTILINE) == [
        "Pre-API Call",
        "Post-API Call",
        "On Async Success!",
        "Pre-API Call",
        "Post-API Call",
        "On Async Failure !",
    ]
    assert "Response: ModelResponse(id='chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT'" in printed
    assert "Cost: 0.001209" in printed
    assert "now checking response obj" in printed
    assert "Exception: Rate limit reached" in printed
    assert "Response: None" in printed
    assert "'authorization': 'REDACTED'" in printed


def test_the_seeds_file_from_a_bucket_and_its_small_examples_run(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    made = make("custom_callbacks.custom_handler", seed("litellm-proxy-logging.md", "custom_handler ="))
    assert only(deliver(made, build(record()))) == "done"
    head = "from litellm.integrations.custom_logger import CustomLogger\n"
    for number, word in enumerate(('get("proxy_server_request")', 'get("model_info")', "print(response_obj)")):
        code = f"{head}{seed('litellm-proxy-logging.md', word)}\nhandler = MyCustomHandler()\n"
        made = make(f"example{number}.handler", code, model_info={"": {"mode": "chat"}})
        assert only(deliver(made, build(record()))) == "done"
    printed = capfd.readouterr().out
    assert "Custom UI SSO callback executed!" in printed
    assert "{'url': 'http://gateway.example:4000/v1/chat/completions', 'method': 'POST'" in printed
    assert "ModelResponse(id='chatcmpl-" in printed


def test_the_seed_of_2023_raises_at_its_undefined_name_which_is_contained_and_logged_once(
    make: Make, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = make("custom_callbacks.proxy_handler_instance", seed("litellm-proxy-logging-2023.md", "CustomLogger"))
    failed = request(2, status=429, error_type="429")
    outcome = deliver(made, [*request(0), *request(1), *failed])
    assert states(outcome) == ["dead"] * 6 + ["done"] * 3
    assert outcome.reason == (
        "custom_callbacks.proxy_handler_instance: log_success_event raised NameError (custom_callbacks.py:39)"
    )
    (entry,) = [each for each in caplog.records if each.name == "otelgw_exporters.callback"]
    assert "NameError: name 'response' is not defined" in entry.getMessage()
    assert 'custom_callbacks.py", line 39, in log_success_event' in entry.getMessage()
    printed = capfd.readouterr().out
    assert printed.count("Pre-API Call") == 3
    assert printed.count("On Success") == 2
    assert printed.count("On Failure") == 1


def test_every_hook_is_given_what_litellm_gives_it(make: Make, recorded: Callable[[], list[Any]]) -> None:
    made = make("recorder.instance", model_info={"": {"mode": "chat", "input_cost_per_token": 0.002}})
    headers = [("x-mine", "1"), ("cookie", "a=CANARY"), ("x-api-key", "CANARY")]
    deliver(made, build(record(request_headers=headers, credentials=("authorization", "cookie"))))
    pre, post, (name, facts) = recorded()
    assert pre[:3] == ["pre", "gpt-4o", [{"role": "user", "content": "CANARY say hello"}]]
    assert {"model", "messages", "user", "litellm_params", "standard_logging_object", "exception"} <= set(pre[3])
    assert post == ["post", None, 0.092]
    assert (name, facts["model"], facts["user"], facts["call_type"]) == ("success", "gpt-4o", "u-1", "acompletion")
    assert facts["metadata"].items() >= {"feature": "x", "model_group": "gpt", "user_api_key": "ab" * 32}.items()
    assert facts["request"] == {
        "url": "http://gateway.example:4000/v1/chat/completions",
        "method": "POST",
        "headers": {
            "host": "gateway.example:4000",
            "user-agent": "OpenAI/Python 2.0",
            "content-length": "113",
            "x-mine": "1",
            "cookie": "REDACTED",
            "x-api-key": "REDACTED",
            "authorization": "REDACTED",
        },
        "body": {
            "model": "gpt",
            "messages": [{"role": "user", "content": "CANARY say hello"}],
            "user": "u-1",
            "metadata": {"feature": "x"},
        },
    }
    assert facts["model_info"] == {"mode": "chat", "input_cost_per_token": 0.002}
    assert (facts["cost"], facts["nothing"]) == (0.001209, [0.0, 0.0, 0.0])
    assert facts["usage"] == [1163, 1163]
    assert facts["whole"]["choices"][0]["message"]["content"] == "Hello! How can I assist you today?"


def text_completion() -> Record:
    """Return the record of a call of the older API, whose answer is text."""
    asked = b'{"model": "gpt", "prompt": "Once upon"}'
    answer = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"index": 0, "text": " a time", "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    }
    made = record()
    target = msgspec.structs.replace(made.target, operation="text_completion", dialect="openai_completions")
    held = {"request": asked, "response": json.dumps(answer).encode()}
    bodies = {name: capture_whole(body, "application/json") for name, body in held.items()}
    return record(target=target, route="/v1/completions", path="/v1/completions", **bodies)


@pytest.mark.parametrize(
    ("made", "kind", "call_type"),
    [
        (
            scenarios()["stream_with_tool_calls"],
            "ModelResponse",
            "acompletion",
        ),
        (scenarios()["embeddings"], "EmbeddingResponse", "aembedding"),
        (text_completion(), "TextCompletionResponse", "atext_completion"),
    ],
)
def test_streams_embeddings_and_completions_have_their_response(
    make: Make, recorded: Callable[[], list[Any]], made: Record, kind: str, call_type: str
) -> None:
    deliver(make("recorder.instance"), build(made))
    names = [each[0] for each in recorded()]
    assert names == (["pre", "post", "stream", "success"] if made.stream else ["pre", "post", "success"])
    facts = recorded()[-1][1]
    assert (facts["kind"], facts["call_type"]) == (kind, call_type)
    if call_type == "aembedding":
        assert isinstance(facts["input"][0], str)
        assert facts["whole"]["data"][0]["embedding"]
    if call_type == "atext_completion":
        assert facts["whole"]["choices"][0]["text"] == " a time"


def test_a_failure_has_an_exception_of_litellms_and_no_response(make: Make, recorded: Callable[[], list[Any]]) -> None:
    deliver(make("recorder.instance"), build(scenarios()["refused_by_upstream"]))
    failure, kinds, traceback = recorded()[2:]
    assert failure[2:] == ["RateLimitError", 429, "Rate limit reached"]
    assert (failure[1]["kind"], failure[1]["cost"]) == ("NoneType", 0.0)
    assert kinds == [True, True]
    assert traceback == ["litellm.exceptions.RateLimitError: Rate limit reached\n"]


def test_a_function_is_called_for_both_outcomes(make: Make, recorded: Callable[[], list[Any]]) -> None:
    made = make("recorder.function")
    for each in (record(), refused(401, "unauthorized", "no")):
        deliver(made, build(each))
    assert recorded() == [["function", "successful_api_call", False], ["function", "failed_api_call", True]]


def test_a_hook_that_blocks_is_ended_and_holds_up_no_other_call(
    make: Make, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = make("trouble.blocking", timeout=0.4, attempts=2)
    spans = [*request(0), *request(1), *request(2)]
    outcome = deliver(made, spans)
    assert states(outcome) == ["done"] * 3 + ["retry"] * 3 + ["done"] * 3
    outcome = deliver(made, request(1))
    assert only(outcome) == "dead"
    assert outcome.reason == "trouble.blocking: took more than 0.4 s and was ended, 2 times"
    assert capfd.readouterr().out.split() == ["done", "call-0", "done", "call-2"]
    assert (tmp_path / "tried").read_text() == "xx"


def test_a_call_that_outlasts_one_delivery_goes_on_in_the_next_and_is_made_once(make: Make, tmp_path: Path) -> None:
    made = make("trouble.slowly", timeout=LIMIT)
    assert only(deliver(made, request(0))) == "done"  # it runs
    outcome = deliver(made, request(1), 0.3)
    assert (only(outcome), outcome.reason) == ("retry", "it is still running")
    assert only(deliver(made, request(1))) == "done"
    assert (tmp_path / "tried").read_text() == "x"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("trouble.exiting", "its process ended with status 7, 3 times"),
        ("trouble.eating", "log_success_event raised MemoryError (trouble.py:55), 3 times"),
    ],
)
def test_a_callback_that_exits_or_eats_the_memory_is_a_dead_letter_after_some_tries_and_the_others_are_delivered(
    make: Make, target: str, reason: str
) -> None:
    made = make(target, memory=256 * 1024 * 1024)
    spans = [*request(0), *request(1), *request(2)]
    assert states(deliver(made, spans)) == ["done"] * 3 + ["retry"] * 3 + ["done"] * 3
    assert only(deliver(made, request(1))) == "retry"
    outcome = deliver(made, request(1))
    assert (only(outcome), outcome.reason) == ("dead", f"{target}: {reason}")


def test_an_error_of_the_system_is_tried_again(make: Make) -> None:
    made = make("trouble.temporarily")
    fates = [only(deliver(made, request(1))) for _ in range(3)]
    assert fates == ["retry", "retry", "done"]


def test_a_callback_that_leaves_does_not_end_the_process(make: Make) -> None:
    made = make("trouble.leaving")
    assert states(deliver(made, [*request(1), *request(2)])) == ["dead"] * 3 + ["done"] * 3
    assert made.deliver(request(1), time.monotonic() + LIMIT).reason.endswith("raised SystemExit (trouble.py:40)")


def test_a_process_that_is_killed_is_started_again_and_nothing_is_lost(make: Make) -> None:
    made = make("recorder.function")
    assert only(deliver(made, request(0))) == "done"
    pid = made._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert only(deliver(made, request(1))) in {"done", "retry"}
    assert only(deliver(made, request(1))) == "done"
    assert made._process.pid != pid


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import litellm.proxy.proxy_server",
            "ModuleNotFoundError: litellm.proxy.proxy_server is not there: otelgw runs",
        ),
        ("import litellm\nlitellm.acompletion", "AttributeError: litellm.acompletion is not there: otelgw runs"),
        ("1 +", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("other = 1", "AttributeError: module broken has no 'handler'"),
        ("handler = 1", "TypeError: int is no callback: it has no hook such as log_success_event"),
        ("import os; os._exit(5)", "its process ended with status 5"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_said_at_once_and_loses_nothing(
    make: Make, caplog: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    made = make("broken.handler", code)
    outcome = deliver(made, request(0))
    assert only(outcome) == "retry"
    assert reason in outcome.reason
    assert (outcome.after or 0) >= 60
    deadline = time.monotonic() + LIMIT
    while not any(entry.levelno == logging.ERROR for entry in caplog.records):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (Path(made._directory) / "broken.py").write_text("def handler(*_): pass\n")
    assert only(deliver(made, request(0))) == "done"


def test_no_value_of_a_secret_variable_is_in_a_log_or_a_reason(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    outcome = deliver(made := make("trouble.failing"), request(1))
    assert only(outcome) == "dead"
    assert "ValueError: *** in the text" in caplog.text
    assert "CANARY-secret" not in caplog.text + str(outcome) + repr(made)


def test_credentials_of_the_caller_reach_no_callback(make: Make, recorded: Callable[[], list[Any]]) -> None:
    headers = [(name, "CANARY-credential") for name in ("authorization", "Cookie", "x-goog-api-key", "API-Key")]
    deliver(make("recorder.instance"), build(record(request_headers=headers)))
    assert "CANARY-credential" not in json.dumps(recorded())


def test_a_span_exporter_gets_the_spans_as_they_were(make: Make, recorded: Callable[[], list[Any]]) -> None:
    made = make("exporters.Mine")
    spans = [generation(2), span(1)]
    assert only(deliver(made, spans)) == "done"
    made.shutdown()
    first, second, last = recorded()
    assert last == "shutdown"
    assert second == json.loads(spans[1].to_json(indent=None))
    expected = json.loads(spans[0].to_json(indent=None))
    assert first.pop("attributes").keys() == expected.pop("attributes").keys()
    assert first == expected


def test_a_span_that_an_exporter_stumbles_over_is_given_up_alone(make: Make, recorded: Callable[[], list[Any]]) -> None:
    made = make("exporters.Mine")
    outcome = deliver(made, [span(1), span(2, name="bad"), span(3)])
    assert states(outcome) == ["done", "dead", "done"]
    assert outcome.reason == "exporters.Mine: export raised KeyError (exporters.py:10)"
    assert len(recorded()) == 2


def test_an_exporter_that_says_failure_is_tried_again_then_given_up(make: Make) -> None:
    made = make("exporters.Refusing", attempts=2)
    assert only(deliver(made, [span(1)])) == "retry"
    outcome = deliver(made, [span(1)])
    assert (only(outcome), outcome.reason) == ("dead", "exporters.Refusing: export said FAILURE, 2 times")


def test_the_sdks_own_console_exporter_can_be_named(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    made = make("opentelemetry.sdk.trace.export.ConsoleSpanExporter")
    assert only(deliver(made, [generation(2)])) == "done"
    assert json.loads(capfd.readouterr().out)["name"] == "chat echo"


def test_what_stands_beside_the_callback_can_be_imported_and_an_installed_litellm_is_not_mixed_in(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "beside.py").write_text("def handler(*_): print('ok')\n")
    (tmp_path / "litellm").mkdir()
    (tmp_path / "litellm" / "__init__.py").write_text("raise RuntimeError('the real one')\n")
    made = make("mine.handler", "import litellm\nfrom beside import handler\nassert litellm.CustomLogger\n")
    assert only(deliver(made, request(0))) == "done"


def test_when_the_exporter_is_shut_down_in_the_middle_of_a_call_its_process_ends(make: Make) -> None:
    made = make("trouble.blocking")
    deliver(made, request(0))
    pid = made._process.pid
    assert only(deliver(made, request(1), 0.2)) == "retry"
    made.shutdown()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)
    assert only(deliver(made, request(2))) == "retry"


@pytest.mark.parametrize(
    "target", ["module", "s3://bucket", "a b.c", "s3://bucket/x/../y.z", "http://h/a.b", ".x", "a."]
)
def test_what_names_no_callback_is_refused(target: str) -> None:
    with pytest.raises(DestinationConfigError, match="names no callback"):
        CallbackExporter(target=target)
