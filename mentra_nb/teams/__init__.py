"""Teams: agents that live beside a lead, take their own turns, and write to each other."""
