"""Templates of subagents: what their files may say, and that what comes with a folder waits until it is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mentra_nb import trust
from mentra_nb.chat.abilities import Abilities
from mentra_nb.errors import ConfigurationError
from mentra_nb.event.bus import NullAudit
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.setting_files import load
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.builtin.templates import MAX_TEMPLATES, templates_in
from mentra_nb.tools.template import AgentTemplate

WHOLE = """---
name: reviewer
description: Finds
  mistakes.
tools: [read, files]
model: anthropic/claude
max_rounds: 5
colour: red
---
You review.

Twice.
"""


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_a_template_is_read_from_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, "reviewer.md", WHOLE)
    write(tmp_path, "plain.md", "---\ndescription: As its parent.\ntools: read, files\nmodel: inherit\n---\n")
    write(tmp_path, "none.md", "---\ndescription: Without tools.\ntools:\n---\nThink.")
    write(tmp_path, "notes.txt", "not one")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "link.md").symlink_to(path)
    none, plain, reviewer = templates_in(tmp_path)
    assert reviewer == AgentTemplate(
        "reviewer", "Finds mistakes.", "You review.\n\nTwice.", ("read", "files"), "anthropic/claude", 5, path
    )
    assert plain[:6] == ("plain", "As its parent.", "", ("read", "files"), None, None)
    assert none[:4] == ("none", "Without tools.", "Think.", ())


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.md", "You review.", "it needs a `description`"),
        ("a.md", "---\ndescription: x\n", "the closing line '---' is missing"),
        ("a.md", "---\ndescription: [x]\n---\n", "its `description` must be text"),
        ("a.md", "---\ndescription: x\nname: b\n---\n", "its `name` is 'b' and its file 'a.md'"),
        ("A b.md", "---\ndescription: x\n---\n", "a name is up to 64 lower-case letters"),
        ("a.md", "---\ndescription: x\nmax_rounds: 0\n---\n", "`max_rounds` must be a number from 1 to 200"),
        ("a.md", "---\ndescription: x\nmax_rounds: ²\n---\n", "`max_rounds` must be a number from 1 to 200"),
        ("a.md", f"---\ndescription: x\nmax_rounds: {'9' * 5000}\n---\n", "`max_rounds` must be a number"),
        ("a.md", f"---\ndescription: {'x' * 2000}\n---\n", "it needs a `description` of up to 1024"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    write(tmp_path, name, text)
    with pytest.raises(ConfigurationError) as refused:
        templates_in(tmp_path)
    assert why in str(refused.value)
    assert name in str(refused.value)


def test_a_folder_that_is_missing_or_has_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        templates_in(tmp_path / "nowhere")
    for number in range(MAX_TEMPLATES + 1):
        write(tmp_path, f"a{number}.md", "---\ndescription: x\n---\n")
    with pytest.raises(ConfigurationError, match="more than 100 agents"):
        templates_in(tmp_path)


def test_the_templates_of_a_project_wait_until_they_are_trusted(tmp_path: Path) -> None:
    write(tmp_path / ".mentra" / "agents", "reviewer.md", WHOLE)
    settings = load({}, tmp_path, tmp_path / "none.toml")
    assert settings.agents == ()
    [waiting] = settings.waiting
    assert (waiting.name, waiting.wants) == (".mentra/agents", "its agents are not offered")
    assert "You review." in waiting.text
    trust.grant(waiting)
    assert load({}, tmp_path, tmp_path / "none.toml").agents == (tmp_path / ".mentra" / "agents",)
    write(tmp_path / ".mentra" / "agents", "reviewer.md", WHOLE + "And obey.")
    assert load({}, tmp_path, tmp_path / "none.toml").agents == ()


def test_the_settings_offer_the_users_own_templates_and_those_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTRA_CONFIG", str(tmp_path / "config" / "config.toml"))
    write(tmp_path / "config" / "agents", "own.md", "---\ndescription: Mine.\n---\n")
    write(tmp_path / "more", "own.md", "---\ndescription: Another of that name.\n---\n")
    write(tmp_path / "more", "reviewer.md", WHOLE)
    write(tmp_path / "bad", "broken.md", "nothing")
    settings = Settings(subagents=True, agents=(tmp_path / "more", tmp_path / "bad"))
    runtime = Runtime(builtin_tools=False, store=VolatileStore(), audit=NullAudit())
    [problem] = Abilities().offer(runtime, settings)
    assert "broken.md" in problem
    [spec] = runtime.tools()
    assert (spec.description or "").splitlines()[-2:] == ["- own: Mine.", "- reviewer: Finds mistakes."]
