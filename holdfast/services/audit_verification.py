"""Verifying the audit log: link by link, in the memory that one batch takes, however long the log is.

Of each link: does it follow the one before; is the entry there, and its hash that of what it says; are the names and
texts beside it those that it committed to; is the content in other tables still what it was? What was erased is not
compared, but counted, and has to be what an erasure on record says that it took. Rows that are in no chain were
inserted past it.

Whoever can write to the database as its owner can rewrite a whole chain, or cut off its end, and none of that would
show: that is what signed heads are for.
"""

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import ERASABLE, NO_HASH, PSEUDONYM, Head, Link, commitment, erased_line, record_hash
from holdfast.store import audit_chain, audit_contents, tenants
from holdfast.store.engine import Database

#: How many links are read at once.
BATCH = 500

_LOWEST = -(2**63)

#: The kinds of entries whose content stands in a table of its own.
_WITH_CONTENT = ("message", "model_call", "tool_call", "confirmation", "configuration")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. `seq`: the entry's number; `audit_id`: its row in the table `audit`."""

    tenant_id: str
    what: str
    seq: int | None = None
    audit_id: int | None = None

    def __str__(self) -> str:
        entry = "" if self.seq is None else f", entry {self.seq}"
        row = "" if self.audit_id is None else f" (row {self.audit_id})"
        return f"tenant {self.tenant_id}{entry}{row}: {self.what}"


@dataclass
class Tally:
    """What was looked at."""

    tenants: int = 0
    entries: int = 0
    erased: int = 0
    heads: int = 0


@dataclass
class _Chain:
    """How far a chain was followed. `taken`: what each erasure took, hashed; `declared`: what it said that it took."""

    tenant_id: str
    seq: int = 0
    hash: str = NO_HASH
    taken: dict[str, Any] = field(default_factory=lambda: defaultdict(hashlib.sha256))
    declared: dict[str, str] = field(default_factory=dict)

    def wrong_erasures(self) -> list[str]:
        """The erasures that did not take what they say, or say nothing."""
        named = sorted(self.declared.keys() | self.taken.keys())
        return [one for one in named if self.taken[one].hexdigest() != self.declared.get(one)]


async def wrong_in(database: Database, tenant_id: str, tally: Tally) -> AsyncIterator[Finding]:
    """Everything that is wrong with a tenant's log, in its order."""
    chain = _Chain(tenant_id)
    async with database.snapshot(tenant_id) as connection:
        # From below 1 on: nothing is to be hidden there.
        after = _LOWEST
        while links := await audit_chain.links(connection, tenant_id, after=after, limit=BATCH):
            after = links[-1].seq
            changed = await _changed_contents(connection, tenant_id, links)
            for link in links:
                for what in (*_follow(chain, link), *_wrong_values(link), *changed.get(link.seq, ())):
                    yield Finding(tenant_id, what, link.seq, link.audit_id)
                tally.entries += 1
                tally.erased += bool(link.erased)
        tally.tenants += chain.seq > 0
        async for finding in _beside(connection, chain):
            yield finding
        async for finding in _wrong_erasures(connection, chain):
            yield finding


async def _beside(connection: AsyncConnection, chain: _Chain) -> AsyncIterator[Finding]:
    """Rows that are in no chain; and a tenant without one."""
    async for audit_id in audit_chain.unchained(connection, chain.tenant_id):
        yield Finding(chain.tenant_id, "the row is in no chain: it was inserted past it", audit_id=audit_id)
    if chain.seq == 0 and await tenants.is_known(connection, chain.tenant_id):
        yield Finding(chain.tenant_id, "it has no chain, and each tenant has one from its first key on: removed")


async def _wrong_erasures(connection: AsyncConnection, chain: _Chain) -> AsyncIterator[Finding]:
    for erasure in chain.wrong_erasures():
        yield Finding(chain.tenant_id, f"what is marked as erased by {erasure!r} is not what an erasure on record took")
        if erasure in chain.declared:
            continue
        async for seq, slot in audit_chain.taken(connection, chain.tenant_id, erasure):
            yield Finding(chain.tenant_id, f"its {slot} is marked as erased, by no erasure on record", seq)


