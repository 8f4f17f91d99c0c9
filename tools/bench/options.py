"""Options that several measurements have alike."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=tempfile.gettempdir,
    help="Where the log is put while it is measured; on the disk that is meant. [default: /tmp]",
)
fsync_policy_option = click.option("--fsync-policy", default="always", show_default=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Not as tables.")
size_option = click.option("--size", default=256, show_default=True, help="Bytes of a body.")

# What is measured with many messages in flight on each connection, and with one.
window_option = click.option("--window", default=256, show_default=True, help="Many in flight.")
messages_alone_option = click.option(
    "--messages-alone", default=20_000, show_default=True, help="With one in flight."
)
