from __future__ import annotations

import pytest

from blipmq.cli import blipmqd


def test_an_interrupt_while_the_configuration_is_read_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(blipmqd, "load_config", interrupted)
    assert blipmqd.run([]) == 130
    assert "Traceback" not in capsys.readouterr().err