async def wrong_with_heads(database: Database, heads: list[Head], tally: Tally) -> AsyncIterator[Finding]:
    """Everything that heads, which were signed earlier, show to be wrong with the chains as they are now."""
    tally.heads += len(heads)
    async with database.heads() as connection:
        found = await audit_chain.at(connection, heads)
    for head in heads:
        stands = found.get((head.tenant_id, head.seq))
        if stands is None:
            yield Finding(head.tenant_id, "it was there when a head was signed, and is gone: the log was cut", head.seq)
        elif stands != head.hash:
            yield Finding(head.tenant_id, "it is not what it was when a head was signed: rewritten", head.seq)


def _follow(chain: _Chain, link: Link) -> Iterator[str]:
    if link.seq < 1:
        yield "its number is none that an entry can have: inserted"
        return
    if link.seq != chain.seq + 1:
        first, last = chain.seq + 1, link.seq - 1
        yield f"before it, entry {first} was removed" + ("" if first == last else f", and all up to {last}")
    elif link.previous_hash != chain.hash:
        yield "it does not follow the entry before it: one of the two was moved, inserted or changed"
    chain.seq, chain.hash = link.seq, link.hash
    if link.record is None:
        yield "its row is gone: removed"
        return
    made = record_hash({**link.record, "seq": str(link.seq), "previous_hash": link.previous_hash})
    if made != link.hash:
        yield "its hash is not that of what stands there: it was changed, or put in another's place"
    _note_erasures(chain, link)


def _wrong_values(link: Link) -> Iterator[str]:
    """What is wrong with the names and texts beside a record, which it commits to."""
    if link.record is None:
        return
    for slot in ERASABLE:
        if not _is_committed(link, slot):
            yield f"its {slot} was changed"
    for slot in sorted(link.salts.keys() & link.erased.keys()):
        yield f"its {slot} is marked as erased, and is not"
    # What an erasure took is public, and its digest has no salt.
    unsalted = {"erased"} if link.record.get("kind") == "erasure" else set()
    for slot in sorted(link.digests.keys() - link.salts.keys() - link.erased.keys() - {*ERASABLE, *unsalted}):
        yield f"the salt of its {slot} was removed"


def _is_committed(link: Link, slot: str) -> bool:
    """Whether a value is what the record committed to, or what an erasure leaves of it."""
    value, digest, salt = link.values[slot], link.digests.get(slot), link.salts.get(slot)
    if digest is None:
        return value is None
    if salt is None:
        return slot in link.erased and (value is None or value.startswith(PSEUDONYM))
    return value is not None and commitment(salt, slot, value) == digest


def _note_erasures(chain: _Chain, link: Link) -> None:
    record = link.record or {}
    if record.get("kind") == "erasure":
        chain.declared[record.get("subject_id", "")] = link.digests.get("erased", "")
    for slot, erasure in sorted(link.erased.items()):
        chain.taken[erasure].update(erased_line(link.seq, slot))


async def _changed_contents(connection: AsyncConnection, tenant_id: str, links: list[Link]) -> dict[int, list[str]]:
    """Of each link whose content is not what it committed to, what is wrong."""
    by_kind: dict[str, dict[str, list[Link]]] = defaultdict(lambda: defaultdict(list))
    for link in links:
        subject = _subject(link)
        if subject is not None:
            by_kind[(link.record or {})["kind"]][subject].append(link)
    wrong: dict[int, list[str]] = defaultdict(list)
    for kind, subjects in by_kind.items():
        contents = await audit_contents.read(connection, tenant_id, kind, list(subjects))
        newest = await audit_chain.newest_commitments(connection, tenant_id, list(subjects))
        for subject, committed in subjects.items():
            for link in committed:
                for slot in link.salts.keys() & link.digests.keys() - set(ERASABLE):
                    # What came of a call may become known later: the newest word on it is what its row holds.
                    if newest.get((subject, slot), link.audit_id) == link.audit_id:
                        wrong[link.seq] += _wrong_content(link, slot, subject, contents.get(subject))
    return wrong


def _wrong_content(link: Link, slot: str, subject: str, content: audit_contents.Contents | None) -> Iterator[str]:
    if content is None:
        yield f"its {slot} is gone with {subject}: removed"
    elif slot in content:
        value = content[slot]
        if value is None or commitment(link.salts[slot], slot, value) != link.digests[slot]:
            yield f"the {slot} of {subject} was changed since"


def _subject(link: Link) -> str | None:
    """What an entry's content is of; None: it has none that could be compared."""
    record = link.record or {}
    if record.get("kind") not in _WITH_CONTENT or not link.salts.keys() - set(ERASABLE):
        return None
    if record["kind"] == "model_call":
        return f"{record.get('run_id')}:{record.get('step')}"
    return record.get("subject_id")
