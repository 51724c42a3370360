"""How guest code runs on the processor and how its calls come back to us; all C lives below here."""
