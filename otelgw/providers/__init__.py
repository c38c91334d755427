"""Upstream providers as table rows."""
