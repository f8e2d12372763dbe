"""The environment: what each process needs, and one line for each variable that is wrong."""

import os
import traceback
from pathlib import Path

import pytest

from holdfast.config.loading import load_settings
from holdfast.config.settings import ApiSettings, MigrateSettings, Settings, WorkerSettings
from holdfast.domain.errors import ConfigurationError
from holdfast.secrecy.keyring import new_key
from holdfast.secrecy.redaction import redacted

PEPPER = "p" * 32
URL = "postgresql://app:hunter2@db:5432/holdfast"
SET_URL = "set it to the URL of the application's role: postgresql://holdfast_app:PASSWORD@HOST:5432/holdfast"
SET_PEPPER = "set it to at least 32 random characters (openssl rand -hex 32)"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("HOLDFAST_"):
            monkeypatch.delenv(name)


def complaint(kind: type[Settings]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load_settings(kind)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))
    return str(raised.value)


def test_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", URL)
    monkeypatch.setenv("HOLDFAST_KEY_PEPPER", PEPPER)
    monkeypatch.setenv("HOLDFAST_TEMPORAL_UI_URL", "")
    api = load_settings(ApiSettings)
    assert api.environment == "production"
    assert (api.api_host, api.api_port) == ("127.0.0.1", 8000)
    assert api.temporal_ui_url is None
    assert "hunter2" not in repr(api)
    assert PEPPER not in repr(api)
    worker = load_settings(WorkerSettings)
    assert (worker.worker_max_activities, worker.worker_drain_s, worker.worker_health_port) == (200, 30, None)
    assert not hasattr(worker, "key_pepper")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_the_driver_is_added_to_a_plain_url(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", f"{scheme}://app:pw@db/holdfast")
    settings = load_settings(WorkerSettings)
    assert settings.database_url.get_secret_value() == "postgresql+asyncpg://app:pw@db/holdfast"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            ApiSettings,
            [f"HOLDFAST_DATABASE_URL: is not set; {SET_URL}", f"HOLDFAST_KEY_PEPPER: is not set; {SET_PEPPER}"],
        ),
        (WorkerSettings, [f"HOLDFAST_DATABASE_URL: is not set; {SET_URL}"]),
        (
            MigrateSettings,
            [
                f"HOLDFAST_DATABASE_URL: is not set; {SET_URL}",
                "HOLDFAST_DATABASE_OWNER_URL: is not set; set it to the URL of the role that owns the tables: "
                "postgresql://holdfast_owner:PASSWORD@HOST:5432/holdfast",
            ],
        ),
    ],
)
def test_each_process_asks_for_what_it_needs(kind: type[Settings], expected: list[str]) -> None:
    assert complaint(kind).splitlines() == expected


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("KEY_PEPPER", "hunter2", f"must have at least 32 characters; {SET_PEPPER}"),
        ("DATABASE_URL", "mysql://app:hunter2@db", f"is not a PostgreSQL URL; {SET_URL}"),
        ("DATABASE_URL", "hunter2", f"is not a PostgreSQL URL; {SET_URL}"),
        ("API_PORT", "http", "must be a whole number; set it to the port to listen on"),
        ("API_PORT", "70000", "must be at most 65535; set it to the port to listen on"),
        ("ENVIRONMENT", "prod", "must be 'dev' or 'production'; set it to dev or production"),
        *(
            (
                "ALLOWED_HOSTS",
                names,
                "must be names alone, without scheme, port or wildcard; set it to the names under which this is "
                "reached, with commas: api.example.com,api.internal",
            )
            for names in ("https://api.example.com", "api.example.com:443", "a.example,*.example.com")
        ),
        (
            "OIDC_ISSUER",
            "http://login.example.com",
            "is not an https:// address; set it to the `iss` of the tokens: https://login.example.com",
        ),
        (
            "OIDC_ALGORITHMS",
            "RS256,HS256",
            "must be 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512' or 'EdDSA'; "
            "set it to asymmetric ones, with commas: RS256,ES256,EdDSA",
        ),
        ("KEY_PEPPER_FILE", "pepper", "is set, and so is HOLDFAST_KEY_PEPPER_FILE; unset one of them"),
    ],
)
def test_a_wrong_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", URL)
    monkeypatch.setenv("HOLDFAST_KEY_PEPPER", PEPPER)
    monkeypatch.setenv(f"HOLDFAST_{variable}", value)
    assert complaint(ApiSettings) == f"HOLDFAST_{variable.removesuffix('_FILE')}: {expected}"


