"""Speed: what the gateway costs beside a direct call and nginx. ``python -m benchmarks``."""
