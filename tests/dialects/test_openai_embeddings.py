from __future__ import annotations

import json

from otelgw.dialects.facts import Usage
from otelgw.dialects.openai_embeddings import read_request, read_response
from tests.dialects import wire
from tests.dialects.conventions import check_attributes, check_content


def test_request_parameters_and_texts_are_read() -> None:
    facts = read_request(
        b'{"model":"text-embedding-3-small","input":["one","two"],"dimensions":256,"encoding_format":"base64"}',
        wire.JSON,
    )
    check_attributes(dict(facts.attributes))
    check_content(dict(facts.content))
    assert facts.attributes == {
        "gen_ai.request.model": "text-embedding-3-small",
        "gen_ai.request.encoding_formats": ["base64"],
        "gen_ai.embeddings.dimension.count": 256,
    }
    assert [m["parts"][0]["content"] for m in facts.content["gen_ai.input.messages"]] == ["one", "two"]


def test_vectors_are_never_content() -> None:
    facts = read_response(wire.answer("embeddings.json"), wire.JSON, stream=False)
    assert facts.attributes == {"gen_ai.response.model": "text-embedding-3-small"}
    assert facts.usage == Usage(input=8)
    assert facts.content == {}


def test_a_cut_answer_still_has_its_usage() -> None:
    answer = json.loads(wire.answer("embeddings.json"))
    answer["data"][0]["embedding"] = [0.25] * 2000
    body = json.dumps(answer).encode()
    facts = read_response(body[:300], wire.JSON, stream=False, tail=body[-300:])
    assert facts.usage == Usage(input=8)
    assert facts.attributes["gen_ai.response.model"] == "text-embedding-3-small"


def test_an_error_is_read() -> None:
    facts = read_response(b'{"error":{"message":"no","code":"invalid"}}', wire.JSON, stream=False)
    assert (facts.error_type, facts.error_message) == ("invalid", "no")
