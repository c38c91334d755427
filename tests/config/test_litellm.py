"""LiteLLM's YAML as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otelgw.config import vocabulary
from otelgw.config.context import Context
from otelgw.config.document import Document
from otelgw.config.env import VARIABLES
from otelgw.config.findings import Findings
from otelgw.config.flags import FLAGS, Flags
from otelgw.config.litellm import settings as translate
from otelgw.config.load import examine, load
from otelgw.config.model import OtelgwSection
from otelgw.config.references import References
from otelgw.config.settings import Limits, Server, Settings, Timeouts, Tracing
from otelgw.errors import ConfigError
from otelgw.http.routes import GATED_GROUPS
from otelgw_exporters.catalog import ROWS
from tests.config import seeds
from tests.config.conftest import Examine

SEEDS = Path(__file__).parents[2] / "../shared/seeds"
BLOCKS = [
    block
    for path in sorted(SEEDS.glob("*.md"))
    for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)
]


@pytest.mark.skipif(not BLOCKS, reason="the seeds are not beside the repository")
@pytest.mark.parametrize("block", BLOCKS)
def test_every_seed_block_loads_or_is_the_misindented_shape(tmp_path: Path, block: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block, encoding="utf-8")
    environment = {"OPENAI_API_KEY": "sk-x", "HOME": str(tmp_path)}
    if re.search(r"^ - model_name:", block, re.MULTILINE):
        with pytest.raises(ConfigError) as caught:
            load(str(path), environment)
        assert caught.value.problems[0].startswith(f"{path}:2: ")
        assert '"  - model_name: gpt-' in caught.value.problems[0]
        return
    if seeds.REMOTE.search(block):
        with pytest.raises(ConfigError, match="allow_remote_callbacks"):
            load(str(path), environment)
        return
    found = load(str(path), environment | seeds.surroundings(block, tmp_path))
    assert found.deployments
    assert seeds.destinations_named(block) == bool(found.destinations)


@pytest.mark.skipif(not BLOCKS, reason="the seeds are not beside the repository")
def test_the_seeds_controls_over_content_are_honoured(examine_text: Examine) -> None:
    (redacted,) = [block for block in BLOCKS if "redact_user_api_key_info" in block]
    block = redacted.replace("langfuse", "otel")
    assert examine_text(block).settings.destinations[0].redact_user_api_key_info
    (withheld,) = [block for block in BLOCKS if "message_logging: False" in block]
    assert examine_text(withheld).settings.destinations[0].content is False
    (off,) = [block for block in BLOCKS if "turn_off_message_logging" in block]
    mended = off.replace("\n - model_name", "\n  - model_name")
    assert examine_text(mended).settings.tracing.content is False


@pytest.mark.parametrize(
    ("text", "environment", "content"),
    [
        ("{}", {}, True),
        ("litellm_settings: {turn_off_message_logging: True}", {}, False),
        ("litellm_settings: {turn_off_message_logging: 'true'}", {}, False),
        ("otelgw: {content: false}", {}, False),
        ("{}", {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"}, False),
        ("otelgw: {content: true}", {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "false"}, False),
        (
            "litellm_settings: {turn_off_message_logging: true}",
            {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"},
            False,
        ),
    ],
)
def test_of_two_words_on_content_the_stricter_wins(
    examine_text: Examine, text: str, environment: dict[str, str], content: bool
) -> None:
    outcome = examine_text(text, environment)
    assert outcome.findings.errors == ()
    assert outcome.settings.tracing.content is content


@pytest.mark.parametrize(
    "text",
    [
        "litellm_settings: {turn_of_message_logging: true}",
        "litellm_settings: {turn-off-message-logging: true}",
        "litellm_settings: {redact_user_api_keys_info: true}",
        "litellm_settings: {turn_off_message_logging: sometimes}",
        "litellm_settings: {turn_off_message_logging: os.environ/NOPE}",
        "litellm_settings: {redact_messages_in_exceptions: true}",
        "general_settings: {turn_off_message_loging: true}",
        "turn_off_message_logging_: true",
        "guardrails: [{guardrail_name: pii}]",
        "include: [other.yaml]",
        "otelgw: {contents: false}",
    ],
)
def test_a_control_that_cannot_be_honoured_stops_the_gateway(examine_text: Examine, text: str) -> None:
    assert examine_text(text).findings.errors


@pytest.mark.parametrize(
    "text", ["litellm_settings: {redact_messages_in_exceptions: false}", "guardrails: []", "include:"]
)
def test_a_control_that_is_off_stops_nothing(examine_text: Examine, text: str) -> None:
    assert examine_text(text).findings.errors == ()


def test_an_unknown_key_warns_with_a_near_name_and_its_line(examine_text: Examine) -> None:
    outcome = examine_text("litellm_settings:\n  drop_param: true\nrouter_setings: {}\nmodel_list:\n  - 1\n")
    assert [line.split("config.yaml:")[1] for line in outcome.findings.strict] == [
        "2: litellm_settings.drop_param: unknown key; did you mean `drop_params`?",
        "3: router_setings: unknown key; did you mean `router_settings`?",
    ]


def test_known_keys_without_effect_are_listed(examine_text: Examine) -> None:
    outcome = examine_text(
        """\
        litellm_settings: {cache: true, langfuse_default_tags: [a], s3_callback_params: {k: os.environ/NOPE}}
        general_settings: {database_type: os.environ/NOPE, alerting: [slack]}
        router_settings: {routing_strategy: simple-shuffle}
        mcp_servers: {}
        """
    )
    assert outcome.findings.errors == ()
    assert outcome.findings.strict == ()
    assert {line.split(": ")[1] for line in outcome.settings.ignored} >= {
        "litellm_settings.cache",
        "litellm_settings.langfuse_default_tags",
        "litellm_settings.s3_callback_params",
        "general_settings.database_type",
        "general_settings.alerting",
        "router_settings.routing_strategy",
        "mcp_servers",
    }


def test_controls_over_access_that_are_not_enforced_are_said_at_start(examine_text: Examine) -> None:
    settings_ = examine_text(
        "general_settings: {allowed_ips: [10.0.0.1], custom_auth: x.y, enforce_user_param: false}"
    ).settings
    assert [line.split(": ")[1] for line in settings_.not_enforced] == [
        "general_settings.allowed_ips",
        "general_settings.custom_auth",
    ]
    assert len([line for line in settings_.warnings if "not enforced" in line]) == 2


def test_access_is_read(examine_text: Examine) -> None:
    found = examine_text(
        """\
        general_settings:
          master_key: os.environ/MASTER
          pass_through: [files, batches]
          cors_allow_origins: https://a.example
          forward_client_headers_to_llm_api: true
          max_request_size_mb: 2
        otelgw: {auth: {allowed_hosts: [Gateway.internal]}}
        """,
        {"MASTER": "sk-1234"},
    )
    assert found.findings.errors == ()
    auth = found.settings.auth
    assert auth.master_key_sha256 == hashlib.sha256(b"sk-1234").hexdigest()
    assert auth.cors_allow_origins == ("https://a.example",)
    assert auth.allowed_hosts == ("gateway.internal",)
    assert all(each.forward_client_headers for each in found.settings.deployments)
    assert found.settings.pass_through == ("files", "batches")
    assert found.settings.limits.body == 2 * 1024 * 1024
    assert "sk-1234" not in repr(found.settings)


@pytest.mark.parametrize(
    ("environment", "text", "key"),
    [
        ({"LITELLM_MASTER_KEY": "b"}, "{}", "b"),
        ({"LITELLM_MASTER_KEY": "b", "OTELGW_MASTER_KEY": "a"}, "{}", "a"),
        ({"LITELLM_MASTER_KEY": "b"}, "general_settings: {master_key: c}", "c"),
        ({"LITELLM_MASTER_KEY": "b"}, "general_settings: {master_key: }", "b"),
    ],
)
def test_the_master_key_may_come_from_the_environment(
    examine_text: Examine, environment: dict[str, str], text: str, key: str
) -> None:
    assert examine_text(text, environment).settings.auth.master_key_sha256 == hashlib.sha256(key.encode()).hexdigest()


def test_a_master_key_that_is_missing_stops_the_gateway(examine_text: Examine) -> None:
    (error,) = examine_text("general_settings:\n  master_key: os.environ/NOPE\n").findings.errors
    assert "config.yaml:2: general_settings.master_key: the environment variable NOPE is not set" in error


@pytest.mark.parametrize(
    "text", ["general_settings: {pass_through: [organization]}", "general_settings: {pass_through: all}"]
)
def test_only_known_routes_are_passed_through(examine_text: Examine, text: str) -> None:
    assert "pass_through" in examine_text(text).findings.errors[0]


def test_the_groups_that_can_be_passed_through_are_those_of_the_routes(examine_text: Examine) -> None:
    outcome = examine_text(f"general_settings: {{pass_through: [{', '.join(GATED_GROUPS)}]}}")
    assert outcome.findings.errors == ()
    assert set(outcome.settings.pass_through) == set(GATED_GROUPS)


SECTION = """\
otelgw:
  state_dir: state
  service_name: svc
  resource: {a: 1}
  tracer_name: tr
  propagators: [b3]
  trust: link
  baggage: [tenant]
  sampler: parentbased_traceidratio
  sampler_ratio: 0.5
  attribute_count_limit: 10
  attribute_length_limit: 20
  capture_headers: {request: [X-A], response: x-b, upstream_request: [x-c], upstream_response: [x-d, cookie]}
  timeouts: {connect: 1, first_byte: 2, idle: 3, total: 4, stream_first_byte: 5}
  limits: {body: 1, file_body: 2, headers: 2048, hold: 4, capture: 5, capture_memory: 6, request_body_idle: 7,
    request_body_rate: 8, upstream_connections: 9, upstream_keepalive: 10, h2_streams: 11, h2_resets: 12,
    h2_reset_window: 13, request_head: 14, response_idle: 15}
  server: {host: "::1", port: 5000, workers: 2, kind: hypercorn, h2c: off, drain: 1, keep_alive: 2, log_level: debug,
    log_json: true, allow_open: true}
