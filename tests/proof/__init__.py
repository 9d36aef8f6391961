"""What a run of the tests proves: which points it takes, what it costs, and that it leaves nothing behind."""
