"""Amazon's queue and table, and who calls Amazon's services."""

from __future__ import annotations

from otelgw_exporters.rows import Option, Row

__all__ = ["ROWS", "aws_identity"]


def aws_identity(service: str) -> tuple[Option, ...]:
    """Return the options that say who signs; LiteLLM's names for them begin with ``service``.

    What is not set is looked for where the AWS command line looks: profile, web identity (IRSA), SSO, container, EC2.
    """

    def named(name: str) -> tuple[str, ...]:
        return (f"{service}_aws_{name}",)

    one = "identity"
    return (
        Option(
            "access_key_id",
            "text",
            "with `secret_access_key`; without both the usual chain is gone through (extra `aws`)",
            env=("AWS_ACCESS_KEY_ID",),
            params=named("access_key_id"),
            secret=True,
            group=one,
        ),
        Option(
            "secret_access_key",
            "text",
            "the access key's secret",
            env=("AWS_SECRET_ACCESS_KEY",),
            params=named("secret_access_key"),
            secret=True,
            group=one,
        ),
        Option(
            "session_token",
            "text",
            "of temporary credentials",
            env=("AWS_SESSION_TOKEN",),
            params=named("session_token"),
            secret=True,
            group=one,
        ),
        Option(
            "profile",
            "text",
            "of the AWS configuration files",
            env=("AWS_PROFILE",),
            params=named("profile_name"),
            group=one,
        ),
        Option("role_arn", "text", "a role to assume", params=named("role_name")),
        Option("role_session_name", "text", "what its sessions are called", "otelgw", params=named("session_name")),
        Option(
            "web_identity_token_file",
            "path",
            "assume the role with this token instead of other credentials",
        ),
        Option("sts_endpoint_url", "url", "where roles are assumed", params=named("sts_endpoint")),
    )


_POINTER = (
    Option(
        "overflow_bucket",
        "text",
        "S3 bucket for payloads that are too large even when compressed; needs the extra `storage`",
    ),
    Option("overflow_path", "text", "a prefix of their keys", "otelgw-overflow"),
    Option("overflow_endpoint_url", "url", "of an S3 that is not Amazon's"),
)

ROWS: tuple[Row, ...] = (
    Row(
        "aws_sqs",
        "otelgw_exporters.sqs:SqsExporter",
        "Amazon SQS, standard and FIFO queues",
        options=(
            Option(
                "queue_url",
                "url",
                "https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE; one whose name ends with .fifo is a FIFO queue",
                required=True,
                env=("OTELGW_SQS_QUEUE_URL",),
                params=("sqs_queue_url",),
            ),
            Option(
                "region",
                "text",
                "of the queue; without it the one in the URL",
                env=("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
                params=("sqs_region_name",),
            ),
            Option(
                "endpoint_url",
                "url",
                "where the queue is called, if not at the URL's own host",
                env=("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"),
                params=("sqs_endpoint_url",),
            ),
            *aws_identity("sqs"),
            Option(
                "batch_size",
                "count",
                "calls that are collected; a request carries ten of them at most",
                10,
                env=("DEFAULT_SQS_BATCH_SIZE",),
                params=("sqs_batch_size",),
            ),
            Option(
                "flush_interval",
                "seconds",
                "for which calls are collected at most",
                30.0,
                env=("DEFAULT_SQS_FLUSH_INTERVAL_SECONDS",),
                params=("sqs_flush_interval",),
            ),
            Option(
                "max_message_bytes",
                "count",
                "of one message and of one request; set what the queue's MaximumMessageSize says, if that is less",
                1_048_576,
            ),
            Option(
                "message_group",
                "choice",
                "FIFO: what keeps its order: the calls of a team, of a virtual key, or all",
                "team",
                choices=("team", "key", "all"),
            ),
            Option(
                "strip_base64_files",
                "flag",
                "put a note in the place of files, images and audio inside messages",
                False,
                params=("sqs_strip_base64_files",),
            ),
            *_POINTER,
            Option("timeout", "seconds", "for one request", 10.0),
        ),
        params_key="aws_sqs_callback_params",
        proof="contract",
        settings="queue_url: https://sqs.us-west-2.amazonaws.com/123456789012/my-queue\n",
    ),
    Row(
        "dynamodb",
        "otelgw_exporters.dynamodb:DynamoDbExporter",
        "Amazon DynamoDB: one item a call",
        options=(
            Option(
                "table",
                "text",
                "its name or ARN; the table's partition key is `partition_key`",
                "litellm-server-logs",
                env=("OTELGW_DYNAMODB_TABLE",),
                params=("dynamodb_table_name",),
            ),
            Option(
                "region",
                "text",
                "of the table; without it the profile's, then us-east-1",
                env=("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
                params=("dynamodb_region_name",),
            ),
            Option(
                "endpoint_url",
                "url",
                "where the table is, if not at Amazon's",
                env=("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"),
                params=("dynamodb_endpoint_url",),
            ),
            *aws_identity("dynamodb"),
            Option("partition_key", "text", "the table's partition key, of type S: trace id and span id", "id"),
            Option(
                "sort_key",
                "text",
                "the table's sort key, of type S, if it has one: the time of the call's end in ISO 8601",
            ),
            Option("ttl_days", "count", "days after which DynamoDB may delete an item; without it, never"),
            Option("ttl_attribute", "text", "the attribute that the table's time to live looks at", "ttl"),
            Option(
                "write",
                "choice",
                "put: an item is written only if it is not there, each by itself; batch: 25 a request, a repetition "
                "writes the same item again",
                "put",
                choices=("put", "batch"),
            ),
            Option(
                "strip_base64_files",
                "flag",
                "put a note in the place of files, images and audio inside messages",
                False,
            ),
            *_POINTER,
            Option("timeout", "seconds", "for one request", 10.0),
        ),
        proof="contract",
        settings="table: llm-calls\nregion: eu-west-1\nttl_days: 90\n",
    ),
)
