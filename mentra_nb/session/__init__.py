"""A conversation with a person in it: a session around an agent, and its permission questions."""
