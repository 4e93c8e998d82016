"""The web: routes, streams and the server. The only room with Quart."""
