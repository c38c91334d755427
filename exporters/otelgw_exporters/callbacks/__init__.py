"""Callbacks in Python: what runs in the pipeline (process, source), what runs in the child that it starts (host)."""
