"""Whether a call may run: its subject, rules, policy, and the question put to a person."""
