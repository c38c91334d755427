"""What ``otelgw doctor`` says of the emulators and the agent that the tests run, working and not."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from otelgw.config.load import load
from otelgw.doctor import MODEL, Diagnosis, diagnose
from tests.exporters.test_azure import CONTAINER, shared_key
from tests.servers import require
from tests.servers.amazon import client, table
from tests.servers.azurite import ACCOUNT, KEY, Azurite
from tests.servers.ddapm import Ddapm
from tests.servers.moto import Moto

CANARY = "canary-0123456789"
AWS = {"access_key_id": "AKIATESTS0123456789", "secret_access_key": CANARY, "region": "eu-west-1"}


def examined(directory: Path, **destination: Any) -> Diagnosis:
    """Return what the doctor says of a destination of the user's config."""
    path = directory / "config.yaml"
    path.write_text(json.dumps({"otelgw": {"destinations": [destination]}}))
    (found,) = diagnose(load(str(path), {"HOME": str(directory)}))
    assert CANARY not in str(found)
    return found


def test_a_queue_and_a_table_have_what_it_sends_or_it_says_that_they_are_not_there(tmp_path: Path) -> None:
    with Moto(require("moto")) as server:
        sqs, tables = (client(name, server.url) for name in ("sqs", "dynamodb"))
        queue = sqs.create_queue(QueueName="calls")["QueueUrl"]
        table(tables, "calls")
        for name, there, missing in (
            ("aws_sqs", {"queue_url": queue}, {"queue_url": f"{queue}-missing"}),
            ("dynamodb", {"table": "calls", "endpoint_url": server.url}, {"table": "no", "endpoint_url": server.url}),
        ):
            taken, astray = (examined(tmp_path, name=name, **AWS, **more) for more in (there, missing))
            assert taken.ok, taken
            assert not astray.ok
            assert "mend" in astray.said + astray.mend, astray
        (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
        assert json.loads(message["Body"])["model"] == MODEL
        assert tables.scan(TableName="calls")["Count"] == 1


@pytest.mark.parametrize(("change", "ok"), [({}, True), ({"container": "missing"}, False)])
def test_a_container_is_read_back_or_said_to_be_missing(change: dict[str, str], ok: bool, tmp_path: Path) -> None:
    with Azurite(require("azurite")) as server:
        urllib.request.urlopen(shared_key("PUT", server.url, CONTAINER), timeout=10).close()
        given = {"account": ACCOUNT, "container": CONTAINER, "endpoint_url": f"{server.url}/{ACCOUNT}"}
        found = examined(tmp_path, name="azure_storage", account_key=KEY, **{**given, **change})
    assert found.ok is ok, found
    assert KEY not in str(found)
    assert ("and read back" if ok else "mend") in found.said + found.mend


def test_datadogs_agent_takes_it(tmp_path: Path) -> None:
    with Ddapm(require("ddapm")) as agent:
        name = "datadog_llm_observability"
        found = examined(tmp_path, name=name, agent_host="127.0.0.1", agent_port=agent.port)
        assert found.ok, found
        (taken,) = [each for each in agent.requests() if each.path == "/evp_proxy/v4/api/v2/llmobs"]
    assert MODEL.encode() in taken.body
