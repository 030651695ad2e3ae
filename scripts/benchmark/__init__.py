"""Measures the daemon beside a peer, in one run, and prints JSON.

Machines differ and are noisy: what holds is a ratio of two things measured side by side.
"""
