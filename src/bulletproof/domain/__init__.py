"""What Bulletproof knows: pure values and decisions, no effect on the world."""
