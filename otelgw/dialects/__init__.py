"""Wire formats, sans-IO: request and answer bytes in, span facts out."""
