"""Images: sets of them, where they come from, and what is done to them."""
