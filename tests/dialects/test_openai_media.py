from __future__ import annotations

from otelgw.dialects.facts import Usage
from otelgw.dialects.openai_media import read_request, read_response
from tests.dialects import wire
from tests.dialects.conventions import check_attributes, check_content

FORM = (
    b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\x00\xff\r\n"
    b'--xyz\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nA name: Zo\xc3\xab\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="temperature"\r\n\r\n0.5\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n--xyz--\r\n'
)


def test_the_text_fields_of_a_form_are_read_and_its_files_are_not() -> None:
    facts = read_request(FORM, 'multipart/form-data; boundary="xyz"')
    check_attributes(dict(facts.attributes))
    check_content(dict(facts.content))
    assert facts.attributes == {
        "gen_ai.request.model": "whisper-1",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.stream": True,
    }
    assert facts.content["gen_ai.input.messages"][0]["parts"] == [{"type": "text", "content": "A name: Zoë"}]


def test_an_image_request_and_its_answer_by_url_are_read() -> None:
    request = read_request(b'{"model":"gpt-image-1","prompt":"a cat","n":2}', wire.JSON)
    assert request.attributes == {"gen_ai.request.model": "gpt-image-1", "gen_ai.request.choice.count": 2}
    body = b'{"created":1,"data":[{"url":"https://x.example/1.png?sig=abc"},{"b64_json":"AAAA"}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50}}'
    facts = read_response(body, wire.JSON, stream=False)
    check_content(dict(facts.content))
    assert facts.usage == Usage(input=50, output=50)
    assert facts.content["gen_ai.output.messages"][0]["parts"] == [
        {"type": "uri", "modality": "image", "uri": "https://x.example/1.png?sig=REDACTED"}
    ]


def test_transcriptions_are_text_streamed_or_not() -> None:
    body = b'{"text":"Hello there.","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}}'
    whole = read_response(body, wire.JSON, stream=False)
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    events = [
        {"type": "transcript.text.delta", "delta": "Hello "},
        {"type": "transcript.text.delta", "delta": "there."},
        {"type": "transcript.text.done", "text": "Hello there.", "usage": usage},
    ]
    streamed = read_response(wire.stream(*events, done=False), wire.SSE, stream=True)
    assert whole == streamed
    assert whole.usage == Usage(input=14, output=45)
    assert read_response(b"Hello there.", "text/plain; charset=utf-8", stream=False).content == whole.content


def test_rerank_reports_what_was_billed() -> None:
    cohere = b'{"id":"r","results":[],"meta":{"billed_units":{"input_tokens":7},"tokens":{"input_tokens":9}}}'
    assert read_response(cohere, wire.JSON, stream=False).usage == Usage(input=7)
    jina = b'{"model":"jina-reranker","usage":{"total_tokens":15},"results":[]}'
    facts = read_response(jina, wire.JSON, stream=False)
    assert facts.usage == Usage(input=15)
    assert facts.attributes == {"gen_ai.response.model": "jina-reranker"}


def test_media_are_no_text() -> None:
    assert read_response(b"\xff\xf3\x44", "audio/mpeg", stream=True).content == {}
