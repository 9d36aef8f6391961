"""Runs any plan as a journalled transaction; knows no product."""
