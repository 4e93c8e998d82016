"""Bytes cut into pieces in every way."""

from itertools import pairwise

from hypothesis import strategies as st

CHUNKED = {"Transfer_Encoding": "chunked"}
PIECES = (b"data", b"id", b"event", b"retry", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"1", b"\0", b"\xef\xbb\xbf")
CONTENT = st.lists(st.sampled_from((*PIECES, b"data:x\n\n", b"\xe2\x82\xac", b"\xff", b"\xf0\x9f"))).map(b"".join)


@st.composite
def split(draw: st.DrawFn, contents: st.SearchStrategy[bytes] = CONTENT) -> tuple[bytes, list[bytes]]:
    """Bytes, and the same in pieces, some of them empty."""
    content = draw(contents)
    cuts = sorted(draw(st.lists(st.integers(0, len(content)))))
    return content, [content[start:end] for start, end in pairwise([0, *cuts, len(content)])]
