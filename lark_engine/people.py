"""Who says what people note: disputes and flags carry a name."""

from __future__ import annotations

import getpass

from lark_engine.errors import ConfigError


def user_name() -> str:
    """The name of the user of this process. Errors: `ConfigError` in a container whose user has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise ConfigError("who says so? your user has no name here; give --author") from None
