"""A simulated Azure OpenAI resource for demos, tests and rehearsals.

What is decided is synchronous and knows no transport: `resource` (addresses, keys, faults, what is
kept) over `inference` (limits, lengths, content filter) over `limiter` and `window`. `playback`
gives an answer its time; `upstream` puts it behind the proxy's own port without sockets, `app` and
`serving` behind HTTP. `deployment` and `limiter.Limits` hold what can be configured.
"""
