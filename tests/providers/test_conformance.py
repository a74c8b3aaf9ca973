"""The conformance suite on the four wires and on the model in the process."""

from kits.conformance import AnswerConformance, WireConformance
from kits.dialects import Anthropic, Chat, Gemini, Local, Responses


class TestResponses(WireConformance):
    dialect = Responses()


class TestChatCompletions(WireConformance):
    dialect = Chat()


class TestLocal(AnswerConformance):
    """Without the part of `WireConformance`: there are no bytes, no status, no headers, no connection."""

    dialect = Local()


class TestAnthropic(WireConformance):
    dialect = Anthropic()


class TestGemini(WireConformance):
    dialect = Gemini()
