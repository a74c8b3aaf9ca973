"""Our four wires and the model in the process, held to the suite that every wire is held to."""

from kits.conformance import AnswerConformance, WireConformance
from kits.dialects import Anthropic, Chat, Gemini, Local, Responses


class TestResponses(WireConformance):
    dialect = Responses()


class TestChatCompletions(WireConformance):
    dialect = Chat()


class TestLocal(AnswerConformance):
    """Without what `WireConformance` adds: there are no bytes to cut or pack, no status and headers, no connection."""

    dialect = Local()


class TestAnthropic(WireConformance):
    dialect = Anthropic()


class TestGemini(WireConformance):
    dialect = Gemini()
