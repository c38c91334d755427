"""Who calls Amazon's services, and calls of its JSON services: signed by botocore, sent by this room's HTTP client.

Keys that are given are used as they are; anything else is botocore's own chain: profile, web identity (IRSA), SSO,
container, EC2. botocore is the extra ``aws``, and needed for everything but given keys for S3.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from otelgw_exporters import http
from otelgw_exporters.codes import explained
from otelgw_exporters.delivery import OPERATOR_DELAY, Reply
from otelgw_exporters.errors import DestinationConfigError, DestinationError

__all__ = ["HINTS", "THROTTLED", "JsonService", "Keys", "NoCredentials", "credentials", "region_of"]

_REGION = "us-east-1"
_ANSWER = timedelta(minutes=10)  # for which keys are kept before botocore, which keeps them itself, is asked again
_STS = {"connect_timeout": 5, "read_timeout": 5, "retries": {"total_max_attempts": 2}}
_REGION_IN_HOST = re.compile(r"(?:^|[.-])([a-z]{2}(?:-[a-z]+)+-\d)\.(?:[\w-]+\.)*(?:amazonaws\.com|api\.aws)")
_NONE = (
    "no AWS credentials were found: set access_key_id and secret_access_key, or a profile, or give the machine or pod "
    "a role; mend the destination's options or the environment"
)

HINTS: Mapping[str, str] = {
    "AccessDenied": "the credentials lack the right to write: mend the policy of their user or role",
    "AccessDeniedException": "the credentials lack the right to write: mend the policy of their user or role",
    "AllAccessDisabled": "the account may not be used: mend it at Amazon",
    "AuthorizationHeaderMalformed": "the bucket is in another region: mend the destination's region",
    "AWS.SimpleQueueService.NonExistentQueue": "mend the destination's queue_url or region, or create the queue",
    "QueueDoesNotExist": "mend the destination's queue_url or region, or create the queue",
    "ExpiredToken": "the session token has expired: mend session_token, or use a profile or role that renews itself",
    "ExpiredTokenException": "the session token has expired: mend session_token, or use a role that renews itself",
    "IllegalLocationConstraintException": "the bucket is in another region: mend the destination's region",
    "IncompleteSignature": "mend the destination's access_key_id and secret_access_key",
    "InvalidAccessKeyId": "there is no such access key: mend the destination's access_key_id",
    "InvalidClientTokenId": "there is no such access key: mend the destination's access_key_id",
    "InvalidSignatureException": "the secret does not belong to the access key: mend secret_access_key, or the clock",
    "InvalidToken": "mend the destination's session_token, or leave it out where the keys are not temporary",
    "KMS.AccessDeniedException": "the credentials may not use the KMS key: mend the key's policy",
    "KMS.DisabledException": "the KMS key is disabled: mend kms_key_id, or enable it",
    "KMS.NotFoundException": "there is no such KMS key: mend the destination's kms_key_id",
    "MissingAuthenticationToken": "mend the destination's access_key_id and secret_access_key",
    "MissingAuthenticationTokenException": "mend the destination's access_key_id and secret_access_key",
    "NoSuchBucket": "mend the destination's bucket or region, or create it",
    "OptInRequired": "the account is not signed up for this: mend it at Amazon",
    "PermanentRedirect": "the bucket is in another region: mend the destination's region",
    "RequestExpired": "the clock of this machine is wrong: mend it (NTP)",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: mend it (NTP)",
    "ResourceNotFoundException": "mend the destination's table or region, or create the table",
    "SignatureDoesNotMatch": "the secret does not belong to the access key: mend secret_access_key, or the clock",
    "UnrecognizedClientException": "there is no such access key: mend the destination's access_key_id",
}
"""By error code, what the operator is to mend. A request that fails so is tried again, slowly."""

THROTTLED = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
        "KmsThrottled",
        "InternalServerError",
        "InternalFailure",
        "ServiceUnavailable",
    }
)
"""Error codes that are no fault of the request, whatever their status."""


_SIGNED = frozenset({400, 401, 403})  # statuses of a signature that is refused


class Keys(NamedTuple):
    """What requests are signed with. ``expires`` is when they are to be asked for again; None: never."""

    access_key_id: str
    secret_access_key: str
    token: str | None = None
    expires: datetime | None = None

    def for_obstore(self) -> dict[str, Any]:
        """Return them as obstore's credential providers do."""
        return {
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "token": self.token,
            "expires_at": self.expires,
        }


class NoCredentials(DestinationError):
    """There are none, or they could not be renewed; the text says what to mend."""


def credentials(name: str, options: Mapping[str, Any]) -> Callable[[], Keys]:
    """Return a function that gives the keys to sign with; it raises NoCredentials where there are none.

    Raises:
        DestinationConfigError: half of a key was given, or botocore is needed and missing.
    """
    given = (options["access_key_id"], options["secret_access_key"])
    if any(given) and not all(given):
        raise DestinationConfigError(
            f"destination {name}: access_key_id and secret_access_key go together: set both or neither"
        )
    if all(given) and not options["role_arn"]:
        keys = Keys(*given, options["session_token"])
        return lambda: keys
    return _Chain(name, options)


def _botocore(name: str) -> Any:
    try:
        import botocore.session
    except ImportError:
        raise DestinationConfigError(
            f"destination {name}: AWS profiles, roles and signatures need botocore: pip install 'otelgw[aws]'"
        ) from None
    return botocore.session


