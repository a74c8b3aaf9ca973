"""A secret that arrives in pieces, or that a limit would cut in two, is not in the record in whole or in part."""

from __future__ import annotations

from pathlib import Path

import pytest
from kits.secret_vectors import KEYS, SECRET

import mentra_nb as mn
import mentra_nb.event.types as e
from mentra_nb.record.write.journal import Journal
from mentra_nb.secrets.mask import mask_secrets
from mentra_nb.tools.clipping import MAX_RESULT_BYTES, clipped

KEY = KEYS["GitHub"]
HALVES = (KEY[:12], KEY[12:26], KEY[20:])


@mn.tool
def look(context: mn.ToolContext) -> str:
    """Look at the settings, and say so in pieces."""
    for at in range(0, len(KEY), 5):
        context.progress(KEY[at : at + 5])
    return f"found {KEY} and password={SECRET}"


@mn.tool
def fail(key: str) -> str:
    """Fail with the key in the error."""
    raise ValueError(f"cannot use {key}")


@mn.tool
def long() -> str:
    """Return one long line, with a key wherever it could be cut."""
    return " ".join([KEY] * (3 * MAX_RESULT_BYTES // len(KEY)))


@pytest.mark.anyio
@pytest.mark.parametrize("log_text", ["none", "preview", "full"])
async def test_a_turn_leaves_no_part_of_a_key_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_text: mn.LogText
) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    pieces = [f"It is {KEY} and password={SECRET}."[at : at + 3] for at in range(0, 90, 3)]
    calls = [
        mn.scripted.ScriptedCall(name, {"key": KEY} if name == "fail" else {}) for name in ("look", "fail", "long")
    ]
    provider = mn.ScriptedProvider(
        [
            mn.scripted.tool_calls(calls),
            mn.scripted.stream_text(pieces),
            mn.scripted.failure(mn.errors.MentraError(KEY)),
        ]
    )
    journal = Journal(tmp_path / "record", log_text=log_text)
    async with mn.Runtime(
        [provider], audit=journal, authorizer=mn.allow_everything, tools=[look, fail, long]
    ) as runtime:
        agent = await runtime.spawn("a", mn.ModelInfo(id="m", provider="scripted"))
        answer = await agent.send(f"use {KEY}")
        with pytest.raises(mn.errors.MentraError):
            await agent.send("again")
    journal.close()
    assert KEY in answer.text()
    recorded = b"".join(file.read_bytes() for file in (tmp_path / "record").rglob("*") if file.is_file()).decode()
    assert [part for part in (*HALVES, SECRET[3:12]) if part in recorded] == []
    assert ("[redacted]" in recorded) is True
    assert any(KEY.encode() in file.read_bytes() for file in tmp_path.glob("state.sqlite*"))  # as RECORD.md says


@pytest.mark.parametrize("shift", range(0, len(KEY), 3))
@pytest.mark.parametrize("log_text", ["none", "preview"])
def test_no_limit_leaves_a_part_of_a_key(folder: Path, shift: int, log_text: mn.LogText) -> None:
    journal = Journal(folder, log_text=log_text)
    for size in (200, 256, 8192, 16384):
        text = f"{'word ' * (size // 5)}"[: size - shift - 1] + f" {KEY} and more " + "word " * size
        finished = e.ToolExecutionFinished(
            agent_id="a", tool_name="t", tool_call_id="c", is_error=True, error=text, output_preview=text
        )
        journal.record_audit_event("a", finished.kind, finished.model_dump(mode="json"))
        journal.record_audit_event("a", "x", {"input": {"text": text, "list": [text]}, "reason": text, "prompt": text})
    many = f"-----BEGIN PRIVATE KEY-----\n{'abcd' * 3000}\n-----END PRIVATE KEY-----\n"
    journal.record_audit_event(
        "a", "x", {"prompt": many + "x " * (8192 - len(many) // 2 - shift // 2 - 1) + KEY + " y" * 9000}
    )
    journal.close()
    recorded = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file()).decode()
    assert [part for part in HALVES if part in recorded] == []
    assert recorded.count("word ") > 300


@pytest.mark.parametrize("shift", range(0, 2 * len(KEY), 3))
def test_a_long_line_is_not_cut_inside_a_key(shift: int) -> None:
    line = "w " * 50 + "." * shift + f" {KEY}" * 40
    kept = clipped(line, 600, 10, "[{left}]")
    assert "[redacted]" in mask_secrets(kept)
    assert [part for part in HALVES if part in mask_secrets(kept)] == []
    assert len(kept) > 400
