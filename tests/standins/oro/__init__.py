"""A stand-in of OroPlatform: a process tree of PHP with its commands, their options and their traps, on PostgreSQL."""
