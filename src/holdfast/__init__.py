"""Holdfast keeps self-hosted web applications alive through maintenance."""

VERSION = "0.1.0"
