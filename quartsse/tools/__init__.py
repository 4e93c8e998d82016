"""Commands beside `serve`: the demo and what looks at a stream from outside."""
