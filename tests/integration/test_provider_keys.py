"""A tenant's own provider keys: who sets them, what is shown of them, and which calls they are made with."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from holdfast.domain import permissions
from holdfast.domain.errors import ModelsUnavailable, Unavailable
from holdfast.secrecy.keyring import Keyring, new_key
from holdfast.services import provider_keys
from holdfast.services.provider_keys import ProviderKeys
from holdfast.testing.replies import HttpError, Text
from tests.conftest import new_tenant
from tests.harness.caller import Caller, Json
from tests.harness.stage import KEYRING, PAYLOAD_KEYS, Stage

DEPLOYMENTS_KEY = "none"


def own(tenant_id: str) -> str:
    return f"own-key-of-{tenant_id}-0000abcd"


async def put(caller: Caller, key: str | None = None, provider: str = "scripted") -> None:
    response = await caller.http.put(f"/v1/provider-keys/{provider}", json={"key": key or own(caller.tenant_id)})
    assert response.status_code == 200, response.text


@pytest.fixture
async def bob(stage: Stage) -> Caller:
    return await stage.caller(new_tenant(), "bob")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was set by the API is known to the worker at its next call, not within seconds."""
    monkeypatch.setattr(provider_keys, "_REMEMBERED_S", 0.0)


async def test_a_key_is_set_shown_by_its_end_and_removed(ada: Caller, stage: Stage) -> None:
    first = await ada.http.put("/v1/provider-keys/scripted", json={"key": "a-key-that-is-long-0001"})
    second = await ada.http.put("/v1/provider-keys/scripted", json={"key": "a-key-that-is-long-0002"})
    short = await ada.http.put("/v1/provider-keys/another", json={"key": "short-003"})
    listed = await ada.get("/v1/provider-keys")

    assert [first.json()["hint"], second.json()["hint"], short.json()["hint"]] == ["0001", "0002", ""]
    assert [(key["provider"], key["hint"], key["created_by"]) for key in listed["data"]] == [
        ("another", "", "ada"),
        ("scripted", "0002", "ada"),
    ]
    for answer in (first.text, second.text, short.text, str(listed)):
        assert "a-key-that-is-long" not in answer
        assert "short-003" not in answer
    assert (await ada.http.delete("/v1/provider-keys/scripted")).status_code == 204
    assert (await ada.http.delete("/v1/provider-keys/scripted")).status_code == 404
    assert (await ada.http.get("/v1/provider-keys/scripted")).status_code == 404
    entries = await stage.rows(
        "SELECT outcome, subject_id, person, detail FROM audit WHERE tenant_id = $1 AND kind = 'provider_key'"
        " ORDER BY audit_id",
        ada.tenant_id,
    )
    assert [tuple(entry) for entry in entries] == [
        ("set", "scripted", "ada", None),
        ("set", "scripted", "ada", None),
        ("set", "another", "ada", None),
        ("removed", "scripted", "ada", None),
    ]


@pytest.mark.parametrize(
    ("provider", "body", "status"),
    [
        ("scripted", {"key": "short"}, 422),
        ("scripted", {"key": "with a space"}, 422),
        ("scripted", {"key": "with-a-line\r\nx-evil: 1"}, 422),
        ("scripted", {"key": "k" * 5000}, 422),
        ("scripted", {}, 422),
        ("scripted", {"key": "good-enough", "tenant_id": "other"}, 422),
        ("Not A Provider", {"key": "good-enough"}, 404),
    ],
)
async def test_what_is_no_key_is_refused_and_not_repeated(
    ada: Caller, provider: str, body: dict[str, str], status: int
) -> None:
    response = await ada.http.put(f"/v1/provider-keys/{provider}", json=body)
    assert response.status_code == status
    assert not any(value in response.text for value in body.values())
    assert (await ada.get("/v1/provider-keys"))["data"] == []


async def test_nobody_sees_another_tenants_key(ada: Caller, bob: Caller) -> None:
    await put(ada)
    assert (await bob.get("/v1/provider-keys"))["data"] == []
    unknown, foreign = [await bob.http.get(f"/v1/provider-keys/{name}") for name in ("unknown", "scripted")]
    assert unknown.status_code == foreign.status_code == 404
    assert unknown.json()["title"] == foreign.json()["title"]
    assert (await bob.http.delete("/v1/provider-keys/scripted")).status_code == 404
    assert len((await ada.get("/v1/provider-keys"))["data"]) == 1


async def test_what_is_kept_opens_for_its_tenant_and_provider_alone(ada: Caller, bob: Caller, stage: Stage) -> None:
    await put(ada)
    (row,) = await stage.rows("SELECT * FROM provider_keys WHERE tenant_id = $1", ada.tenant_id)
    assert own(ada.tenant_id).encode() not in row["ciphertext"]
    assert (await ProviderKeys(stage.database, KEYRING).opened(ada.tenant_id)) == {"scripted": own(ada.tenant_id)}

    # Whoever can write the table moves it.
    await stage.rows(
        "INSERT INTO provider_keys SELECT $1, provider, ciphertext, key_id, hint, created_by FROM provider_keys"
        " WHERE tenant_id = $2",
        bob.tenant_id,
        ada.tenant_id,
    )
    answer = await bob.http.post("/complete", json={"alias": "quality", "messages": [{"role": "user", "content": "a"}]})

    assert answer.status_code == 503
    assert "The tenant's own key of scripted can't be opened" in answer.json()["detail"]
    assert stage.provider.calls == 0


