"""The tools `files`, `read` and `write`, on files within the policy's roots."""
