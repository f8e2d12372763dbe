"""Settings of the commands that reach the database themselves: the environment's, or those of `holdfast dev` here."""

import getpass
import os

from holdfast.cli.connection import dev_file
from holdfast.config.loading import Kind, load_settings

#: Whoever sets one of these means another database than that of `holdfast dev`, and no part of its settings.
_DATABASES = ("HOLDFAST_DATABASE_URL", "HOLDFAST_DATABASE_OWNER_URL")


def settings_of(kind: type[Kind]) -> Kind:
    """A command's settings, from the environment; where that names no database, of the `holdfast dev` of this folder.

    Raises:
        ConfigurationError: variables are missing or wrong.
    """
    if not any(os.environ.get(name) or os.environ.get(f"{name}_FILE") for name in _DATABASES):
        os.environ.update(dev_file().get("environment") or {})
    return load_settings(kind)


def operator() -> str:
    """Who acts on the database itself, for the record: the user of this machine."""
    try:
        return f"operator {getpass.getuser()}"
    except (KeyError, OSError):
        # A container's user often has no name.
        return f"operator {os.getuid()}"
