"""What a secret looks like in text: its vendor's form, or the place where it stands."""
