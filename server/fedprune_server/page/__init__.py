"""The live page: what a run does, in a browser, while it does it; and the same figures for Prometheus.

`story` is what has happened, as messages that a page can be told from the start; `now` is how things stand;
`feed` hands both to whoever listens; `web` and `serving` are HTTP. Nothing here decides or writes anything; what
happens goes out in one piece for all pages, some twenty times a second at the most, so that watching does not slow a
round.
"""
