"""Object stores: one writer, one set of layouts, three ways to say who is writing."""

from __future__ import annotations

from otelgw_exporters.rows import SHAPE, Option, Row
from otelgw_exporters.rows.aws import aws_identity

__all__ = ["ROWS"]


def _objects(
    *,
    path: tuple[str, ...] = (),
    team: tuple[str, ...] = (),
    key: tuple[str, ...] = (),
    strip: tuple[str, ...] = (),
    size: tuple[str, ...] = (),
    interval: tuple[str, ...] = (),
    size_env: tuple[str, ...] = (),
    interval_env: tuple[str, ...] = (),
) -> tuple[Option, ...]:
    """Return the options of what is written, with LiteLLM's names for them."""
    return (
        Option("path", "text", "a prefix of every key, without slashes around it", "", params=path),
        Option(
            "layout",
            "choice",
            "batch: JSON lines under date=/hour=; per_request: one JSON document a call, keys as LiteLLM's; parquet: "
            "columns under date=/hour= (extra `parquet`); otlp_json: OTLP for the Collector to replay",
            "batch",
            choices=("batch", "per_request", "parquet", "otlp_json"),
        ),
        Option(
            "compression",
            "choice",
            "of objects that hold many calls; BigQuery reads gzip, Athena and DuckDB both",
            "gzip",
            choices=("gzip", "zstd", "none"),
        ),
        Option("use_team_prefix", "flag", "keys begin with the team's alias, if there is a team", False, params=team),
        Option("use_key_prefix", "flag", "then with the alias of the virtual key", False, params=key),
        Option(
            "strip_base64_files",
            "flag",
            "put a note in the place of files, images and audio inside messages",
            False,
            params=strip,
        ),
        Option("batch_size", "count", "calls an object holds at most", 1000, params=size, env=size_env),
        Option("batch_bytes", "count", "bytes before compression an object holds at most", 8 * 1024 * 1024),
        Option(
            "flush_interval",
            "seconds",
            "for which calls are collected before they are written; they wait on the disk, not in memory",
            30.0,
            params=interval,
            env=interval_env,
        ),
        Option("timeout", "seconds", "for one delivery", 25.0),
        *SHAPE,
    )


