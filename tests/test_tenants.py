"""Keys' and teams' own destinations: whose records reach whom, and who waits for whom."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination, Keys, Redaction, Settings, Spool, Tracing
from otelgw.keys.directory import Directory
from otelgw.keys.management import Management
from otelgw.keys.store import open_store
from otelgw.pipeline_main import decoder
from otelgw.selection import Trace
from otelgw.tenants import Tenants
from otelgw.tracing.record import Audience, Caller, Record, capture_whole, encode
from tests.servers.answering import HttpAnswer
from tests.servers.otlp import GrpcReceiver, HttpReceiver
from tests.tracing.records import record, refused

SALT = "salt-canary"


class World:
    """A state directory with keys and teams, and the pipeline's side of it."""

    def __init__(self, state: Path, **changes: Any) -> None:
        keys = {"salt_key": SALT, "allow_networks": ("127.0.0.0/8",), "tenants": True, "threads": 4}
        spool = Spool(retry_limit=changes.pop("retry_limit", 0.0), disk_cap=changes.pop("disk_cap", 2**31))
        self.settings = Settings(state_dir=str(state), keys=Keys(**{**keys, **changes}), spool=spool)
        self.store = open_store(state, "")
        self.management = Management(Directory(self.settings.keys, self.store), self.settings.keys)
        self.decode = decoder(Tracing(), str(state))
        self.numbers = iter(range(1, 10**6))

    def caller(self, *callbacks: dict[str, Any], team: str = "", **fields: Any) -> Caller:
        """Make a key whose own destinations are ``callbacks``; return who calls with it."""
        made = self.management.generate_key({"metadata": {"logging": [*callbacks]}, "team_id": team or None, **fields})
        return Caller(authenticated=True, key_hash=made["token"], team_id=team)

    def team(self, name: str, *callbacks: dict[str, Any], **fields: Any) -> None:
        self.management.new_team({"team_id": name, "metadata": {"logging": [*callbacks]}, **fields})

    def trace(
        self, caller: Caller, text: str = "hello", *, make: Callable[..., Record] = record, **changes: Any
    ) -> Trace:
        """Return a decoded request of a caller that says ``text``."""
        asked = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": text}]}).encode()
        number = next(self.numbers)
        fields: dict[str, Any] = {"request": capture_whole(asked, "application/json")} if make is record else {}
        ids = {"trace_id": f"{number:032x}", "span_id": f"{number:016x}", "generation_span_id": ""}
        if make is record:
            ids["generation_span_id"] = f"{number + 2**32:016x}"
        arguments = () if make is record else (500, "internal", "failed")
        return self.decode(encode(make(*arguments, caller=caller, **{**ids, **fields, **changes})))

    @contextlib.contextmanager
    def running(self) -> Iterator[Tenants]:
        tenants = Tenants(self.settings, self.decode)
        try:
            yield tenants
        finally:
            tenants.shutdown()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def otlp(receiver: HttpReceiver, secret: str = "secret", **changes: Any) -> dict[str, Any]:
    variables = {"endpoint": receiver.endpoint, "headers": f"authorization={secret}"}
    return {"callback_name": "otlp_http", "callback_vars": variables, **changes}


def send(tenants: Tenants, traces: Sequence[Trace]) -> None:
    """Do what the pipeline does with records; everything must be taken."""
    spans: list[ReadableSpan] = [span for trace in traces for span in tenants.select(trace)]
    outcome = tenants.deliver(spans, time.monotonic() + 10)
    assert {verdict.state for verdict in outcome.verdicts} <= {"done"}, outcome.reason


