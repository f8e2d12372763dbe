"""Keys over HTTP and at the command line: shown once, expiring, revoked, their last use known."""

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from api.routes.keys import KeyBody
from holdfast.domain.errors import CredentialRefused
from holdfast.domain.permissions import Role
from holdfast.services.keys import Keys
from tests.conftest import new_tenant
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import PEPPER, Stage, serving_api

_HOLDFAST = str(Path(sys.executable).parent / "holdfast")
AUDIT = (
    "SELECT kind, outcome, person, subject_id, detail FROM audit WHERE tenant_id = $1 AND kind = $2 ORDER BY audit_id"
)


async def made(admin: Caller, person: str = "bob", **body: Any) -> Json:
    response = await admin.http.post("/v1/keys", json={"person": person, **body})
    assert response.status_code == 201, response.text
    key: Json = response.json()
    return key


async def status(url: str, key: str) -> int:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}) as client:
        return (await client.get("/v1/runs")).status_code


async def test_a_key_is_shown_once_and_its_making_is_on_record(ada: Caller, stage: Stage) -> None:
    key = await made(ada, roles=["operator", "billing"])
    listed = (await ada.http.get("/v1/keys")).text
    (stored,) = await stage.rows("SELECT * FROM api_keys WHERE key_id = $1", key["id"])

    assert key["secret"].startswith("hf_")
    assert key["secret"] not in listed
    assert key["secret"].encode() not in bytes(stored["key_hash"])
    assert (key["person"], key["roles"], key["status"]) == ("bob", ["billing", "operator"], "active")
    assert await status(stage.url, key["secret"]) == 200
    last = (await stage.rows(AUDIT, ada.tenant_id, "key"))[-1]
    assert tuple(last) == ("key", "created", "ada", key["id"], "billing, operator")


async def test_without_a_role_that_allows_anything_a_key_is_a_clients_and_an_approvers(ada: Caller) -> None:
    assert (await made(ada, roles=["billing"]))["roles"] == ["approver", "billing", "client"]
    assert (await made(ada, roles=["auditor"]))["roles"] == ["auditor"]


async def test_a_revoked_key_opens_nothing_on_any_process(ada: Caller, stage: Stage) -> None:
    """At once where it was revoked; elsewhere as soon as what was remembered of it is forgotten."""
    key = await made(ada, roles=["client"])
    async with serving_api(stage.database_url, stage.task_queue) as elsewhere:
        assert [await status(url, key["secret"]) for url in (stage.url, elsewhere)] == [200, 200]
        revoked = (await ada.http.delete(f"/v1/keys/{key['id']}")).json()
        assert await status(stage.url, key["secret"]) == 401

        async def is_refused() -> bool:
            return await status(elsewhere, key["secret"]) == 401

        await until(is_refused)
    again = (await ada.http.delete(f"/v1/keys/{key['id']}")).json()
    assert revoked["status"] == "revoked"
    assert again["revoked_at"] == revoked["revoked_at"]
    outcomes = [
        row["outcome"] for row in await stage.rows(AUDIT, ada.tenant_id, "key") if row["subject_id"] == key["id"]
    ]
    assert outcomes == ["created", "revoked"]


async def test_a_key_of_another_tenant_can_not_be_revoked(ada: Caller, stage: Stage) -> None:
    stranger = await stage.caller(new_tenant())
    (key,) = (await ada.get("/v1/keys"))["data"]
    foreign, unknown = [await stranger.http.delete(f"/v1/keys/{one}") for one in (key["id"], "key_unknown")]
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace(key["id"], "key_unknown") == unknown.text
    assert (await ada.http.get("/v1/runs")).status_code == 200


async def test_an_expired_key_opens_nothing(ada: Caller, stage: Stage) -> None:
    key = await made(ada, expires_in="1s")

    async def has_expired() -> bool:
        return await status(stage.url, key["secret"]) == 401

    await until(has_expired)
    listed = {one["id"]: one["status"] for one in (await ada.get("/v1/keys"))["data"]}
    assert listed[key["id"]] == "expired"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"person": ""}, "person"),
        ({"person": "oidc:4711"}, "person"),
        ({"person": "b\u0000b"}, "person"),
        ({"person": "bob", "roles": ["Finance!"]}, "roles"),
        ({"person": "bob", "expires_in": "soon"}, "expires_in"),
        ({"person": "bob", "expires_in": 90}, "expires_in"),
        ({"person": "bob", "expires_in": "0s"}, "expires_in"),
        ({"person": "bob", "expires_in": "99999d"}, "expires_in"),
        ({"person": "bob", "tenant": "other"}, "tenant"),
    ],
)
async def test_what_makes_no_key(ada: Caller, body: Json, field: str) -> None:
    response = await ada.http.post("/v1/keys", json=body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field), response.text


async def test_the_last_use_is_known_and_written_once_a_minute_at_most(ada: Caller, stage: Stage) -> None:
    key = await made(ada, roles=["client"])
    last_used = "SELECT last_used_at, xmin FROM api_keys WHERE key_id = $1"
    assert (await stage.rows(last_used, key["id"]))[0]["last_used_at"] is None
    assert await status(stage.url, key["secret"]) == 200

    async def is_noted() -> bool:
        return (await stage.rows(last_used, key["id"]))[0]["last_used_at"] is not None

    await until(is_noted)
    first = await stage.rows(last_used, key["id"])
    for _ in range(3):
        keys = Keys(stage.database, PEPPER)  # that remembers nothing, as another process
        await keys.caller(key["secret"])
        await keys.close()
    assert await stage.rows(last_used, key["id"]) == first