async def test_calls_of_runs_and_of_the_pool_are_made_with_the_tenants_key(
    ada: Caller, bob: Caller, stage: Stage
) -> None:
    await put(ada)
    question = {"alias": "quality", "messages": [{"role": "user", "content": "a"}]}
    for caller in (ada, bob):
        assert (await caller.ask("hello"))["status"] == "completed"
        assert (await caller.http.post("/complete", json=question)).status_code == 200
    await ada.http.delete("/v1/provider-keys/scripted")
    await ada.ask("hello again")

    assert [request.key for request in stage.provider.requests] == [
        *(own(ada.tenant_id), own(ada.tenant_id)),
        *(DEPLOYMENTS_KEY, DEPLOYMENTS_KEY, DEPLOYMENTS_KEY),
    ]


async def test_fifty_runs_of_each_of_two_tenants_are_never_mixed_up(ada: Caller, bob: Caller, stage: Stage) -> None:
    await put(ada)
    await put(bob)
    carol = await stage.caller(new_tenant(), "carol")
    stage.provider.default = lambda request: Text(request.key)
    callers = [ada, bob] * 50 + [carol] * 10
    at_once = asyncio.Semaphore(20)

    async def ask(caller: Caller) -> Json:
        async with at_once:
            return await caller.ask(f"from {caller.tenant_id}")

    ended = await asyncio.gather(*map(ask, callers))

    answered = Counter((caller.tenant_id, run["reply"]) for caller, run in zip(callers, ended, strict=True))
    assert answered == {
        (ada.tenant_id, own(ada.tenant_id)): 50,
        (bob.tenant_id, own(bob.tenant_id)): 50,
        (carol.tenant_id, DEPLOYMENTS_KEY): 10,
    }
    sent = Counter((request.last_text, request.key) for request in stage.provider.requests)
    assert sent == {(f"from {tenant}", key): count for (tenant, key), count in answered.items()}


async def test_a_fallback_to_another_provider_is_not_asked_with_it(ada: Caller, stage: Stage) -> None:
    await put(ada)
    stage.provider.script(HttpError(500))
    await ada.ask("hello")
    sent = [(request.model, request.key) for request in stage.provider.requests]
    assert sent == [("scripted-quality", own(ada.tenant_id)), ("scripted-fast", DEPLOYMENTS_KEY)]


async def test_a_key_that_is_refused_ends_the_run_and_is_on_record(ada: Caller, bob: Caller, stage: Stage) -> None:
    await put(ada)
    stage.provider.script(HttpError(401, f"Incorrect API key provided: {own(ada.tenant_id)}"))
    refused = await ada.ask("hello")
    fine = await bob.ask("hello")

    assert (refused["status"], refused["degraded"], fine["degraded"]) == ("completed", True, False)
    (entry,) = await stage.rows(
        "SELECT detail FROM audit WHERE tenant_id = $1 AND kind = 'model_call' AND outcome = 'failed'", ada.tenant_id
    )
    assert "scripted refuses the tenant's own key: set another (HTTP 401)" in entry["detail"]
    assert own(ada.tenant_id) not in str(refused) + entry["detail"]
    assert len(stage.provider.requests) == 2


async def test_keys_of_before_a_rotation_open_and_without_any_the_calls_wait(ada: Caller, stage: Stage) -> None:
    await put(ada)
    newer = Keyring.parse(f"{new_key('newer')},{PAYLOAD_KEYS}")
    assert (await ProviderKeys(stage.database, newer).opened(ada.tenant_id)) == {"scripted": own(ada.tenant_id)}
    for keyring in (None, Keyring.parse(new_key("newer"))):
        with pytest.raises(ModelsUnavailable, match="HOLDFAST_PAYLOAD_KEYS"):
            await ProviderKeys(stage.database, keyring).opened(ada.tenant_id)
    admin = permissions.Caller(ada.tenant_id, "ada")
    with pytest.raises(Unavailable, match="HOLDFAST_PAYLOAD_KEYS is not set"):
        await ProviderKeys(stage.database, None).put(admin, "scripted", "long-enough")


async def test_the_command_line_reads_the_key_from_standard_input(ada: Caller, stage: Stage) -> None:
    async def holdfast(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "HOLDFAST_DATABASE_URL": stage.database_url,
            "HOLDFAST_PAYLOAD_KEYS": PAYLOAD_KEYS,
        }
        command = [
            str(Path(sys.executable).parent / "holdfast"),
            "provider-keys",
            *arguments,
            "--tenant",
            ada.tenant_id,
        ]
        return await asyncio.to_thread(
            subprocess.run, command, input=given, capture_output=True, text=True, env=environment, check=False
        )

    done = await holdfast("set", "scripted", given=f"{own(ada.tenant_id)}\n")
    listed = await holdfast("list", "--json")
    assert (done.stdout, done.stderr) == ("scripted: set (…abcd)\n", "")
    assert '"hint": "abcd"' in listed.stdout
    assert own(ada.tenant_id) not in done.stdout + listed.stdout
    await ada.ask("hello")
    assert stage.provider.requests[0].key == own(ada.tenant_id)
    assert (await holdfast("remove", "scripted")).stdout == "scripted: removed\n"
    again = await holdfast("remove", "scripted")
    assert (again.returncode, again.stderr) == (1, "There is no key of the provider 'scripted'.\n")
