"""Conversations survive a restart: they are proposed, listed, taken up by name or id, and never made by accident."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kits.shells import loaded_shell

import mentra_nb as mn
from mentra_nb.chat import turn
from mentra_nb.chat.api import conversation, stored_conversations
from mentra_nb.chat.earlier import known_as, title
from mentra_nb.chat.engine import engine, reset
from mentra_nb.chat.opening import ONLY_DEMO
from mentra_nb.errors import (
    ConfigurationError,
    FailedToStreamResponse,
    HttpError,
    InvalidRequest,
    LeaseUnavailable,
    OperationDenied,
)
from mentra_nb.ids import short_id
from mentra_nb.notebook import extension
from mentra_nb.notebook.commands.listing import Listing
from mentra_nb.notebook.grammar import completions
from mentra_nb.providers.demo import DemoProvider
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedProvider, failure, text
from mentra_nb.store.records import LeaseHolder

NEW, ON = "This is a new conversation", "Going on with"


@pytest.fixture
def shells() -> list[Any]:
    """Return the shells that were begun, the last one last."""
    return []


@pytest.fixture
def restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shells: list[Any]
) -> Iterator[Callable[..., Callable[[str], Any]]]:
    """Begin a process on the same home, with a person at it and these answers; returns `%mentra`."""
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def restart(*answers: ScriptedAnswer, watched: bool = True, goes_on: bool = True) -> Callable[[str], Any]:
        reset()
        shell = stack.enter_context(loaded_shell())
        shells.append(shell)
        found = turn.presenter()
        assert found is not None
        found.is_watched = lambda: watched
        found.goes_on = lambda: goes_on
        engine().use(ScriptedProvider(answers), "scripted")
        return lambda line: shell.run_line_magic("mentra", line)

    with ExitStack() as stack:
        yield restart
    reset()


def requests() -> list[list[str]]:
    provider = engine().runtime.provider("scripted")
    assert isinstance(provider, ScriptedProvider)
    return [[message.text() for message in request.messages] for request in provider.recorded_requests]


def test_a_finished_conversation_is_taken_up_with_one_line_and_no_error(restart: Any, capsys: Any) -> None:
    restart(text("one"), text("two"))("what was first?")
    mn.ask("and then?")
    mentra = restart(text("three"))
    capsys.readouterr()
    mentra("resume")
    said = capsys.readouterr().out
    assert re.fullmatch(
        r"In 'what was first\?', 2 turns, last \d{4}-\d\d-\d\d \d\d:\d\d\. "
        r"Its last turn is finished: ask on with %mentra\n",
        said,
    )
    assert mn.messages().text.tolist() == ["what was first?", "one", "and then?", "two"]
    mentra("go on")
    assert requests() == [["what was first?", "one", "and then?", "two", "go on"]]
    assert NEW not in capsys.readouterr().out


def test_the_first_question_after_a_restart_says_how_to_go_back(restart: Any, capsys: Any) -> None:
    restart(text("one"))("what was first?")
    assert NEW not in capsys.readouterr().out
    mentra = restart(text("two"), text("three"), text("four"), goes_on=False)  # as at a terminal
    mentra("something else")
    (earlier, _) = stored_conversations()
    hint = f"To go back to it: %mentra resume {short_id(earlier.session.id)}"
    said = capsys.readouterr().out
    assert f"{NEW}. Earlier in this notebook: 'what was first?', 1 turn, last " in said.replace("\\'", "'")
    assert hint in said
    mentra("once more")
    assert NEW not in capsys.readouterr().out
    mentra(f"resume {short_id(earlier.session.id)}")
    mentra("go on")
    assert requests()[-1] == ["what was first?", "one", "go on"]


def quick_demo() -> None:
    engine().runtime.register_provider_instance(DemoProvider(pace=0))


def test_a_real_model_after_the_demo_begins_a_new_conversation_with_the_same_rules(restart: Any, capsys: Any) -> None:
    mentra = restart(text("one"), text("two"))
    quick_demo()
    mentra("-m demo hi")
    mentra("-m demo hi again")
    assert ONLY_DEMO not in capsys.readouterr().out
    mn.allow("shell", "ls")
    (demo,) = stored_conversations()
    mentra("what is first?")
    assert ONLY_DEMO in capsys.readouterr().out
    assert [rule.pattern for rule in conversation().rules()] == ["ls"]
    mentra("-m demo and you?")  # the real conversation goes on, with the demo and after it
    mentra("what is second?")
    assert ONLY_DEMO not in capsys.readouterr().out
    assert requests()[0] == ["what is first?"]
    assert requests()[1][:3] == ["what is first?", "one", "and you?"]
    assert [found.turns for found in stored_conversations()] == [2, 3]
    mentra(f"resume {short_id(demo.session.id)}")
    assert len(conversation().history) > 2


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_real_model_does_not_go_on_with_the_demo_of_an_earlier_kernel(
    restart: Any, capsys: Any, goes_on: bool
) -> None:
    mentra = restart()
    quick_demo()
    mentra("-m demo hi")
    mentra = restart(text("one"), goes_on=goes_on)
    quick_demo()
    capsys.readouterr()
    mentra("what is first?")
    said = capsys.readouterr().out
    assert ONLY_DEMO in said
    assert ON not in said
    assert "Earlier in this notebook" not in said
    assert requests() == [["what is first?"]]


def test_the_demo_goes_on_with_itself_after_a_restart(restart: Any, capsys: Any) -> None:
    mentra = restart()
    quick_demo()
    mentra("-m demo hi")
    mentra = restart()
    quick_demo()
    mentra("-m demo hi again")
    assert ON in capsys.readouterr().out
    assert len(stored_conversations()) == 1


@pytest.mark.slow
def test_no_name_finds_a_conversation_that_was_given_none(restart: Any, capsys: Any) -> None:
    mentra = restart(text("one"), text("two"), text("three"))
    mentra("what was first?")
    mentra("-s mentra what is this?")
    assert requests()[-1] == ["what is this?"]
    assert [each.session.given_name for each in stored_conversations()] == [None, "mentra"]
    assert mn.sessions().title.tolist() == ["what was first?", "what is this?"]
    mentra = restart(text("four"), text("five"))
    mentra("-s mentra and that?")
    assert requests()[-1] == ["what is this?", "two", "and that?"]
    mentra("resume " + known_as(stored_conversations()[0]))
    mentra("go on")
    assert requests()[-1] == ["what was first?", "one", "go on"]


def test_nothing_is_proposed_where_nobody_is_there_or_in_a_named_conversation(restart: Any, capsys: Any) -> None:
    restart(text("one"))("what was first?")
    restart(text("two"), watched=False)("something else")
    restart(text("three"))("-s report something else")
    said = capsys.readouterr().out
    assert NEW not in said
    assert ON not in said
    assert requests() == [["something else"]]


def test_the_own_conversation_goes_on_after_a_restart_and_says_so_once(restart: Any, capsys: Any) -> None:
    restart(text("one"))("what was first?")
    mentra = restart(text("two"), text("three"), text("four"))
    rule = mn.allow("read", "data/*")
    capsys.readouterr()
    mentra("and then?")
    said = capsys.readouterr().out.replace("\\'", "'")
    assert re.search(rf"{ON} 'what was first\?', 1 turn, last [-\d]+ [:\d]+\. To start anew: %mentra --new ", said)
    assert [(each.tool, each.pattern) for each in conversation().rules()] == [(rule.tool, rule.pattern)]
    mentra("once more")
    assert ON not in capsys.readouterr().out
    mentra("--new something else")
    assert ON not in capsys.readouterr().out
    assert requests()[1:] == [["what was first?", "one", "and then?", "two", "once more"], ["something else"]]
    assert [each.turns for each in stored_conversations()] == [3, 1]


def test_a_new_conversation_is_begun_after_a_restart_where_it_is_wanted(restart: Any, capsys: Any) -> None:
    restart(text("one"))("what was first?")
    restart(text("two"), text("three"))("--new something else")
    mn.ask("and then?")
    assert requests()[-1] == ["something else", "two", "and then?"]
    assert ON not in capsys.readouterr().out


def test_a_conversation_that_another_process_has_does_not_go_on(restart: Any, capsys: Any) -> None:
    restart(text("one"))("what was first?")
    mentra = restart(text("two"))
    [found] = stored_conversations()
    other = LeaseHolder.here("another")
    assert engine().call(engine().runtime.store.acquire_lease, f"agent:{found.session.agent_id}", other, 60.0) is None
    mentra("something else")
    assert requests() == [["something else"]]
    assert NEW in capsys.readouterr().out


def test_a_copy_goes_on_by_itself(restart: Any) -> None:
    mentra = restart(*map(text, ("one", "two", "three", "four", "five")))
    with pytest.raises(OperationDenied, match="nothing was asked here yet"):
        mentra("--fork and then?")
    mentra("what was first?")
    before = conversation()
    mentra("--fork and then?")
    assert requests()[-1] == ["what was first?", "one", "and then?"]
    assert [message.text() for message in before.history] == ["what was first?", "one"]
    assert conversation().id != before.id
    assert [each.turns for each in stored_conversations()] == [1, 2]
    mentra = restart(text("six"))
    mentra("go on")
    assert requests()[-1] == ["what was first?", "one", "and then?", "two", "go on"]


def test_an_interrupted_turn_is_continued(restart: Any, shells: list[Any]) -> None:
    mentra = restart(text("one"), failure(InvalidRequest("no")))
    mentra("first")
    with pytest.raises(FailedToStreamResponse):
        mentra("second")
    mentra = restart(text("two"))
    mentra("resume")
    assert requests() == [["first", "one", "second"]]
    assert conversation().last is shells[-1].user_ns["_mentra"]
    assert stored_conversations()[-1].turns == 2


@pytest.mark.slow
def test_an_unknown_name_makes_nothing_and_says_what_there_is(restart: Any) -> None:
    mentra = restart(text("one"), text("two"))
    with pytest.raises(OperationDenied, match=r"^there is no conversation 'nosuch': this project has none yet$"):
        mentra("resume nosuch")
    with pytest.raises(OperationDenied, match="no earlier conversation"):
        mentra("resume")
    mentra("-s report first words")
    mentra("what was first?")
    own, report = conversation().id, conversation("report").id
    with pytest.raises(OperationDenied) as error:
        mentra("resume nosuch")
    assert str(error.value) == (
        f"there is no conversation 'nosuch': there are 'what was first?' ({short_id(own)}), 'report' (report)"
    )
    assert {found.session.id for found in stored_conversations()} == {own, report}
    assert set(engine().chats) == {None, "report"}


def test_a_named_conversation_is_taken_up_by_its_name(restart: Any, capsys: Any) -> None:
    restart(text("one"))("-s report first words")
    mentra = restart(text("two"))
    mentra("resume report")
    assert capsys.readouterr().out.endswith("Its last turn is finished: ask on with %mentra -s report\n")
    mentra("-s report go on")
    assert requests() == [["first words", "one", "go on"]]


def test_a_conversation_that_another_process_has_is_refused_at_once(restart: Any, capsys: Any) -> None:
    restart(text("one"))("-s report first words")
    mentra = restart(text("two"))
    [found] = stored_conversations()
    store, key = engine().runtime.store, f"agent:{found.session.agent_id}"
    other = LeaseHolder.here("another")
    assert engine().call(store.acquire_lease, key, other, 60.0) is None
    with pytest.raises(LeaseUnavailable, match=r"^conversation 'report' is in use by .*: close it there"):
        mentra("resume report")
    assert set(engine().chats) == {None}
    engine().call(store.release_lease, key, other)
    mentra("resume report")
    assert "ask on with %mentra -s report" in capsys.readouterr().out
    assert engine().call(store.list_leases) == []


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "name"), [("report", "report"), ("'my report'", None)])
def test_a_failed_turn_says_how_to_go_on_in_its_own_conversation(restart: Any, typed: str, name: str | None) -> None:
    mentra = restart(text("one"), failure(HttpError(402, "no %mentra resume")), text("two"))
    mentra("first")
    with pytest.raises(FailedToStreamResponse) as failed:
        mentra(f"-s {typed} second")
    [of_name] = [found for found in stored_conversations() if found.session.id != conversation().id]
    word = name or short_id(of_name.session.id)
    assert str(failed.value).endswith(f"no %mentra resume · check the account's credit, then %mentra resume {word}")
    mentra(f"resume {word}")
    assert requests()[-1] == ["second"]


@pytest.mark.slow
def test_the_conversations_are_listed_and_completed(restart: Any) -> None:
    mentra = restart(text("one"), text("two"))
    mentra("-s report first words")
    mentra("what was\tfirst? " + "x" * 80)
    own = conversation().id
    table = mentra("sessions")
    assert isinstance(table, Listing)
    assert table[["title", "turns", "state", "id"]].values.tolist() == [
        ["report", 1, "", conversation("report").id],
        ["what was first? " + "x" * 31 + "…", 1, "this one", own],
    ]
    assert f"{short_id(own)}" in repr(table)
    names = extension._Names("")
    assert completions("%mentra resume ", names)[0] == [short_id(own), "report"]
    assert completions("%mentra -s ", names)[0] == ["report"]
    assert [known_as(found) for found in stored_conversations()] == ["report", short_id(own)]
    assert title(stored_conversations()[0]) == "report"


@pytest.mark.slow
def test_the_status_counts_turns_of_earlier_kernels_and_failed_ones(restart: Any, capsys: Any) -> None:
    mentra = restart(text("one"), failure(InvalidRequest("no")))
    mentra("first")
    capsys.readouterr()
    mentra("")
    assert "session  this notebook, 1 turn\nrules " in capsys.readouterr().out
    with pytest.raises(FailedToStreamResponse):
        mentra("second")
    capsys.readouterr()
    mentra("")
    assert "session  this notebook, 2 turns\nrules " in capsys.readouterr().out
    mentra = restart(text("two"))
    mentra("")
    said = capsys.readouterr().out
    assert "session  this notebook, 0 turns\nearlier  'first', 2 turns, last " in said
    assert ": %mentra resume\n" in said
    mentra("resume")
    capsys.readouterr()
    mentra("")
    assert "session  this notebook, 2 turns\nrules " in capsys.readouterr().out


def test_the_messages_are_there_after_failed_turns_only(restart: Any) -> None:
    mentra = restart(failure(InvalidRequest("no")))
    with pytest.raises(ConfigurationError, match="this notebook has no conversation yet"):
        mn.messages()
    with pytest.raises(FailedToStreamResponse):
        mentra("first")
    assert mn.messages().empty


@pytest.mark.slow
def test_a_conversation_of_the_same_kernel_is_not_proposed(restart: Any, capsys: Any) -> None:
    mentra = restart(text("one"), text("two"))
    mentra("first")
    engine().chats.clear()
    mentra("second")
    assert ON not in capsys.readouterr().out


@pytest.mark.slow
def test_part_of_an_id_that_fits_two_conversations_takes_up_neither(restart: Any) -> None:
    mentra = restart(text("one"), text("two"))
    mentra("-s one first")
    mentra("-s two second")
    ids = [found.session.id.removeprefix("session-") for found in stored_conversations()]
    shared = ids[0][:4]
    assert ids[1].startswith(shared)  # the time is at the beginning
    with pytest.raises(OperationDenied, match=f"^2 conversations fit '{shared}'"):
        mentra(f"resume {shared}")
