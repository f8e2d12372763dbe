"""What is taken out of texts, and what is not; and logs without secrets, whoever writes them."""

import io
import json
import logging
import subprocess
import sys
import uuid

import pytest

from holdfast.secrecy.logs import RedactedRecord
from holdfast.secrecy.redaction import (
    REDACTED,
    is_secret_name,
    learn,
    learn_named,
    learn_recent,
    redacted,
    without_known_secrets,
)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://holdfast_app:{}@db:5432/holdfast",
        "could not connect: postgresql+asyncpg://app:{}@/x?host=/tmp",
        "https://user:{}@example.com/path",
        "Authorization: Bearer {}",
        "{{'authorization': 'Bearer {}', 'accept': '*/*'}}",
        '{{"Authorization": "Basic {}"}}',
        "[(b'authorization', b'Bearer {}'), (b'accept', b'*/*')]",
        "x-api-key: {}",
        "Headers({{'x-api-key': '{}'}})",
        "bearer {}",
        "Incorrect API key provided: sk-{}. You can find your key at",
        "key hf_{}",
        "ghp_{}",
        "eyJ{}.eyJ{}.c2ln",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str) -> None:
    secret = uuid.uuid4().hex
    shown = redacted(text.format(secret, secret))
    assert secret not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    "text",
    [
        "GET http://127.0.0.1:8000/v1/runs?after=a@b",
        "run run_01M7YW6GEA46WK5HVAWWDCJ651 ended by an unexpected error: KeyError('key')",
        "the key is not known; send an API key: Authorization: it is missing",
        "quality: quality#1: the provider refuses the key: check the deployment's api_key (HTTP 401)",
        "postgresql://holdfast_app@/holdfast?host=/tmp",
        "https://user:@host",
        "task-skill sk-1",
    ],
)
def test_what_does_not_stays(text: str) -> None:
    # Of the third, `it` is taken for one: better so.
    assert redacted(text).replace(REDACTED, "it") == text


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("OPENAI_API_KEY", True),
        ("apiKey", True),
        ("X-Auth-Token", True),
        ("aws_secret_access_key", True),
        ("PGPASSWORD", True),
        ("POSTGRES_PASSWORD", True),
        ("HOLDFAST_KEY_PEPPER", True),
        ("HOLDFAST_KEY_PEPPER_FILE", False),
        ("SSH_AUTH_SOCK", False),
        ("MONKEY", False),
        ("PATH", False),
        ("PWD", False),
        ("OLDPWD", False),
        ("DB_PWD", True),
        ("max_tokens", False),
    ],
)
def test_secrets_are_known_by_the_names_of_what_holds_them(name: str, is_secret: bool) -> None:
    assert is_secret_name(name) is is_secret


def test_what_is_known_is_taken_out_in_each_form_in_which_it_may_be_written() -> None:
    secret = f'pa ss/"wörd"\\{uuid.uuid4().hex}'
    learn(secret)
    for text in (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret), f"a{secret}b"):
        assert uuid_of(secret) not in redacted(text)
        assert uuid_of(secret) not in without_known_secrets(text)


def uuid_of(secret: str) -> str:
    return secret[-32:]


def test_an_address_is_known_by_its_password_and_a_header_by_its_token() -> None:
    password, token, plain = uuid.uuid4().hex, uuid.uuid4().hex, uuid.uuid4().hex
    learn_named([("url", f"postgresql://u:{password}@h/d"), ("Authorization", f"Bearer {token}"), ("LANG", plain)])
    shown = without_known_secrets(f"{password} {token} {plain}")
    assert shown == f"{REDACTED} {REDACTED} {plain}"


def test_a_short_value_is_no_secret_and_content_keeps_what_only_looks_like_one() -> None:
    learn("none", "", None, "postgres", "12345678")
    assert redacted("none of it in postgres 12345678") == "none of it in postgres 12345678"
    assert without_known_secrets("Bearer abcdefgh sk-abcdefghij") == "Bearer abcdefgh sk-abcdefghij"


def test_of_secrets_without_number_the_newest_are_known() -> None:
    first, *_, last = keys = [uuid.uuid4().hex for _ in range(300)]
    learn_recent(*keys)
    assert without_known_secrets(f"{first} {last}") == f"{first} {REDACTED}"


PROGRAM = """
import asyncio, logging, sys, threading, warnings
from holdfast.secrecy import logs
from holdfast.secrecy.redaction import learn
secret = sys.argv[1]
learn(secret)
logs.set_up("INFO")
log = logging.getLogger("some.library")
own = logging.StreamHandler(sys.stdout)
own.setFormatter(logging.Formatter("%(message)s"))
log.addHandler(own)
log.info("in the message: " + secret)
log.info("in an argument: %s", secret)
log.info("in %(what)s", {"what": secret})
log.info("in an object: %r", {"Authorization": "Bearer " + secret[:9]})
log.info("in the stack", stack_info=True)
log.info("in what does not fit: %d", secret)
warnings.warn("in a warning: " + secret)
try:
    try:
        raise ValueError(secret)
    except ValueError as error:
        error.add_note("in a note: " + secret)
        raise RuntimeError("wrapped") from error
except RuntimeError:
    log.exception("in a traceback")
thread = threading.Thread(target=lambda: 1 / int(secret))
thread.start()
thread.join()
async def forgotten():
    asyncio.get_running_loop().create_task(fails(), name=secret)
    await asyncio.sleep(0)
async def fails():
    raise RuntimeError(secret)
asyncio.run(forgotten())
raise RuntimeError("the end: " + secret)
"""


SHOWN = (
    *("in the message", "in an argument", "in what does not fit", "in a warning", "in a traceback", "in a note"),
    *("wrapped", "invalid literal", "the end: "),
)


def test_nothing_that_a_process_logs_or_dies_of_shows_a_secret() -> None:
    secret = f"canary{uuid.uuid4().hex}"
    done = subprocess.run([sys.executable, "-c", PROGRAM, secret], capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert done.returncode == 1
    assert secret not in shown
    assert secret[:9] not in shown.replace(secret, "")
    for line in SHOWN:
        assert line in shown, shown


def test_a_record_is_as_any_other_but_for_its_secrets() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.handle(RedactedRecord("a", logging.INFO, "", 0, "%d of %s", (1, "hf_" + "x" * 43), None))
    assert stream.getvalue() == f"1 of {REDACTED}\n"
