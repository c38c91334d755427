"""The Kafka producer behind the destination: messages out, and for each one what the brokers made of it.

librdkafka is idempotent within one client: what it repeats by itself, after a broken connection say, is in the topic
once. A delivery that could not be finished in time ends its client: nothing of it can go out later, and the next
delivery begins with what is true then. Needs confluent-kafka: ``pip install 'otelgw[kafka]'``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from otelgw_exporters.delivery import OPERATOR_DELAY, Reply
from otelgw_exporters.errors import DestinationConfigError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

__all__ = ["Client", "Message"]

_POLL = 0.2  # seconds between two looks at whether to go on
_DRAIN = 2.0  # seconds in which the client reports what was taken back
_PROBE = 1.0  # seconds in which a broker has to answer after a connection failed: a name may have several addresses

_TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"})
_REFUSED = frozenset({"INVALID_RECORD", "INVALID_TIMESTAMP", "POLICY_VIOLATION", "UNSUPPORTED_FOR_MESSAGE_FORMAT"})
_LOGIN = "mend the destination's username, password or sasl_mechanism"
_TOPIC = "there is no such topic: make it, or mend the destination's topic"
_OPERATOR: Mapping[str, str] = {
    "_AUTHENTICATION": _LOGIN,
    "SASL_AUTHENTICATION_FAILED": _LOGIN,
    "UNSUPPORTED_SASL_MECHANISM": _LOGIN,
    "_SSL": "mend the destination's certificate or security_protocol",
    "_UNKNOWN_TOPIC": _TOPIC,
    "UNKNOWN_TOPIC_OR_PART": _TOPIC,
    "TOPIC_EXCEPTION": "that is no name of a topic: mend the destination's topic",
    "TOPIC_AUTHORIZATION_FAILED": "allow Write and Describe on the topic",
    "CLUSTER_AUTHORIZATION_FAILED": "allow IdempotentWrite on the cluster, or set client: {enable.idempotence: false}",
}
# What is heard between deliveries of a message and ends one at once; of the rest the client tries again by itself.
_HOPELESS = frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "_SSL"})


class Message(NamedTuple):
    """One record for the topic."""

    key: bytes
    value: bytes


class _Heard:
    """What the client says about its connections; apart from the client, which it would otherwise keep alive."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.hopeless: KafkaError | None = None
        self.alone = False
        """No broker was connected, the last time that one was lost or could not be reached."""

    def __call__(self, error: KafkaError) -> None:
        name = error.name()
        if name == "_ALL_BROKERS_DOWN":
            self.alone = True
        else:
            self.last = error
        if name in _HOPELESS or error.fatal():
            self.hopeless = error


