"""Probes and the rules that decide whether an answer is good."""
