"""Whoever tampers with the audit log as the database's superuser is found out, and what they touched is named."""

import json

import pytest
from sqlalchemy import BigInteger, Boolean, Integer, Numeric, text
from sqlalchemy.dialects.postgresql import JSONB

from holdfast.domain.audit import Head, record_hash
from holdfast.services.audit_log import AuditLog
from holdfast.services.audit_verification import Tally, wrong_with_heads
from holdfast.store import audit_chain
from holdfast.store.engine import Database
from holdfast.store.tables.record import audit
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.harness.audit import Tampered, wrong
from tests.harness.caller import Caller
from tests.harness.stage import Stage

CONTENT = {
    "the text of msg_": "UPDATE messages SET text = text || '!' WHERE tenant_id = :t AND role = 'user'",
    "the text of msg_ ": "UPDATE messages SET text = text || '!' WHERE tenant_id = :t AND role = 'assistant'",
    "the text of run_": "UPDATE steps SET text = text || '!' WHERE tenant_id = :t AND step = 2",
    "the arguments of call_": "UPDATE tool_calls SET arguments = '{\"amount\": 1000000}' WHERE tenant_id = :t",
    "the outcome of call_": "UPDATE tool_calls SET result = '{}' WHERE tenant_id = :t",
    "the arguments of conf_": "UPDATE confirmations SET arguments = '{\"amount\": 1}' WHERE tenant_id = :t",
    "the edited_arguments of conf_": "UPDATE confirmations SET edited_arguments = '{}' WHERE tenant_id = :t",
    "the reason of conf_": "UPDATE confirmations SET reason = NULL WHERE tenant_id = :t",
    "the spec of wild:1": 'UPDATE agents SET spec = spec || \'{"persona": "Tame."}\' WHERE tenant_id = :t',
    "its text is gone with msg_": "DELETE FROM messages WHERE tenant_id = :t AND role = 'assistant'",
}

ROW = "(SELECT min(audit_id) FROM audit WHERE tenant_id = :t AND kind = 'confirmation' AND person IS NOT NULL)"
NO_CHAIN = "it has no chain, and each tenant has one from its first key on: removed"
SEQ = f"(SELECT seq FROM audit_chain WHERE tenant_id = :t AND audit_id = {ROW})"


@pytest.fixture
async def log(ada: Caller, stage: Stage, provider: ScriptedProvider) -> tuple[str, int, int]:
    """A tenant with a log that has something of everything: its id, and the number and the row of a decision in it."""
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 7})]), Text("Paid."))
    await ada.http.put("/v1/agents/wild", json={"name": "wild", "model": "quality"})
    run = await ada.ask("pay, please")
    asked = await ada.only_pending(run)
    assert (await ada.decide({**asked, "arguments_digest": "0" * 64})).status_code == 412
    edited = {"marker": ada.tenant_id, "amount": 3}
    assert (await ada.decide(asked, "edit", arguments=edited, reason="less")).status_code == 200
    assert (await ada.ended(run["id"]))["status"] == "completed"
    (row,) = await stage.rows(
        "SELECT seq, audit_id FROM audit_chain WHERE tenant_id = $1 AND audit_id ="
        " (SELECT min(audit_id) FROM audit WHERE tenant_id = $1 AND kind = 'confirmation' AND person IS NOT NULL)",
        ada.tenant_id,
    )
    return ada.tenant_id, row["seq"], row["audit_id"]


async def tampered(stage: Stage, tenant_id: str, *statements: str) -> list[str]:
    return await wrong(Tampered(stage.owner_url, tenant_id, statements), tenant_id)


def other_value(name: str) -> str:
    """A value that a column of the log does not have, as SQL."""
    match audit.c[name].type:
        case JSONB():
            return f"""{name} || '{{"detail": "ers_0"}}'"""
        case Boolean():
            return f"NOT coalesce({name}, false)"
        case Integer() | BigInteger() | Numeric():
            return "DEFAULT" if name == "audit_id" else f"coalesce({name}, 0) + 1"
    return f"{name} + interval '1 microsecond'" if name == "created_at" else f"coalesce({name}, '') || 'x'"


