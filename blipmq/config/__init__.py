"""The configuration of the daemon: file (TOML or YAML), then environment, into attrs classes.

Nothing here looks at the machine: whether a port is free or a path can be written is found
out by who uses it. The value of an API key appears in no error and no repr.
"""

from blipmq.config.load import config_file, load_config, origin
from blipmq.config.settings import (
    AdminSettings,
    Config,
    LoggingSettings,
    MetricsSettings,
    ShutdownSettings,
    TlsSettings,
    WalSettings,
    WebSocketSettings,
    environment_variable,
    settings,
)

__all__ = [
    "Config",
    "AdminSettings",
    "WalSettings",
    "ShutdownSettings",
    "LoggingSettings",
    "MetricsSettings",
    "TlsSettings",
    "WebSocketSettings",
    "config_file",
    "load_config",
    "origin",
    "settings",
    "environment_variable",
]
