"""Payloads that nobody can read in Temporal: sealed on their way in, opened on their way out.

A sealed payload names the key that opens it, and the tenant whose workflow it belongs to. Both are bound to it, and
what it was before, metadata and all, is inside. **Decoding never raises**: a payload whose decoding raises blocks its
run for ever, and anybody who reaches Temporal can send one as a signal. What can't be opened becomes a payload that no
converter takes:

- as a signal it is dropped, with a line in the log, and the run goes on;
- whose key is not known here stays as it is. As a workflow's argument, or what a step brought, it fails the workflow's
  task, which is tried again until some worker has the key: a rotation in the wrong order costs time and no run;
- what was forged or cut will never be opened. As a workflow's argument, or that of a step, it fails the run.

Payloads that were never sealed pass as they are: histories from before the codec go on.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from holdfast.domain.ids import tenant_of_workflow
from holdfast.secrecy.keyring import CantOpen, Forged, Keyring, UnknownKey

#: What a payload's `encoding` says: sealed; or, in this process only, one that can't be opened.
SEALED = b"binary/encrypted"
FORGED = b"binary/forged"

_KEY_ID = "encryption-key-id"
_TENANT = "tenant"

#: Bound to each payload, so that nothing else which was sealed with the same keys is taken for one.
_PURPOSE = "temporal payload"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SealingCodec(PayloadCodec, WithSerializationContext):
    """Seals and opens payloads. `tenant_id` None: it is not known here whose they are."""

    keyring: Keyring
    tenant_id: str | None = None

    def with_context(self, context: SerializationContext) -> "SealingCodec":
        """For the payloads of one workflow."""
        if not isinstance(context, WorkflowSerializationContext | ActivitySerializationContext):
            return SealingCodec(self.keyring)
        return SealingCodec(self.keyring, tenant_of_workflow(context.workflow_id or ""))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Seal each."""
        return [self._sealed(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Open each that is sealed, and can be opened here. Never raises."""
        return [self._opened_or_harmless(payload) for payload in payloads]

    def opened_for(self, tenant_id: str, payload: Payload) -> Payload:
        """A payload as a person of a tenant may see it: another tenant's, or nobody's, stays as it is. Never raises."""
        if payload.metadata.get(_TENANT, b"") != tenant_id.encode():
            return payload
        try:
            return SealingCodec(self.keyring, tenant_id)._opened(payload)
        except CantOpen:
            return payload

    def _sealed(self, payload: Payload) -> Payload:
        key_id, tenant_id = self.keyring.sealing_key_id, self.tenant_id or ""
        return Payload(
            metadata={"encoding": SEALED, _KEY_ID: key_id.encode(), _TENANT: tenant_id.encode()},
            data=self.keyring.seal(payload.SerializeToString(), _PURPOSE, tenant_id),
        )

    def _opened_or_harmless(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != SEALED:
            return payload
        try:
            return self._opened(payload)
        except UnknownKey as error:
            log.warning("a payload from Temporal can't be opened: %s in HOLDFAST_PAYLOAD_KEYS", error)
            return payload
        except CantOpen as error:
            log.warning("a payload from Temporal is not one of ours, and is not taken: %s", error)
            return Payload(metadata={"encoding": FORGED})

    def _opened(self, payload: Payload) -> Payload:
        key_id, tenant_id = _text(payload, _KEY_ID), _text(payload, _TENANT)
        plain = self.keyring.open(payload.data, key_id, _PURPOSE, tenant_id)
        if self.tenant_id is not None and tenant_id not in ("", self.tenant_id):
            raise Forged("it was taken from another tenant's workflow")
        try:
            return Payload.FromString(plain)
        except DecodeError:
            raise Forged("it holds no payload") from None


def _text(payload: Payload, name: str) -> str:
    return payload.metadata.get(name, b"").decode(errors="replace")
