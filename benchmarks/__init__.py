"""Side-by-side measurements against peers, one command each. Never tests: times belong to a machine."""
