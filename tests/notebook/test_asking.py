"""A permission question as text: what its headline says of a write."""

from __future__ import annotations

from typing import Any

import pytest

from mentra_nb.authorization import PermissionQuestion, ToolAuthorizationPreview, ToolCapability
from mentra_nb.notebook.asking import headline


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ([{"op": "create"}], "Write a new file"),
        ([{"op": "set", "replaces": {"bytes": 8, "lines": 2}}], "Replace a file of 2 lines"),
        ([{"op": "set", "replaces": {"bytes": 3, "lines": 1}}], "Replace a file of 1 line"),
        ([{"op": "set", "replaces": {"bytes": 2_000_000}}], "Replace a file of 2000000 bytes"),
        ([{"op": "set", "replaces": {}}], "Replace a file"),
        ([{"op": "set", "replaces": {"lines": "no harm"}}], "Replace a file"),
        ([{"op": "set"}, {"op": "set"}], "Write a file"),
        (None, "Write a file"),
    ],
)
def test_the_headline_of_a_write_says_whether_something_is_replaced(operations: Any, words: str) -> None:
    capabilities = (ToolCapability.FILESYSTEM_WRITE,)
    planned = {"kind": "files", "operations": operations}
    question = PermissionQuestion(
        agent_id="a",
        agent_name="a",
        tool_call_id="c",
        tool_name="write",
        preview=ToolAuthorizationPreview(working_directory="/", capabilities=capabilities, structured_input=planned),
        request_id="r",
        session_id="s",
        description="why",
        arguments_hash="h",
        asked_at=0.0,
        deadline=1.0,
    )
    assert headline(question) == words
