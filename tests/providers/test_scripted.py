"""The scripted and demo providers, the registry, and model names."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from kits.wires import answer_of

from mentra_nb.content import Message, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import ConfigurationError, InvalidRequest, MalformedStream, ProviderNotFound, TransportError
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import (
    ContentBlockDelta,
    ContentBlockStarted,
    MessageDelta,
    MessageStarted,
    MessageStopped,
    ModelInfo,
    Provider,
    ProviderEvent,
    ProviderToolSpec,
    Request,
)
from mentra_nb.providers.demo import DemoProvider
from mentra_nb.providers.registry import PRESETS, ProviderRegistry, builtin, split_model
from mentra_nb.providers.scripted import (
    ControlledStream,
    ScriptedCall,
    ScriptedProvider,
    erroring,
    failure,
    stream_text,
    text,
    tool_calls,
)
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.volatile import VolatileStore

REQUEST = Request("scripted", [Message.user("hello")])


async def ask(provider: Provider, request: Request = REQUEST) -> list[ProviderEvent]:
    async with provider.stream(request) as events:
        return [event async for event in events]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with one file."""
    (tmp_path / "sales.csv").write_text("month,units\nMay,3\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def deltas(events: list[ProviderEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, ContentBlockDelta)]


@pytest.mark.anyio
async def test_turns_are_answered_in_order_and_requests_remembered() -> None:
    provider = ScriptedProvider([text("one"), stream_text(["tw", "o"], usage=TokenUsage(input_tokens=3))])
    first, second = await ask(provider), await ask(provider)
    assert isinstance(first[0], MessageStarted)
    assert isinstance(first[-1], MessageStopped)
    assert deltas(first) == ["one"]
    assert deltas(second) == ["tw", "o"]
    assert second[-2] == MessageDelta("end", TokenUsage(input_tokens=3))
    assert provider.recorded_requests == [REQUEST, REQUEST]
    assert provider.remaining == 0


@pytest.mark.anyio
async def test_tool_calls_get_default_ids_and_keep_malformed_arguments() -> None:
    provider = ScriptedProvider([tool_calls([("a", {"x": 1}), ScriptedCall("b", "{oops", id="mine")], text="Look:")])
    events = await ask(provider)
    starts = [event for event in events if isinstance(event, ContentBlockStarted)]
    assert [(start.kind, start.id, start.name) for start in starts] == [
        ("text", None, None),
        ("tool_use", "tool-1", "a"),
        ("tool_use", "mine", "b"),
    ]
    assert deltas(events) == ["Look:", '{"x": 1}', "{oops"]
    assert events[-2] == MessageDelta("tool_use")


@pytest.mark.anyio
async def test_a_failure_comes_on_opening_and_an_erroring_stream_fails_inside() -> None:
    provider = ScriptedProvider(
        [failure(TransportError("no")), erroring(text("half").events[:3], TransportError("cut"))]
    )
    with pytest.raises(TransportError, match="no"):
        async with provider.stream(REQUEST):
            raise AssertionError("must not open")
    async with provider.stream(REQUEST) as events:
        seen = [await anext(events) for _ in range(3)]
        with pytest.raises(TransportError, match="cut"):
            await anext(events)
    assert deltas(seen) == ["half"]


@pytest.mark.anyio
async def test_an_exhausted_script_says_so() -> None:
    with pytest.raises(InvalidRequest, match="no answer to request 1"):
        await ask(ScriptedProvider())


@pytest.mark.anyio
async def test_a_controlled_stream_gives_each_event_when_the_test_sends_it() -> None:
    stream = ControlledStream()
    provider = ScriptedProvider([stream])
    got = []

    async def consume() -> None:
        got.extend(await ask(provider))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await stream.wait_opened()
        stream.send(ContentBlockStarted(0, "text"))
        stream.send_answer(text("x"))
    assert deltas(got) == ["x"]
    assert stream.closed


@pytest.mark.anyio
async def test_leaving_a_controlled_stream_early_closes_it() -> None:
    stream = ControlledStream()
    async with ScriptedProvider([stream]).stream(REQUEST) as events:
        stream.send(ContentBlockStarted(0, "text"))
        await anext(events)
    assert stream.closed


@pytest.mark.anyio
async def test_the_demo_calls_real_tools_quotes_their_results_and_names_real_models(folder: Path) -> None:
    demo = DemoProvider(pace=0)
    tools = (ProviderToolSpec(name="shell"), ProviderToolSpec(name="read"), ProviderToolSpec(name="other"))
    messages = [Message.user("Which month looks odd?")]
    said = []
    for result in ("L1: month,units", "Python 3.11", None):
        events = await ask(demo, Request("demo", messages, tools=tools))
        start = next((e for e in events if isinstance(e, ContentBlockStarted) and e.kind == "tool_use"), None)
        said.append("".join(deltas(events)))
        if result is None:
            assert start is None
        else:
            messages.append(Message.assistant([ToolUse(id=start.id, name=start.name)]))
            messages.append(Message.user([ToolResult(tool_use_id=start.id, content=result)]))
    assert "not an AI" in said[0]
    assert "`read`" in said[0]
    assert "L1: month,units" in said[1]
    assert "`shell`" in said[1]
    assert "Python 3.11" in said[2]
    assert "OPENAI_API_KEY" in said[2]
    again = await ask(demo, Request("demo", [*messages, Message.assistant("…"), Message.user("more")], tools=tools))
    assert "still the **demo**" in "".join(deltas(again))


@pytest.mark.anyio
async def test_the_demos_first_call_reads_a_file_of_the_working_folder(folder: Path) -> None:
    (folder / ".a.csv").write_text("hidden")
    (folder / "b.csv").symlink_to(folder / "sales.csv")
    (folder / "notes.md").write_text("# Notes")
    async with Runtime([DemoProvider(pace=0)], store=VolatileStore(), audit=NullAudit()) as runtime:
        agent = await runtime.spawn("a", ModelInfo(id="demo", provider="demo"))
        await agent.send("hi")
        called = [use for message in agent.history() for use in message.tool_uses()]
        results = [result for message in agent.history() for result in message.tool_results()]
    assert [use.name for use in called] == ["read", "shell"]
    assert called[0].input == {"path": "sales.csv", "limit": 5}
    assert (results[0].is_error, results[0].content) == (False, "L1: month,units\nL2: May,3")


@pytest.mark.anyio
async def test_the_demo_goes_straight_to_the_shell_where_there_is_nothing_to_read(folder: Path) -> None:
    (folder / "sales.csv").unlink()
    tools = (ProviderToolSpec(name="read"), ProviderToolSpec(name="shell"))
    events = await ask(DemoProvider(pace=0), Request("demo", [Message.user("hi")], tools=tools))
    assert [e.name for e in events if isinstance(e, ContentBlockStarted) and e.kind == "tool_use"] == ["shell"]
    assert "`read`" not in "".join(deltas(events))


@pytest.mark.anyio
async def test_the_demo_says_when_its_call_was_refused_and_needs_no_tools() -> None:
    demo = DemoProvider(pace=0)
    messages = [
        Message.user("hi"),
        Message.assistant([ToolUse(id="demo-1", name="shell")]),
        Message.user([ToolResult(tool_use_id="demo-1", content="denied by the user", is_error=True)]),
    ]
    assert "did not run" in "".join(deltas(await ask(demo, Request("demo", messages))))
    assert "OPENAI_API_KEY" in "".join(deltas(await ask(demo, Request("demo", [Message.user("hi")]))))


def test_the_first_registered_provider_is_the_default_and_stays_it() -> None:
    registry = ProviderRegistry([ScriptedProvider(id="b"), ScriptedProvider(id="a")])
    replacement = ScriptedProvider(id="b")
    registry.register(replacement)
    assert registry.get() is replacement
    assert registry.get("a").descriptor.id == "a"
    assert [descriptor.id for descriptor in registry.descriptors()] == ["a", "b"]
    with pytest.raises(ProviderNotFound, match="registered are b, a"):
        registry.get("c")
    with pytest.raises(ProviderNotFound, match="no providers"):
        ProviderRegistry().get()


def test_model_names_split_at_the_first_slash() -> None:
    assert split_model("openai/gpt-5") == ("openai", "gpt-5")
    assert split_model("openrouter/qwen/qwen3") == ("openrouter", "qwen/qwen3")
    assert split_model("gpt-5") == (None, "gpt-5")
    assert split_model("demo") == ("demo", "demo")
    for wrong in ("", "openai/", "/gpt"):
        with pytest.raises(ConfigurationError):
            split_model(wrong)


def test_builtin_providers_have_their_ids_and_name_a_missing_key() -> None:
    for id in PRESETS:
        assert builtin(id, api_key="k").descriptor.id == id
    assert builtin("demo").descriptor.id == "demo"
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        builtin("openai")
    for id, variable in (("anthropic", "ANTHROPIC_API_KEY"), ("gemini", "GEMINI_API_KEY")):
        with pytest.raises(ConfigurationError, match=variable):
            builtin(id)
    with pytest.raises(ConfigurationError, match="known are openai"):
        builtin("opnai")


@pytest.mark.anyio
async def test_the_events_of_an_answer_fold_into_a_whole_message() -> None:
    usage = TokenUsage(input_tokens=3, output_tokens=2)
    provider = ScriptedProvider([stream_text(["Hel", "lo."], usage=usage), erroring([], MalformedStream("cut"))])
    answer = await answer_of(provider, REQUEST)
    assert (answer.message(), answer.stop_reason, answer.usage) == (Message.assistant("Hello."), "end", usage)
    assert (answer.started.id, answer.started.model) == ("message", "scripted")
    with pytest.raises(MalformedStream, match="cut"):
        await answer_of(provider, REQUEST)
