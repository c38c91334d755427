"""A chunk of HTTP/1.1's chunked coding (RFC 9112, 7.1), as one read or one write has it whole: its size and a line end,
its data, a line end.

``HEADS[n]`` is what stands before ``n`` bytes of data. ``HEADS_OF_WHOLE[n]`` is what stands before the data of a whole
chunk, end and all, that is ``n`` bytes long; where no chunk is, something that nothing of that length starts with.
Both are for chunks up to ``LONGEST`` bytes, which those of a model that speaks word by word are.
"""

from __future__ import annotations

__all__ = ["HEADS", "HEADS_OF_WHOLE", "LONGEST"]

LONGEST = 4096


def _by_length(heads: tuple[bytes, ...]) -> tuple[bytes, ...]:
    whole = [b"-" * (length + 1) for length in range(LONGEST + 1)]
    for size, head in enumerate(heads):
        length = len(head) + size + 2
        if size and length <= LONGEST:  # the chunk of size 0 is the body's end
            whole[length] = head
    return tuple(whole)


HEADS = tuple(b"%x\r\n" % size for size in range(LONGEST + 1))
HEADS_OF_WHOLE = _by_length(HEADS)
