"""The recipe that trains, measures and documents `affect-small`; `python recipes/affect_small --help`."""
