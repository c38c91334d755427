"""Destinations: one module each, every one an OpenTelemetry ``SpanExporter``."""
