"""A real Elasticsearch node, as Elastic publishes it for integration tests: the server, its security, no other modules.

::

    with Elasticsearch(require("elasticsearch")) as node:
        node.ask("POST", "/traces-*/_search", {"size": 10})

Data streams, index templates, searches and aggregations are the real thing. It lacks what comes in modules: text
analysis beyond the standard one, so API keys too (their index needs it), scripts, and the built-in OTel templates.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.servers import maven
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["ADDER", "PASSWORD", "USER", "Elasticsearch", "SearchNode", "build", "find"]

_VERSION = "9.2.0"
_ARTIFACT = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{_VERSION}:zip"
_PROGRAM = f"elasticsearch-{_VERSION}/bin/elasticsearch"
USER, PASSWORD = "writer", "elastic-password-0123456789"
ADDER = "adder"
_ROLES = """\
adder: {indices: [{names: ["traces-doctor.*"], privileges: [create_doc, auto_configure]}]}
"""

_SETTINGS = """\
cluster.name: tests
node.name: one
path.data: {home}/data
path.logs: {home}/logs
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
"""
_SECURITY = """\
xpack.security.enabled: true
xpack.security.http.ssl.enabled: false
xpack.security.transport.ssl.enabled: false
xpack.security.authc.realms.file.users.order: 0
"""
# Written down for a node that starts fast and stays small, not for one that runs long.
_LEFT_OUT = ("incubator", "UseG1GC", "HeapDump", "ErrorFile", "gc*", "Xlog")
_JAVA_OPTIONS = "-Xms256m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"


def find() -> Path | None:
    """Return the server's program; None if it was not fetched or cannot run here."""
    return maven.find("elasticsearch", _ARTIFACT, _PROGRAM)


def build() -> Path:
    """Fetch the server, unless it is there."""
    return maven.build("elasticsearch", _ARTIFACT, _PROGRAM)


class SearchNode(Process):
    """A single node with its data in a directory of its own. ``prefix`` is that of its variables: ES, OPENSEARCH."""

    def __init__(self, program: Path, prefix: str, settings: str, auth: tuple[str, str] | None) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="search-node-")
        home, port = Path(self._home.name), free_port()
        config = home / "config"
        config.mkdir()
        shipped = program.parents[1] / "config"
        name = program.name
        (config / f"{name}.yml").write_text(_SETTINGS.format(home=home, http=port, transport=free_port()) + settings)
        lines = (shipped / "jvm.options").read_text().splitlines()
        (config / "jvm.options").write_text("\n".join(line for line in lines if not any(x in line for x in _LEFT_OUT)))
        (config / "log4j2.properties").write_bytes((shipped / "log4j2.properties").read_bytes())
        self.config = config
        env = {
            f"{prefix}_JAVA_HOME": str(maven.java_home()),
            f"{prefix}_PATH_CONF": str(config),
            f"{prefix}_JAVA_OPTS": _JAVA_OPTIONS,
            "CLI_JAVA_OPTS": "-Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        }
        before = maven.as_user()
        assert before is not None
        super().__init__([*before, program], port, env=env, ready=self._answers)
        self._http = httpx.Client(base_url=self.url, auth=auth, timeout=30, trust_env=False)

    def _answers(self) -> bool:
        try:
            return self._http.get("/_cluster/health").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the JSON answer to a request; an assertion error if it is none of success."""
        answer = self._http.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def documents(self, pattern: str) -> list[dict[str, Any]]:
        """Return what the indices and data streams of ``pattern`` hold, up to 1000 documents."""
        self.ask("POST", f"/{pattern}/_refresh?ignore_unavailable=true")
        answer = self._http.post(f"/{pattern}/_search?ignore_unavailable=true", json={"size": 1000})
        if answer.status_code == 503:  # the index was made a moment ago, and its shard is still being started
            return []
        assert answer.is_success, answer.text
        return [hit["_source"] | {"_id": hit["_id"]} for hit in answer.json()["hits"]["hits"]]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        super().__exit__(kind, error, trace)
        self._home.cleanup()


class Elasticsearch(SearchNode):
    """A running node with two users: ``USER`` may do everything, ``ADDER`` add documents to the streams
    traces-doctor.*; both with ``PASSWORD``.
    """

    def __init__(self, program: Path) -> None:
        super().__init__(program, "ES", _SECURITY, (USER, PASSWORD))
        users = "".join(f"{user}:{_hash(PASSWORD)}\n" for user in (USER, ADDER))
        (self.config / "users").write_text(users)
        (self.config / "users_roles").write_text(f"superuser:{USER}\n{ADDER}:{ADDER}\n")
        (self.config / "roles.yml").write_text(_ROLES)


def _hash(password: str) -> str:
    """Return a password as Elasticsearch's file realm keeps it."""
    salt, rounds = os.urandom(32), 10_000
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 32)
    return f"{{PBKDF2}}{rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