class _Chain:
    """botocore's chain of credential providers; nothing is looked for before the first call."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._sessions = _botocore(name)
        self._options = options
        self._found: Any = None
        self._lock = threading.Lock()

    def __call__(self) -> Keys:
        from botocore.exceptions import BotoCoreError, ClientError

        with self._lock:
            try:
                if self._found is None:
                    self._found = self._look()
                if self._found is None:
                    raise NoCredentials(_NONE)
                frozen = self._found.get_frozen_credentials()
            except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError, KeyError) as error:
                said = " ".join(str(error).split())[:300]
                raise NoCredentials(f"AWS credentials: {said} (mend the destination's profile or role)") from None
        return Keys(frozen.access_key, frozen.secret_key, frozen.token, datetime.now(UTC) + _ANSWER)

    def _look(self) -> Any:
        from botocore.config import Config

        options = self._options
        session = self._sessions.Session(profile=options["profile"])
        session.set_default_client_config(Config(**_STS))
        if options["access_key_id"]:
            session.set_credentials(options["access_key_id"], options["secret_access_key"], options["session_token"])
        return self._assumed(session) if options["role_arn"] else session.get_credentials()

    def _assumed(self, session: Any) -> Any:
        """Return the credentials of the role, which renew themselves."""
        from botocore import credentials as botocores

        options = self._options
        region = options["region"] or session.get_config_variable("region") or _REGION

        def client(service: str, **more: Any) -> Any:
            given = {"region_name": region, "endpoint_url": options["sts_endpoint_url"], **more}
            return session.create_client(service, **{key: value for key, value in given.items() if value})

        extra = {"RoleSessionName": options["role_session_name"]}
        fetcher: Any
        if path := options["web_identity_token_file"]:
            fetcher = botocores.AssumeRoleWithWebIdentityCredentialFetcher(
                client, botocores.FileWebIdentityTokenLoader(path), options["role_arn"], extra_args=extra
            )
        else:
            source = session.get_credentials()
            if source is None:
                return None
            fetcher = botocores.AssumeRoleCredentialFetcher(client, source, options["role_arn"], extra_args=extra)
        return botocores.DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def region_of(name: str, options: Mapping[str, Any], url: str = "") -> str:
    """Return the region: as ``url`` tells it, as given, as the profile does; us-east-1 otherwise."""
    if told := _REGION_IN_HOST.search(urlsplit(url).hostname or ""):
        return told[1]
    if options["region"]:
        return str(options["region"])
    try:
        found = _botocore(name).Session(profile=options["profile"]).get_config_variable("region")
    except Exception:  # noqa: BLE001 - a profile that cannot be read is told of when credentials are looked for
        found = None
    return str(found or _REGION)


class JsonService:
    """One of Amazon's services that take JSON: ``call`` signs and sends one request."""

    def __init__(self, name: str, service: str, url: str, options: Mapping[str, Any]) -> None:
        _botocore(name)
        self._service = service
        self.url = url
        self.region = region_of(name, options, url)
        self._credentials = credentials(name, options)
        secrets = ("access_key_id", "secret_access_key", "session_token")
        self._mask = http.Masked({secret: options[secret] for secret in secrets if options[secret]})
        self._http = http.client(name, headers={"accept-encoding": "identity"})

    def call(self, target: str, body: bytes, deadline: float) -> http.Answer | Reply:
        """Return the answer to the operation ``target``, or a reply that says why there is none."""
        try:
            keys = self._credentials()
        except NoCredentials as error:
            return Reply("again", self._mask(str(error)), OPERATOR_DELAY)
        return http.send(self._http, self.url, body, deadline, self._mask, headers=self._signed(target, body, keys))

    def _signed(self, target: str, body: bytes, keys: Keys) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": target}
        request = AWSRequest("POST", self.url, headers=headers, data=body)
        SigV4Auth(Credentials(*keys[:3]), self._service, self.region).add_auth(request)
        return {key.lower(): value for key, value in request.headers.items()}

    def classify(self, answer: http.Answer) -> Reply:
        """Return what an answer means; ``accepted`` for a 2xx."""
        if 200 <= answer.status < 300:
            return Reply("accepted")
        code, message = _told(answer)
        reason = f"{self}: HTTP {answer.status} {code}: {self._mask(message)}".rstrip(": ")
        after = http.retry_after(answer.headers.get("retry-after"))
        if answer.status in http.AGAIN or code in THROTTLED:
            return Reply("again", reason, after)
        return explained(code, reason, answer.status, HINTS, _skew(answer) if answer.status in _SIGNED else 0.0)

    def explain(self, code: str, message: str, *, final: bool) -> Reply:
        """Return what the failure of one part of a request means; ``final``: the service says that it is at fault."""
        reason = f"{self}: {code}: {self._mask(message)}".rstrip(": ")
        if code in THROTTLED or not final:
            return Reply("again", reason)
        return explained(code, reason, 400, HINTS)

    def close(self) -> None:
        """End what is under way, too."""
        self._http.close()

    def __repr__(self) -> str:
        return http.origin(self.url)


def _told(answer: http.Answer) -> tuple[str, str]:
    """Return the code and the message of a failure, in JSON; of one in XML as far as they can be found."""
    try:
        tree = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        tree = None
    if isinstance(tree, dict):
        code = str(tree.get("__type") or tree.get("code") or "").rpartition("#")[2]
        return code, str(tree.get("message") or tree.get("Message") or "")
    text = answer.body.decode("utf-8", "replace")
    found = [re.search(rf"<{tag}>([^<]*)</{tag}>", text) for tag in ("Code", "Message")]
    return tuple(match[1] if match else "" for match in found)  # type: ignore[return-value]


def _skew(answer: http.Answer) -> float:
    """Return how many seconds this machine's clock is ahead of the one that answered; 0 where it does not say."""
    try:
        told = parsedate_to_datetime(answer.headers.get("date", ""))
    except (TypeError, ValueError):
        return 0.0
    return time.time() - told.timestamp()
