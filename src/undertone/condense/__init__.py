"""Condensation of in-the-wild speech (2505.13338): consistency, clips, occurrence, balance."""
