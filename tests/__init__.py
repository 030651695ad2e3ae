"""Tests, in folders that mirror the packages; what several of them use is importable."""
