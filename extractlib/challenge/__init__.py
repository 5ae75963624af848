"""A class challenge: teams attack a secret victim over the network and hand in copies, which a scoreboard ranks."""
