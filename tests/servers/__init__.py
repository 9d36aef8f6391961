"""Real database servers for tests: started on a socket of their own, ended with the tests."""
