"""Everything that lives in the daemon.

Modules form layers, and imports point down only; the layers are listed in one place,
the layering test.
"""
