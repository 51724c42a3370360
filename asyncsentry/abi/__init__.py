"""Linux's constants and struct layouts: one module per header, plain numbers and ``struct`` formats, no logic."""
