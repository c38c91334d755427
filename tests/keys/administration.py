"""A gateway with keys, and an administrator of it who speaks LiteLLM's HTTP."""

from __future__ import annotations

from typing import Any, Self

import httpx

__all__ = ["MASTER", "Admin"]

MASTER = "sk-master-canary-0123456789"


class Admin:
    """Talks to the gateway at ``url``, with the master key unless another is given."""

    def __init__(self, url: str, key: str = MASTER) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=20)

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self._http.post(path, json=body) if body is not None else self._http.post(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = self._http.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def refused(self, path: str, body: Any, param: str | None) -> str:
        """Post what must be refused with 400; return the message."""
        error = self.post(path, body, 400)["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param), error
        return str(error["message"])

    def key(self, **fields: Any) -> str:
        """Make a key."""
        return str(self.post("/key/generate", fields)["key"])

    def ask(self, key: str, model: str = "gpt-4o-mini", **fields: Any) -> httpx.Response:
        """Make a call with a key."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
        return self._http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
