"""Whether a request is Slack's own: signed with the app's secret, over its raw body, not long ago."""

from collections.abc import Mapping

from slack_sdk.signature import SignatureVerifier

from holdfast.domain.errors import Unauthenticated


def check_signature(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    """Raises:
    Unauthenticated: the request is not Slack's, or is older than five minutes.
    """
    timestamp = headers.get("x-slack-request-timestamp", "")
    signature = headers.get("x-slack-signature", "")
    # What the SDK's verifier would stumble over is forged in any case.
    is_readable = timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12 and signature.isascii()
    try:
        if is_readable and SignatureVerifier(secret).is_valid(body, timestamp, signature):
            return
    except UnicodeDecodeError:
        pass
    raise Unauthenticated("This is not a request of Slack's: its signature is missing, wrong, or too old.")
