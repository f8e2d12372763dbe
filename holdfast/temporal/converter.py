"""How payloads are written: Temporal's own JSON, which knows dataclasses, enums and times; sealed, if there are keys.

(With pydantic's converter each run built the adapters of its types anew inside the sandbox: 2 to 3 ms of CPU.)

Errors go to Temporal without the secrets that this process knows, and with keys, sealed as everything else is.
"""

from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    PayloadConverter,
)
from temporalio.exceptions import ApplicationError

from holdfast.secrecy.keyring import Keyring
from holdfast.secrecy.redaction import redacted
from holdfast.temporal.codec import FORGED, SealingCodec

# How the SDK marks a payload that stands for one in a store outside of Temporal.
_REFERENCE_MARK = "__temporal_external_storage_reference"
_REFERENCE = b"json/external-storage-reference"
_REFERENCE_TYPE = b"temporal.api.sdk.v1.ExternalStorageReference"

#: The type of the error at a payload that was forged.
_FORGED = "Forged"


class _RefuseForged(EncodingPayloadConverter):
    """Takes no payload that was forged, and says so in a way that ends a workflow instead of wedging it."""

    @property
    def encoding(self) -> str:
        return FORGED.decode()

    def to_payload(self, value: Any) -> Payload | None:
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        raise ApplicationError("a payload can't be opened, and never will be", type=_FORGED, non_retryable=True)


class Payloads(CompositePayloadConverter):
    """The default converter, and what it says to payloads that can't be opened."""

    def __init__(self) -> None:
        super().__init__(*DefaultPayloadConverter.default_encoding_payload_converters, _RefuseForged())


class Failures(DefaultFailureConverter):
    """Errors without the secrets that this process knows."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Called for each error of a chain, the causes first."""
        super().to_failure(exception, payload_converter, failure)
        failure.message, failure.stack_trace = redacted(failure.message), redacted(failure.stack_trace)
        if _is_forged(exception.__cause__) and failure.HasField("application_failure_info"):
            # The SDK wraps what an activity's argument raises in an error that would be tried again for ever.
            failure.application_failure_info.non_retryable = True


class SealedFailures(Failures):
    """Errors whose texts and traces are a payload, which the codec seals."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """As Temporal's own `DefaultFailureConverterWithEncodedAttributes` does, which would leave secrets in."""
        super().to_failure(exception, payload_converter, failure)
        # Also of an error that came from Temporal as it is: it was opened on its way here.
        attributes = {"message": failure.message, "stack_trace": failure.stack_trace}
        failure.encoded_attributes.CopyFrom(payload_converter.to_payloads([attributes])[0])
        failure.message, failure.stack_trace = "Encoded failure", ""


class Converter(DataConverter):
    """Temporal's converter, but for payloads that claim to stand in a store outside: the SDK raises at those.

    Anybody who reaches Temporal could wedge a run by a signal with such a payload. The method is not public;
    `tests/integration/test_sealed_payloads.py` would notice.
    """

    async def _decode_reference_payload_sequence(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [_without_reference(payload) for payload in payloads]


def data_converter(keyring: Keyring | None) -> DataConverter:
    """What every client of Temporal converts with. None: nothing is sealed."""
    return Converter(
        payload_converter_class=Payloads,
        payload_codec=None if keyring is None else SealingCodec(keyring),
        failure_converter_class=Failures if keyring is None else SealedFailures,
    )


#: Without keys.
DATA_CONVERTER = data_converter(None)


def _is_forged(error: BaseException | None) -> bool:
    return isinstance(error, ApplicationError) and error.type == _FORGED


def _without_reference(payload: Payload) -> Payload:
    metadata = payload.metadata
    is_reference = _REFERENCE in metadata.values() or metadata.get("messageType") == _REFERENCE_TYPE
    return Payload(metadata={"encoding": FORGED}) if is_reference or _REFERENCE_MARK in metadata else payload