class Client:
    """A producer for one topic, connected while it is needed. ``mask`` hides secrets in what brokers say."""

    def __init__(self, settings: Mapping[str, Any], topic: str, mask: Callable[[str], str]) -> None:
        self._settings = dict(settings)
        self._topic = topic
        self._mask = mask
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._producer: Producer | None = None
        self._heard = _Heard()
        self._reached = False
        self._check()

    def _check(self) -> None:
        """Have librdkafka read the settings; without brokers it connects to nobody.

        Raises:
            DestinationConfigError: it is missing, or cannot use them.
        """
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError:
            raise DestinationConfigError("Kafka needs confluent-kafka: pip install 'otelgw[kafka]'") from None
        without = {name: value for name, value in self._settings.items() if name != "bootstrap.servers"}
        try:
            Producer(without)
        except KafkaException as error:
            raise DestinationConfigError(f"the client cannot be used: {self._said(error.args[0])}") from None

    def send(self, messages: Sequence[Message], deadline: float) -> list[Reply]:
        """Return for each message what became of it, at ``deadline`` (on ``time.monotonic``) at the latest."""
        left = deadline - time.monotonic()
        if left <= 0 or self._stopped.is_set() or not self._lock.acquire(timeout=left):
            return [Reply("again", self._why())] * len(messages)
        try:
            replies = self._send(messages, deadline)
        finally:
            self._lock.release()
        return replies

    def _send(self, messages: Sequence[Message], deadline: float) -> list[Reply]:
        from confluent_kafka import KafkaException

        errors: dict[int, KafkaError | None] = {}
        producer = self._connected()
        try:
            for number, message in enumerate(messages):
                if not self._put(producer, number, message, errors, deadline):
                    break
            while len(errors) < len(messages) and self._goes_on(producer, deadline):
                producer.poll(min(_POLL, max(0.0, deadline - time.monotonic())))
        except KafkaException as error:
            self._heard(error.args[0])
        return self._concluded(producer, len(messages), errors)

    def _connected(self) -> Producer:
        from confluent_kafka import Producer

        producer = self._producer
        if producer is None:
            self._heard, self._reached = _Heard(), False
            producer = self._producer = Producer({**self._settings, "error_cb": self._heard})
        else:
            producer.poll(0)  # what happened since the last delivery
            self._heard.alone = False
        return producer

    def _put(
        self, producer: Producer, number: int, message: Message, errors: dict[int, KafkaError | None], deadline: float
    ) -> bool:
        """Hand a message to the client; False where it took none until the deadline."""
        from confluent_kafka import KafkaException

        def reported(error: KafkaError | None, _: object) -> None:
            errors[number] = error

        while True:
            try:
                producer.produce(self._topic, message.value, message.key, on_delivery=reported)
            except BufferError:
                if not self._goes_on(producer, deadline):
                    return False
                producer.poll(_POLL)
            except KafkaException as error:
                errors[number] = error.args[0]
                return True
            else:
                return True

    def _goes_on(self, producer: Producer, deadline: float) -> bool:
        from confluent_kafka import KafkaException

        left = deadline - time.monotonic()
        if self._stopped.is_set() or left <= 0 or self._heard.hopeless:
            return False
        if self._heard.alone and not self._reached:
            # Nothing can be on its way yet. Later the client has to find out by itself what became of what it sent.
            try:
                producer.list_topics(self._topic, min(_PROBE, left))
            except KafkaException:
                return False
            self._reached = True
        return True

    def _concluded(self, producer: Producer, count: int, errors: dict[int, KafkaError | None]) -> list[Reply]:
        if len(errors) < count:
            finished = set(errors)
            producer.purge()
            until = time.monotonic() + _DRAIN
            while len(producer) and time.monotonic() < until:
                producer.poll(_POLL)
            # What was taken back is told as the reason for it; what arrived meanwhile counts as arrived.
            errors = {number: error for number, error in errors.items() if number in finished or error is None}
        self._reached = self._reached or any(error is None for error in errors.values())
        replies = [
            self._classified(errors[number]) if number in errors else self._unfinished() for number in range(count)
        ]
        if any(reply.kind == "again" for reply in replies):
            self._producer = None
        return replies

    def _classified(self, error: KafkaError | None) -> Reply:
        if error is None:
            return Reply("accepted")
        name = error.name()
        if name in _OPERATOR:
            return Reply("again", f"{self._said(error)} ({_OPERATOR[name]})", OPERATOR_DELAY)
        if name in _TOO_LARGE:
            return Reply("too_large", self._said(error))
        return Reply("refused" if name in _REFUSED else "again", self._said(error))

    def _unfinished(self) -> Reply:
        hopeless = self._heard.hopeless
        if hopeless is not None and hopeless.name() in _OPERATOR:
            return Reply("again", f"{self._said(hopeless)} ({_OPERATOR[hopeless.name()]})", OPERATOR_DELAY)
        return Reply("again", self._why())

    def _why(self) -> str:
        if self._stopped.is_set():
            return "the destination is shut down"
        last = self._heard.last
        return self._said(last) if last is not None else "the time for one delivery was over"

    def _said(self, error: KafkaError) -> str:
        return self._mask(f"{self._topic}: {error.name()}: {error.str()}")

    def close(self) -> None:
        """End what is under way, and the connections."""
        self._stopped.set()
        with contextlib.ExitStack() as stack:
            if self._lock.acquire(timeout=5 * _POLL + _DRAIN):
                stack.callback(self._lock.release)
                self._producer = None