async def test_a_log_that_nobody_touched_is_clean(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, seq, _ = log
    tally = Tally()
    assert await wrong(stage.database, tenant_id, tally) == []
    assert (tally.tenants, tally.erased) == (1, 0)
    assert tally.entries > seq


async def test_a_change_in_any_column_is_found_and_its_entry_named(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, seq, audit_id = log
    for name in [column.name for column in audit.c]:
        found = await tampered(
            stage, tenant_id, f"UPDATE audit SET {name} = {other_value(name)} WHERE tenant_id = :t AND audit_id = {ROW}"
        )
        assert any(one.startswith(f"tenant {tenant_id}, entry {seq} (row {audit_id}): ") for one in found), name
        assert {one.split(":")[0] for one in found if ", entry " in one and " (row " in one} <= {
            f"tenant {tenant_id}, entry {seq} (row {audit_id})"
        }, f"{name}: nothing else is named"
    for name in ("person", "detail", "digests", "salts"):
        value = "'{}'" if name in ("digests", "salts") else "NULL"
        found = await tampered(
            stage, tenant_id, f"UPDATE audit SET {name} = {value} WHERE tenant_id = :t AND audit_id = {ROW}"
        )
        assert any(f"entry {seq} (row {audit_id})" in one for one in found), name


async def test_a_change_in_the_chain_is_found(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, seq, _ = log
    for name, value in {
        "seq": "(SELECT max(seq) + 1 FROM audit_chain WHERE tenant_id = :t)",
        "audit_id": "-1",
        "previous_hash": "repeat('1', 64)",
        "hash": "repeat('1', 64)",
    }.items():
        found = await tampered(
            stage, tenant_id, f"UPDATE audit_chain SET {name} = {value} WHERE tenant_id = :t AND seq = {SEQ}"
        )
        assert any(f"entry {seq} " in one for one in found), (name, found)


async def test_an_erasure_that_is_not_on_record_is_no_excuse(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, seq, _ = log
    found = await tampered(
        stage,
        tenant_id,
        f"UPDATE audit SET person = 'erased:0123', salts = salts - 'person', erased = '{{\"person\": \"ers_0\"}}'"
        f" WHERE tenant_id = :t AND audit_id = {ROW}",
    )
    assert found == [
        f"tenant {tenant_id}: what is marked as erased by 'ers_0' is not what an erasure on record took",
        f"tenant {tenant_id}, entry {seq}: its person is marked as erased, by no erasure on record",
    ]


async def test_a_removed_row_is_found(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, seq, audit_id = log
    row = f"DELETE FROM audit WHERE tenant_id = :t AND audit_id = {ROW}"
    link = f"DELETE FROM audit_chain WHERE tenant_id = :t AND seq = {SEQ}"
    closed_up = (
        "UPDATE audit_chain SET seq = -seq WHERE tenant_id = :t",
        f"UPDATE audit_chain SET seq = -seq - 1 WHERE tenant_id = :t AND -seq > {seq}",
        f"UPDATE audit_chain SET seq = -seq WHERE tenant_id = :t AND -seq < {seq} AND seq < 0",
    )

    assert await tampered(stage, tenant_id, row) == [
        f"tenant {tenant_id}, entry {seq} (row {audit_id}): its row is gone: removed"
    ]
    alone = await tampered(stage, tenant_id, link)
    assert alone[0].endswith(f"before it, entry {seq} was removed")
    assert alone[1:] == [f"tenant {tenant_id} (row {audit_id}): the row is in no chain: it was inserted past it"]
    row = f"DELETE FROM audit WHERE tenant_id = :t AND audit_id = {audit_id}"
    for extra in ((), closed_up):
        found = await tampered(stage, tenant_id, link, row, *extra)
        assert any(f"entry {seq + (not extra)} " in one for one in found), found


async def test_a_chain_that_was_removed_as_a_whole_leaves_rows_that_tell_of_it(
    log: tuple[str, int, int], stage: Stage
) -> None:
    tenant_id, _, _ = log
    removed = "DELETE FROM audit_chain WHERE tenant_id = :t"
    assert tenant_id in await AuditLog(Tampered(stage.owner_url, tenant_id, [removed])).tenants()
    found = await tampered(stage, tenant_id, removed)
    assert len(found) > 2
    assert [one for one in found if "the row is in no chain" not in one] == [f"tenant {tenant_id}: {NO_CHAIN}"]
    assert await tampered(stage, tenant_id, removed, "DELETE FROM audit WHERE tenant_id = :t") == found[-1:]


async def test_two_rows_in_each_others_place_are_found(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, seq, _ = log
    found = await tampered(
        stage,
        tenant_id,
        f"UPDATE audit_chain SET seq = CASE seq WHEN {seq} THEN -1 ELSE -2 END WHERE tenant_id = :t"
        f" AND seq IN ({seq}, {seq + 1})",
        f"UPDATE audit_chain SET seq = {seq + 2} + seq WHERE tenant_id = :t AND seq < 0",
    )
    named = {one.partition(" (row")[0] for one in found}
    assert {f"tenant {tenant_id}, entry {seq}", f"tenant {tenant_id}, entry {seq + 1}"} <= named


async def test_an_inserted_row_is_found(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, seq, _ = log
    insert = "INSERT INTO audit (tenant_id, kind, outcome) VALUES (:t, 'refusal', 'forbidden')"
    into_the_chain = (
        f"UPDATE audit_chain SET seq = -seq WHERE tenant_id = :t AND seq > {seq}",
        "UPDATE audit_chain SET seq = -seq + 1 WHERE tenant_id = :t AND seq < 0",
        f"INSERT INTO audit_chain SELECT tenant_id, {seq + 1}, (SELECT max(audit_id) FROM audit WHERE tenant_id = :t),"
        f" hash, repeat('1', 64) FROM audit_chain WHERE tenant_id = :t AND seq = {seq}",
    )

    below = "INSERT INTO audit_chain VALUES (:t, -5, (SELECT max(audit_id) FROM audit WHERE tenant_id = :t), '', '')"
    (hidden,) = await tampered(stage, tenant_id, insert, below)
    assert "entry -5 " in hidden
    (past,) = await tampered(stage, tenant_id, insert)
    assert past.endswith("the row is in no chain: it was inserted past it")
    within = await tampered(stage, tenant_id, insert, *into_the_chain)
    assert any(f"entry {seq + 1} " in one and "its hash is not that" in one for one in within)


async def test_changed_content_is_found_where_it_stands(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, _, _ = log
    for what, statement in CONTENT.items():
        found = await tampered(stage, tenant_id, statement)
        assert any(what.strip() in one for one in found), (what, found)


async def test_heads_show_what_the_chain_alone_can_not(log: tuple[str, int, int], stage: Stage) -> None:
    tenant_id, _, _ = log
    (head,) = [one for one in await AuditLog(stage.database).heads() if one.tenant_id == tenant_id]
    cut = (
        f"DELETE FROM audit WHERE tenant_id = :t AND audit_id ="
        f" (SELECT audit_id FROM audit_chain WHERE tenant_id = :t AND seq = {head.seq})",
        f"DELETE FROM audit_chain WHERE tenant_id = :t AND seq = {head.seq}",
    )
    rewritten = await rewritten_from(stage, tenant_id, head)

    assert await against(stage.database, head) == []
    assert await tampered(stage, tenant_id, *cut) == [], "nothing shows that there was more"
    assert "the log was cut" in (await against(Tampered(stage.owner_url, tenant_id, cut), head))[0]
    assert await tampered(stage, tenant_id, *rewritten) == [], "every hash is as it should be"
    assert "rewritten" in (await against(Tampered(stage.owner_url, tenant_id, rewritten), head))[0]


async def against(database: Database, head: Head) -> list[str]:
    return [str(one) async for one in wrong_with_heads(database, [head], Tally())]


async def rewritten_from(stage: Stage, tenant_id: str, head: Head) -> list[str]:
    """What makes another history of a whole log, in which a run was never refused, with every hash made anew."""
    statements = ["UPDATE audit SET outcome = 'overlooked' WHERE tenant_id = :t AND kind = 'refusal'"]
    async with stage.database.snapshot(tenant_id) as connection:
        links = await audit_chain.links(connection, tenant_id, after=0, limit=head.seq)
    before = "0" * 64
    for link in links:
        record = dict(link.record or {})
        if record["kind"] == "refusal":
            record["outcome"] = "overlooked"
        made = record_hash({**record, "seq": str(link.seq), "previous_hash": before})
        statements.append(
            f"UPDATE audit_chain SET previous_hash = '{before}', hash = '{made}'"
            f" WHERE tenant_id = :t AND seq = {link.seq}"
        )
        before = made
    return statements


async def test_the_hash_is_of_canonical_json(ada: Caller, stage: Stage) -> None:
    """What PostgreSQL hashes and what Python makes of it are the same, also for texts that are hard to write."""
    odd = 'quote " backslash \\ tab \t newline \n bell \x07 del \x7f é 𝄞 \u2028'
    async with stage.database.tenant(ada.tenant_id) as connection:
        await connection.execute(
            text(
                "INSERT INTO audit (tenant_id, kind, outcome, tool, cost_usd)"
                " VALUES (:t, 'run', 'odd', :odd, 0.0000123)"
            ),
            {"t": ada.tenant_id, "odd": odd},
        )

    assert await wrong(stage.database, ada.tenant_id) == []
    (row,) = await stage.rows("SELECT tool FROM audit WHERE tenant_id = $1 AND outcome = 'odd'", ada.tenant_id)
    assert json.loads(json.dumps(row["tool"])) == odd