def eventually(condition: Callable[[], Any], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def said(receiver: HttpReceiver) -> bytes:
    return b"".join(asked.body for asked in receiver.asked)


def test_a_tenants_records_reach_its_own_destination_and_nobody_elses(world: World) -> None:
    with HttpReceiver() as one, HttpReceiver() as other, world.running() as tenants:
        world.team("t", otlp(other, "secret-other"))
        callers = {"canary-one": world.caller(otlp(one, "secret-one")), "canary-other": world.caller(team="t")}
        nobody = world.caller()
        for _ in range(5):
            send(tenants, [world.trace(caller, text) for text, caller in callers.items()])
            send(tenants, [world.trace(nobody, "canary-nobody")])
        eventually(lambda: tenants.counts.delivered >= 30)

        assert said(one).count(b"canary-one") == said(other).count(b"canary-other") > 0
        for receiver, secret, foreign in ((one, "secret-one", b"canary-other"), (other, "secret-other", b"canary-one")):
            assert foreign not in said(receiver)
            assert b"canary-nobody" not in said(receiver)
            assert {asked.headers["authorization"] for asked in receiver.asked} == {secret}
        eventually(lambda: tenants.waiting == 0)  # it is counted first, and then let go


def test_credentials_are_in_no_record_and_no_file(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), HttpReceiver([HttpAnswer(401)], repeat=True) as receiver:
        with world.running() as tenants:
            send(tenants, [world.trace(world.caller(otlp(receiver, "credential-canary")))])
            eventually(lambda: tenants.counts.retried)
        held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert b"hello" in held
    for secret in ("credential-canary", SALT):
        assert secret.encode() not in held
        assert secret not in caplog.text


def test_a_dead_tenant_delays_no_other(world: World) -> None:
    dead = [HttpReceiver([HttpAnswer(silent=30)], repeat=True) for _ in range(12)]
    with contextlib.ExitStack() as stack, HttpReceiver() as healthy, world.running() as tenants:
        for receiver in dead:
            stack.enter_context(receiver)
        broken = [world.caller(otlp(receiver)) for receiver in dead]
        with HttpReceiver() as closed:
            broken += [world.caller(otlp(closed)) for _ in range(12)]
        fine, later = world.caller(otlp(healthy)), world.caller(otlp(healthy))
        send(tenants, [world.trace(fine)])
        eventually(lambda: healthy.spans)
        send(tenants, [world.trace(caller) for caller in broken])
        begun = time.monotonic()
        for _ in range(5):
            send(tenants, [world.trace(fine), world.trace(later)])
        eventually(lambda: len(healthy.spans) == 33, 8)

        assert time.monotonic() - begun < 8
        assert tenants.waiting > 0


def test_a_destination_that_was_down_gets_everything_in_order(world: World) -> None:
    down = [HttpAnswer(503), HttpAnswer(hang_up=True), HttpAnswer(429, {"retry-after": "1"})]
    with HttpReceiver(down) as receiver, world.running() as tenants:
        caller = world.caller(otlp(receiver))
        for number in range(5):
            send(tenants, [world.trace(caller, f"number-{number}")])
        eventually(lambda: len(receiver.spans) == 15)

        order = [asked.body.find(f"number-{number}".encode()) for asked in receiver.accepted for number in range(5)]
        assert order == sorted(order)
        assert len({span.span_id for span in receiver.spans}) == 11  # the attempts of these records have one id


def test_what_was_not_delivered_is_delivered_after_a_restart(world: World) -> None:
    with HttpReceiver([HttpAnswer(503)], repeat=True) as receiver:
        port = receiver.port
        with world.running() as tenants:
            caller = world.caller(otlp(receiver))
            send(tenants, [world.trace(caller, "kept")])
            eventually(lambda: receiver.asked)
    with HttpReceiver(port=port) as receiver, world.running():
        eventually(lambda: b"kept" in said(receiver))


def test_a_record_that_the_pipeline_sends_twice_is_kept_once(world: World) -> None:
    with HttpReceiver() as receiver, world.running() as tenants:
        trace = world.trace(world.caller(otlp(receiver)))
        send(tenants, [trace, trace])
        eventually(lambda: receiver.spans and tenants.waiting == 0)

        assert len(receiver.spans) == 3


def test_of_a_partly_delivered_record_only_the_rest_is_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otelgw.keys import callbacks
    from otelgw_exporters.delivery import DONE, Exporter, Outcome, Verdict

    seen: list[list[str]] = []

    class Half(Exporter):
        def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
            seen.append([span.name for span in spans])
            if len(seen) == 1:
                return Outcome((DONE, *[Verdict("retry", "later")] * (len(spans) - 1)))
            return Outcome((DONE,) * len(spans))

    monkeypatch.setattr(callbacks, "make", lambda *_: Half("half"))
    with HttpReceiver() as receiver, world.running() as tenants:
        send(tenants, [world.trace(world.caller(otlp(receiver)))])
        eventually(lambda: tenants.counts.delivered == 3)

    assert len(seen) == 2
    assert seen[1] == seen[0][1:]


@pytest.mark.parametrize(
    ("event", "expected"),
    [("success", {b"well"}), ("failure", {b"failed"}), ("success_and_failure", {b"well", b"failed"})],
)
def test_a_destination_gets_the_outcomes_that_it_is_for(world: World, event: str, expected: set[bytes]) -> None:
    with HttpReceiver() as receiver, world.running() as tenants:
        caller = world.caller(otlp(receiver, callback_type=event))
        send(tenants, [world.trace(caller, "well"), world.trace(caller, make=refused)])
        eventually(lambda: tenants.waiting == 0 and receiver.asked)

        assert {word for word in (b"well", b"failed") if word in said(receiver)} == expected


@pytest.mark.parametrize(
    ("audience", "delivered"),
    [
        (Audience(only=()), True),
        (Audience(only=("console",)), True),
        (Audience(without=("console",)), True),
        (Audience(without=("otlp_http",)), False),
        (Audience(nobody=True), False),
    ],
)
def test_a_policy_narrows_the_global_destinations_and_a_request_any(
    world: World, audience: Audience, *, delivered: bool
) -> None:
    with HttpReceiver() as receiver, world.running() as tenants:
        caller = world.caller(otlp(receiver))
        send(tenants, [world.trace(caller, "this", audience=audience), world.trace(caller, "other")])
        eventually(lambda: b"other" in said(receiver) and tenants.waiting == 0)

        assert (b"this" in said(receiver)) is delivered


def test_a_keys_own_destinations_are_instead_of_its_teams(world: World) -> None:
    with HttpReceiver() as teams, HttpReceiver() as own, world.running() as tenants:
        world.team("t", otlp(teams))
        having, without = world.caller(otlp(own), team="t"), world.caller(team="t")
        send(tenants, [world.trace(having, "canary-own"), world.trace(without, "canary-team")])
        eventually(lambda: own.spans and teams.spans)

        assert b"canary-own" not in said(teams)
        assert b"canary-team" not in said(own)


def test_a_team_whose_logging_is_off_gets_nothing(world: World) -> None:
    with HttpReceiver() as receiver, world.running() as tenants:
        world.team("t", otlp(receiver))
        world.management.disable_logging("t")
        send(tenants, [world.trace(world.caller(team="t"))])

        assert tenants.waiting == 0


def test_what_waits_for_a_destination_that_was_taken_away_is_let_go_of(world: World) -> None:
    with HttpReceiver([HttpAnswer(503)], repeat=True) as receiver, world.running() as tenants:
        world.team("t", otlp(receiver))
        send(tenants, [world.trace(world.caller(team="t"))])
        eventually(lambda: receiver.asked)
        world.management.disable_logging("t")
        eventually(lambda: tenants.waiting == 0)

        assert tenants._queue.dropped == 1


def test_a_deleted_keys_records_still_reach_its_team(world: World) -> None:
    with HttpReceiver() as receiver, world.running() as tenants:
        world.team("t", otlp(receiver))
        caller = world.caller(team="t")
        world.management.delete_keys({"keys": [caller.key_hash]})
        send(tenants, [world.trace(caller, "late")])

        eventually(lambda: b"late" in said(receiver))


@pytest.mark.parametrize(
    "caller", [Caller(), Caller(authenticated=True), Caller(authenticated=False, key_hash="ab" * 32, team_id="t")]
)
def test_who_has_no_accepted_key_is_nobodys_tenant(world: World, caller: Caller) -> None:
    with world.running() as tenants:
        assert tenants.select(world.trace(caller)) == ()


def test_a_settings_change_takes_effect_with_the_next_delivery(world: World) -> None:
    with HttpReceiver() as before, HttpReceiver() as after, world.running() as tenants:
        world.team("t", otlp(before, "old-secret"))
        caller = world.caller(team="t")
        send(tenants, [world.trace(caller, "first")])
        eventually(lambda: before.spans)
        world.management.add_callback("t", otlp(after, "new-secret"))
        send(tenants, [world.trace(caller, "second")])
        eventually(lambda: after.spans)

        assert b"second" not in said(before)
        assert {asked.headers["authorization"] for asked in after.asked} == {"new-secret"}


def test_with_another_salt_key_nothing_is_sent_and_nothing_is_lost(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HttpReceiver() as receiver:
        caller = world.caller(otlp(receiver))
        changed = World(tmp_path, salt_key="another")
        with changed.running() as tenants:
            send(tenants, [changed.trace(caller, "kept")])
            eventually(lambda: "OTELGW_SALT_KEY" in caplog.text)
            assert tenants.waiting > 0
        changed.store.close()
        assert receiver.asked == []
        with world.running():
            eventually(lambda: b"kept" in said(receiver))


def test_a_private_address_is_not_connected_to(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with HttpReceiver() as receiver:
        caller = world.caller(otlp(receiver))
        strict = World(tmp_path, allow_networks=())
        with strict.running() as tenants:
            send(tenants, [strict.trace(caller)])
            eventually(lambda: "public" in caplog.text)
            assert tenants.waiting > 0
        strict.store.close()
        assert receiver.asked == []


def test_a_grpc_destination_is_delivered_to(world: World) -> None:
    with GrpcReceiver() as receiver, world.running() as tenants:
        variables = {"endpoint": f"http://localhost:{receiver.port}", "headers": "authorization=grpc-secret"}
        caller = world.caller({"callback_name": "otel", "callback_vars": variables})
        send(tenants, [world.trace(caller, "by grpc")])
        eventually(lambda: receiver.asked)

        assert "grpc-secret" in str(receiver.asked[0])


def test_what_the_operator_redacts_is_redacted_for_tenants(tmp_path: Path) -> None:
    template = Destination("tenants", "tenants", redact_user_api_key_info=True, redaction=Redaction(presets=("email",)))
    world = World(tmp_path, template=template)
    with HttpReceiver() as receiver, world.running() as tenants:
        caller = msgspec.structs.replace(world.caller(otlp(receiver)), user_id="whose-canary")
        send(tenants, [world.trace(caller, "write to ann@example.com")])
        eventually(lambda: receiver.spans)

        assert b"write to" in said(receiver)
        for word in (b"ann@example.com", b"whose-canary", caller.key_hash.encode()):
            assert word not in said(receiver)
    world.store.close()


def test_what_is_tried_for_too_long_is_given_up(tmp_path: Path) -> None:
    world = World(tmp_path, retry_limit=0.2)
    with HttpReceiver([HttpAnswer(503)], repeat=True) as receiver, world.running() as tenants:
        send(tenants, [world.trace(world.caller(otlp(receiver)))])
        eventually(lambda: tenants.waiting == 0)

        assert tenants.counts.dropped == 1
    world.store.close()


def test_a_refused_span_is_given_up_and_the_rest_goes_on(world: World) -> None:
    with HttpReceiver([HttpAnswer(400)] * 20) as receiver, world.running() as tenants:
        caller = world.caller(otlp(receiver))
        send(tenants, [world.trace(caller, "bad")])
        eventually(lambda: tenants.counts.dead == 3)
        receiver.answers.clear()
        send(tenants, [world.trace(caller, "good")])
        eventually(lambda: b"good" in b"".join(asked.body for asked in receiver.accepted))


def test_a_store_that_cannot_be_asked_makes_the_pipeline_wait(world: World, tmp_path: Path) -> None:
    with HttpReceiver() as receiver, world.running() as tenants:
        trace = world.trace(world.caller(otlp(receiver)))
        tenants._directory.store.close()
        content = (tmp_path / "keys.db").read_bytes()
        (tmp_path / "keys.db").write_bytes(b"broken" * 1000)

        outcome = tenants.deliver(tenants.select(trace), time.monotonic() + 5)
        assert {verdict.state for verdict in outcome.verdicts} == {"retry"}

        (tmp_path / "keys.db").write_bytes(content)
        send(tenants, [trace])
        eventually(lambda: receiver.spans)


def test_ten_thousand_tenants_take_a_few_threads_and_connections(tmp_path: Path) -> None:
    tenants_count, threads, exporters = 10_000, 4, 16
    world = World(tmp_path, threads=threads, exporters=exporters)
    receivers = [HttpReceiver() for _ in range(4)]
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for receiver in receivers:
            stack.enter_context(receiver)
        callers = [_quick_caller(world, receivers[number % 4], number) for number in range(tenants_count)]
        pattern = world.trace(callers[0], make=refused)
        with world.running() as tenants:
            most_open = 0
            for start in range(0, tenants_count, 500):
                send(tenants, [_like(pattern, caller, next(world.numbers)) for caller in callers[start : start + 500]])
                most_open = max(most_open, tenants.open)
            # A sample proves who got what; delivering all of them would take the test a minute.
            eventually(lambda: tenants.counts.delivered >= 300, 60)
            most_open = max(most_open, tenants.open)
            busy = sum(thread.name.startswith("deliver tenants") for thread in threading.enumerate())

        assert busy <= threads
        assert most_open <= exporters + threads
        for receiver in receivers:
            for asked in receiver.asked:
                assert asked.headers["authorization"].encode() in asked.body
    world.store.close()
    eventually(lambda: threading.active_count() <= before + 4)


def _quick_caller(world: World, receiver: HttpReceiver, number: int) -> Caller:
    """Put a key into the store without the checks of the HTTP interface, one transaction for all."""
    from otelgw.keys.hashing import digest
    from otelgw.keys.schema import Callback, Key
    from otelgw.keys.sealing import Sealer

    key_hash = digest(f"tenant-{number}")
    variables = {"endpoint": receiver.endpoint, "headers": f"authorization=tenant-{number:05d}"}
    sealed = Sealer(SALT).seal(variables, f"key:{key_hash}")
    world.store._database._opened().execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]
    world.store.add_key(Key(key_hash, logging=(Callback("otlp_http", sealed=sealed, confined=True),)))
    return Caller(authenticated=True, key_hash=key_hash, key_alias=f"tenant-{number:05d}")


def _like(pattern: Trace, caller: Caller, number: int) -> Trace:
    """Return a trace of another caller without decoding a record for it."""
    assert pattern.record is not None
    return Trace(msgspec.structs.replace(pattern.record, caller=caller, trace_id=f"{number:032x}"), pattern.spans)