ROWS: tuple[Row, ...] = (
    Row(
        "s3",
        "otelgw_exporters.s3:S3Exporter",
        "Amazon S3 and every store that speaks its API",
        options=(
            Option("bucket", "text", "its name", required=True, env=("OTELGW_S3_BUCKET",), params=("s3_bucket_name",)),
            Option(
                "region",
                "text",
                "of the bucket; without it the profile's, then us-east-1",
                env=("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
                params=("s3_region_name",),
            ),
            Option(
                "endpoint_url",
                "url",
                "of a store that is not Amazon's; buckets are then in the path",
                env=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
                params=("s3_endpoint_url",),
            ),
            *aws_identity("s3"),
            Option(
                "virtual_hosted_style",
                "flag",
                "the bucket is part of the host name; without it: yes at Amazon, no with `endpoint_url`",
                params=("s3_use_virtual_hosted_style",),
            ),
            Option(
                "server_side_encryption",
                "choice",
                "asked for with every object: aes256 is SSE-S3, the others are KMS; without it the bucket's default",
                choices=("aes256", "aws:kms", "aws:kms:dsse"),
            ),
            Option("kms_key_id", "text", "the key's id or ARN, for KMS; without it the account's own for S3"),
            Option("bucket_key", "flag", "an S3 bucket key instead of a KMS call for each object", False),
            Option("certificate", "path", "PEM file with the roots to trust beside the system's"),
            Option(
                "verify",
                "flag",
                "false: do not check the store's TLS certificate; whoever is between reads all",
                True,
                params=("s3_verify",),
            ),
            *_objects(
                path=("s3_path",),
                team=("s3_use_team_prefix",),
                key=("s3_use_key_prefix",),
                strip=("s3_strip_base64_files",),
                size=("s3_batch_size",),
                interval=("s3_flush_interval",),
                size_env=("DEFAULT_S3_BATCH_SIZE",),
                interval_env=("DEFAULT_S3_FLUSH_INTERVAL_SECONDS",),
            ),
        ),
        callbacks=("s3_v2",),
        params_key="s3_callback_params",
        proof="server",
        settings="""\
bucket: logs-bucket
region: eu-west-1
path: llm
access_key_id: os.environ/AWS_ACCESS_KEY_ID
secret_access_key: os.environ/AWS_SECRET_ACCESS_KEY
""",
    ),
    Row(
        "gcs_bucket",
        "otelgw_exporters.gcs:GcsExporter",
        "Google Cloud Storage",
        options=(
            Option("bucket", "text", "its name", required=True, env=("GCS_BUCKET_NAME",)),
            Option(
                "service_account",
                "path",
                "JSON file with the key of a service account, or of a workload identity federation (external_account); "
                "without it the metadata server of the machine or pod is asked",
                env=("GCS_PATH_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS"),
            ),
            Option("endpoint_url", "url", "of another store with the XML API", env=("OTELGW_GCS_ENDPOINT",)),
            *_objects(size_env=("GCS_BATCH_SIZE",), interval_env=("GCS_FLUSH_INTERVAL",)),
        ),
        proof="documentation",
        settings="bucket: logs-bucket\n",
    ),
    Row(
        "azure_storage",
        "otelgw_exporters.azure:AzureStorageExporter",
        "Azure Blob Storage and Data Lake Storage Gen2, through the Blob endpoint",
        options=(
            Option("account", "text", "the storage account", required=True, env=("AZURE_STORAGE_ACCOUNT_NAME",)),
            Option(
                "container",
                "text",
                "the container, which Data Lake calls a file system",
                required=True,
                env=("AZURE_STORAGE_FILE_SYSTEM",),
            ),
            Option(
                "account_key",
                "text",
                "one of the account's keys",
                env=("AZURE_STORAGE_ACCOUNT_KEY",),
                secret=True,
                group="identity",
            ),
            Option(
                "sas_token",
                "text",
                "a shared access signature with the rights to create and write",
                env=("AZURE_STORAGE_SAS_TOKEN",),
                secret=True,
                group="identity",
            ),
            Option(
                "tenant_id",
                "text",
                "Microsoft Entra: the directory",
                env=("AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID"),
                group="identity",
            ),
            Option(
                "client_id",
                "text",
                "Microsoft Entra: the application, or the managed identity",
                env=("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"),
                group="identity",
            ),
            Option(
                "client_secret",
                "text",
                "Microsoft Entra: the application's secret",
                env=("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
                secret=True,
                group="identity",
            ),
            Option(
                "federated_token_file",
                "path",
                "workload identity: the file with the pod's token",
                env=("AZURE_FEDERATED_TOKEN_FILE",),
                group="identity",
            ),
            Option(
                "authority_host",
                "text",
                "the URL where Entra gives out tokens",
                "https://login.microsoftonline.com",
                env=("AZURE_AUTHORITY_HOST",),
            ),
            Option(
                "identity_endpoint",
                "text",
                "the URL where an app or function asks for its managed identity's tokens; a machine asks its metadata "
                "service",
                env=("IDENTITY_ENDPOINT",),
            ),
            Option("identity_header", "text", "what it asks with", env=("IDENTITY_HEADER",), secret=True),
            Option(
                "endpoint_url",
                "url",
                "the Blob service, account included; without it https://ACCOUNT.blob.core.windows.net",
                env=("OTELGW_AZURE_BLOB_ENDPOINT",),
            ),
            Option("certificate", "path", "PEM file with the roots to trust, for Entra and for the Blob service"),
            *_objects(),
        ),
        proof="validator",
        settings="""\
account: litellm2
container: litellm-logs
account_key: os.environ/AZURE_STORAGE_ACCOUNT_KEY
""",
    ),
)
