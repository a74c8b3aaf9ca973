"""The subcommands of `%mentra` and the options of a question: one table, and a small module for each group."""
