"""Operational state: agents, transcripts, runs, tool calls, rules, questions, sessions. Small transactional rows."""
