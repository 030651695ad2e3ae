"""What an editor starts: finding the daemon, starting one, and relaying to it.

Everything here starts in milliseconds, so it lives on the standard library and
`moorage_protocol.rendezvous` alone.
"""
