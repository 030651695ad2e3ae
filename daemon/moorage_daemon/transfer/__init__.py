"""Sessions as files: out of a daemon, and into another one.

`lines` says what stands in such a file, `export` writes one, `intake` reads one. A file is
somebody else's word: what it says is checked line by line, belongs to whoever brings it, and
allows nothing that they did not allow themselves.
"""
