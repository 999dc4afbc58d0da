"""Recipe of `epitome-small`."""
