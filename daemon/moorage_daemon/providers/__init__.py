"""Who speaks to models. `port` says what a provider is, and nothing here knows what it is for.

A key is read when it is sent and kept nowhere. What a provider does wrong becomes one of the
`failures`: no exception of the HTTP library, which would carry the request, leaves this package.
"""
