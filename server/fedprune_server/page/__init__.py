"""The live page: what a run does, in a browser, while it does it; and the same figures for Prometheus.

`story` is what has happened, as messages that a page can be told from the start; `now` is how things stand;
`feed` hands both to whoever listens; `web` and `serving` are HTTP. Nothing here decides or writes anything, and a page
that does not read is dropped, so that watching cannot slow a round.
"""
