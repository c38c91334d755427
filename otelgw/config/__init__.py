"""Configuration: LiteLLM's YAML and the ``otelgw:`` section, resolved into one frozen ``Settings``."""
