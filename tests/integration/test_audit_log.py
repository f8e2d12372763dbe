"""What is on record, how it is read, verified, exported and anchored."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from holdfast.domain.audit import Head
from holdfast.domain.errors import ConfigurationError
from holdfast.services.anchors import Anchors
from holdfast.services.audit_heads import NotSigned, Signer, Verifier
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.harness.audit import wrong
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import Stage

_HOLDFAST = str(Path(sys.executable).parent / "holdfast")


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A signing key and its public half, as the environment names them."""
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    older = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public").write_bytes(older + public)
    return {
        "HOLDFAST_AUDIT_SIGNING_KEY_FILE": str(tmp_path / "key"),
        "HOLDFAST_AUDIT_PUBLIC_KEY_FILE": str(tmp_path / "public"),
    }


async def holdfast(stage: Stage, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command that reaches the database itself."""
    environment = {**os.environ, "HOLDFAST_DATABASE_URL": stage.database_url, **variables}
    return await asyncio.to_thread(
        subprocess.run, [_HOLDFAST, *arguments], env=environment, capture_output=True, text=True, check=False
    )


async def entries(caller: Caller, **wanted: str | int) -> list[Json]:
    """Entries of the log, page by page."""
    found: list[Json] = []
    while True:
        after = {"after": found[-1]["id"]} if found else {}
        page = await caller.get("/v1/audit", **{"limit": 3, **wanted, **after})
        found += page["data"]
        if not page["has_more"]:
            return found


async def paid(caller: Caller, provider: ScriptedProvider) -> Json:
    """A run in which a person has approved a payment."""
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 7})]), Text("Paid."))
    run = await caller.ask("pay, please")
    await caller.decide(await caller.only_pending(run), reason="they are owed it")
    return await caller.ended(run["id"])


async def test_the_log_is_paged_oldest_first(ada: Caller, provider: ScriptedProvider) -> None:
    run = await paid(ada, provider)
    await ada.http.put("/v1/agents/wild", json={"name": "wild", "model": "quality"})
    everything = await entries(ada)

    assert [int(one["id"]) for one in everything] == list(range(1, len(everything) + 1))
    of_run = [f"{one['kind']} {one['outcome']}" for one in everything if one["run_id"] == run["id"]]
    assert of_run == [
        "message accepted",
        "model_call answered",
        "confirmation pending",
        "confirmation approved",
        "tool_call dispatched",
        "tool_call succeeded",
        "model_call answered",
        "message replied",
        "run completed",
    ]
    assert everything[0]["kind"] == "key"
    assert [one["outcome"] for one in everything if one["kind"] == "configuration"] == ["applied"]


async def test_the_log_is_filtered(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    run = await paid(ada, provider)
    call = run["tool_calls"][0]["id"]
    (accepted,) = await entries(ada, kind="message", outcome="accepted")

    assert [one["outcome"] for one in await entries(ada, subject_id=call)] == ["dispatched", "succeeded"]
    assert {one["person"] for one in await entries(ada, person="ada", run_id=run["id"])} == {"ada"}
    assert accepted in await entries(ada, since=accepted["created_at"])
    assert accepted not in await entries(ada, until=accepted["created_at"])
    assert await entries(await stage.caller(f"{ada.tenant_id}-other"), run_id=run["id"]) == []


@pytest.mark.parametrize(
    "query",
    [
        "kind=gossip",
        "after=x",
        "after=-1",
        f"after={2**63}",
        "since=today",
        "since=2026-01-01T00:00",
        "until=0001-01-01T00:00:00%2B14:00",
        "person=%00",
        "who=me",
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(ada: Caller, query: str) -> None:
    assert (await ada.http.get(f"/v1/audit?{query}")).status_code == 422


async def test_no_content_stands_in_the_log(ada: Caller, provider: ScriptedProvider) -> None:
    await paid(ada, provider)
    shown = json.dumps([one for one in await entries(ada) if one["kind"] != "key"])

    for said in ("pay, please", "they are owed it", "Paid.", '"amount"'):
        assert said not in shown


async def test_refused_decisions_are_on_record(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    boss = await stage.caller(ada.tenant_id, "boss", ["billing"])
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 7})]), Text("Paid."))
    run = await ada.ask("pay", agent="guarded")
    asked = await ada.only_pending(run)
    assert (await ada.decide(asked)).status_code == 403
    assert (await boss.decide({**asked, "arguments_digest": "0" * 64})).status_code == 412
    assert (await boss.decide(asked)).status_code == 200
    await ada.ended(run["id"])
    assert (await boss.decide(asked, "reject")).status_code == 409
    assert (
        await boss.http.post(
            f"/v1/tool-calls/{run['tool_calls'][0]['id']}/resolution", json={"outcome": "failed", "evidence": "none"}
        )
    ).status_code == 409

    refused = await entries(ada, kind="refusal")
    assert [(one["outcome"], one["person"], one["detail"], one["subject_id"]) for one in refused] == [
        ("forbidden", "ada", "approve", asked["id"]),
        ("digest_mismatch", "boss", "approve", asked["id"]),
        ("conflict", "boss", "reject", asked["id"]),
        ("conflict", "boss", "failed", run["tool_calls"][0]["id"]),
    ]
    assert {one["run_id"] for one in refused} == {run["id"]}
    assert await wrong(stage.database, ada.tenant_id) == []


async def test_of_a_refused_batch_nothing_is_decided_and_the_refusal_is_on_record(
    ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(ToolCalls([("pay", {"marker": "a", "amount": 1}), ("pay", {"marker": "b", "amount": 2})]))
    run = await ada.ask("pay twice")

    async def both_wait() -> bool:
        return len(await ada.pending(run)) == 2

    await until(both_wait)
    one, other = await ada.pending(run)
    decisions = [
        {"id": one["id"], "decision": "approve", "arguments_digest": one["arguments_digest"]},
        {"id": other["id"], "decision": "approve", "arguments_digest": "0" * 64},
    ]
    response = await ada.http.post("/v1/confirmations/decisions", json={"decisions": decisions})

    assert response.status_code == 412
    assert len(await ada.pending(run)) == 2
    (refused,) = await entries(ada, kind="refusal")
    assert (refused["outcome"], refused["subject_id"]) == ("digest_mismatch", other["id"])


async def test_verify_on_the_command_line(
    ada: Caller, stage: Stage, provider: ScriptedProvider, keys: dict[str, str], tmp_path: Path
) -> None:
    await paid(ada, provider)
    clean = await holdfast(stage, "audit", "verify", "--tenant", ada.tenant_id)
    exported = await holdfast(stage, "audit", "export", "--tenant", ada.tenant_id, **keys)
    (tmp_path / "export.ndjson").write_text(exported.stdout)
    with_head = ["audit", "verify", "--tenant", ada.tenant_id, "--anchors", str(tmp_path / "export.ndjson")]
    also_clean = await holdfast(stage, *with_head, **keys)
    count = len(await entries(ada))

    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout == f"clean: {count} entries of 1 tenants, 0 of them erased in part, 0 signed heads\n"
    assert exported.stdout.count("\n") == count + 1
    assert json.loads(exported.stdout.splitlines()[-1])["seq"] == count
    assert (also_clean.returncode, also_clean.stdout.count("1 signed heads")) == (0, 1), also_clean.stderr

    await stage.rows("DELETE FROM audit_chain WHERE tenant_id = $1 AND seq = $2", ada.tenant_id, count)
    await stage.rows(
        "DELETE FROM audit WHERE tenant_id = $1 AND audit_id = (SELECT max(audit_id) FROM audit WHERE tenant_id = $1)",
        ada.tenant_id,
    )
    await stage.rows(
        "UPDATE audit SET outcome = 'rejected' WHERE tenant_id = $1 AND outcome = 'approved'", ada.tenant_id
    )
    cut = await holdfast(stage, *with_head, **keys)
    assert cut.returncode == 1
    assert f"tenant {ada.tenant_id}, entry {count}: it was there when a head was signed, and is gone" in cut.stdout
    assert "its hash is not that of what stands there" in cut.stdout
    assert cut.stderr == f"2 wrong in {count - 1} entries of 1 tenants\n"


async def test_what_is_wrong_with_the_commands_is_said_in_a_line(
    ada: Caller, stage: Stage, keys: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "anchors").write_text('{"object": "audit.head", "tenant_id": "t", "seq": 1, "key_id": "other"}\ntorn')
    anchors = ["--anchors", str(tmp_path / "anchors")]
    found = {
        "no key": await holdfast(stage, "audit", "export"),
        "no public key": await holdfast(stage, "audit", "verify", *anchors),
        "no such file": await holdfast(stage, "audit", "verify", "--anchors", str(tmp_path / "none"), **keys),
        "no such tenant": await holdfast(stage, "audit", "verify", "--tenant", "nobody"),
        "no bound role": await holdfast(stage, "audit", "verify", HOLDFAST_DATABASE_URL=stage.owner_url),
    }
    forged = await holdfast(stage, "audit", "verify", "--tenant", ada.tenant_id, *anchors, **keys)

    assert {what: (ended.returncode, ended.stderr.count("\n")) for what, ended in found.items()} == {
        "no key": (2, 1),
        "no public key": (2, 1),
        "no such file": (1, 1),
        "no such tenant": (1, 1),
        "no bound role": (2, 1),
    }
    assert forged.returncode == 1
    assert "anchors, line 1: it is signed with another key" in forged.stdout
    assert "anchors, line 2: it is not JSON" in forged.stdout


async def test_heads_that_moved_are_anchored(ada: Caller, stage: Stage, keys: dict[str, str], tmp_path: Path) -> None:
    signer = Signer.of(Path(keys["HOLDFAST_AUDIT_SIGNING_KEY_FILE"]).read_text(), "KEY")
    verifier = Verifier.of(Path(keys["HOLDFAST_AUDIT_PUBLIC_KEY_FILE"]).read_text(), "KEYS")
    path = tmp_path / "anchors.ndjson"
    anchors = Anchors(stage.database, signer, path, interval_s=3600)

    def anchored() -> list[Head]:
        read = [verifier.read(line) for line in path.read_text().splitlines()]
        return [head for head in read if head is not None and head.tenant_id == ada.tenant_id]

    anchors.start()
    await until(lambda: path.exists() and bool(anchored()))
    await anchors.stop()
    # It may have been stopped before it knew that it had written.
    await anchors.anchor()
    assert await anchors.anchor() == 0, "nothing has moved"
    await ada.ask("hello")
    assert await anchors.anchor() >= 1
    first, second = dict.fromkeys(anchored())
    assert first.seq < second.seq
    with path.open("a") as torn:
        torn.write('{"object": "audit.he')
    await ada.ask("hello")
    assert await anchors.anchor() >= 1
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if line != '{"object": "audit.he'))
    assert anchored()[-1].seq > second.seq, "no line is lost with a torn one"
    ended = await holdfast(stage, "audit", "verify", "--tenant", ada.tenant_id, "--anchors", str(tmp_path), **keys)
    assert ended.returncode == 1, "the folder also holds the keys, which are no heads"
    assert (
        f"{len(anchored())} signed heads"
        in (await holdfast(stage, "audit", "verify", "--tenant", ada.tenant_id, "--anchors", str(path), **keys)).stdout
    )


def test_a_head_that_was_changed_is_not_signed(keys: dict[str, str]) -> None:
    signer = Signer.of(Path(keys["HOLDFAST_AUDIT_SIGNING_KEY_FILE"]).read_text(), "KEY")
    verifier = Verifier.of(Path(keys["HOLDFAST_AUDIT_PUBLIC_KEY_FILE"]).read_text(), "KEYS")
    head = Head("acme", 7, "a" * 64)
    line = signer.sign(head)

    assert verifier.read(line) == head
    for changed in (line.replace('"seq":7', '"seq":6'), line.replace("acme", "acne"), line.replace("aaaa", "aaab")):
        with pytest.raises(NotSigned, match="signature does not hold"):
            verifier.read(changed)
    with pytest.raises(NotSigned, match="another key"):
        verifier.read(Signer(Ed25519PrivateKey.generate()).sign(head))


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KEY: is not an Ed25519 private key"):
        Signer.of("hunter2", "KEY")
    with pytest.raises(ConfigurationError, match="KEYS: holds no Ed25519 public key"):
        Verifier.of("hunter2", "KEYS")
