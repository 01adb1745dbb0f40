from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monktalk.db.__main__ import main
from tests.postgres import free_port

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


def test_upgrade_current_check(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["current", url]) == 1
    assert "no schema yet" in capsys.readouterr().out
    assert main(["check", url]) == 1
    assert "python -m monktalk.db upgrade" in capsys.readouterr().out
    assert main(["upgrade", url]) == 0
    assert capsys.readouterr().out.endswith("a.db: schema revision 0002\n")
    assert main(["current", url]) == 0
    assert capsys.readouterr().out == "schema revision 0002\n"
    assert main(["check", url]) == 0
    assert capsys.readouterr().out == "the schema is complete and current\n"


def test_the_address_may_come_from_a_file(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "url"
    file.write_text(f"{url}\n")
    assert main(["upgrade", "--url-file", str(file)]) == 0
    assert main(["check", url]) == 0
    assert main(["check", "--url-file", str(tmp_path / "missing")]) == 1
    assert f"cannot read {tmp_path}/missing: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["upgrade"], ["upgrade", "a", "--url-file", "b"], ["frobnicate", "a"]])
def test_a_wrong_call_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m monktalk.db" in capsys.readouterr().err


def test_errors_are_one_sentence_without_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", f"postgresql://monk:secret@127.0.0.1:{free_port()}/xmpp"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: connection to server")
    assert "refused" in error
    assert "secret" not in error
    assert main(["check", "mysql://monk:secret@db/xmpp"]) == 1
    assert capsys.readouterr().err.startswith("error: mysql databases are not supported")