async def test_a_key_of_the_pepper_before_goes_on_under_the_new_one(stage: Stage) -> None:
    tenant, new = new_tenant(), "another-pepper-" + "1" * 32
    made_before = (await Keys(stage.database, PEPPER).create(tenant, "bob", ["client"])).secret
    with pytest.raises(CredentialRefused):
        await Keys(stage.database, new).caller(made_before)
    rotating = Keys(stage.database, new, [PEPPER])
    assert (await rotating.caller(made_before)).person == "bob"
    await rotating.close()
    assert (await Keys(stage.database, new).caller(made_before)).person == "bob"


async def test_a_key_far_too_long_is_not_looked_up(stage: Stage) -> None:
    assert await status(stage.url, "hf_" + "x" * 10_000) == 401


def test_what_is_made_does_not_show_the_secret_by_accident() -> None:
    assert "secret" not in repr(KeyBody(person="bob", expires_in=timedelta(days=1)))


async def holdfast(stage: Stage, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    """One command of somebody who has the settings of the API, or a key."""
    with_settings = {
        "HOLDFAST_DATABASE_URL": make_url(stage.database_url).render_as_string(hide_password=False),
        "HOLDFAST_KEY_PEPPER": PEPPER,
    }
    with_key = {"HOLDFAST_URL": stage.url, "HOLDFAST_API_KEY": str(key)}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return await asyncio.to_thread(
        subprocess.run,
        [_HOLDFAST, *arguments],
        env={**plain, **(with_settings if key is None else with_key)},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_keys_at_the_command_line(stage: Stage) -> None:
    tenant = new_tenant()
    first = await holdfast(stage, "keys", "create", "--tenant", tenant, "--person", "root", "--role", "admin")
    admin = first.stdout.strip()
    second = await holdfast(stage, "keys", "create", "--person", "bob", "--expires", "90d", key=admin)
    bob, (bobs_id, *_) = second.stdout.strip(), second.stderr.split()
    listed = await holdfast(stage, "keys", "list", key=admin)
    linked = await holdfast(stage, "identities", "link", "key", bobs_id, "robert", key=admin)
    shown = await holdfast(stage, "identities", "list", key=admin)
    unlinked = await holdfast(stage, "identities", "unlink", "key", bobs_id, key=admin)
    revoked = await holdfast(stage, "keys", "revoke", bobs_id, key=admin)

    assert [one.returncode for one in (first, second, listed, linked, shown, unlinked, revoked)] == [0] * 7
    assert first.stderr.endswith("root  admin  for ever\n")
    assert "bob  approver, client  until 20" in second.stderr
    assert [secret in listed.stdout for secret in (admin, bob, bobs_id)] == [False, False, True]
    assert linked.stdout == f"key {bobs_id} acts as robert\n"
    assert "robert" in shown.stdout
    assert unlinked.stdout == f"key {bobs_id} acts as robert no more\n"
    assert revoked.stdout == f"revoked: {bobs_id} of bob\n"
    assert await status(stage.url, bob) == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--expires", "soon"], "--expires 'soon' is not a time; write it like 90d or 12h."),
        (["--role", "Admin"], "'Admin' gives no permission; did you mean 'admin'? If not, name such a role too."),
        (["--tenant", "A"], "'A' is not a tenant's name: use lower-case letters, digits, - and _."),
    ],
)
async def test_a_mistake_is_one_line(stage: Stage, arguments: list[str], said: str) -> None:
    tenant = [] if "--tenant" in arguments else ["--tenant", new_tenant()]
    ended = await holdfast(stage, "keys", "create", "--person", "bob", *tenant, *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{said}\n")


async def test_a_refusal_to_change_something_is_on_record(stage: Stage) -> None:
    tenant = new_tenant()
    ben = await stage.caller(tenant, "ben", only=[Role.CLIENT])
    decision = {"decision": "approve", "arguments_digest": "0" * 64}
    answers = [
        await ben.http.post("/v1/confirmations/conf_1/decision", json=decision),
        await ben.http.post("/v1/confirmations/conf%201/decision", json=decision),
        await ben.http.put("/v1/budget", json={"limit_usd": 1, "period": "day"}),
        await ben.http.get("/v1/budget"),
    ]

    assert [answer.status_code for answer in answers] == [403] * 4
    assert answers[0].headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    assert [tuple(row) for row in await stage.rows(AUDIT, tenant, "refusal")] == [
        ("refusal", "forbidden", "ben", subject, f"{permission} is missing: {route}")
        for subject, permission, route in [
            ("conf_1", "confirmations.decide", "POST /v1/confirmations/{confirmation_id}/decision"),
            (None, "confirmations.decide", "POST /v1/confirmations/{confirmation_id}/decision"),
            (None, "budget.write", "PUT /v1/budget"),
        ]
    ]