"""


def test_every_setting_can_be_set(examine_text: Examine) -> None:
    outcome = examine_text(SECTION)
    assert outcome.findings.errors == ()
    found = outcome.settings
    assert found.tracing == Tracing(
        service_name="svc", resource={"a": "1"}, tracer_name="tr", propagators=("b3",), trust="link",
        baggage_allow=("tenant",), sampler="parentbased_traceidratio", sampler_ratio=0.5, attribute_count_limit=10,
        attribute_length_limit=20, capture_request_headers=("x-a",), capture_response_headers=("x-b",),
        capture_upstream_request_headers=("x-c",), capture_upstream_response_headers=("x-d",), disabled=True,
    )  # fmt: skip
    for actual, default in ((found.limits, Limits()), (found.server, Server())):
        same = {each.name for each in fields(actual) if getattr(actual, each.name) == getattr(default, each.name)}
        assert same <= {"kind", "certfile", "keyfile"}
    assert found.deployments[0].timeouts == Timeouts(1.0, 2.0, 3.0, 4.0, 5.0)
    assert found.state_dir.endswith("/state")


def test_the_file_wins_over_the_standard_variables(examine_text: Examine) -> None:
    environment = {
        "OTEL_SERVICE_NAME": "env", "OTEL_RESOURCE_ATTRIBUTES": "a=2,b=3", "OTEL_TRACER_NAME": "env",
        "OTEL_PROPAGATORS": "tracecontext", "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "99",
    }  # fmt: skip
    own = examine_text(SECTION, environment).settings.tracing
    assert (own.service_name, own.tracer_name, own.propagators) == ("svc", "tr", ("b3",))
    assert own.resource == {"a": "1", "b": "3"}
    assert (own.sampler, own.attribute_count_limit) == ("parentbased_traceidratio", 10)
    standard = examine_text("{}", environment).settings.tracing
    assert (standard.service_name, standard.tracer_name, standard.propagators) == ("env", "env", ("tracecontext",))
    assert (standard.sampler, standard.attribute_count_limit) == ("always_off", 99)


def test_without_a_word_the_defaults_are_those_of_settings(examine_text: Examine) -> None:
    found = examine_text("otelgw: {destinations: [console]}").settings
    assert found.tracing == Tracing()
    assert found.limits == Limits()
    assert found.server == Server()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("otelgw: {limts: {}}", "otelgw.limts: unknown key; did you mean `limits`?"),
        ("otelgw: {recevier: {}}", "otelgw.recevier: unknown key; did you mean `receiver`?"),
        ("otelgw: {limits: {bodi: 1}}", "otelgw.limits.bodi: unknown key; did you mean `body`?"),
        ("otelgw: {limits: {body: 1 MB}}", "otelgw.limits.body: must be a valid integer"),
        ("otelgw: {server: {h2c: maybe}}", "otelgw.server.h2c: must be 'prior_knowledge', 'upgrade' or 'off'"),
        ("otelgw: {server: {certfile: x}}", "otelgw.server.certfile: unknown key; did you mean `ssl_certfile`?"),
        ("otelgw: {capture_headers: {request: [a b]}}", "capture_headers.request[0]: must be a header's name"),
        ("otelgw: {propagators: [w3c]}", "otelgw.propagators[0]: must be"),
        ("otelgw: []", "otelgw: must be `key: value` pairs"),
        ("otelgw: {timeouts: {total: .inf}}", "otelgw.timeouts.total: must be a valid number"),
        ("otelgw: {timeouts: {total: -1}}", "otelgw.timeouts.total: must be greater than 0"),
    ],
)
def test_a_mistake_in_our_section_is_an_error(examine_text: Examine, text: str, part: str) -> None:
    found = examine_text(text).findings.errors
    assert any(part in error for error in found), found


def test_all_errors_come_at_once_in_the_order_of_the_file(examine_text: Examine) -> None:
    found = examine_text(
        """\
        model_list:
          - model_name: a
            litellm_params: {model: nowhere}
          - model_name: b
            litellm_params: {model: openai/b, api_key: os.environ/NOPE}
        litellm_settings: {callbacks: [nothing_like_it]}
        otelgw: {server: {prot: 1}, trust: me}
        """,
        {"OTEL_SDK_DISABLED": "x"},
    ).findings.errors
    assert [re.sub(r".*config\.yaml:(\d+).*", r"\1", error) for error in found] == [
        "OTEL_SDK_DISABLED: must be true or false", "3", "5", "6", "7", "7",
    ]  # fmt: skip


def test_a_key_is_known_in_one_way_only() -> None:
    for model, ignored in (
        (vocabulary.LitellmSettings, vocabulary.LITELLM_IGNORED),
        (vocabulary.GeneralSettings, vocabulary.GENERAL_IGNORED),
        (vocabulary.RouterSettings, vocabulary.ROUTER_IGNORED),
        (vocabulary.LitellmParams, vocabulary.PARAMS_IGNORED),
    ):
        assert not ignored & set(model.model_fields)
        assert not ignored & vocabulary.CONTENT_CONTROLS
        assert not ignored & vocabulary.REFUSED_CONTROLS
    assert not vocabulary.ACCESS_CONTROLS & (vocabulary.LITELLM_IGNORED | vocabulary.GENERAL_IGNORED)


_KEYS = st.sampled_from(
    sorted(
        {
            "model_list", "litellm_settings", "general_settings", "router_settings", "callback_settings", "otelgw",
            "environment_variables", "guardrails", "destinations", "name", "model_name", "litellm_params", "model_info",
            "otel", "console", "*", "", "x",
        }
        | set(vocabulary.LitellmParams.model_fields)
        | set(vocabulary.LitellmSettings.model_fields)
        | set(vocabulary.GeneralSettings.model_fields)
        | OtelgwSection.every_key()
    )
)  # fmt: skip
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["os.environ/X", "os.environ/", "openai/*", "*", "otel", "console", "azure/x", "http://x", "a, b"]),
)  # fmt: skip
_DATA = st.recursive(
    _SCALARS,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(_KEYS, below, max_size=4)),
    max_leaves=25,
)


_NAMES = st.sampled_from(["console", "otlp_grpc/a", "otlp_http", "langfuse", "otel", "nothing", "a.b", "s3://x/y.z"])
_MODELS = st.sampled_from(["openai/x", "azure/x", "gpt-4o", "*", "openai/*", "ollama/x", "bedrock/x", "x", "echo", "/"])
_OPTIONS = st.sampled_from([option.name for row in ROWS for option in row.options] + ["on", "content", "x"])
_SHAPED = st.fixed_dictionaries(
    {
        "model_list": st.lists(
            st.fixed_dictionaries(
                {"model_name": st.sampled_from(["a", "*", "a/*", "groq/*"])},
                optional={
                    "litellm_params": st.builds(
                        lambda model, rest: {**rest, "model": model},
                        _MODELS,
                        st.dictionaries(
                            st.sampled_from(sorted(vocabulary.LitellmParams.model_fields)), _DATA, max_size=4
                        ),
                    ),
                    "model_info": st.dictionaries(st.sampled_from(sorted(vocabulary.ModelInfo.model_fields)), _SCALARS),
                },
            ),
            max_size=3,
        ),
        "litellm_settings": st.dictionaries(
            st.sampled_from(["callbacks", "success_callback", "failure_callback"]), st.lists(_NAMES, max_size=3)
        ),
        "callback_settings": st.dictionaries(_NAMES, st.dictionaries(st.just("message_logging"), _SCALARS)),
        "otelgw": st.fixed_dictionaries(
            {
                "destinations": st.lists(
                    st.builds(
                        lambda name, rest: {**rest, "name": name}, _NAMES, st.dictionaries(_OPTIONS, _DATA, max_size=3)
                    ),
                    max_size=3,
                )
            }
        ),
    }
)
_ENVIRONMENT = st.dictionaries(
    st.sampled_from(
        sorted({*VARIABLES, *(flag.variable for flag in FLAGS), "OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_API_BASE"})
        + [name for row in ROWS for names in row.env.values() for name in names]
    ),
    st.one_of(st.text(max_size=20), st.sampled_from(["console", "otlp", "http://a:1", "true", "1", "grpc", "a=b"])),
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(data=st.one_of(st.dictionaries(_KEYS, _DATA, max_size=6), _SHAPED), environment=_ENVIRONMENT)
def test_random_documents_and_environments_give_findings_never_an_accident(
    data: dict[str, object], environment: dict[str, str]
) -> None:
    findings = Findings(Document("c.yaml", data))
    context = Context(findings.document, findings, References(environment, findings), environment, prices=False)
    assert isinstance(translate(context, Flags(), configured=True), Settings)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(parts=st.lists(st.sampled_from([*" \n-:[]{}*&'\"#", "model_list", "otelgw", "model", "a", "1"]), max_size=40))
def test_random_text_raises_nothing_but_a_config_error(tmp_path: Path, parts: list[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("".join(parts), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        assert isinstance(examine(str(path), {"HOME": "/nowhere"}, prices=False).settings, Settings)


@pytest.mark.parametrize(
    ("settings_text", "params", "expected"),
    [
        ("", "", 0),
        ("litellm_settings: {num_retries: 1}", "", 1),
        ("litellm_settings: {num_retries: 1}\nrouter_settings: {num_retries: 2}", "", 2),
        ("router_settings: {num_retries: 2}", ", max_retries: 3", 3),
        ("router_settings: {num_retries: 2}", ", max_retries: 3, num_retries: 0", 0),
    ],
)
def test_the_nearest_word_on_retries_counts(
    examine_text: Examine, settings_text: str, params: str, expected: int
) -> None:
    text = f"model_list:\n- model_name: a\n  litellm_params: {{model: openai/a, api_key: x{params}}}\n{settings_text}\n"

    assert examine_text(text).settings.deployments[0].retries == expected


def test_proxy_variables_reach_the_upstream_client_and_a_bad_one_is_an_error(examine_text: Examine) -> None:
    text = "model_list:\n- model_name: a\n  litellm_params: {model: openai/a, api_key: x}\n"

    good = examine_text(text, {"HTTPS_PROXY": "http://user:hunter2@proxy:3128", "no_proxy": "a.b", "OTHER": "1"})
    bad = examine_text(text, {"HTTPS_PROXY": "socks5://user:hunter2@proxy:1080"})

    assert good.settings.proxies == {"HTTPS_PROXY": "http://user:hunter2@proxy:3128", "no_proxy": "a.b"}
    assert not good.findings.errors
    assert "HTTPS_PROXY" in bad.findings.errors[0]
    assert "hunter2" not in str(bad.findings.errors) + repr(good.settings)
