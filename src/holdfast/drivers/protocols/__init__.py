"""What a driver of each kind must do. Every driver and every fake passes the suite in tests/contract.

All methods may raise HoldfastError subclasses and OSError. "May be repeated" means: a second call after a
success, or after a kill in the middle of the first, ends in the same state.
"""
