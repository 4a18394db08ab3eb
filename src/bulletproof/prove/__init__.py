"""The proof that a deployment can be killed anywhere: faults in a real host, and an oracle that looks from outside."""
