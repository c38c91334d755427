"""A real Apache Kafka broker in KRaft mode: its jars from Maven, one node that is broker and controller.

::

    with Kafka(require("kafka")) as kafka:
        kafka.create("otlp_spans", partitions=3)
        kafka.brokers                     # host:port, in plain text, for anybody
        kafka.stop(); kafka.start()       # what was acknowledged is still there

With ``certificates`` it has a second listener, ``kafka.secured``: TLS, and SASL by PLAIN or SCRAM-SHA-512 with ``USER``
and ``PASSWORD``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import maven
from tests.servers.cache import place
from tests.servers.otlp import Certificates
from tests.servers.ports import free_port

__all__ = ["PASSWORD", "USER", "Kafka", "build", "find"]

USER, PASSWORD = "gateway", "kafka-canary-0123456789"
_LIMIT = 60.0  # seconds until it must be ready
_READY = "Kafka Server started"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>otelgw</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.1.1</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""
_DONE = "fetched"

_LOGGING = """\
Configuration:
  Appenders: {Console: {name: out, PatternLayout: {pattern: "%d %p %c{1}: %m%n"}}}
  Loggers: {Root: {level: info, AppenderRef: {ref: out}}}
"""
_CONFIG = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAIN",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    # For as long as this a broker that was killed is not let in again.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.enable": "false",
}


def _directory() -> Path:
    return place("kafka", _POM.encode())


def find() -> Path | None:
    """Return the directory of Kafka's jars if they were fetched, and a Java to run them with."""
    jars = _directory() / "jars"
    return jars if (jars.parent / _DONE).is_file() and maven.has_java() else None


def build() -> Path:
    """Fetch Kafka's jars, and a Java, unless they are there; 45 MB and 100 MB.

    Raises:
        FileNotFoundError: Maven is not installed.
    """
    directory = _directory()
    maven.fetch_java()
    if not (directory / _DONE).is_file():
        program = shutil.which("mvn")
        if program is None:
            raise FileNotFoundError("mvn: install Maven")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "pom.xml").write_text(_POM)
        command = [program, "-q", "-B", _COPY, f"-DoutputDirectory={directory / 'jars'}", "-DincludeScope=runtime"]
        subprocess.run(command, check=True, cwd=directory)
        (directory / _DONE).touch()
    return directory / "jars"


class Kafka:
    """A running broker. Topics are made by ``create`` only; further ``settings`` are those of its server.properties."""

    def __init__(
        self, jars: Path, certificates: Certificates | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        plain, controller, secured = free_port(), free_port(), free_port()
        self.brokers = f"127.0.0.1:{plain}"
        self.secured = f"localhost:{secured}"
        listeners = [f"PLAIN://127.0.0.1:{plain}", f"CONTROLLER://127.0.0.1:{controller}"]
        protocols = "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT"
        tls: dict[str, str] = {}
        if certificates is not None:
            listeners.append(f"SECURED://localhost:{secured}")
            protocols += ",SECURED:SASL_SSL"
            tls = _tls(certificates)
        self._settings = {
            **_CONFIG,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(each for each in listeners if not each.startswith("CONTROLLER")),
            "listener.security.protocol.map": protocols,
            **tls,
            **(settings or {}),
        }
        self._jars = jars

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="kafka-"))
        settings = {**self._settings, "log.dirs": str(self._home / "data")}
        (self._home / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (self._home / "log4j2.yaml").write_text(_LOGGING)
        try:
            words = ["format", "--standalone", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", self._home / "server.properties"]
            words += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
            done = subprocess.run(
                self._java("kafka.tools.StorageTool", *words), check=False, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _java(self, program: str, *words: str | Path) -> list[str | Path]:
        # Compiled quickly rather than well: a broker of a test lives for seconds, and cores are few.
        flags = ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]
        flags.append(f"-Dlog4j2.configurationFile={self._home / 'log4j2.yaml'}")
        return [maven.java_home() / "bin" / "java", *flags, "-cp", f"{self._jars}/*", program, *words]

    @property
    def output(self) -> str:
        """Everything that it has printed so far, over all starts."""
        return (self._home / "log").read_text(errors="replace")

    @property
    def process_id(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start the broker, also once more after ``stop``; returns when it is ready."""
        with (self._home / "log").open("ab") as log:
            ready_before = self.output.count(_READY)
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", self._home / "server.properties"),
                cwd=self._home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _LIMIT
        while self.output.count(_READY) <= ready_before:
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill the broker; its connections are cut, and what it has acknowledged is in its files."""
        self._process.kill()
        self._process.wait(20)

    def pause(self) -> None:
        """Have the broker say nothing until ``resume``."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def create(self, topic: str, partitions: int = 1, **settings: str) -> None:
        """Make a topic; ``settings`` are the topic's, with underscores for dots."""
        from confluent_kafka.admin import AdminClient, NewTopic

        config = {name.replace("_", "."): value for name, value in settings.items()}
        admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        made = admin.create_topics([NewTopic(topic, partitions, 1, config=config)], operation_timeout=20)
        made[topic].result(30)

    def written(self, topic: str) -> int:
        """Return how many messages a topic has."""
        from confluent_kafka import Consumer, TopicPartition

        with Consumer({"bootstrap.servers": self.brokers, "group.id": "counts"}) as consumer:
            partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            ends = (consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=20)[1] for each in partitions)
            return sum(ends)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.stop()
        shutil.rmtree(self._home, ignore_errors=True)


def _tls(certificates: Certificates) -> dict[str, str]:
    """Return what the listener SECURED needs; Kafka reads a key and its chain in PEM from one property each."""
    chain = certificates.server_certificate.read_text() + certificates.authority.read_text()
    inline = {
        "ssl.keystore.key": certificates.server_key.read_text(),
        "ssl.keystore.certificate.chain": chain,
    }
    login = f'required username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
    return {
        "ssl.keystore.type": "PEM",
        **{name: text.strip().replace("\n", "\\n") for name, text in inline.items()},
        "listener.name.secured.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.secured.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.secured.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule {login}"
        ),
    }
