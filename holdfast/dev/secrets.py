"""What `holdfast dev` makes up once and keeps: the pepper, the key of the `dev` tenant, and the key of payloads."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast.domain.errors import ConfigurationError
from holdfast.secrecy.keyring import new_key

#: In the data folder. The command line reads `url` and `key` from it, so that a newcomer has nothing to set.
FILE = "dev.json"


@dataclass(frozen=True)
class DevSecrets:
    """Kept across restarts, so that a key that was handed out keeps working.

    `environment`: this time's variables of the commands that reach the database themselves.
    """

    url: str
    key: str
    pepper: str
    payload_keys: str
    environment: dict[str, str]

    def __repr__(self) -> str:
        return f"DevSecrets(url={self.url!r})"


def load_or_make(data: Path, url: str, addresses: Mapping[str, str]) -> DevSecrets:
    """The secrets of a data folder, made if there are none yet.

    Args:
        data: the folder.
        url: where the API listens this time.
        addresses: where the databases do, as variables.

    Raises:
        ConfigurationError: the file is there, and is not one of ours.
    """
    path = data / FILE
    kept = _read(path) if path.exists() else {}
    pepper = kept.get("pepper") or secrets.token_hex(32)
    # A folder from before there were any gets one now: what is not sealed can still be read.
    payload_keys = kept.get("payload_keys") or new_key("dev")
    made = DevSecrets(
        url=url,
        key=kept.get("key") or f"hf_{secrets.token_urlsafe(32)}",
        pepper=pepper,
        payload_keys=payload_keys,
        environment={
            "HOLDFAST_ENVIRONMENT": "dev",
            "HOLDFAST_KEY_PEPPER": pepper,
            "HOLDFAST_PAYLOAD_KEYS": payload_keys,
            **addresses,
        },
    )
    _write(path, made)
    return made


def _read(path: Path) -> dict[str, str]:
    try:
        kept: dict[str, str] = json.loads(path.read_text())
        return {"key": kept["key"], "pepper": kept["pepper"], "payload_keys": kept.get("payload_keys", "")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: can't be read ({type(error).__name__}); delete it to make new keys"
        ) from error


def _write(path: Path, made: DevSecrets) -> None:
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(made), file, indent=2)
    new.replace(path)
