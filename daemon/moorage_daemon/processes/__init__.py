"""Commands that tools run: started, watched, and ended with everything they started.

The bottom layer: nothing here knows of sessions, turns or the wire.
"""
