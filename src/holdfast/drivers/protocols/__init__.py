"""Protocols that the drivers of each kind implement.

Every driver and every fake passes the suite in tests/contract. All methods may raise subclasses of HoldfastError, and
OSError. "Idempotent" means: a second call after a success, or after a kill in the middle of the first, ends in the same
state.
"""
