"""What happened, said once: its types, what a screen shows of it, what the record keeps, and the bus."""
