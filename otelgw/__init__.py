"""otelgw: an OpenTelemetry-native LLM tracing gateway."""

__version__ = "0.1.0"

__all__ = ["__version__"]
