"""Amazon's own client (botocore), for looking at what is in an emulator."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import botocore.session

__all__ = ["client", "table"]


@lru_cache
def client(service: str, url: str, region: str = "eu-west-1") -> Any:
    """Return the client of a service; one for all tests, as it takes long to make."""
    given = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return botocore.session.Session().create_client(service, region_name=region, endpoint_url=url, **given)


def table(dynamodb: Any, name: str) -> None:
    """Make a table whose items are found by their ``id`` alone."""
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
