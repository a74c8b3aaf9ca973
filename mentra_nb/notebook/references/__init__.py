"""References in a question, such as `@sales`: where they are, what they mean, and their completion."""
