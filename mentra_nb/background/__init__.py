"""Commands that run in the background, beyond the turn that started them."""
