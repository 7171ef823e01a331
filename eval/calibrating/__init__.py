"""What the experts read, measured for the methods that merge by it; and whose a question is."""
