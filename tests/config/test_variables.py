"""Variables called OTELGW_… that nothing reads."""

from __future__ import annotations

import pytest

from otelgw.config.variables import KNOWN
from tests.config.conftest import Examine


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("OTELGW_PROT", "; did you mean OTELGW_PORT?"),
        ("OTELGW_ALOW_OPEN", "; did you mean OTELGW_ALLOW_OPEN?"),
        ("OTELGW_MASTERKEY", "; did you mean OTELGW_MASTER_KEY?"),
        ("OTELGW_KAFKA_BROKER", "; did you mean OTELGW_KAFKA_BROKERS?"),
        ("OTELGW_FOO", ""),
        ("OTELGW_HTTP_PORT", ""),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_a_variable_that_nothing_reads_is_a_warning_without_its_value(
    examine_text: Examine, name: str, hint: str, in_file: bool
) -> None:
    value = "canary-0123"
    given = {"dotenv": f"{name}={value}\n"} if in_file else {"environment": {name: value}}
    findings = examine_text("otelgw: {destinations: [console]}", **given).findings

    assert f"{name}: nothing reads this variable{hint}" in findings.warnings
    assert value not in str((findings.errors, findings.strict, findings.warnings))


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("{}", {"OTELGW_FOO": " "}),
        ("{}", {"OTELGW_CACHE": "/c", "OTELGW_REQUIRE": "collector", "OTELGW_UPDATE_GOLDENS": "1"}),
        ("model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: os.environ/OTELGW_UP}}]",
         {"OTELGW_UP": "k"}),
        ("router_settings: {redis_password: os.environ/OTELGW_NOT_USED_HERE}", {"OTELGW_NOT_USED_HERE": "k"}),
        ("{}", {
            "OTELGW_SERVICE_HOST": "10.0.0.1", "OTELGW_SERVICE_PORT": "4000", "OTELGW_SERVICE_PORT_HTTP": "4000",
            "OTELGW_PORT": "tcp://10.0.0.1:4000", "OTELGW_PORT_4000_TCP": "tcp://10.0.0.1:4000",
            "OTELGW_PORT_4000_TCP_PROTO": "tcp", "OTELGW_PORT_4000_TCP_PORT": "4000",
            "OTELGW_PORT_4000_TCP_ADDR": "10.0.0.1", "OTELGW_GATEWAY_SERVICE_HOST": "10.0.0.1",
            "OTELGW_GATEWAY_PORT": "tcp://10.0.0.1:4000",
        }),
    ],
    ids=["blank", "of this project's tests", "named in the config", "named in a key without effect", "Kubernetes'"],
)  # fmt: skip
def test_what_somebody_has_a_reason_for_is_no_warning(
    examine_text: Examine, text: str, environment: dict[str, str]
) -> None:
    found = examine_text(text, environment).findings
    assert "nothing reads" not in str((found.errors, found.strict, found.warnings))


def test_every_variable_that_something_reads_is_known(examine_text: Examine) -> None:
    own = {name: "1" for name in KNOWN if name.startswith("OTELGW_")}
    assert len(own) > 30
    found = examine_text("{}", own).findings
    assert "nothing reads" not in str(found.warnings)
