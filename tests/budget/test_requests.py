"""The most that a request may use is no less than what it uses; what it has used is counted as the provider says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kits.stores import holder

from mentra_nb.budget.meter import Meter
from mentra_nb.budget.requests import (
    PER_IMAGE,
    is_free_of_charge,
    most_of,
    most_of_head,
    most_of_messages,
    most_usd,
    prompt_tokens,
    used,
)
from mentra_nb.content import Image, Message, Opaque, Text, Thinking, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import (
    ConfigurationError,
    HttpError,
    InvalidRequest,
    MalformedStream,
    TransportError,
    Unreachable,
    UnsupportedCapability,
)
from mentra_nb.paths import record_folder
from mentra_nb.pricing import cost_usd
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.store.volatile import VolatileStore

MODELS = [
    ("anthropic", "claude-sonnet-4-5"),
    ("openai", "gpt-5"),
    ("gemini", "gemini-2.5-pro"),
    ("deepseek", "deepseek-chat"),
]


def meter(**budgets: str) -> Meter:
    return Meter(VolatileStore(), holder(), budgets, {"turn": "t", "session": "s", "project": "p"})  # type: ignore[arg-type]


def test_every_kind_of_block_is_measured() -> None:
    picture = Image(media_type="image/png", data="aGk=")
    message = Message.assistant(
        [
            Text(text="täxt"),
            picture,
            ToolUse(id="1", name="read", input={"path": "a" * 100}),
            ToolResult(tool_use_id="1", content=["b" * 100], images=(picture,)),
            Thinking(text="c" * 100, signature="d" * 100, encrypted="e" * 100),
            Opaque(data="f" * 100),
        ]
    )
    assert most_of_messages([message]) >= 5 + 2 * PER_IMAGE + 600
    assert most_of_messages([Message.user("x")] * 10) >= 10 * most_of_messages([Message.user("x")])


def test_the_system_prompt_and_the_tools_are_measured() -> None:
    tool = ProviderToolSpec(name="read", description="r" * 500)
    assert most_of_head("s" * 300, [tool, tool]) >= 300 + 2 * 500


@given(
    st.sampled_from(MODELS),
    st.integers(0, 400_000),
    st.integers(0, 100_000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 100_000),
)
@settings(max_examples=100, deadline=None)
def test_no_answer_costs_more_than_the_most(
    model: tuple[str, str], prompt: int, output: int, cached: float, written: float, room: int
) -> None:
    read = int(prompt * cached)
    write = int((prompt - read) * written)
    counted = prompt - read - write if model[0] == "anthropic" else prompt
    usage = TokenUsage(
        input_tokens=counted,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=write,
    )
    assert prompt_tokens(model[0], usage) == prompt
    cost = cost_usd(*model, usage)
    assert cost is not None
    assert cost * 1e9 <= most_usd(*model, prompt + room, output + room) + 1e-3


def test_custom_prices_count_as_soon_as_they_are_written() -> None:
    folder = record_folder()
    folder.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="lab/m has no known price, so a budget in money cannot limit it"):
        most_usd("lab", "m", 10, 10)
    (folder / "prices.csv").write_text(
        "provider,model,input_mtok,output_mtok,cache_read_mtok,cache_write_mtok\nlab,m,1,10,,2\n"
    )
    assert most_usd("lab", "m", 1_000, 100) == 3_000_000  # at the price of writing the cache


def test_only_the_units_that_a_budget_has_are_reserved() -> None:
    assert most_of(meter(day="5 tools"), "lab", "m", 10, None) == {}
    assert most_of(meter(day="5k"), "lab", "m", 10, 5) == {"tokens": 15}
    assert most_of(meter(day="1usd"), "scripted", "m", 10, 5) == {"usd": 0}
    assert most_of(meter(day="1usd"), "lab", "m", 10, 5, free=True) == {"usd": 0}
    with pytest.raises(ConfigurationError, match="set max_output_tokens"):
        most_of(meter(day="5k"), "lab", "m", 10, None)


def test_what_an_answer_does_not_say_counts_as_the_most() -> None:
    most = {"usd": 100_000_000, "tokens": 50}
    assert used("openai", "gpt-5", None, most) == most  # type: ignore[arg-type]
    assert used("openai", "gpt-5", TokenUsage(input_tokens=4), most) == most  # type: ignore[arg-type]
    known = TokenUsage(input_tokens=8, output_tokens=2, thoughts_tokens=1)
    assert used("openai", "gpt-5", known, most) == {"usd": 40_000, "tokens": 11}  # type: ignore[arg-type]
    assert used("lab", "m", known, most) == {"usd": 100_000_000, "tokens": 11}  # type: ignore[arg-type]
    assert used("lab", "m", TokenUsage(cost_usd=0.02), most) == {"usd": 20_000_000, "tokens": 50}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "is_free"),
    [
        (HttpError(400), True),
        (HttpError(429), True),
        (HttpError(529), True),
        (HttpError(504), False),
        (Unreachable("127.0.0.1:1", "refused"), True),
        (InvalidRequest("no"), True),
        (UnsupportedCapability("x", "tools"), True),
        (TransportError("it broke"), False),
        (MalformedStream("odd"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_a_request_is_free_only_if_it_was_refused_or_never_sent(error: BaseException, is_free: bool) -> None:
    assert is_free_of_charge(error) is is_free


def test_a_file_of_prices_of_another_home_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_custom_prices_count_as_soon_as_they_are_written()
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "other"))
    with pytest.raises(ConfigurationError):
        most_usd("lab", "m", 10, 10)
