"""What `holdfast dev` finds and makes up: ports, secrets, providers."""

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from holdfast.cli.environment import settings_of
from holdfast.config.settings import SealingSettings
from holdfast.dev import ports, providers, secrets
from holdfast.dev.stack import DevStack, Options
from holdfast.domain.errors import ConfigurationError

URL = "http://127.0.0.1:8000"
ADDRESSES = {"HOLDFAST_DATABASE_URL": "postgresql://holdfast_app@/postgres?host=/tmp"}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_port_that_is_free_can_be_had() -> None:
    port = ports.free_port()
    ports.require_free(port, "the API", "--port")
    assert not ports.is_listening(port)
    with socket.create_server(("127.0.0.1", port)):
        assert ports.is_listening(port)


def test_a_port_that_is_taken_is_named_with_the_option_that_changes_it(taken: int) -> None:
    assert ports.is_listening(taken)
    with pytest.raises(ConfigurationError) as raised:
        ports.require_free(taken, "the API", "--port")
    assert str(raised.value) == (
        f"port {taken} (the API) is taken; stop what listens there, or choose another with --port"
    )


def test_a_port_that_is_taken_on_every_address_is_taken() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server, pytest.raises(ConfigurationError):
        ports.require_free(server.getsockname()[1], "the API", "--port")


def test_looking_at_a_port_leaves_it_free() -> None:
    port = ports.free_port()
    for _ in range(3):
        ports.require_free(port, "the API", "--port")


def test_secrets_are_made_once_and_kept_for_this_user_alone(tmp_path: Path) -> None:
    made = secrets.load_or_make(tmp_path, URL, ADDRESSES)
    assert made.key.startswith("hf_")
    assert len(made.key) >= 40
    assert len(made.pepper) >= 32
    assert stat.S_IMODE((tmp_path / secrets.FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [secrets.FILE]
    assert secrets.load_or_make(tmp_path, URL, ADDRESSES) == made


def test_two_folders_have_nothing_in_common(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one, two = (secrets.load_or_make(folder, URL, ADDRESSES) for folder in folders)
    assert not {one.key, one.pepper} & {two.key, two.pepper}


def test_the_address_is_where_it_listens_this_time(tmp_path: Path) -> None:
    key = secrets.load_or_make(tmp_path, URL, ADDRESSES).key
    moved = secrets.load_or_make(tmp_path, "http://127.0.0.1:9000", ADDRESSES)
    assert (moved.url, moved.key) == ("http://127.0.0.1:9000", key)
    assert json.loads((tmp_path / secrets.FILE).read_text())["url"] == "http://127.0.0.1:9000"


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    made = secrets.load_or_make(tmp_path, URL, ADDRESSES)
    assert repr(made) == f"DevSecrets(url='{URL}')"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": "hf_1"}', '"key"', "\udcff"])
def test_a_file_that_is_not_ours_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / secrets.FILE
    written = text.encode(errors="surrogateescape")
    path.write_bytes(written)
    with pytest.raises(ConfigurationError, match=r"can't be read .*; delete it to make new keys$"):
        secrets.load_or_make(tmp_path, URL, ADDRESSES)
    assert path.read_bytes() == written


def test_commands_reach_the_database_of_dev_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = secrets.load_or_make(tmp_path, URL, ADDRESSES)
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path))

    def nothing_is_set() -> None:
        for name in (*made.environment, "HOLDFAST_DATABASE_OWNER_URL"):
            monkeypatch.setenv(name, "")

    nothing_is_set()
    found = settings_of(SealingSettings)
    assert found.database_url.get_secret_value().endswith("@/postgres?host=/tmp")
    assert found.payload_keys is not None
    assert found.payload_keys.get_secret_value() == made.payload_keys
    nothing_is_set()
    monkeypatch.setenv("HOLDFAST_DATABASE_OWNER_URL", "postgresql://owner@elsewhere/holdfast")
    with pytest.raises(ConfigurationError, match="HOLDFAST_DATABASE_URL: is not set"):
        settings_of(SealingSettings)
    nothing_is_set()


def test_a_folder_that_can_not_be_written_to_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stack = DevStack(Options(tmp_path / "file" / "state", tmp_path, 1, 2, 3, verbose=False), print)
    with pytest.raises(ConfigurationError, match=r"/file/state: can't be written to: .*; choose another .* --data$"):
        stack._lock_file()


@pytest.fixture
def no_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_OLLAMA_PORT", ports.free_port())


@pytest.mark.usefixtures("no_ollama")
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"ANTHROPIC_API_KEY": "a"}, ["Anthropic"]),
        ({"OPENAI_API_KEY": "b", "ANTHROPIC_API_KEY": "a"}, ["Anthropic", "OpenAI"]),
        ({"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": " \n"}, []),
        ({"OLLAMA_API_BASE": "http://elsewhere:11434"}, ["Ollama"]),
        ({"OLLAMA_API_BASE": " "}, []),
        ({"MISTRAL_API_KEY": "c"}, []),
    ],
)
def test_a_provider_is_found_by_its_variable(environ: dict[str, str], expected: list[str]) -> None:
    assert providers.found_providers(environ) == (expected, {})


def test_ollama_is_found_on_its_port(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_OLLAMA_PORT", taken)
    address = f"http://127.0.0.1:{taken}"
    assert providers.found_providers({}) == (["Ollama"], {"OLLAMA_API_BASE": address})
    assert providers.found_providers({"OPENAI_API_KEY": "b"}) == (["OpenAI", "Ollama"], {"OLLAMA_API_BASE": address})
    # What was set by hand is not overwritten.
    assert providers.found_providers({"OLLAMA_API_BASE": "http://elsewhere"}) == (["Ollama"], {})


def test_ollama_listens_where_it_always_does() -> None:
    assert providers._OLLAMA_PORT == 11434


async def test_the_demo_model_is_served_while_it_is_wanted() -> None:
    async with providers.demo_model() as url:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/models")).status_code == 200
        port = httpx.URL(url).port
    assert port is not None
    assert not ports.is_listening(port)
