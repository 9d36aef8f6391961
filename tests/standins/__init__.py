"""Applications that stand in for real ones: their layout, their commands and their flaws, with programs of this machine."""
