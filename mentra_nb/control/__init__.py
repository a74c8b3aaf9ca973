"""What bounds a run: limits and cancellation, policy, remembered rules, hooks, and the command executor."""
