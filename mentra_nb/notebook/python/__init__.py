"""Code that an agent runs in the user's kernel: how it runs, what is heard of it, and what is undone."""