def test_tokens_need_an_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", URL)
    monkeypatch.setenv("HOLDFAST_KEY_PEPPER", PEPPER)
    monkeypatch.setenv("HOLDFAST_OIDC_ISSUER", "https://login.example.com")
    assert complaint(ApiSettings) == (
        "HOLDFAST_OIDC_AUDIENCE: is not set, though HOLDFAST_OIDC_ISSUER is; "
        "set it to the `aud` of the tokens that are meant for this API"
    )
    monkeypatch.setenv("HOLDFAST_OIDC_AUDIENCE", "holdfast")
    monkeypatch.setenv("HOLDFAST_OIDC_ALGORITHMS", "ES256, RS256")
    assert load_settings(ApiSettings).oidc_algorithms == ("ES256", "RS256")


def test_secrets_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text(f"{PEPPER}\n", encoding="utf-8")
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", URL)
    monkeypatch.setenv("HOLDFAST_KEY_PEPPER_FILE", str(tmp_path / "pepper"))
    assert load_settings(ApiSettings).key_pepper.get_secret_value() == PEPPER
    monkeypatch.setenv("HOLDFAST_KEY_PEPPER_FILE", "missing")
    assert complaint(ApiSettings) == "HOLDFAST_KEY_PEPPER_FILE: missing can't be read: No such file or directory"


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("no key at all", "number 1 is not id:key with an id of letters, digits, - and _"),
        ("a:c2hvcnQ=", "the key 'a' has 5 bytes instead of 32"),
    ],
)
def test_payload_keys_of_a_wrong_form_are_told_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, keys: str, what: str
) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", URL)
    monkeypatch.setenv("HOLDFAST_PAYLOAD_KEYS", keys)
    told = complaint(WorkerSettings)
    assert told.startswith(f"HOLDFAST_PAYLOAD_KEYS: {what}; set it to id:key, with 32 random bytes in base64")
    assert keys not in told


def test_payload_keys_come_from_a_file_and_show_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = new_key("a")
    (tmp_path / "keys").write_text(f"{key}\n{new_key('b')}\n")
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", URL)
    assert "HOLDFAST_PAYLOAD_KEYS is not set" in load_settings(WorkerSettings).warnings[0]
    monkeypatch.setenv("HOLDFAST_PAYLOAD_KEYS_FILE", str(tmp_path / "keys"))
    settings = load_settings(WorkerSettings)
    assert repr(settings.keyring) == "Keyring(a, b)"
    assert settings.warnings == []
    secret = key.partition(":")[2]
    assert secret not in f"{settings!r} {settings} {settings.model_dump()}"
    assert secret not in redacted(f"from a log: {secret}")


SLACK = {
    "HOLDFAST_SLACK_BOT_TOKEN": "xoxb-hunter2",
    "HOLDFAST_SLACK_TEAM": "T1",
    "HOLDFAST_SLACK_TENANT": "acme",
    "HOLDFAST_SLACK_SIGNING_SECRET": "hunter2",
    "HOLDFAST_SLACK_AGENT": "support",
}


def test_slack_is_whole_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOLDFAST_DATABASE_URL": URL, "HOLDFAST_KEY_PEPPER": PEPPER, **SLACK}.items():
        monkeypatch.setenv(name, value)
    for workspace in (load_settings(ApiSettings).slack_workspace, load_settings(WorkerSettings).slack_workspace):
        assert workspace is not None
        assert (workspace.team_id, workspace.tenant_id) == ("T1", "acme")
        assert "hunter2" not in repr(workspace)
    for missing in list(SLACK)[1:]:
        monkeypatch.delenv(missing)
        assert f"{missing}: is not set, though HOLDFAST_SLACK_BOT_TOKEN is; set it to" in complaint(ApiSettings)
        monkeypatch.setenv(missing, SLACK[missing])
    monkeypatch.setenv("HOLDFAST_SLACK_TENANT", "Acme")
    monkeypatch.setenv("HOLDFAST_SLACK_TEAM", "acme.slack.com")
    assert complaint(WorkerSettings).splitlines() == [
        "HOLDFAST_SLACK_TEAM: is not a workspace's id; set it to the workspace's id: T0123ABCD",
        "HOLDFAST_SLACK_TENANT: is not a tenant's name; set it to the tenant that the workspace belongs to",
    ]
    monkeypatch.setenv("HOLDFAST_SLACK_BOT_TOKEN", "")
    for name in ("HOLDFAST_SLACK_TENANT", "HOLDFAST_SLACK_TEAM"):
        monkeypatch.delenv(name)
    api = load_settings(ApiSettings)
    assert (api.slack_workspace, any("HOLDFAST_SLACK_BOT_TOKEN" in each for each in api.warnings)) == (None, True)
