"""The request path: ASGI in, upstream transport out."""
