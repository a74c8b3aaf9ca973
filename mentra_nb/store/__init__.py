"""The state store: agents, sessions, transcripts, turns, tool calls, rules and questions, as small rows in SQL."""
