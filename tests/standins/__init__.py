"""Applications that stand in for real ones: their layout, commands and flaws, with programs of this machine."""
