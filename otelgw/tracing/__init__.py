"""Trace context in and out, the record of a request, and its spans."""
