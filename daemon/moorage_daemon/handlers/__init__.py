"""The methods, one module a domain: typed params in, an answer out.

A handler is a plain function that decides at once, in wire order; what has to wait is returned as
an answer that says for what. Who may call it is checked by the session registry, which every
handler asks for its session. `table` is the list of them all.
"""
