"""Builds the compiled loops when BlipMQ is installed or packaged, where there is a C compiler.

Without one, or with `BLIPMQ_PURE=1`, BlipMQ runs on the loops in plain Python. The library is put
beside its source, so that an editable install finds it.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("blipmq", "protocol", "_loops.c")


class LoopsHook(BuildHookInterface):  # type: ignore[misc]
    """Compiles one file for the stable ABI of Python 3.11 and up."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or os.environ.get("BLIPMQ_PURE", "0") not in ("", "0"):
            return
        source = Path(self.root, SOURCE)
        library = source.with_name("_loops.abi3" + (".pyd" if os.name == "nt" else ".so"))
        if not self._compile(source, library):
            return
        build_data["artifacts"].append(str(library.relative_to(self.root)))
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp311-abi3-{platform}"

    def _compile(self, source: Path, library: Path) -> bool:
        from setuptools import Distribution, Extension
        from setuptools.command.build_ext import build_ext
        from setuptools.errors import BaseError

        extension = Extension(
            "blipmq.protocol._loops", [str(source)], py_limited_api=True, optional=False
        )
        command = build_ext(Distribution({"ext_modules": [extension]}))
        with tempfile.TemporaryDirectory() as directory:
            command.build_temp = command.build_lib = directory
            try:
                command.ensure_finalized()
                command.run()
            except (BaseError, OSError) as error:
                print(f"BlipMQ goes without compiled loops: {error}", file=sys.stderr)
                return False
            library.unlink(missing_ok=True)
            shutil.move(command.get_ext_fullpath(extension.name), library)
        return True
