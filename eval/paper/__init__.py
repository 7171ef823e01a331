"""The committed results of the paper's comparison, as table, picture and verdicts."""
