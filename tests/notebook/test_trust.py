"""`%mentra trust`: what waits is shown as a diff, only what was shown is trusted, and it holds at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mentra_nb.chat import engine
from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands import trust as command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_shown", {})
    (tmp_path / "mentra.toml").write_text('log_text = "full"\n[aliases]\nquick = "demo"\n')
    engine.reset()
    yield tmp_path
    engine.reset()


def said(shell: Any, capsys: pytest.CaptureFixture[str], line: str) -> str:
    found = shell.run_line_magic("mentra", line)
    return capsys.readouterr().out + ("" if found is None else repr(found))


def test_what_was_shown_is_trusted_and_holds_at_once(
    shell: Any, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = said(shell, capsys, "")
    assert "ignored  mentra.toml came with this folder, so its settings log_text, aliases are ignored" in status
    assert "trusted here, and says:\n+log_text" not in status
    shown = said(shell, capsys, "trust")
    assert '+log_text = "full"\n+[aliases]\n+quick = "demo"\n' in shown
    assert "MENTRA_TRUST='mentra.toml@" in shown
    settings = engine.engine().settings
    assert (settings.log_text, settings.aliases) == ("preview", {})
    assert said(shell, capsys, "trust 1") == "Trusted: mentra.toml, as long as it stays as it is now.\n"
    assert (settings.log_text, settings.aliases) == ("full", {"quick": "demo"})
    assert engine.engine().runtime.audit.log_text == "full"  # type: ignore[attr-defined]
    assert "ignored" not in said(shell, capsys, "")
    assert "trusted" in said(shell, capsys, "trust")


def test_what_was_not_shown_or_has_changed_since_is_shown_first(
    shell: Any, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Look at it, then: %mentra trust all" in said(shell, capsys, "trust all")
    (project / "mentra.toml").write_text('model = "demo"\nlog_text = "none"\n')
    shown = said(shell, capsys, "trust all")
    assert '+model = "demo"' in shown
    assert engine.engine().settings.log_text == "preview"
    assert said(shell, capsys, "trust all").startswith("Trusted: mentra.toml")
    assert engine.engine().settings.log_text == "none"
    (project / "mentra.toml").write_text('model = "demo"\nlog_text = "full"\n')
    changed = said(shell, capsys, "trust")
    assert "Since you trusted it, it has changed" in changed
    assert '-log_text = "none"\n+log_text = "full"' in changed
    assert ' model = "demo"' in changed


def test_trust_is_withdrawn_by_number(shell: Any, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("trust", "trust 1"):
        said(shell, capsys, line)
    assert "mentra.toml is trusted no longer" in said(shell, capsys, "trust revoke 1")
    engine.reset()
    assert engine.engine().settings.log_text == "preview"
    with pytest.raises(OperationDenied, match="there is no 7"):
        said(shell, capsys, "trust revoke 7")


def test_what_was_set_in_this_kernel_stays(shell: Any, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("config", "Mentra.log_text = 'none'")
    for line in ("trust", "trust 1"):
        said(shell, capsys, line)
    settings = engine.engine().settings
    assert (settings.log_text, settings.aliases) == ("none", {"quick": "demo"})


def test_the_notes_and_skills_of_the_project_are_trusted_the_same_way(
    shell: Any, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "mentra.toml").write_text("")
    (project / "AGENTS.md").write_text("Use tabs.\u202e\x1b[2J")
    folder = project / ".mentra" / "skills" / "count"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: count\ndescription: Counts.\n---\nCount.")
    shown = said(shell, capsys, "trust")
    assert "+Use tabs.\\u202e␛[2J" in shown
    assert "+[count/SKILL.md]" in shown
    assert said(shell, capsys, "skills").startswith("There are no skills")
    assert said(shell, capsys, "trust all").count("Trusted: ") == 2
    assert "count" in said(shell, capsys, "skills")
    assert shell.run_line_magic("mentra", "trust").state.tolist() == ["trusted", "trusted"]


def test_a_secret_in_what_is_shown_is_masked(shell: Any, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = "sk-proj-" + "aB3dE5fG7hJ9kL1m" * 3
    (project / "mentra.toml").write_text(
        f'[mcp.x]\nurl = "https://x.example/mcp"\nheaders = {{ X-Api-Key = "{key}" }}\n'
    )
    shown = said(shell, capsys, "trust")
    assert "https://x.example/mcp" in shown
    assert key not in shown


def test_what_is_too_long_to_be_shown_is_not_trusted(
    shell: Any, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "AGENTS.md").write_text("a line\n" * (command.MAX_LINES + 1))
    (project / "mentra.toml").write_text("")
    for _ in range(2):
        assert "too long to be trusted here" in said(shell, capsys, "trust all")
    assert shell.run_line_magic("mentra", "trust").state.tolist() == ["the model is not given it"]


def test_a_server_of_the_project_connects_when_it_is_trusted_and_not_before(
    shell: Any, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mcp")
    (project / "mentra.toml").write_text(
        f"[mcp.clock]\ncommand = '{sys.executable}'\nargs = ['-c', 'open(\"started\", \"w\")']\n"
    )
    assert "mcp" in said(shell, capsys, "trust")
    assert engine.engine().runtime.mcp.statuses() == []
    said(shell, capsys, "trust 1")
    (status,) = engine.engine().runtime.mcp.statuses()
    assert status.name == "clock"
    assert (project / "started").exists()
