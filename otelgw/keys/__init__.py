"""Virtual keys and teams: who may call what, how much of it, and where it is logged."""
